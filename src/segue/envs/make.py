"""Gymnasium environments in the shape the learners expect: flat float32 observations (uint8 for images), actions in
[-1, 1] or 0..n-1.

The shaping is Gymnasium's own wrappers.
"""

from __future__ import annotations

import contextlib
import dataclasses

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from segue.core import Spaces, is_image
from segue.envs.spaces import Actions, check_observations
from segue.envs.spec import Environment, place_of
from segue.errors import RecipeError


def make(environment: str | Environment) -> gym.Env:
    """One environment with flattened observations and actions rescaled to [-1, 1].

    Raises:
        RecipeError: as `make_raw` and `shape` do.
    """
    return shape(make_raw(environment), environment)


def make_raw(environment: str | Environment) -> gym.Env:
    """One environment as it is.

    Raises:
        RecipeError: for an unknown id (nearest match first), a missing package or module, or a constructor that raises.
    """
    spec = Environment.of(environment).spec()
    try:
        return gym.make(spec)
    except gym.error.Error as error:
        raise RecipeError(f"environment {str(environment)!r} cannot be made: {error}") from error
    except ImportError as error:
        raise RecipeError(f"environment {str(environment)!r} needs a package that is not installed: {error}") from error
    except Exception as error:  # a user's constructor may raise anything
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        way_out = (
            "; its arguments are given by --env-kwargs '{\"name\": value}' (in Python: env_kwargs)"
            if isinstance(error, TypeError)
            else ""
        )
        raise RecipeError(f"environment {str(environment)!r} cannot be made: {said}{way_out}") from error


def shape(env: gym.Env, environment: str | Environment) -> gym.Env:
    """The environment with flattened observations and actions rescaled to [-1, 1], as `segue.envs.spaces` says.

    Raises:
        RecipeError: for spaces Segue cannot use.
    """
    where = f"environment {str(environment)!r}"
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name, None), gym.Space):
            raise RecipeError(f"{where} has no {name}; expected one of gymnasium.spaces")
    check_observations(env.observation_space, where)
    actions = Actions.of(env.action_space, where)
    if not isinstance(env.observation_space, gym.spaces.Box) or len(env.observation_space.shape) != 1:
        env = gym.wrappers.FlattenObservation(env)
    return actions.shaped(env)


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


@dataclasses.dataclass(frozen=True)
class Look:
    """What an environment is like, found out by making it."""

    spaces: Spaces
    actions: Actions
    spec: EnvSpec | None
    """Its own specification, which can be written."""
    time_limit: int | None
    """What its specification promises, in steps."""


class Looks:
    """Looks at environments; each is made once, since one may take seconds to make."""

    def __init__(self) -> None:
        self._found: list[tuple[Environment, Look]] = []

    def __call__(self, environment: Environment) -> Look:
        """What it is like.

        Raises:
            RecipeError: as `make` does.
        """
        key = environment
        with contextlib.suppress(RecipeError):  # one that only this process can make has but this name
            key = environment.portable()
        for known, look in self._found:
            if known == key:
                return look
        raw = make_raw(environment)
        try:
            actions = Actions.of(raw.action_space, f"environment {str(environment)!r}")
            look = Look(spaces_of(shape(raw, environment)), actions, portable_spec(raw), time_limit(raw))
        finally:
            raw.close()
        self._found.append((key, look))
        return look


def environment_spaces(environment: str | Environment) -> Spaces:
    """What the algorithms need to know of an environment, by its name.

    Raises:
        RecipeError: as `make` does.
    """
    env = make(environment)
    spaces = spaces_of(env)
    env.close()
    return spaces


def portable_spec(env: gym.Env) -> EnvSpec | None:
    """The environment's own specification, its entry point put as a text, which can be written; None without one."""
    spec = env.spec
    if spec is not None and callable(spec.entry_point):
        try:
            spec.entry_point = place_of(spec.entry_point)
        except RecipeError:  # a class within a function: nobody can import it
            return None
    return spec


def same(one: Environment, other: Environment, look: Looks) -> bool:
    """Whether two descriptions make the same environment; False if one cannot be made here."""
    if one == other:
        return True
    found = []
    for environment in (one, other):
        try:
            spec = look(environment).spec
        except RecipeError:
            return False
        if spec is None:
            return False
        kwargs = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
        found.append((spec.entry_point, kwargs, spec.max_episode_steps, spec.additional_wrappers))
    return found[0] == found[1]


def logged_actions(environment: str | Environment) -> Actions:
    """The rule for the actions of an environment.

    Raises:
        RecipeError: as `make_raw` does, and for actions that Segue cannot use.
    """
    env = make_raw(environment)
    try:
        return Actions.of(env.action_space, f"environment {str(environment)!r}")
    finally:
        env.close()


def time_limit(env: gym.Env) -> int | None:
    """The time limit that its specification promises, in steps."""
    return None if env.spec is None else env.spec.max_episode_steps
