"""Compiled programs are kept where the user says, and a second process finds them and computes the same."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from segue.compiled import keep_programs, use_programs_of_these_cores, visible_cores

VARIABLES = (
    "SEGUE_PROGRAMS",
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_COMPILATION_CACHE_MAX_SIZE",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)
PROGRAM = """
from segue.compiled import keep_programs
keep_programs()
import jax
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None)
x = jax.jit(lambda key: jax.random.normal(key, (7, 7)) @ jax.random.normal(key, (7, 7)))(jax.random.key(0))
print(len(hits), bytes(x).hex())
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in (*VARIABLES, "SEGUE_CACHE"):
        monkeypatch.setenv(name, "")  # so that what the test sets is taken back
        monkeypatch.delenv(name)


def test_programs_are_kept_in_the_user_s_cache_by_processor(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_programs()
    (directory,) = (tmp_path / "segue").iterdir()
    assert directory.name.startswith("programs-")
    (of_these_cores,) = directory.iterdir()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(of_these_cores)


@pytest.mark.skipif(len(visible_cores()) < 2, reason="one core is all there is")
def test_a_worker_with_fewer_cores_has_programs_of_its_own(monkeypatch, tmp_path):
    """XLA's key of a program says nothing of the cores that it was compiled for."""
    monkeypatch.setenv("SEGUE_CACHE", str(tmp_path))
    keep_programs()
    worker = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); " + (
        "from segue.compiled import use_programs_of_these_cores as use; use(); "
        "print(os.environ['JAX_COMPILATION_CACHE_DIR'])"
    )
    said = subprocess.run([sys.executable, "-c", worker], check=True, capture_output=True, text=True).stdout.strip()
    assert said.endswith("/1-cores")
    assert os.environ["JAX_COMPILATION_CACHE_DIR"].endswith(f"/{len(visible_cores())}-cores")


@pytest.mark.parametrize(("name", "value"), [("SEGUE_CACHE", ""), ("JAX_COMPILATION_CACHE_DIR", "mine")])
def test_the_user_s_word_counts(monkeypatch, tmp_path, name, value):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(name, value)
    keep_programs()
    assert os.environ.get("JAX_COMPILATION_CACHE_DIR", "") == value
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_made_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEGUE_CACHE", str(tmp_path / "file"))
    keep_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_a_directory_of_another_user_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGUE_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    keep_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_a_worker_of_a_program_that_uses_segue_as_a_library_keeps_its_own_settings():
    use_programs_of_these_cores()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_where_the_system_says_little_of_its_processor_programs_are_kept_too(monkeypatch, tmp_path):
    """As on macOS: no /proc, and no say of which cores a process may use."""
    monkeypatch.setenv("SEGUE_CACHE", str(tmp_path))
    monkeypatch.delattr(os, "sched_getaffinity")

    def absent(*_):
        raise FileNotFoundError("/proc/cpuinfo")

    monkeypatch.setattr("builtins.open", absent)
    keep_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"].endswith(f"/{os.cpu_count()}-cores")


def test_a_second_process_takes_the_program_of_the_first_and_computes_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGUE_CACHE", str(tmp_path))
    first, second = (
        subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout.split()
        for _ in range(2)
    )
    assert first[1] == second[1]
    assert int(first[0]) < int(second[0])


def test_what_a_killed_process_left_half_written_is_removed_and_programs_are_saved_again(tmp_path):
    run = [sys.executable, "-W", "error", "-c", PROGRAM]
    environment = {**os.environ, "SEGUE_CACHE": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    subprocess.run(run, env=environment, check=True, capture_output=True)
    programs = sorted(tmp_path.rglob("*-cache"))
    times = sorted(tmp_path.rglob("*-atime"))
    assert len(programs) == len(times) > 1
    programs[0].write_bytes(b"half")
    times[0].unlink()
    programs[1].unlink()  # which the next process compiles and saves
    again = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert sorted(tmp_path.rglob("*-cache")) == programs
    assert sorted(tmp_path.rglob("*-atime")) == times
