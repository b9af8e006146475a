"""Jobs on a Ray cluster: Ray finds each of them a node, and `segue.workers.ray_task` does it there.

What a job writes goes into the run directory, which every node has to see; what happens comes through a mailbox to the
process that began the run. A job that is lost with its node goes on elsewhere from its last saved state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import queue
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import segue
from segue.compiled import BASE
from segue.data import Mixture, npz
from segue.data import load as load_dataset
from segue.errors import Checked, RecipeError, SegueError
from segue.recipe import located
from segue.runner.dispatch import Happened
from segue.runner.jobs import Event, Exited, Job
from segue.runner.machine import versions
from segue.runner.state_store import saved_step
from segue.workers.ray_connection import connect, one_line, own_modules
from segue.workers.ray_task import NODE, Mailbox, Task, attend

#: A job that is lost so often without having saved anything in between has failed.
LOSSES = 3
#: Seconds until what a node has written has to be visible here.
PATIENCE = 90.0
#: Variables of this process that a job's numbers may depend on, by how they begin; it finds them on its node too.
SHARED = ("JAX_", "XLA_", "SEGUE_")
#: Variables that name places of this machine.
PLACES = ("JAX_COMPILATION_CACHE_DIR", "JAX_PLATFORMS", BASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ray(Checked):
    """A Ray cluster as the place where jobs run, and what each job gets of it."""

    address: str | None = None
    """ray://HOST:PORT, HOST:PORT or auto, as `ray.init` takes it; by default what RAY_ADDRESS says, and without that
    Ray is started on this machine, for this run only."""
    cores: int | None = None
    """Cores per job, on which the numbers depend; by default those that the run began with, at first 1."""
    gpus: float = 0.0
    """GPUs per job; a share such as 0.25 lets jobs share one."""

    def __post_init__(self) -> None:
        if self.cores is not None and self.cores < 1:
            raise RecipeError(f"cores is {self.cores}; expected at least 1")
        if self.gpus < 0:
            raise RecipeError(f"gpus is {self.gpus}; expected at least 0")

    @classmethod
    def of(cls, on: str | Ray) -> Ray:
        """The place that `on` names: ray, or ray://HOST:PORT.

        Raises:
            RecipeError: if it is another one.
            SegueError: if Ray is not installed.
        """
        if importlib.util.find_spec("ray") is None:
            raise SegueError("--on ray needs a package that is not installed: pip install 'segue[ray]'")
        if isinstance(on, Ray):
            return on
        if on != "ray" and not on.startswith("ray://"):
            raise RecipeError(f"--on is {on!r}; expected ray, or ray://HOST:PORT")
        return cls(address=None if on == "ray" else on)


class Cluster:
    """A dispatcher, while it is connected; see `connected`.

    Args:
        place: which cluster, and what a job gets.
        cores: cores per job.
        room: jobs that are given to Ray at a time.
    """

    here = False

    def __init__(self, place: Ray, cores: int, room: int) -> None:
        import ray

        self.ray, self.cores, self.room = ray, cores, room
        nodes, cpus = sum(node["Alive"] for node in ray.nodes()), ray.cluster_resources().get("CPU", 0)
        self.about: Mapping[str, str] = {
            "jobs_ran_on": f"Ray {ray.__version__}: {nodes} nodes, {cpus:g} CPUs as the run began"
        }
        head: Any = ray.remote(Mailbox).options(num_cpus=0, resources={"node:__internal_head__": 0.001})
        self.mailbox: Any = head.remote()
        self.mail = self.mailbox.take.remote()
        self.task = ray.remote(attend).options(num_cpus=cores, num_gpus=place.gpus, max_retries=0)
        self.environment = {name: value for name, value in os.environ.items() if name.startswith(SHARED)}
        self.environment = {name: value for name, value in self.environment.items() if name not in PLACES}
        self.environment |= {"PYTHONPATH": own_modules(), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if not place.gpus:  # Ray may show every GPU also to tasks that asked for none
            self.environment["JAX_PLATFORMS"] = "cpu"
        self.versions = {**{n: v for n, v in versions().items() if n != "python"}, "segue": segue.__version__}
        self.datasets: dict[tuple[Any, bool], tuple[str | None, dict[str, Any]]] = {}
        self.happened: deque[Happened] = deque()
        self.jobs: dict[str, Job] = {}
        self.attempts: dict[str, int] = {}
        self.begun: set[str] = set()
        self.running: dict[Any, str] = {}
        self.losses: dict[str, tuple[int, int | None]] = {}
        self.stopping, self.remark = False, _lacking(ray, {"CPU": cores, "GPU": place.gpus})

    def start(self, job: Job) -> None:
        """Hand it to Ray, which waits for a node with room."""
        self.jobs[job.label] = job
        if self.remark:
            self._tell(job.label, {"event": "note", "message": self.remark})
            self.remark = ""
        self._submit(job.label)

    def _submit(self, label: str) -> None:
        job = self.jobs[label].absolute()
        self.attempts[label] = self.attempts.get(label, 0) + 1
        dataset_at, archives = self._archives(job)
        plain = json.loads(dataclasses.replace(job, dataset_at=dataset_at).to_json())
        keep = BASE in os.environ
        task = Task(label, self.attempts[label], plain, self.cores, self.environment, keep, self.versions)
        self.running[self.task.remote(task, archives, self.mailbox)] = label

    def _archives(self, job: Job) -> tuple[str | None, dict[str, Any]]:
        """Where a node has the dataset, and references to its parts by the names of their files there."""
        uri = job.recipe["dataset"]
        key = uri, job.recipe["clip_actions"]
        if uri is None or key in self.datasets:
            return self.datasets.get(key, (None, {}))
        at, archives = portable_dataset(located(uri, job.home), key[1])
        references = {name: self.ray.put(np.frombuffer(content, np.uint8)) for name, content in archives.items()}
        self.datasets[key] = at, references
        return self.datasets[key]

    def next(self, timeout: float | None = None) -> Happened:
        """Wait for what happens next.

        Raises:
            SegueError: if the cluster is gone.
        """
        while not self.happened:
            ready, _ = self.ray.wait([self.mail, *self.running], timeout=timeout)
            if not ready:
                raise queue.Empty
            if ready[0] == self.mail:
                self._read()
            else:
                self._ended(ready[0])
        return self.happened.popleft()

    def _read(self) -> None:
        try:
            letters = self.ray.get(self.mail)
        except self.ray.exceptions.RayError as error:
            gone = f"the head of the Ray cluster is gone ({one_line(error)})"
            raise SegueError(f"{gone}; what is saved is kept, and the same command goes on") from None
        self.mail = self.mailbox.take.remote()
        for label, attempt, event in letters:
            if label in self.jobs and attempt == self.attempts[label]:
                self._tell(label, event)

    def _tell(self, label: str, event: Event | Exited) -> None:
        if event["event"] == "start":
            if label in self.begun:
                return
            self.begun.add(label)
        job = self.jobs[label]
        if event["event"] == "exit":
            del self.jobs[label]
            if event["status"] == "complete" and not _visible(job):
                said = (
                    f"this machine does not see its result in {job.records}; expected storage that nodes share with it"
                )
                event = {"event": "exit", "status": "failed", "error": said}
        self.happened.append((job, event))

    def _ended(self, reference: Any) -> None:
        """A task has ended; that its job has too, it has said before by mail. What it has not said, is lost."""
        label = self.running.pop(reference)
        try:
            self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            if label in self.jobs:
                self._lost(label, error)

    def _lost(self, label: str, error: Exception) -> None:
        exceptions = self.ray.exceptions
        saved = saved_step(self.jobs[label].states)
        count, before = self.losses.get(label, (0, saved))
        count = count + 1 if saved == before else 1
        self.losses[label] = count, saved
        if self.stopping or isinstance(error, exceptions.TaskCancelledError):
            self._tell(label, {"event": "exit", "status": "interrupted", "error": ""})
        elif isinstance(error, exceptions.RayTaskError) or count >= LOSSES:
            self._tell(label, {"event": "exit", "status": "failed", "error": f"Ray: {one_line(error)}"})
        else:
            said = f"lost on its node ({one_line(error)}); it goes on from its last saved state"
            self._tell(label, {"event": "note", "message": said})
            self._submit(label)

    def stop(self, number: int) -> None:
        """Have every task pass the signal on; what Ray has not placed yet is cancelled."""
        self.stopping = True
        self.ray.get(self.mailbox.ask.remote(number))
        for reference, label in self.running.items():
            if label not in self.begun:
                self.ray.cancel(reference)

    def kill(self) -> None:
        """End every task, and with it its worker."""
        for reference in self.running:
            self.ray.cancel(reference, force=True)


def portable_dataset(uri: str, clip_actions: bool) -> tuple[str, dict[str, bytes]]:
    """What a dataset is called on a node, and the archives of its parts by the names of their files there.

    Raises:
        DataError: as `segue.load` does.
    """
    mixture, archives, names = Mixture.parse(uri), {}, []
    for part in mixture.parts:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "part.npz"
            npz.save(file, load_dataset(part, clip_actions=clip_actions).columns())
            content = file.read_bytes()
        name = f"log-{hashlib.sha256(content).hexdigest()[:16]}.npz"
        archives[name] = content
        names.append(f"npz:{NODE}/{name}")
    return mixture.text(names) if len(names) > 1 else names[0], archives


@contextlib.contextmanager
def connected(place: Ray, cores: int, room: int) -> Iterator[Cluster]:
    """A dispatcher on this cluster. A Ray that was started for it ends with it.

    Raises:
        SegueError: if the cluster cannot be reached.
    """
    ours = connect(place.address or os.environ.get("RAY_ADDRESS"))
    import ray

    try:
        yield Cluster(place, cores, room)
    finally:
        if ours:
            ray.shutdown()


def _visible(job: Job) -> bool:
    """Whether this machine sees the job's result; a network file system may take a while."""
    deadline = time.monotonic() + PATIENCE
    while job.result() is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.5)
    return True


def _lacking(ray: Any, wanted: dict[str, float]) -> str:
    """A sentence if no node has what a job is to get: one that the autoscaler adds may, or none ever will."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(name, 0) >= count for name, count in wanted.items()) for node in nodes):
        return ""
    asked = ", ".join(f"{count:g} {name}" for name, count in wanted.items() if count)
    most = ", ".join(f"{max(node.get(name, 0) for node in nodes):g} {name}" for name in wanted)
    return f"WARNING: no node has {asked} for a job (the most that one has: {most}); it waits until one does"
