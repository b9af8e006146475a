"""The commands of the path pages run one after the other in an empty folder, with fewer steps than the pages have."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from test_docs_commands import commands, words_of

ROOT = Path(__file__).parents[1]
#: What a number of the page becomes, where it is larger.
AT_MOST = {
    "--offline-steps": 200,
    "--online-steps": 1_200,
    "--traffic.episodes": 600,
    "--every": 500,
    "--episodes": 2,
}
#: The candidate that a page names by what it had learnt from; warm-up counts.
NAMES = {"live-clicks-20000": "live-clicks-1500"}
#: What a user does outside of this folder, or what a test of its own runs.
ELSEWHERE = ("pip", "source", "make", "cd", "jupyter", "python study.py", "python -m segue.conformance")


def shortened(line: str, port: int) -> list[str]:
    """The words of a command, with numbers that are at most those of AT_MOST, and a port of the test's own."""
    words = [NAMES.get(word, word).replace(":8008", f":{port}") for word in words_of(line)]
    for i, before in enumerate(words[:-1]):
        if before in AT_MOST:
            words[i + 1] = str(min(int(words[i + 1]), AT_MOST[before]))
    if words[:2] == ["segue", "serve"]:
        words += ["--port", str(port)]
    if words[:2] == ["segue", "run"] and "--online" not in words and "--offline" not in words:  # as long as `auto` is
        words += ["--offline-steps", "200", "--online-steps", "1200", "--warmup-steps", "500"]
    return words


def begin(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """A command of the page in this folder."""
    program = [sys.executable, "-m", "segue.cli.main"] if words[0] == "segue" else [sys.executable]
    path = [str(ROOT / "src"), str(ROOT / "examples/research"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "JAX_PLATFORMS": "cpu"}
    pipe = subprocess.PIPE
    return subprocess.Popen([*program, *words[1:]], cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["start", "handover", "researcher", "practitioner"])
def test_the_commands_of_the_page_run_in_their_order(page: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = None
    try:
        for line in [line for of, line in commands() if of == f"docs/{page}.md" and not line.startswith(ELSEWHERE)]:
            words = shortened(line, port)
            running = begin(words, tmp_path)
            if "serve" in words:
                serving, told = running, running.stdout or ()
                assert any(f"{AT_MOST['--traffic.episodes']} episodes" in said for said in told), "the traffic ends"
                continue
            output, errors = running.communicate()
            refused = running.returncode == 2 and "promote" in words  # by too little evidence, as the page says
            assert running.returncode == 0 or refused, f"{line}\n{output[-2000:]}{errors[-2000:]}"
    finally:
        if serving is not None:
            serving.kill()
            serving.communicate()
