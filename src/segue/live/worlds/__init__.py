"""Simulated worlds for trying and testing live operation; `segue serve --simulate WORLD` drives a service with one.

Each world is a Gymnasium environment, so `segue run --env segue.live.worlds:Glucose` trains in it, too. Made for a unit
(`reset(options={"unit": 7})`), it is about the same user or patient every time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from segue.errors import SegueError, unknown
from segue.live.worlds.glucose import Glucose
from segue.live.worlds.recommendation import Recommendation

if TYPE_CHECKING:
    from jaxtyping import Float

#: Worlds of our own by name.
WORLDS: dict[str, type[Glucose] | type[Recommendation]] = {"glucose": Glucose, "recommendation": Recommendation}
#: Short for an environment of Gymnasium's.
SHORT = {"cartpole": "env:CartPole-v1"}

__all__ = ["WORLDS", "Glucose", "Recommendation", "behaviour", "make_world"]


def make_world(name: str) -> gym.Env:
    """One copy of a world: a name of WORLDS or SHORT, or `env:ID` with any Gymnasium id.

    Raises:
        SegueError: if there is none of this name, or it cannot be made.
    """
    if name in WORLDS:
        return WORLDS[name]()
    scheme, found, place = SHORT.get(name, name).partition(":")
    if scheme != "env" or not found:
        raise SegueError(unknown("world", name, [*WORLDS, *SHORT, "env:ID"]))
    try:
        return gym.make(place)
    except (gym.error.Error, ImportError) as error:
        raise SegueError(f"world {name!r} cannot be made: {error}") from None


def behaviour(
    world: gym.Env, observation: Float[np.ndarray, " observation"], source: np.random.Generator
) -> tuple[np.ndarray, float]:
    """What is done in a world before there is a policy, and its log-probability.

    Worlds of our own say it; elsewhere actions are uniform. As everywhere in Segue, a density is over [-1, 1].
    """
    raw = world.unwrapped
    if isinstance(raw, Glucose | Recommendation):
        return raw.behaviour(observation, source)
    space = world.action_space
    if isinstance(space, gym.spaces.Discrete):
        return np.asarray(space.start + source.integers(space.n)), -float(np.log(space.n))
    if not isinstance(space, gym.spaces.Box) or not space.is_bounded():
        raise SegueError(f"actions of {world} are {space}; expected Discrete or a Box with bounds")
    return source.uniform(space.low, space.high).astype(space.dtype), -float(np.prod(space.shape) * np.log(2))
