"""Where jobs run, as one small interface: worker processes of this machine (`ThisMachine`), or a Ray cluster.

Every job is a process `python -m segue.runner.worker`, wherever it runs. So the numbers depend on how many cores it
has, and on nothing else of the place.
"""

from __future__ import annotations

import queue
import subprocess
from collections.abc import Mapping
from functools import partial
from typing import Protocol

from segue.compiled import visible_cores
from segue.runner.jobs import Event, Exited, Job
from segue.workers.process import start_worker

#: What happened to which job.
Happened = tuple[Job, Event | Exited]


class Dispatcher(Protocol):
    """Does jobs side by side; the executor decides which one is next."""

    room: int
    """Jobs that may be given to it at a time."""
    here: bool
    """Whether this process may use the accelerator of this machine for them."""
    about: Mapping[str, str]
    """What the summary says of the place besides this machine."""

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
        """End every job at once; for jobs that did not heed `stop`."""


class ThisMachine:
    """Worker processes of this machine, each with as many cores as the others and none of theirs.

    Args:
        workers: how many at a time.
        held: descriptor of the run directory's lock, which workers hold too.
    """

    here = True
    about: Mapping[str, str] = {}

    def __init__(self, workers: int, held: int | None) -> None:
        cores = visible_cores()
        share = max(len(cores) // workers, 1)
        self.free = [cores[i * share : (i + 1) * share] for i in range(workers) if cores[i * share : (i + 1) * share]]
        self.room, self.held = len(self.free), () if held is None else (held,)
        self.happened: queue.Queue[Happened] = queue.Queue()
        self.running: dict[str, tuple[subprocess.Popen[str], list[int]]] = {}

    def start(self, job: Job) -> None:
        """Start its process, on free cores."""
        cores, tell = self.free.pop(0), partial(self._tell, job)
        tell({"event": "start"})
        self.running[job.label] = start_worker(job.to_json(), job.records, cores, tell, self.held), cores

    def _tell(self, job: Job, event: Event | Exited) -> None:
        self.happened.put((job, event))

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
