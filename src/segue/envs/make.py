"""Gymnasium environments in the shape the learners expect: flat float32 observations (uint8 for images), actions in
[-1, 1] or 0..n-1.

The shaping is Gymnasium's own wrappers.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import io

import gymnasium as gym
import numpy as np

from segue.core import Spaces, is_image
from segue.errors import RecipeError, unknown

#: Packages that register their environments when imported.
REGISTERING_PACKAGES = ("gymnasium_robotics",)


def make(env_id: str) -> gym.Env:
    """One environment with flattened observations and actions rescaled to [-1, 1].

    Raises:
        RecipeError: for an unknown id (nearest match first), a missing package, or spaces Segue cannot use.
    """
    return shape(make_raw(env_id))


def make_raw(env_id: str) -> gym.Env:
    """One environment as it is.

    Raises:
        RecipeError: for an unknown id (nearest match first) or a missing package.
    """
    try:
        return gym.make(_registered(env_id))
    except gym.error.Error as error:
        raise RecipeError(f"environment {env_id!r} cannot be made: {error}") from error
    except ImportError as error:
        raise RecipeError(f"environment {env_id!r} needs a package that is not installed: {error}") from error


def shape(env: gym.Env) -> gym.Env:
    """The environment with flattened observations and actions rescaled to [-1, 1].

    Raises:
        RecipeError: for spaces Segue cannot use.
    """
    env_id = env.spec.id if env.spec else str(env)
    if not isinstance(env.observation_space, gym.spaces.Box) or len(env.observation_space.shape) != 1:
        env = gym.wrappers.FlattenObservation(env)
    if isinstance(env.action_space, gym.spaces.Box):
        low, high = env.action_space.low, env.action_space.high
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise RecipeError(
                f"environment {env_id!r}: the action space {env.action_space} is unbounded; expected bounds"
            )
        if len(env.action_space.shape) != 1:
            raise RecipeError(f"environment {env_id!r}: actions have shape {env.action_space.shape}; expected one axis")
        if (low != -1).any() or (high != 1).any():
            env = gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
    elif not isinstance(env.action_space, gym.spaces.Discrete):
        raise RecipeError(
            f"environment {env_id!r}: the action space is {env.action_space}; expected Box (continuous) or Discrete"
        )
    return env


def _registered(env_id: str) -> str:
    """The id, once Gymnasium knows it."""
    if ":" in env_id or env_id in gym.registry:
        return env_id
    for package in REGISTERING_PACKAGES:
        if importlib.util.find_spec(package):
            # It greets with remarks on environments that nobody asked for.
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                gym.register_envs(importlib.import_module(package))
    if env_id not in gym.registry:
        # Hundreds of ids are registered; only the nearest help.
        near = difflib.get_close_matches(env_id, gym.registry, n=5, cutoff=0.5)
        raise RecipeError(unknown("environment", env_id, near) if near else f"unknown environment {env_id!r}")
    return env_id


def spaces_of(env: gym.Env) -> Spaces:
    """What the algorithms need to know of an environment made by `make`."""
    assert env.observation_space.shape is not None
    size = int(np.prod(env.observation_space.shape))
    image = _image(env)
    if isinstance(env.action_space, gym.spaces.Discrete):
        return Spaces(size, int(env.action_space.n), discrete=True, image=image)
    assert env.action_space.shape is not None
    return Spaces(size, int(env.action_space.shape[0]), image=image)


def _image(env: gym.Env) -> tuple[int, ...] | None:
    """Shape of the observations before they were flattened, if these are images."""
    while isinstance(env, gym.Wrapper):
        flattened, env = isinstance(env, gym.wrappers.FlattenObservation), env.env
        space = env.observation_space
        if flattened and isinstance(space, gym.spaces.Box) and is_image(space.shape, space.dtype):
            return space.shape
    return None


def environment_spaces(env_id: str) -> Spaces:
    """What the algorithms need to know of an environment, by its id.

    Raises:
        RecipeError: as `make` does.
    """
    env = make(env_id)
    spaces = spaces_of(env)
    env.close()
    return spaces
