"""Where jobs run, as one small interface: worker processes of this machine (`ThisMachine`), or a Ray cluster.

Every job is a process `python -m segue.runner.worker`, wherever it runs. So the numbers depend on how many cores it
has, and on nothing else of the place.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

from segue.compiled import visible_cores
from segue.plugins import search_path
from segue.runner.jobs import Event, Exited, Job

#: What happened to which job.
Happened = tuple[Job, Event | Exited]

#: What a worker's exit code means; anything else is a failure.
STATUS = {
    0: "complete",
    **dict.fromkeys((130, 143, -signal.SIGINT, -signal.SIGTERM), "interrupted"),
}


class Dispatcher(Protocol):
    """Does jobs side by side; the executor decides which one is next."""

    room: int
    """Jobs that may be given to it at a time."""
    here: bool
    """Whether this process may use the accelerator of this machine for them."""

    def start(self, job: Job) -> None:
        """Have the job done; its events begin with `start` once it has a place, and end with `exit`."""

    def next(self, timeout: float | None = None) -> Happened:
        """Wait for what happens next.

        Raises:
            queue.Empty: if nothing happened for `timeout` seconds.
        """

    def stop(self, number: int) -> None:
        """Pass a signal on to every job: it saves where it next can, and ends."""

    def kill(self) -> None:
        """End every job at once."""


class ThisMachine:
    """Worker processes of this machine, each with as many cores as the others and none of theirs.

    Args:
        workers: how many at a time.
        held: descriptor of the run directory's lock, which workers hold too.
    """

    here = True

    def __init__(self, workers: int, held: int | None) -> None:
        cores = visible_cores()
        share = max(len(cores) // workers, 1)
        self.free = [cores[i * share : (i + 1) * share] for i in range(workers) if cores[i * share : (i + 1) * share]]
        self.room, self.held = len(self.free), () if held is None else (held,)
        self.happened: queue.Queue[Happened] = queue.Queue()
        self.running: dict[str, tuple[subprocess.Popen[str], list[int]]] = {}

    def start(self, job: Job) -> None:
        """Start its process, on free cores."""
        cores = self.free.pop(0)
        self.happened.put((job, {"event": "start"}))
        self.running[job.label] = start_worker(job, cores, self.happened, self.held), cores

    def next(self, timeout: float | None = None) -> Happened:
        """Wait for what happens next."""
        job, event = self.happened.get(timeout=timeout)
        if event["event"] == "exit":
            self.free.append(self.running.pop(job.label)[1])
        return job, event

    def stop(self, number: int) -> None:
        """Pass the signal on."""
        for process, _ in self.running.values():
            process.send_signal(number)

    def kill(self) -> None:
        """End every process."""
        for process, _ in self.running.values():
            process.kill()


def start_worker(
    job: Job,
    cores: list[int],
    happened: queue.Queue[Happened],
    held: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start the process of a job, pinned to these cores; its events go into the queue.

    Args:
        job: what to do.
        cores: numbers of the cores.
        happened: where its events go, `exit` last.
        held: descriptors of locks, which the process holds as long as it lives.
        environment: its environment variables; by default those of this process and its search path.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "segue.runner.worker", json.dumps(cores), job.to_json()],
        stdin=subprocess.PIPE,  # it closes with this process, whatever ends that
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=tuple(held),  # so that what is locked is in use as long as one of them lives
        text=True,
        env=dict(environment or {**os.environ, "PYTHONPATH": search_path()}),
        errors="replace",  # libraries write what they like
        start_new_session=True,  # a Ctrl-C reaches this process alone, which then passes it on once
    )
    errors: list[str] = []

    def drain() -> None:
        assert process.stderr is not None
        errors.extend(process.stderr)

    def listen() -> None:
        assert process.stdout is not None
        drainer = threading.Thread(target=drain, daemon=True)
        drainer.start()
        for line in process.stdout:
            happened.put((job, json.loads(line)))
        drainer.join()
        status = STATUS.get(process.wait(), "failed")
        error = _last_line(errors) if status == "failed" else ""
        if any(line.startswith("Traceback") for line in errors) and status == "failed":
            error += keep_trace(job, "".join(errors))
        happened.put((job, {"event": "exit", "status": status, "error": error}))

    threading.Thread(target=listen, daemon=True).start()
    return process


def keep_trace(job: Job, text: str) -> str:
    """Write the trace down, and say where."""
    job.records.mkdir(parents=True, exist_ok=True)
    file = job.records / "error.log"
    file.write_text(text, encoding="utf-8", errors="replace")
    return f" (the trace is in {file})"


def _last_line(lines: list[str]) -> str:
    text = [line.strip() for line in lines if line.strip()]
    return text[-1] if text else "the worker process died without a word (out of memory?)"
