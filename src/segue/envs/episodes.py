"""A few environments stepped together, each episode reset with a seed of its own.

So an interrupted episode can be restored: reset with its seed, and its actions replayed. An episode in which the
environment misbehaves (raises, hangs, gives NaN, or the wrong shape) is quarantined: what it gave in that step reaches
nobody, the environment is built anew and starts the next episode.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float, Real

from segue.envs.cost import cost_of
from segue.envs.make import make, spaces_of, time_limit
from segue.envs.masks import KEY, mask_of
from segue.envs.process import Apart, Maker
from segue.envs.spec import Environment
from segue.envs.watch import WATCH, Hangs, in_words
from segue.errors import SegueError
from segue.rng import environment_seed

Stepped = tuple[
    Real[np.ndarray, "envs observation"],
    Float[np.ndarray, " envs"],
    Bool[np.ndarray, " envs"],
    Bool[np.ndarray, " envs"],
]
#: Longest episode; what an environment without a time limit does beyond is another one.
MAX_EPISODE_STEPS = 100_000
#: In an environment without a time limit, steps after which an evaluation stops waiting for a first end: ten times the
#: limit of Gymnasium's own environments, and seconds rather than minutes.
UNLIMITED_STEPS = 10_000
#: Observations and rewards beyond this are out of any range: losses square them, in float32.
LARGEST = 1e15
#: So far beyond its declared bounds, in half their widths, an observation is out of range.
REACH = 3.0
#: Number of bad steps that are always tolerated, and attempts to build an environment anew.
FEW, ATTEMPTS = 10, 5


@dataclasses.dataclass(frozen=True)
class Patience:
    """How many bad steps are tolerated, and for how long a step may take."""

    step_timeout: float = 60.0
    """Seconds that a step or a reset may take."""
    bad_steps: float = 0.01
    """Share of the steps that may be bad."""


#: What a recipe puts up with if it says nothing.
USUAL = Patience()


class Episodes:
    """Environments side by side, in this process or where `apart` makes them.

    Attributes:
        observation: what the policy sees now, [environments, observation].
        episode: number of the running episode of each environment.
        time: steps since the start of it.
        actions: the actions of the running episode of each environment.
        lost: where the last step was bad: there is nothing to learn from it, and the next episode has begun.
        steps, bad: how many steps there were, and how many were bad.
        cost: of the last step of each environment, where a `cost_key` says what to record.
        allowed: which discrete actions can be taken now, [environments, actions]; None if the environment does not say.
        next_allowed: the same after the last step, before another episode begins.
        limit: steps after which the environment cuts an episode; None if it is not known to do that.
    """

    def __init__(
        self,
        env_id: str | Environment,
        count: int,
        seed: int,
        role: str,
        patience: Patience = USUAL,
        tell: Callable[[str], None] = lambda message: None,
        apart: Maker | None = None,
        cost_key: str | None = None,
    ) -> None:
        self.env_id, self.seed, self.role, self.patience, self.tell = Environment.of(env_id), seed, role, patience, tell
        # First: a count beyond all memory fails here, at once, and not one environment after the other.
        self.episode, self.time = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.lost, self.any_lost = np.zeros(count, bool), False
        self.steps = self.bad = 0
        self.cost_key, self.cost = cost_key, np.zeros(count)
        self.allowed: np.ndarray | None = None
        self.next_allowed: np.ndarray | None = None
        model = make(self.env_id)
        self.spaces, self.limit = spaces_of(model), time_limit(model)
        space = model.action_space
        self.start = int(space.start) if isinstance(space, gym.spaces.Discrete) else 0
        seen = model.observation_space
        assert isinstance(seen, gym.spaces.Box)
        self.dtype = seen.dtype
        self.centre, self.scale = _scaling(seen)
        self.actions: list[list[np.ndarray]] = [[] for _ in range(count)]
        stored = np.float32 if self.spaces.image is None else np.uint8
        self.observation = np.zeros((count, self.spaces.observation_size), stored)
        self.apart = apart
        self.envs: list[Any] = []
        if apart is None:  # the others have a limit of their own, and are killed
            WATCH.open(patience.step_timeout)
        try:
            if apart is not None:
                model.close()
                self.envs += [self._elsewhere(apart) for _ in range(count)]
                for env in self.envs:
                    env.ready()
            else:
                self.envs += [model, *(make(self.env_id) for _ in range(count - 1))]
            for i in range(count):
                self._begin_safely(i)
        except BaseException:
            self.close()
            raise

    def step(self, action: np.ndarray, only: Bool[np.ndarray, " envs"] | None = None) -> Stepped:
        """Step every environment, or only these; finished ones start their next episode.

        Returns:
            The true next observation (of a finished episode: its last), reward, terminated, truncated. What the
            policy sees next is `self.observation`. Rows that are `lost`, or were not stepped, mean nothing.

        Raises:
            SegueError: if more steps are bad than tolerated.
            RecipeError: if a step does not report its cost.
        """
        if self.apart is not None:  # all of them at the same time
            self.ask(action, range(len(self.envs)) if only is None else np.flatnonzero(only).tolist())
        return self.take(action, only)

    def ask(self, action: np.ndarray, which: Sequence[int]) -> None:
        """Begin a step of each of these environments, which are elsewhere; `take` ends it."""
        for i in which:
            self.envs[i].ask("step", action[i] + self.start)

    def take(self, action: np.ndarray, only: Bool[np.ndarray, " envs"] | None = None) -> Stepped:
        """What these actions came to, as `step` returns it."""
        count = len(self.envs)
        following = np.zeros_like(self.observation)
        reward = np.zeros(count, np.float32)
        terminated, truncated = np.zeros(count, bool), np.zeros(count, bool)
        self.lost, self.any_lost = np.zeros(count, bool), False
        wrong: dict[int, str] = {}
        infos: dict[int, Any] = {}
        stepped = range(count) if only is None else np.flatnonzero(only).tolist()
        for i in stepped:
            try:
                WATCH.since = time.monotonic()
                stepping = self.envs[i]
                result = stepping.answer() if self.apart is not None else stepping.step(action[i] + self.start)
                seen, paid, terminated[i], truncated[i], infos[i] = result
                WATCH.since = 0.0
                following[i], reward[i] = self._flat(seen), number(paid)
            except (Exception, Hangs) as error:
                WATCH.since = 0.0
                wrong[i] = in_words(error)
            self.actions[i].append(action[i])
        if self.cost_key is not None:
            for i in infos.keys() - wrong.keys():
                self.cost[i] = cost_of(infos[i], self.cost_key, self.env_id)
        if self.allowed is not None:
            self.next_allowed = np.ones_like(self.allowed)
            for i in infos.keys() - wrong.keys():
                over = bool(terminated[i] or truncated[i])
                self.next_allowed[i] = mask_of(infos[i], self.spaces, self.env_id, over)
                self.allowed[i] = self.next_allowed[i]
        self.steps += len(stepped)
        self.time += 1 if only is None else only
        if wrong or self._suspicious(following, reward):
            wrong |= {i: words for i in stepped if i not in wrong and (words := self._fault(following[i], reward[i]))}
        if only is not None or self.steps % 1024 < count:  # of all of them now and then
            self._cut(truncated, stepped)
        self.observation = following.copy() if only is None else np.where(only[:, None], following, self.observation)
        for i, words in wrong.items():
            self._quarantine(i, words)
            terminated[i] = truncated[i] = False
        for i in np.flatnonzero(terminated | truncated).tolist():
            self.episode[i] += 1
            self._begin_safely(i)
        return following, reward, terminated, truncated

    def _elsewhere(self, apart: Maker) -> Apart:
        keys = [KEY] if self.cost_key is None else [KEY, self.cost_key]
        return apart(self.env_id, self.patience.step_timeout, keys)

    def position(self) -> dict[str, np.ndarray]:
        """Where each environment stands: its episode, and what was done in it."""
        place: dict[str, np.ndarray] = {"episode": self.episode.copy(), "observation": self.observation.copy()}
        place |= {f"actions.{i}": np.array(done) for i, done in enumerate(self.actions)}
        return {**place, "counts": np.array([self.steps, self.bad])}

    def restore(self, place: Mapping[str, np.ndarray]) -> None:
        """Go back to a position by doing again what was done.

        An environment that does not come to the same observation starts its next episode, with a warning.
        """
        self.episode = place["episode"].copy()
        self.steps, self.bad = map(int, place["counts"])
        for i in range(len(self.envs)):
            self._begin_safely(i)
            if not self._replay(i, place[f"actions.{i}"], place["observation"][i]):
                self.tell(
                    f"environment {i} did not repeat its episode from the same seed and actions: it starts another, "
                    "and what follows is not what an uninterrupted run would have seen"
                )
                self.episode[i] += 1
                self._begin_safely(i)
                self.lost[i] = self.any_lost = True

    def close(self) -> None:
        """Release the environments."""
        for env in self.envs:
            with contextlib.suppress(Exception):
                env.close()
        if self.apart is None:
            WATCH.close()

    def _replay(self, env: int, actions: np.ndarray, expected: np.ndarray) -> bool:
        try:
            for action in actions:
                WATCH.since = time.monotonic()
                seen, _, terminated, truncated, info = self.envs[env].step(action + self.start)
                WATCH.since = 0.0
                if self.allowed is not None:
                    self.allowed[env] = mask_of(info, self.spaces, self.env_id, bool(terminated or truncated))
                self.observation[env] = self._flat(seen)
                self.actions[env].append(action)
                if terminated or truncated:
                    return False
        except (Exception, Hangs):
            return False
        finally:
            WATCH.since = 0.0
        self.time[env] = len(actions)
        return np.array_equal(self.observation[env], expected)

    def _seed(self, env: int) -> int:
        return environment_seed(self.seed, self.role, env, int(self.episode[env]))

    def _begin(self, env: int) -> None:
        WATCH.since = time.monotonic()
        try:
            seen, info = self.envs[env].reset(seed=self._seed(env))
        finally:
            WATCH.since = 0.0
        self._begun(env, seen, info)

    def _begun(self, env: int, seen: Any, info: Mapping[str, Any]) -> None:
        seen = self._flat(seen)
        if fault := self._fault(seen, np.float32(0)):
            raise SegueError(fault)
        self.observation[env] = seen
        if self.spaces.discrete and (self.allowed is not None or KEY in info):
            if self.allowed is None:
                self.allowed = np.ones((len(self.time), self.spaces.action_size), bool)
            self.allowed[env] = mask_of(info, self.spaces, self.env_id)
        self.time[env] = 0
        self.actions[env] = []

    def _begin_safely(self, env: int) -> None:
        try:
            self._begin(env)
        except (Exception, Hangs) as error:
            self._count(env, f"reset: {in_words(error)}")
            self._rebuild(env)

    def _quarantine(self, env: int, words: str) -> None:
        self._count(env, words)
        self.lost[env] = self.any_lost = True
        self._rebuild(env)

    def _count(self, env: int, words: str) -> None:
        self.bad += 1
        where = f"environment {str(self.env_id)!r}: step {self.time[env]} of episode {self.episode[env]}"
        share = self.patience.bad_steps
        if self.bad > max(FEW, share * self.steps):
            raise SegueError(
                f"{where}: {words}. {self.bad:,} of {self.steps:,} steps were bad, more than the share of {share:g} "
                "that bad_steps allows: fix the environment, and the same command goes on"
            )
        if self.bad <= FEW or self.bad & (self.bad - 1) == 0:  # at last only every doubling
            self.tell(f"{where}: {words}; the episode is quarantined ({self.bad:,} of {self.steps:,} steps so far)")

    def _rebuild(self, env: int) -> None:
        problem: BaseException | None = None
        for _ in range(ATTEMPTS):
            try:
                with contextlib.suppress(Exception):
                    WATCH.since = time.monotonic()
                    self.envs[env].close()
                if self.apart is not None:
                    self.envs[env] = self._elsewhere(self.apart)
                    self.envs[env].ready()
                else:
                    self.envs[env] = make(self.env_id)
                self.episode[env] += 1
                self._begin(env)
                return
            except (Exception, Hangs) as error:
                problem = error
            finally:
                WATCH.since = 0.0
        assert problem is not None
        raise self._unbuildable(problem)

    def _unbuildable(self, problem: BaseException) -> SegueError:
        return SegueError(
            f"environment {str(self.env_id)!r} cannot be built anew, in {ATTEMPTS} attempts: {in_words(problem)}"
        )

    def _cut(self, truncated: np.ndarray, stepped: Sequence[int]) -> None:
        for i in stepped:
            if self.time[i] < MAX_EPISODE_STEPS:
                continue
            truncated[i] = True
            self.tell(
                f"environment {str(self.env_id)!r}: episode {self.episode[i]} does not end; cut after {self.time[i]:,} "
                "steps"
            )

    def _suspicious(self, following: np.ndarray, reward: np.ndarray) -> bool:
        """Whether to look closer; a sum of squares is quick, and NaN and Inf stay in it."""
        flat = following.ravel()
        if flat.dtype == np.uint8:  # every number is in range
            return not np.isfinite(reward).all()
        if not (flat.dot(flat) < LARGEST and reward.dot(reward) < LARGEST):
            return True
        if self.scale is None:
            return False
        return bool(np.abs((following - self.centre) * self.scale).max() > REACH)

    def _fault(self, following: np.ndarray, reward: float | np.floating) -> str | None:
        """What is wrong with these numbers."""
        for name, values in (("observation", following), ("reward", np.atleast_1d(reward))):
            for i in np.flatnonzero(~(np.abs(values) < LARGEST)).tolist():
                return f"{name}{f'[{i}]' if name == 'observation' else ''} is {values[i]:g}"
        if self.scale is not None:
            off = np.abs((following - self.centre) * self.scale)
            for i in np.flatnonzero(off > REACH).tolist():
                return f"observation[{i}] is {following[i]:g}, far outside its declared bounds"
        return None

    def _flat(self, seen: Any) -> np.ndarray:
        # By way of the declared type, which is what the numbers are promised to be.
        flat = np.asarray(seen, self.dtype)
        if flat.shape != self.observation.shape[1:]:
            raise SegueError(f"the observation has shape {flat.shape}; expected {self.observation.shape[1:]}")
        return flat.astype(self.observation.dtype)


def number(reward: Any) -> float:
    """A reward as a number, also one that is an array of one element.

    Raises:
        SegueError: if it is no number.
    """
    if isinstance(reward, float):
        return reward
    array = np.asarray(reward)
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise SegueError(f"the reward is {reward!r}; expected one number")
    return float(array.item())


def _scaling(space: gym.spaces.Box) -> tuple[np.ndarray, np.ndarray | None]:
    """Centre, and 1 over half the width, of the bounds that there are (0 where there are none); None without any."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    bounded = np.isfinite(low) & np.isfinite(high) & (high > low) & (high - low < LARGEST)
    with np.errstate(all="ignore"):  # infinite bounds, of which nothing is taken
        centre = np.where(bounded, (low + high) / 2, 0.0).astype(np.float32)
        scale = np.where(bounded, 2 / (high - low), 0.0).astype(np.float32)
    return centre, scale if bounded.any() else None
