"""The environment of a command line: --env, --env-kwargs and --max-episode-steps."""

from __future__ import annotations

import json
from typing import Any

from segue.envs.spec import Environment
from segue.errors import RecipeError


def json_flag(flag: str, text: str, kind: type) -> Any:
    """The JSON value of a flag.

    Raises:
        RecipeError: if it is no JSON, or of another kind.
    """
    example = '{"g": 9.81}' if kind is dict else '[{"name": …, "entry_point": "module:Wrapper", "kwargs": {}}]'
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RecipeError(
            f"{flag} is {text!r}, which is no JSON ({error}); expected such as {flag} '{example}'"
        ) from error
    if not isinstance(value, kind):
        raise RecipeError(f"{flag} is {text!r}; expected such as {flag} '{example}'")
    return value


def environment_from_flags(env: str | None, env_kwargs: str, max_episode_steps: int | None) -> Environment | None:
    """The environment that a command's flags name, without a name if they only change one; None if they say nothing.

    Raises:
        RecipeError: for kwargs that are no JSON object, or a limit below 1.
    """
    kwargs = json_flag("--env-kwargs", env_kwargs, dict)
    if max_episode_steps is not None and max_episode_steps < 1:
        raise RecipeError(f"--max-episode-steps is {max_episode_steps}; expected at least 1")
    given = Environment(env or "", kwargs, max_episode_steps)
    return None if given == Environment("") else given
