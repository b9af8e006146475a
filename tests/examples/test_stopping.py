"""The examples stop when they are asked to, and with whoever started them: no process is left, and work is kept."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("icu_sepsis")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux, to wait for any process"),
]

ROOT = Path(__file__).resolve().parents[2]
#: The example, and what it prints when it is in the middle of something.
HEALTHCARE = (["examples.healthcare", "--repetitions", "2"], " 1 of ")
DRIVING = (["examples.driving", "--short"], "offline")
SHOP = (["examples.recommendation", "--short"], "policies rules")


def below(driver: int) -> list[int]:
    """The processes that this one has started, and that these have; but not Python's tracker, which ends by itself."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines() if "resource_tracker" not in line]
    found = [driver]
    for one in found:
        found += [int(pid) for pid, parent, *_ in rows if int(parent) == one]
    return found[1:]


@contextlib.contextmanager
def underway(example: tuple[list[str], str], out: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """The example in the middle of its work, and handles of all processes that it has started."""
    words, sign = example
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    driver = subprocess.Popen(
        [sys.executable, "-m", *words, "--out", str(out)],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert driver.stdout is not None
    seen = ""
    while sign not in seen:
        line = driver.stdout.readline()
        assert line, f"it ended before {sign!r}:\n{seen}"
        seen += line
    started = below(driver.pid)
    handles = [os.pidfd_open(pid) for pid in started]
    try:
        yield driver, handles
    finally:
        for pid in (driver.pid, *started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        driver.wait()
        for handle in handles:
            os.close(handle)


def ended(handles: list[int]) -> int:
    """How many of the processes end; one of them, multiprocessing's own, follows the command."""
    return sum(bool(select.select([handle], [], [], 60)[0]) for handle in handles)


@pytest.mark.parametrize(
    ("example", "number", "code"),
    [
        pytest.param(HEALTHCARE, signal.SIGTERM, 143, id="pool"),
        pytest.param(HEALTHCARE, signal.SIGINT, 130, id="pool, Ctrl-C"),
        pytest.param(DRIVING, signal.SIGTERM, 143, id="runs"),
        pytest.param(DRIVING, signal.SIGINT, 130, id="runs, Ctrl-C"),
        pytest.param(SHOP, signal.SIGTERM, 143, id="service"),
    ],
)
def test_a_stopped_example_leaves_no_process_and_says_how_to_go_on(
    tmp_path: Path, example: tuple[list[str], str], number: int, code: int
) -> None:
    with underway(example, tmp_path) as (driver, handles):
        assert handles
        driver.send_signal(number)
        said, _ = driver.communicate()
        assert (driver.returncode, ended(handles)) == (code, len(handles)), said
    assert said.rstrip().endswith("stopped; the same command goes on")
    assert "Traceback" not in said


@pytest.mark.parametrize("example", [pytest.param(HEALTHCARE, id="pool"), pytest.param(SHOP, id="service")])
def test_the_processes_of_an_example_that_is_killed_end_too_and_what_it_had_is_kept(
    tmp_path: Path, example: tuple[list[str], str]
) -> None:
    with underway(example, tmp_path) as (driver, handles):
        driver.kill()
        for handle in handles:
            select.select([handle], [], [])  # waits until it has ended
        if example is HEALTHCARE:
            kept = json.loads((tmp_path / "results.json").read_text())["arms"]
            assert sum(map(len, kept.values())) >= 1
