"""The cost of a step: a safety signal that an environment reports in `info`, such as `cost` or `crashed`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from segue.envs.make import make
from segue.envs.spec import Environment
from segue.errors import RecipeError, unknown


def cost_of(info: Mapping[str, Any], key: str, environment: str | Environment) -> float:
    """The number under this key; a truth value is 0 or 1.

    Raises:
        RecipeError: if `info` lacks the key, with the keys that it has, or holds something else there.
    """
    where = f"environment {str(environment)!r}"
    if key not in info:
        raise RecipeError(f"cost: {where}: {unknown('key of info', key, map(str, info))}")
    value = np.asarray(info[key])
    if value.size != 1 or value.dtype.kind not in "fiub" or not np.isfinite(value).all():
        raise RecipeError(f"cost: {where}: info[{key!r}] is {info[key]!r:.80}; expected one finite number per step")
    return float(value.item())


def require_cost(environment: str | Environment, key: str) -> None:
    """Take one step, to see that the environment reports the cost.

    Raises:
        RecipeError: if it does not.
    """
    env = make(environment)
    try:
        env.reset(seed=0)
        env.action_space.seed(0)
        info = env.step(env.action_space.sample())[-1]
    except Exception:  # a run says what an environment does wrong, and tolerates some of it
        return
    finally:
        env.close()
    cost_of(info, key, environment)
