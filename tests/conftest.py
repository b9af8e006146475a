"""Property tests are judged by what they find, not by the speed of the machine they run on."""

import functools
import gc
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Iterator

# Most of the time goes into compiling programs that run once. Without optimisation, compiling the algorithms' updates
# takes under half the time; programs that run for long then take twice theirs (tests/algorithms/test_probes.py).
# Before JAX is imported, and for the processes that tests start.
os.environ["XLA_FLAGS"] = " ".join(
    (
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_parallel_codegen_split_count=1",
        os.environ.get("XLA_FLAGS", ""),
    )
)

from pathlib import Path

from segue.compiled import keep_programs

# So that the processes that tests start know the environments of toys.py.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))

# What one worker or subprocess has compiled serves the others; what an earlier session compiled decides nothing.
if "PYTEST_XDIST_WORKER" not in os.environ:
    programs = tempfile.TemporaryDirectory(prefix="segue-tests-")
    os.environ["SEGUE_CACHE"] = programs.name
    keep_programs()
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = "-1"  # to look for the oldest takes longer than to compile

import pytest
from hypothesis import settings
from jax._src.interpreters import mlir

from segue.runner.machine import release_programs
from unpainted import paint

# Tracing makes objects by the million that nothing refers to in circles: to look for circles takes a tenth of the time.
gc.set_threshold(200_000, 20, 50)

# A script's background jobs ignore Ctrl-C, and so would the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Where Python is told to keep no bytecode, as in many containers, each process would compile every module anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile("segue", deadline=None, max_examples=40)
settings.load_profile("segue")

# JAX makes a context for each program that it lowers, which takes a fifth of the suite's time: one serves them all.
mlir.make_ir_context = functools.cache(mlir.make_ir_context)

TESTS = itertools.count()

#: Whose part of the conformance suite runs with `-m slow`: what differs from SAC in numbers only; and what has its
#: networks from SAC, TD3 or DQN and nothing of its own that could miss an encoder.
SACS_CODE = {"sac-n", "redq", "rlpd"}
NETWORKS_ALIKE = SACS_CODE | {"edac", "cql", "cal-ql", "rebrac", "td3-bc", "discrete-cql"}
NETWORKS_ALIKE |= {"cql-lagrangian", "sac-lagrangian", "awac"}


@pytest.hookimpl(tryfirst=True)  # before those are left out that are marked
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The suite itself tells no part from another, and knows no mark of ours."""
    for item in items:
        if isinstance(item, pytest.Function) and "conformance" in item.path.parts and hasattr(item, "callspec"):
            algorithm = item.callspec.params.get("algorithm")
            if algorithm in (NETWORKS_ALIKE if "images" in item.name else SACS_CODE):
                item.add_marker(pytest.mark.slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Pictures are drawn where a test looks at them."""
    of_reports = "report" in item.path.relative_to(item.config.rootpath).parts
    paint(of_reports or item.get_closest_marker("pictures") is not None)


@pytest.fixture(scope="module")
def no_reports() -> Iterator[None]:
    """The page that a run ends with takes longer than a small run; for modules whose business it is not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segue.runner.write_report", lambda out: out / "report.html")
        yield


@pytest.fixture(autouse=True)
def few_programs() -> None:
    """Thousands of tests in one process compile more than the kernel lets it hold."""
    if next(TESTS) % 5 == 0:
        release_programs(20_000)
