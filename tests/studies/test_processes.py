"""The pools of the examples: their workers end with the command, however that ends."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from studies.command import claim, not_negative, parsed, positive

from segue.errors import SegueError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("paused_pool.py")
posix = pytest.mark.skipif(not hasattr(os, "setsid"), reason="needs POSIX signals")


@contextlib.contextmanager
def paused(*words: str) -> Iterator[subprocess.Popen[str]]:
    """The command; its workers have the same standard output."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    driver = subprocess.Popen(
        [sys.executable, str(SCRIPT), *words],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()


@posix
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_command_that_is_stopped_ends_its_workers_before_it_says_so(number: int, code: int) -> None:
    with paused() as driver:
        assert driver.stdout is not None
        workers = [int(driver.stdout.readline()) for _ in range(2)]
        driver.send_signal(number)
        assert driver.wait() == code
        for worker in workers:
            with pytest.raises(ProcessLookupError):
                os.kill(worker, 0)
        assert driver.communicate()[1] == "stopped; the same command goes on\n"


@posix
def test_the_workers_of_a_command_that_is_killed_end_too() -> None:
    with paused() as driver:
        assert driver.stdout is not None
        for _ in range(2):
            driver.stdout.readline()
        driver.kill()
        assert driver.stdout.read() == ""  # its end is that of the last worker


@posix
@pytest.mark.parametrize("which", ["first", "last"])
def test_a_worker_that_is_killed_ends_the_others_and_the_command_in_a_sentence(which: str) -> None:
    with paused(which) as driver:
        _, said = driver.communicate()
        assert driver.returncode == 2
    assert said.startswith("error: a worker process was killed")
    assert said.count("\n") == 1


def test_a_folder_of_results_belongs_to_one_size_and_seed(tmp_path: Path) -> None:
    out = tmp_path / "new" / "results"
    for _ in range(2):
        claim(out, {"size": "short", "seed": 0})
    with pytest.raises(SegueError, match=r"holds results of size short, seed 0; this command has size short, seed 1"):
        claim(out, {"size": "short", "seed": 1})
    (out / "made-with.json").write_text("")
    with pytest.raises(SegueError, match=r"made-with\.json is damaged"):
        claim(out, {"size": "short", "seed": 0})
    (tmp_path / "file").write_text("")
    with pytest.raises(SegueError, match="expected a folder that can be written"):
        claim(tmp_path / "file" / "below", {})


def test_a_flag_that_does_not_exist_is_answered_with_the_one_that_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--workers", type=positive, default=1)
    parser.add_argument("--seed", type=not_negative, default=0)
    assert parsed(parser, ["--seed", "0"]).seed == 0
    assert parsed(parser, ["--short"]).short
    for words, answer in (
        (["--shrot"], "did you mean '--short'?"),
        (["--workers", "0"], "expected at least 1"),
        (["--seed", "-3"], "expected at least 0"),
    ):
        with pytest.raises(SystemExit):
            parsed(parser, words)
        assert answer in capsys.readouterr().err
