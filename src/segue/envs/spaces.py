"""One rule for what spaces mean, for live environments and datasets: flat observations, actions in ±1 or 0…n−1."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from jaxtyping import Float

from segue.core import is_image
from segue.errors import RecipeError

#: Most discrete actions that a MultiDiscrete or MultiBinary space may have as one.
MOST_ACTIONS = 4096
#: Observations that have a fixed length once they are flat.
FLAT = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)


def check_observations(space: gym.Space, where: str) -> None:
    """Refuse observations that have no fixed length.

    Raises:
        RecipeError: naming the part that has none.
    """
    match space:
        case spaces.Dict():
            for name, part in space.spaces.items():
                check_observations(part, f"{where}, entry {name!r}")
        case spaces.Tuple():
            for index, part in enumerate(space.spaces):
                check_observations(part, f"{where}, entry {index}")
        case _ if not isinstance(space, FLAT):
            raise RecipeError(
                f"{where}: the observations are a {type(space).__name__}; expected Box, Discrete, MultiBinary, "
                "MultiDiscrete, or a Dict or Tuple of them: a gymnasium.ObservationWrapper can make numbers of a "
                "fixed length of it"
            )
    if spaces.flatdim(space) == 0:
        raise RecipeError(f"{where}: the observations {space} are empty; expected at least one number")


def flat_observations(space: gym.Space, value: Any) -> np.ndarray:
    """[rows, size]: row by row what gymnasium.spaces.flatten gives, without its 10 µs a row (for checked spaces)."""
    match space:
        case spaces.Dict():
            return np.concatenate([flat_observations(part, value[name]) for name, part in space.spaces.items()], axis=1)
        case spaces.Tuple():
            return np.concatenate([flat_observations(part, value[i]) for i, part in enumerate(space.spaces)], axis=1)
        case _:
            rows = np.asarray(value)
            rows = rows.reshape(len(rows), -1)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        counts, start = (
            np.ravel(space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n),
            np.ravel(space.start),
        )
        ones = [np.eye(count, dtype=np.float32) for count in counts]
        return np.concatenate([one[rows[:, i] - start[i]] for i, one in enumerate(ones)], axis=1)
    return rows


def logged_observations(space: gym.Space, value: Any) -> np.ndarray:
    """Observations of some steps as a dataset holds them: images as they are, [rows, …], all others flat."""
    return np.asarray(value) if is_image(space.shape, space.dtype) else flat_observations(space, value)


@dataclasses.dataclass(frozen=True)
class Actions:
    """What an environment's actions are to a policy, and back. Discrete if `counts` are given, else continuous."""

    space: gym.Space
    low: Float[np.ndarray, " action"] | None = None
    """Continuous: bounds of the flat action. A dimension whose bounds are equal has one value, which is always used."""
    high: Float[np.ndarray, " action"] | None = None
    counts: tuple[int, ...] = ()
    """Discrete: choices of each part; an action is the number of a combination, the last part counting fastest."""
    start: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(1, np.int64))
    """Discrete: the first choice of each part."""

    @classmethod
    def of(cls, space: gym.Space, where: str) -> Actions:
        """The rule for an action space.

        Raises:
            RecipeError: for an unbounded space, too many combinations, or another kind; with the way out.
        """
        match space:
            case spaces.Discrete():
                return cls(space, counts=(int(space.n),), start=np.array([space.start]))
            case spaces.MultiDiscrete():
                found = cls(space, counts=tuple(space.nvec.ravel().tolist()), start=space.start.ravel())
            case spaces.MultiBinary():
                found = cls(space, counts=(2,) * int(np.prod(space.shape)), start=np.zeros(1, np.int64))
            case spaces.Box():
                low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
                if not (np.isfinite(low).all() and np.isfinite(high).all()):
                    raise RecipeError(
                        f"{where}: the action space {space} is unbounded; expected finite bounds: wrap it, in a "
                        "function that you name as module:function: "
                        "gymnasium.wrappers.TransformAction(env, numpy.asarray, gymnasium.spaces.Box(-1, 1, shape))"
                    )
                if not (low <= high).all() or not (low < high).any():
                    raise RecipeError(
                        f"{where}: the action space {space} leaves nothing to choose; expected low < high"
                    )
                return cls(space, low=low, high=high)
            case _:
                raise RecipeError(
                    f"{where}: the action space is {space}; expected Box (continuous), Discrete, MultiDiscrete or "
                    "MultiBinary: a gymnasium.ActionWrapper can make one of it"
                )
        if found.size > MOST_ACTIONS:
            raise RecipeError(
                f"{where}: the action space {space} has {found.size:,} combinations; expected at most "
                f"{MOST_ACTIONS:,}, since each is one discrete action: a gymnasium.ActionWrapper can leave some out"
            )
        return found

    @property
    def discrete(self) -> bool:
        """Whether an action is a number from 0."""
        return bool(self.counts)

    @property
    def size(self) -> int:
        """Number of discrete actions, or of continuous dimensions."""
        if self.low is not None:
            return len(self.low)
        size = 1
        for count in self.counts:  # Python's integers do not overflow
            size *= count
        return size

    @property
    def as_they_are(self) -> bool:
        """Whether the environment takes a policy's actions: one axis in ±1, or 0…n−1."""
        if self.discrete:
            return isinstance(self.space, spaces.Discrete)
        assert self.low is not None
        assert self.high is not None
        return bool(
            self._floating and self.space.shape == (self.size,) and (self.low == -1).all() and (self.high == 1).all()
        )

    @property
    def _floating(self) -> bool:
        return np.issubdtype(self.space.dtype, np.floating)

    def shaped(self, env: gym.Env) -> gym.Env:
        """The environment, taking continuous actions in ±1 of one axis, or discrete ones."""
        if self.as_they_are:
            return env
        if self.discrete:
            return gym.wrappers.TransformAction(env, self.to_environment, spaces.Discrete(self.size))
        assert self.low is not None
        assert self.high is not None
        if self._floating and self.space.shape == (self.size,) and (self.low < self.high).all():
            return gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
        return gym.wrappers.TransformAction(env, self.to_environment, spaces.Box(-1, 1, (self.size,), np.float32))

    def to_environment(self, action: Any) -> Any:
        """A policy's action as the environment takes it; to integers by rounding."""
        if self.discrete:
            choices = np.array(np.unravel_index(int(action), self.counts)) + self.start
            return choices.astype(self.space.dtype).reshape(self.space.shape or ())
        assert self.low is not None
        assert self.high is not None
        value = (self.low + self.high) / 2 + (self.high - self.low) / 2 * np.asarray(action, np.float64)
        value = np.clip(value if self._floating else np.rint(value), self.low, self.high)
        return value.astype(self.space.dtype).reshape(self.space.shape or ())

    def from_environment(self, logged: np.ndarray) -> np.ndarray:
        """Logged actions, [rows, …]: numbers of combinations [rows], or flat rows within the bounds [rows, size]."""
        rows = np.asarray(logged).reshape(len(logged), -1)
        if not self.discrete:
            return rows
        parts = (rows.astype(np.int64) - self.start).T
        if len(self.counts) == 1:
            return parts[0]
        return np.asarray(np.ravel_multi_index(tuple(parts), self.counts))
