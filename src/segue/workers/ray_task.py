"""What runs on a node of a Ray cluster: a task that starts the worker process of a job and attends to it.

The task itself imports no JAX. So it does not matter which cores Ray gave its process, or what ran in it before: the
worker is a new process, pinned before JAX starts, as on a machine without Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import queue
import random
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segue.compiled import keep_programs, visible_cores
from segue.errors import SegueError
from segue.files import write_atomically
from segue.workers.process import start_worker

#: Seconds between two exchanges with the process that began the run.
EXCHANGE = 0.5
#: Seconds to wait for another worker on the same job to leave: its node may only have been thought dead.
PATIENCE = 60.0
#: Seconds that a worker gets to save after the process that began the run is gone.
GRACE = 10.0
#: In a dataset's name: the folder of this node that datasets are put in.
NODE = "{node}"


@dataclasses.dataclass(frozen=True)
class Task:
    """A job as its task needs it; plain data."""

    label: str
    attempt: int
    job: Mapping[str, Any]
    """What `Job.to_json` writes; `dataset_at` may begin with NODE."""
    cores: int
    environment: Mapping[str, str]
    """Variables that are set on the node."""
    keep_programs: bool
    """Whether compiled programs are kept, see `segue.compiled`."""
    versions: Mapping[str, str]
    """Of the packages that can change numbers, where the run began."""


class Mailbox:
    """An actor between the process that began the run and its tasks."""

    def __init__(self) -> None:
        self.letters: asyncio.Queue[tuple[str, int, Any]] = asyncio.Queue()
        self.asked: int | None = None

    async def exchange(self, label: str, attempt: int, events: Sequence[Any]) -> int | None:
        """Leave what happened; returns the signal by which the run is asked to stop."""
        for event in events:
            self.letters.put_nowait((label, attempt, event))
        return self.asked

    async def take(self) -> list[tuple[str, int, Any]]:
        """Everything that has come, once there is something."""
        found = [await self.letters.get()]
        while not self.letters.empty():
            found.append(self.letters.get_nowait())
        return found

    async def ask(self, number: int) -> None:
        """Have every task pass this signal on."""
        self.asked = number


def attend(task: Task, datasets: Mapping[str, Any], mailbox: Any) -> None:
    """Start the worker of a job and attend to it until it has ended.

    Args:
        task: the job.
        datasets: references to archives, by the names that they have on the node.
        mailbox: the actor of the run.
    """
    import ray

    def exchange(*events: Any) -> int | None:
        return ray.get(mailbox.exchange.remote(task.label, task.attempt, events))

    if exchange() is not None:
        exchange({"event": "exit", "status": "interrupted", "error": ""})
        return
    node = ray.util.get_node_ip_address()
    with contextlib.ExitStack() as locks:
        try:
            process, happened = _started(task, datasets, node, locks)
        except (SegueError, OSError) as error:
            exchange({"event": "exit", "status": "failed", "error": f"node {node}: {error}"})
            return
        exchange({"event": "start"}, *_remarks(task, node))
        asked: int | None = None
        try:
            while True:
                events = _waiting(happened)
                now = exchange(*events)
                if events and events[-1]["event"] == "exit":
                    return
                if now is not None and asked is None:
                    asked = now
                    process.send_signal(now)
        finally:  # also if the process that began the run, or this task, is gone
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(Exception):
                    process.wait(GRACE)
            process.kill()


def _started(task: Task, datasets: Mapping[str, Any], node: str, locks: contextlib.ExitStack) -> tuple[Any, Any]:
    """The worker process and the queue of its events."""
    import ray

    home, records = Path(task.job["home"]), Path(task.job["records"])
    if not (home / "recipe.json").exists():
        raise SegueError(f"{home} is not there; expected the run directory on storage that every node mounts")
    records.mkdir(parents=True, exist_ok=True)
    held = [_lock(records / ".lock", locks), *(cores := _claim(task.cores, locks)).values()]
    job = dict(task.job)
    if job["dataset_at"] is not None:
        job["dataset_at"] = job["dataset_at"].replace(NODE, str(_put(datasets)))
    if task.keep_programs:
        keep_programs()
    happened: queue.Queue[Any] = queue.Queue()
    environment = {**os.environ, **task.environment, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    path = [task.environment["PYTHONPATH"], os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    locked = [descriptor for descriptor in held if descriptor]
    return start_worker(json.dumps(job), records, sorted(cores), happened.put, locked, environment), happened


def _waiting(happened: queue.Queue[Any]) -> list[Any]:
    """What has happened, after EXCHANGE seconds or once the worker has ended."""
    found: list[Any] = []
    deadline = time.monotonic() + EXCHANGE
    with contextlib.suppress(queue.Empty):
        while not found or found[-1]["event"] != "exit":
            found.append(happened.get(timeout=max(deadline - time.monotonic(), 0.0)))
    return found


def _remarks(task: Task, node: str) -> list[dict[str, str]]:
    """Where it runs, and what may make its numbers others."""
    said = [f"on node {node}, {task.cores} core{'s' if task.cores > 1 else ''}"]
    for name, version in task.versions.items():
        here = importlib.metadata.version(name)
        if here != version:
            said.append(f"WARNING: node {node} has {name} {here}, the run began with {version}: the numbers may differ")
    return [{"event": "note", "message": message} for message in said]


def _lock(file: Path, locks: contextlib.ExitStack) -> int:
    """Hold the job, so that no second worker writes its records.

    Raises:
        SegueError: if another one does for longer than PATIENCE.
    """
    import fcntl

    descriptor = locks.enter_context(file.open("w")).fileno()
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise SegueError(f"{file.parent} is in use by another worker; end it, or wait for it") from None
            time.sleep(EXCHANGE)


def _claim(count: int, locks: contextlib.ExitStack) -> dict[int, int]:
    """Cores of this node that no other job of ours has, and the descriptors of their locks; 0 for a shared core.

    Ray counts cores, but does not say which ones. From a random one on, as pods of one machine do not see each other.

    Raises:
        SegueError: if the node has fewer.
    """
    import fcntl

    cores = visible_cores()
    if len(cores) < count:
        raise SegueError(f"it has {len(cores)} cores and a job was to have {count}; give fewer --cores")
    offset = random.randrange(len(cores))
    cores = cores[offset:] + cores[:offset]
    found: dict[int, int] = {}
    for core in cores:
        file = (_folder("cores") / str(core)).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        found[core] = locks.enter_context(file).fileno()
        if len(found) == count:
            return found
    # Ray was told of more cores than there are: jobs share some, which costs time and changes no number.
    return found | dict.fromkeys([core for core in cores if core not in found][: count - len(found)], 0)


def _put(datasets: Mapping[str, Any]) -> Path:
    """The folder in which these archives are; each comes to a node once."""
    import ray
    from filelock import FileLock

    folder = _folder("datasets")
    for name, reference in datasets.items():
        with FileLock(folder / f".{name}.lock"):
            if not (folder / name).exists():
                write_atomically(folder / name, ray.get(reference).tobytes())
    return folder


def _folder(name: str) -> Path:
    """A folder of this node and this user.

    Raises:
        SegueError: if another user has made it.
    """
    folder = Path(tempfile.gettempdir()) / f"segue-{name}-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise SegueError(f"{folder} belongs to another user; remove it")
    return folder
