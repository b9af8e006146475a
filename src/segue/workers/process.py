"""A worker process: `python -m segue.runner.worker`, pinned to cores of its own, and the events that it prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segue.plugins import search_path

#: What a worker's exit code means; anything else is a failure.
STATUS = {
    0: "complete",
    **dict.fromkeys((130, 143, -signal.SIGINT, -signal.SIGTERM), "interrupted"),
}


def start_worker(
    job: str,
    records: Path,
    cores: Sequence[int],
    tell: Callable[[Any], None],
    held: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start the process of a job.

    Args:
        job: the job, as `Job.to_json` writes it.
        records: the folder for what libraries print (`worker.log`), and for the trace of an error (`error.log`).
        cores: numbers of the cores that it may use.
        tell: is told its events in a thread of their own, `exit` last.
        held: descriptors of locks, which the process holds as long as it lives.
        environment: its environment variables; by default those of this process, with its search path.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "segue.runner.worker", json.dumps(list(cores)), job],
        stdin=subprocess.PIPE,  # it closes with this process, whatever ends that
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=tuple(held),  # so that what is locked is in use as long as one of them lives
        text=True,
        env={**os.environ, "PYTHONPATH": search_path()} if environment is None else dict(environment),
        errors="replace",  # libraries write what they like
        start_new_session=True,  # a Ctrl-C reaches this process alone, which then passes it on once
    )
    errors: list[str] = []

    def drain() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            errors.append(line)
            _append(records / "worker.log", line)

    def listen() -> None:
        assert process.stdout is not None
        drainer = threading.Thread(target=drain, daemon=True)
        drainer.start()
        for line in process.stdout:
            tell(json.loads(line))
        drainer.join()
        status = STATUS.get(process.wait(), "failed")
        error = _last_line(errors) if status == "failed" else ""
        if any(line.startswith("Traceback") for line in errors) and status == "failed":
            error += keep_trace(records, "".join(errors))
        tell({"event": "exit", "status": status, "error": error})

    threading.Thread(target=listen, daemon=True).start()
    return process


def keep_trace(records: Path, text: str) -> str:
    """Write the trace down, and say where."""
    records.mkdir(parents=True, exist_ok=True)
    file = records / "error.log"
    file.write_text(text, encoding="utf-8", errors="replace")
    return f" (the trace is in {file})"


def _append(log: Path, line: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", errors="replace") as file:
        file.write(line)


def _last_line(lines: list[str]) -> str:
    text = [line.strip() for line in lines if line.strip()]
    return text[-1] if text else "the worker process died without a word (out of memory?)"
