"""Environments on the nodes of a Ray cluster, for those that are slower than the learner."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from segue.envs.process import START_SECONDS, Apart, Held
from segue.envs.spec import Environment
from segue.envs.watch import Hangs
from segue.errors import SegueError
from segue.workers.ray_connection import connect, one_line, own_modules

#: A call that is lost so often ends its process itself; at first Ray may choose the node again that is gone.
LOSSES = 3


class Nodes:
    """Makes environments on the cluster that RAY_ADDRESS names; without one, on a Ray of this machine.

    It is connected to as the first is made, and left as the last is closed.

    Raises:
        SegueError: if Ray is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise SegueError("environments on Ray need a package that is not installed: pip install 'segue[ray]'")
        self.there: set[OnNode] = set()
        self.ours = False

    def __call__(self, environment: Environment, timeout: float, keys: Sequence[str]) -> OnNode:
        """An environment on some node."""
        if not self.there:
            self.ours = connect(os.environ.get("RAY_ADDRESS"))
        made = OnNode(self, environment, timeout, keys)
        self.there.add(made)
        return made

    def place(self) -> Any:
        """An actor on a node with a free core, as far from the others as there is room."""
        import ray

        # No learner is there: with JAX_PLATFORMS nothing of JAX that an environment imports takes a GPU.
        path = os.pathsep.join(filter(None, (own_modules(), os.environ.get("PYTHONPATH"))))
        variables = {"env_vars": {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}}
        actor: Any = ray.remote(Held).options(num_cpus=1, scheduling_strategy="SPREAD", runtime_env=variables)
        return actor.remote()

    def left(self, made: OnNode) -> None:
        """One of them is closed."""
        self.there.discard(made)
        if self.ours and not self.there:
            import ray

            ray.shutdown()
            self.ours = False


class OnNode(Apart):
    """An environment in an actor. One that is lost with its node is made on another, where its episode is repeated."""

    def __init__(self, nodes: Nodes, environment: Environment, timeout: float, keys: Sequence[str]) -> None:
        self.nodes, self.timeout, self.made_of = nodes, timeout, (environment.plain(), tuple(keys))
        self.calls: list[tuple[str, Any]] = []  # of the running episode
        self.last: Any = None  # what the last answered call returned
        self._make()

    def _make(self) -> None:
        self._allow(START_SECONDS)
        self.actor = self.nodes.place()
        self.pending = self.actor.make.remote(*self.made_of)

    def ask(self, what: str, argument: Any) -> None:
        """Begin a call of `reset` or `step`."""
        if what == "reset":
            self.calls = []
        self.calls.append((what, argument))
        self._allow(self.timeout)
        self.pending = self.actor.act.remote(what, argument)

    def answer(self) -> Any:
        """What the call returns; raises as `Apart.answer` does."""
        import ray

        call = self._first
        for attempt in range(LOSSES):
            try:
                fine, value = call()
                break
            except ray.exceptions.RayError as error:
                if attempt == LOSSES - 1 or not isinstance(error, ray.exceptions.RayActorError):
                    raise SegueError(f"its process on Ray ended ({one_line(error)})") from None
                call = self._again
        if not fine:
            raise SegueError(value)
        self.last = value
        return value

    @staticmethod
    def answered(asked: Sequence[OnNode], seconds: float) -> list[OnNode]:
        """Those of these that have an answer, or are lost; waits so long for the first."""
        import ray

        pending = [one.pending for one in asked]
        ray.wait(pending, timeout=seconds)
        found = set(ray.wait(pending, num_returns=len(pending), timeout=0)[0])
        return [one for one in asked if one.pending in found]

    def _first(self) -> tuple[bool, Any]:
        return self._wait(self.pending)

    def ready(self) -> OnNode:
        """This environment, once a node has made it."""
        try:
            super().ready()
        except Hangs:
            raise SegueError(
                f"no node of the Ray cluster has made it in {START_SECONDS:g} seconds; each environment takes a core, "
                "so that --environments is at most the number of cores that jobs leave free"
            ) from None
        return self

    def _wait(self, reference: Any) -> Any:
        import ray

        try:
            return ray.get(reference, timeout=self._left())
        except ray.exceptions.GetTimeoutError:
            self._kill()
            raise Hangs(f"it did not come back for {self.limit:g} seconds") from None

    def _again(self) -> tuple[bool, Any]:
        """On another node: what the episode was up to the call that has no answer, and that call."""
        self._make()
        fine, value = self._wait(self.pending)
        if not fine or not self.calls:
            return fine, value
        *before, now = self.calls
        for call in before:
            fine, value = self._call(*call)
            if not fine:
                return fine, value
        if before and not np.array_equal(value[0], self.last[0]):
            return False, "lost with its node, and elsewhere the same seed and actions gave another episode"
        return self._call(*now)

    def _call(self, what: str, argument: Any) -> Any:
        self._allow(self.timeout)
        return self._wait(self.actor.act.remote(what, argument))

    def _kill(self) -> None:
        import ray

        with contextlib.suppress(Exception):  # it is gone already
            ray.kill(self.actor)

    def close(self) -> None:
        """End its actor."""
        self._kill()
        self.nodes.left(self)
