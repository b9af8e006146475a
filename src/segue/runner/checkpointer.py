"""Saves where a job stands, now and then and when it is asked to stop, and finds the place again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from segue.core import Learner
from segue.errors import SegueError
from segue.replay.replay_log import ReplayLog
from segue.runner.jobs import Event, Job
from segue.runner.machine import identity
from segue.runner.recorder import JobRecorder, has_records, require_intact
from segue.runner.state_store import State, StateStore
from segue.runner.stopping import Stop
from segue.training.checkpointing import Position, flatten, unflatten

#: At most this share of the time goes into saving, however often it is asked for (0: always).
SHARE = 0.02
#: What of a recipe may be another when a job goes on: how long it is, and what does not reach this job.
FREE = ("offline_steps", "online_steps", "eval_every", "seed", "seeds", "keep_policies", "step_timeout", "bad_steps")


class JobCheckpointer:
    """The checkpointer of one job; see `segue.training.checkpointing.Checkpointer`.

    Attributes:
        state: what was saved by an earlier attempt, or None.
        lines: sentences of the handover, which the result ends with.
    """

    def __init__(self, job: Job, stop: Stop, capacity: int | None, send: Callable[[Event], None]) -> None:
        self.job, self.stop = job, stop
        self.store = StateStore(job.states, capacity)
        self.replay_log = ReplayLog()
        self.lines: list[str] = []
        self.next = -float("inf")
        self.recorder: JobRecorder | None = None
        self.state: State | None
        try:
            self.state, notes = self.store.newest(lambda plain: require_intact(job, plain["records"]))
        except OSError as error:
            raise SegueError(f"{job.states} cannot be used: {error}") from None
        if self.state is not None:
            self._require_same_recipe(self.state)
            self.lines = self.state.plain["lines"]
            notes += self._differences(self.state)
            notes.append(f"goes on from step {self.state.step}")
        elif notes:
            notes.append("no state is left; the phase starts again")
        elif has_records(job):
            notes.append(f"{job.states} holds no state to go on from; the phase starts again, its records anew")
        for note in notes:
            send({"event": "note", "message": note})

    def due(self) -> bool:
        """When the time has come, or somebody asked to stop."""
        return self.stop.requested is not None or time.monotonic() >= self.next

    def save(self, position: Position) -> None:
        """Write it down.

        Raises:
            SegueError: if it cannot be written.
            Stopped: if somebody asked to stop.
        """
        assert self.recorder is not None
        start = time.monotonic()
        arrays = {f"at {name}": array for name, array in position.arrays.items()}
        for name, learner in position.learners.items():
            arrays |= {f"{name} {path}": array for path, array in flatten(learner).items()}
        plain = {
            "position": position.plain,
            "learners": list(position.learners),
            "records": self.recorder.position(position.step),
            "lines": self.lines,
            "recipe": _fixed(self.job),
            "machine": identity(),
        }
        try:
            self.store.save(position.step, plain, arrays, self.replay_log.take())
        except SegueError as error:
            raise SegueError(
                f"{error}. The states saved before are whole: make room, and the same command goes on"
            ) from None
        now = time.monotonic()
        self.next = now + (max(self.job.checkpoint_every, (now - start) / SHARE) if self.job.checkpoint_every else 0)
        self.stop.check()

    def position(self, skeleton: Learner) -> Position | None:
        """Where the earlier attempt stood; `skeleton` has the learner's structure.

        Raises:
            SegueError: if what was saved is built otherwise.
        """
        if self.state is None:
            return None
        try:
            learners = {
                name: unflatten(skeleton, _under(name, self.state.arrays)) for name in self.state.plain["learners"]
            }
        except SegueError as error:
            raise SegueError(f"{self.state.place}: {error}; another version of Segue wrote it") from None
        plain, here = self.state.plain["position"], _under("at", self.state.arrays)
        return Position(self.state.step, learners, plain, here, self.state.rows)

    def _require_same_recipe(self, state: State) -> None:
        before, now = state.plain["recipe"], _fixed(self.job)
        changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if changed:
            raise SegueError(
                f"{state.place} was saved by a run with another {changed[0]}; to go on otherwise, use segue branch"
            )

    @staticmethod
    def _differences(state: State) -> list[str]:
        before, now = state.plain["machine"], identity()
        return [
            f"WARNING: saved with {name} {before.get(name)}, goes on with {now[name]}: from here on the numbers are "
            "not those of an uninterrupted run"
            for name in now
            if before.get(name) != now[name]
        ]


def _fixed(job: Job) -> dict[str, Any]:
    return {name: value for name, value in job.recipe.items() if name not in FREE}


def _under(name: str, arrays: Any) -> dict[str, Any]:
    return {path.removeprefix(f"{name} "): array for path, array in arrays.items() if path.startswith(f"{name} ")}
