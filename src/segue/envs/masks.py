"""Which discrete actions can be taken now, as an environment says in `info["action_mask"]` (PettingZoo's name)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from segue.core import Spaces
from segue.envs.make import make, spaces_of
from segue.envs.spec import Environment
from segue.errors import RecipeError

KEY = "action_mask"


def mask_of(
    info: Mapping[str, Any], spaces: Spaces, environment: str | Environment, over: bool = False
) -> Bool[np.ndarray, " actions"]:
    """Whether each action can be taken; all of them where the episode is `over` and nothing is said.

    Raises:
        RecipeError: if the mask is missing, has another shape or other values, or allows nothing.
    """
    mask = np.asarray(info.get(KEY, ()))
    if over and not mask.any():
        return np.ones(spaces.action_size, bool)
    if mask.shape != (spaces.action_size,) or not np.isin(mask, (0, 1)).all() or not mask.any():
        raise RecipeError(
            f"environment {str(environment)!r}: info[{KEY!r}] is {info.get(KEY)!r:.80}; expected {spaces.action_size} "
            "numbers, 1 for each action that can be taken, at least one of them, in every reset and step"
        )
    return mask.astype(bool)


def gives_masks(environment: str | Environment) -> bool:
    """Whether an environment says which actions can be taken: after a reset, as found out by making it."""
    env = make(environment)
    try:
        return spaces_of(env).discrete and KEY in env.reset(seed=0)[1]
    except Exception:  # a run says what an environment does wrong, and tolerates some of it
        return False
    finally:
        env.close()
