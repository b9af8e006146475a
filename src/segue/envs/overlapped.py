"""Environments elsewhere that do not wait for each other: each goes on as soon as it has answered."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from segue.envs.episodes import ATTEMPTS, USUAL, Episodes, Patience, Stepped
from segue.envs.process import Apart, Maker
from segue.envs.spec import Environment
from segue.envs.watch import Hangs, in_words


class Overlapped(Episodes):
    """Episodes of which some step while others reset, or are built anew.

    `ask` begins steps of those that are free, `arrived` waits for answers, and `take` ends the steps that have one.

    Attributes:
        free: environments that show an observation and have no action yet; the one that has waited longest is first.
        busy: what each of the others is doing.
    """

    def __init__(
        self,
        env_id: str | Environment,
        count: int,
        seed: int,
        role: str,
        apart: Maker,
        patience: Patience = USUAL,
        tell: Callable[[str], None] = lambda message: None,
        cost_key: str | None = None,
    ) -> None:
        self.free: list[int] = []
        self.busy: dict[int, Literal["make", "reset", "step"]] = {}
        self.attempts: dict[int, int] = {}  # of those that are being built anew
        super().__init__(env_id, count, seed, role, patience, tell, apart, cost_key)

    def ask(self, action: np.ndarray, which: Sequence[int]) -> None:
        """Begin a step of each of these environments, which are free."""
        super().ask(action, which)
        self.busy.update(dict.fromkeys(which, "step"))
        self.free = [i for i in self.free if i not in which]

    def arrived(self, among: Sequence[int]) -> list[int]:
        """Those of these steps that have an answer, or are overdue; waits for one, or for another environment."""
        watched = {i: self.envs[i] for i, doing in self.busy.items() if doing != "step" or i in among}
        seconds = min(env.until for env in watched.values()) - time.monotonic()
        kind: type[Apart] = type(self.envs[0])
        answered = set(map(id, kind.answered(list(watched.values()), max(seconds, 0.0))))
        now = time.monotonic()
        over = [i for i, env in watched.items() if id(env) in answered or env.until <= now]
        for i in over:
            if self.busy[i] != "step":
                self._next(i)
        return [i for i in among if i in over]

    def take(self, action: np.ndarray, only: Bool[np.ndarray, " envs"] | None = None) -> Stepped:
        """What these actions came to, as `step` returns it; where an episode is over, the next one begins meanwhile."""
        taken = range(len(self.envs)) if only is None else np.flatnonzero(only).tolist()
        for i in taken:
            del self.busy[i]
        stepped = super().take(action, only)
        self.free += [i for i in taken if i not in self.busy]
        return stepped

    def _begin_safely(self, env: int) -> None:
        while env in self.busy:  # what was begun before a restored position
            self._next(env)
        if env in self.free:
            self.free.remove(env)
        self._reset(env)

    def _replay(self, env: int, actions: np.ndarray, expected: np.ndarray) -> bool:
        if not len(actions):  # nothing that was learnt from depends on this episode
            return True
        while env in self.busy:
            self._next(env)
        return super()._replay(env, actions, expected)

    def _rebuild(self, env: int) -> None:
        with contextlib.suppress(Exception):
            self.envs[env].close()
        assert self.apart is not None
        self.envs[env] = self._elsewhere(self.apart)
        self.episode[env] += 1
        self._forget(env)
        self.attempts[env] = self.attempts.get(env, 0) + 1
        self.busy[env] = "make"

    def _forget(self, env: int) -> None:
        """What a position has of an episode that has yet to begin."""
        self.time[env], self.actions[env] = 0, []

    def _reset(self, env: int) -> None:
        self._forget(env)
        self.envs[env].ask("reset", self._seed(env))
        self.busy[env] = "reset"

    def _next(self, env: int) -> None:
        """End what it does, which is no step, and begin what comes after that."""
        doing = self.busy.pop(env)
        try:
            if doing == "make":
                self.envs[env].ready()
                self._reset(env)
                return
            answer: Any = self.envs[env].answer()
            self._begun(env, *answer)
        except (Exception, Hangs) as error:
            if env not in self.attempts:
                self._count(env, f"reset: {in_words(error)}")
            elif self.attempts[env] == ATTEMPTS:
                raise self._unbuildable(error) from error
            self._rebuild(env)
            return
        self.attempts.pop(env, None)
        self.free.append(env)
