"""Goal-conditioned environments: where the goals are in a flat observation, and what reaching one would have paid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float

from segue.envs.episodes import number
from segue.envs.make import make_raw
from segue.envs.spaces import FLAT
from segue.envs.spec import Environment
from segue.envs.watch import in_words
from segue.errors import RecipeError, SegueError

#: Random steps on which what the environment computes is compared with what it paid.
TRIED_STEPS = 8


class Goals:
    """The goals of an environment whose observations are a Dict with `achieved_goal` and `desired_goal`.

    Rewards and terminations are computed by an instance of its own, with `compute_reward(achieved_goal, desired_goal,
    info)` and, where there is one, `compute_terminated` of the same arguments; `info` is empty. Functions that do not
    take several rows at once are called row by row.

    Attributes:
        achieved, desired: where they are in a flat observation.
        at_once: by the name of each function that there is, whether it takes several rows.

    Raises:
        RecipeError: if it has no such goals or no `compute_reward`, or computes another reward than it pays.
    """

    def __init__(self, environment: str | Environment) -> None:
        self.where = f"environment {str(environment)!r}"
        self.env = make_raw(environment)
        try:
            self.space = self._find()
            self.at_once: dict[str, bool] = {}
            self._try()
        except BaseException:
            self.env.close()
            raise

    def rewards(
        self, achieved: Float[np.ndarray, "rows goal"], desired: Float[np.ndarray, "rows goal"]
    ) -> Float[np.ndarray, " rows"]:
        """What the environment pays for having achieved the one goal where the other is desired, float32.

        Raises:
            SegueError: if it raises, or computes numbers that are not finite.
        """
        found = self._compute("compute_reward", achieved, desired)
        if not np.isfinite(found).all():
            raise SegueError(
                f"{self.where}: compute_reward gives {found[~np.isfinite(found)][0]}; expected finite numbers"
            )
        return found.astype(np.float32)

    def ends(
        self, achieved: Float[np.ndarray, "rows goal"], desired: Float[np.ndarray, "rows goal"]
    ) -> Bool[np.ndarray, " rows"] | None:
        """Whether that terminates the episode; None where the environment does not compute it.

        Raises:
            SegueError: if it raises.
        """
        if "compute_terminated" not in self.at_once:
            return None
        return self._compute("compute_terminated", achieved, desired).astype(bool)

    def close(self) -> None:
        """Release the environment."""
        self.env.close()

    def _find(self) -> gym.Space:
        """The space of a goal, once `achieved` and `desired` are known."""
        space = self.env.observation_space
        if not isinstance(space, spaces.Dict) or not {"achieved_goal", "desired_goal"} <= space.spaces.keys():
            raise RecipeError(
                f"{self.where}: the observations are {_words(space)}; hindsight expects a Dict with achieved_goal and "
                "desired_goal: leave hindsight out"
            )
        achieved, desired = space["achieved_goal"], space["desired_goal"]
        alike = isinstance(achieved, FLAT) and type(achieved) is type(desired) and achieved.shape == desired.shape
        if not alike or spaces.flatdim(achieved) != spaces.flatdim(desired):
            raise RecipeError(
                f"{self.where}: achieved_goal is {_words(achieved)}, desired_goal {_words(desired)}; hindsight expects "
                "two of the same shape that are Box, Discrete, MultiBinary or MultiDiscrete: leave hindsight out"
            )
        names = list(space.spaces)
        stops = dict(zip(names, np.cumsum([spaces.flatdim(space[name]) for name in names]).tolist(), strict=True))
        self.achieved, self.desired = (
            slice(stops[name] - spaces.flatdim(achieved), stops[name]) for name in ("achieved_goal", "desired_goal")
        )
        return achieved

    def _try(self) -> None:
        """Take some random steps and see what the environment computes, and whether for all rows at once."""
        if self._function("compute_reward") is None:
            raise RecipeError(
                f"{self.where} has no compute_reward(achieved_goal, desired_goal, info), from which hindsight knows "
                "what another goal would have paid: write one, or leave hindsight out"
            )
        try:
            achieved, desired, paid = self._steps()
        except Exception as error:
            raise RecipeError(f"{self.where} cannot be stepped: {in_words(error)}") from error
        # Also with goals that are reached, and nearly so: these pay something else.
        left = np.concatenate([achieved, achieved, achieved])
        right = np.concatenate([desired, achieved, np.roll(achieved, 1, axis=0)])
        for name in ("compute_reward", "compute_terminated"):
            if self._function(name) is None:
                continue
            self.at_once[name] = False
            try:
                one_by_one = self._compute(name, left, right)
            except SegueError as error:
                if name == "compute_terminated" and isinstance(error.__cause__, NotImplementedError):
                    del self.at_once[name]  # Gymnasium-Robotics' base class has it, and leaves it to others
                    continue
                raise RecipeError(f"{error}; hindsight calls it with an empty info") from error
            self.at_once[name] = self._takes_rows(name, left, right, one_by_one)
            if name == "compute_reward" and not np.allclose(one_by_one[: len(paid)], paid, rtol=1e-3, atol=1e-5):
                row = int(np.argmax(np.abs(one_by_one[: len(paid)] - paid)))
                raise RecipeError(
                    f"{self.where}: compute_reward gives {one_by_one[row]:g} where step paid {paid[row]:g}; expected "
                    "the same, or hindsight would mix two rewards (does a wrapper change the reward?)"
                )

    def _steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Goals achieved and desired, flat, and rewards of some random steps."""
        achieved, desired, paid = [], [], []
        self.env.action_space.seed(0)
        self.env.reset(seed=0)
        for _ in range(TRIED_STEPS):
            seen, reward, terminated, truncated, _ = self.env.step(self.env.action_space.sample())
            achieved.append(spaces.flatten(self.space, seen["achieved_goal"]))
            desired.append(spaces.flatten(self.space, seen["desired_goal"]))
            paid.append(number(reward))
            if terminated or truncated:
                self.env.reset()
        return np.array(achieved, np.float32), np.array(desired, np.float32), np.array(paid)

    def _takes_rows(self, name: str, achieved: np.ndarray, desired: np.ndarray, one_by_one: np.ndarray) -> bool:
        if not isinstance(self.space, spaces.Box):
            return False
        self.at_once[name] = True
        try:
            return np.allclose(self._compute(name, achieved, desired), one_by_one)
        except SegueError:
            return False

    def _compute(self, name: str, achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        function: Any = self._function(name)
        try:
            if self.at_once[name]:
                return np.broadcast_to(
                    np.asarray(function(self._goals(achieved), self._goals(desired), {}), np.float64), len(achieved)
                )
            pairs = zip(self._goals(achieved), self._goals(desired), strict=True)
            return np.array([number(function(one, other, {})) for one, other in pairs], np.float64)
        except Exception as error:
            raise SegueError(f"{self.where}: {name} raises: {in_words(error)}") from error

    def _goals(self, flat: np.ndarray) -> Any:
        """Flat goals as the environment has them, row by row."""
        if not isinstance(self.space, spaces.Box):
            return [spaces.unflatten(self.space, row) for row in flat]
        return flat.reshape(len(flat), *self.space.shape).astype(self.space.dtype)

    def _function(self, name: str) -> Callable[..., Any] | None:
        try:
            function = self.env.get_wrapper_attr(name)
        except AttributeError:
            return None
        return function if callable(function) else None


def _words(space: gym.Space) -> str:
    """A space without its bounds, which may be long."""
    if isinstance(space, spaces.Dict):
        return f"a Dict of {', '.join(space.spaces)}"
    return f"a {type(space).__name__} of {spaces.flatdim(space)} numbers"
