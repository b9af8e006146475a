"""Writes what happens in a job as it happens, and cuts it back to where a resumed job goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segue.errors import SegueError
from segue.runner.jobs import Evaluation, Event, Job

FILES = ("metrics", "evaluations", "events")


class JobRecorder:
    """Writes records as they come and passes events on.

    Args:
        job: says where.
        send: receives the events.
        position: what `position` gave when the state was saved from which the job goes on; None starts afresh.
    """

    def __init__(self, job: Job, send: Callable[[Event], None], position: Mapping[str, Any] | None = None) -> None:
        from tensorboardX import SummaryWriter

        self.job, self.send = job, send
        self.seconds: dict[str, float] = defaultdict(float)
        self.last_score: float | None = None
        self.before = 0.0
        job.records.mkdir(parents=True, exist_ok=True)
        if position is None:
            shutil.rmtree(job.tensorboard, ignore_errors=True)  # an interrupted attempt's events would lie over ours
            self.writer = SummaryWriter(str(job.tensorboard))
        else:
            self.writer = SummaryWriter(str(job.tensorboard), purge_step=position["step"])
            self.seconds |= position["seconds"]
            self.last_score, self.before = position["last_score"], position["elapsed"]
        kept = {name: position["bytes"][name] if position else 0 for name in FILES}
        self.files = {name: _Lines(_file(job, name), kept[name]) for name in FILES}
        self.start = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the job began, those of earlier attempts up to where they saved included."""
        return self.before + time.perf_counter() - self.start

    def position(self, step: int) -> dict[str, Any]:
        """How far the files are, for `__init__` and `require_intact`; what was written is on the disk then."""
        for file in self.files.values():
            file.flush()
        return {
            "step": step,
            "bytes": {name: file.size for name, file in self.files.items()},
            "sha256": {name: file.digest.hexdigest() for name, file in self.files.items()},
            "seconds": dict(self.seconds),
            "last_score": self.last_score,
            "elapsed": self.elapsed,
        }

    def progress(self, phase: str, step: int, total: int) -> None:
        """Passes it on."""
        self.send({"event": "progress", "phase": phase, "step": step, "total": total})

    def metrics(self, phase: str, step: int, values: dict[str, float]) -> None:
        """Writes a line, and TensorBoard's, and passes it on."""
        self.files["metrics"].write({"phase": phase, "step": step, **values})
        self.send({"event": "metrics", "phase": phase, "step": step, "values": values})
        for name, value in values.items():
            self.writer.add_scalar(f"{phase}/{name}", value, step)

    def evaluation(self, phase: str, step: int, returns: np.ndarray, costs: np.ndarray | None = None) -> None:
        """Writes a line, and passes it on."""
        self.last_score = float(np.mean(returns))
        record: Evaluation = {
            "event": "evaluation",
            "phase": phase,
            "step": step,
            "mean_return": self.last_score,
            "returns": returns.tolist(),
        }
        if costs is not None:
            record |= {"mean_cost": float(np.mean(costs)), "costs": costs.tolist()}
            self.writer.add_scalar(f"{phase}/mean_cost", record["mean_cost"], step)
        self.files["evaluations"].write({name: value for name, value in record.items() if name != "event"})
        self.writer.add_scalar(f"{phase}/mean_return", self.last_score, step)
        self.send(record)

    @contextlib.contextmanager
    def clock(self, phase: str, what: str) -> Iterator[None]:
        """Adds the time to the phase's `what`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent(phase, what, time.perf_counter() - start)

    def spent(self, phase: str, what: str, seconds: float) -> None:
        """Adds them to the phase's `what`."""
        self.seconds[f"{phase} {what}"] += seconds

    def event(self, phase: str, step: int, message: str) -> None:
        """Writes a line, and passes it on."""
        self.files["events"].write({"phase": phase, "step": step, "message": message})
        self.send({"event": "note", "message": message})

    def note(self, message: str) -> None:
        """Passes it on."""
        self.send({"event": "note", "message": message})

    def close(self) -> None:
        """Release the files."""
        for file in self.files.values():
            file.close()
        self.writer.close()


def has_records(job: Job) -> bool:
    """Whether an earlier attempt got as far as to write something."""
    return any(file.exists() and file.stat().st_size > 0 for file in (_file(job, name) for name in FILES))


def require_intact(job: Job, position: Mapping[str, Any]) -> None:
    """Refuse records that no longer begin with what was written.

    Raises:
        SegueError: naming the file.
    """
    for name in FILES:
        file, size = _file(job, name), position["bytes"][name]
        with file.open("rb") as stream:
            begins = stream.read(size)
        if len(begins) < size or hashlib.sha256(begins).hexdigest() != position["sha256"][name]:
            raise SegueError(f"{file} no longer begins with the {size:,} bytes that were written")


def _file(job: Job, name: str) -> Path:
    return job.records / f"{name}.jsonl"


class _Lines:
    """JSON lines behind the first `kept` bytes of a file."""

    def __init__(self, path: Path, kept: int) -> None:
        self.path, self.size = path, kept
        self.file = path.open("r+b" if kept else "wb", buffering=0)
        self.digest = hashlib.sha256(self.file.read(kept) if kept else b"")
        self.file.truncate(kept)

    def write(self, record: dict[str, Any]) -> None:
        line = (json.dumps(record) + "\n").encode()
        try:
            if self.file.write(line) != len(line):
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise SegueError(f"{self.path}: cannot be written: {error.strerror}") from None
        self.size += len(line)
        self.digest.update(line)

    def flush(self) -> None:
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()
