"""A dict of arrays, by D4RL's names; the other formats end here too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from segue.data.dataset import Columns
from segue.envs.spec import Environment
from segue.errors import DataError, RecipeError, unknown

REQUIRED = ("observations", "actions", "rewards", "terminals")
OPTIONAL = ("timeouts", "next_observations", "behaviour_log_prob")
#: What a dataset may say about itself next to its columns.
METADATA = ("env_id", "env_spec", "action_low", "action_high", "discrete_actions")


def read(named: Mapping[str, Any], source: str) -> Columns:
    """Columns from arrays with one row per step: `REQUIRED`, `OPTIONAL` and `METADATA` names.

    Raises:
        DataError: a name that is missing or unknown, ragged rows, or metadata that makes no sense.
    """
    require(source, named)
    for name in named:
        if name not in (*REQUIRED, *OPTIONAL, *METADATA):
            raise DataError(f"{source}: {unknown('column', name, (*REQUIRED, *OPTIONAL, *METADATA))}")
    arrays = {name: _array(source, name, value) for name, value in named.items()}
    return Columns(
        **{name: arrays[name] for name in (*REQUIRED, *OPTIONAL) if name in arrays},
        env_id=_text(source, arrays, "env_id"),
        env_spec=_env_spec(source, arrays),
        action_bounds=_action_bounds(source, arrays),
        discrete_actions=_discrete_actions(source, arrays),
    )


def require(source: str, present: Iterable[str]) -> None:
    """Say which required columns are missing and what is there instead.

    Raises:
        DataError: if any of `REQUIRED` is not in `present`.
    """
    present = list(present)
    missing = [name for name in REQUIRED if name not in present]
    if missing:
        raise DataError(
            f"{source}: missing {_names(missing)}; there is {_names(present) or 'nothing'}; expected "
            f"{_names(REQUIRED)}, and where known {_names(OPTIONAL)}"
        )


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _array(source: str, name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise DataError(f"{source}: '{name}' is not an array ({error}); expected rows of equal length") from error


def _text(source: str, arrays: Mapping[str, np.ndarray], name: str) -> str | None:
    if name not in arrays:
        return None
    array = arrays[name]
    if array.ndim != 0 or array.dtype.kind != "U":
        raise DataError(f"{source}: {name!r} holds {array.dtype} of shape {array.shape}; expected one string")
    return str(array)


def _env_spec(source: str, arrays: Mapping[str, np.ndarray]) -> str | None:
    text = _text(source, arrays, "env_spec")
    try:
        if text is not None:
            Environment.read(json.loads(text))
    except (ValueError, RecursionError, RecipeError) as error:
        raise DataError(f"{source}: 'env_spec' is not the JSON of an environment ({error})") from error
    return text


def _action_bounds(source: str, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    bounds = [name for name in ("action_low", "action_high") if name in arrays]
    if not bounds:
        return None
    if len(bounds) == 1:
        raise DataError(f"{source}: there is '{bounds[0]}' alone; expected both 'action_low' and 'action_high'")
    for name in bounds:
        if arrays[name].dtype.kind not in "fiu":
            raise DataError(f"{source}: '{name}' holds {arrays[name].dtype}; expected one number per action dimension")
    return arrays["action_low"], arrays["action_high"]


def _discrete_actions(source: str, arrays: Mapping[str, np.ndarray]) -> int | None:
    if "discrete_actions" not in arrays:
        return None
    array = arrays["discrete_actions"]
    if array.ndim != 0 or array.dtype.kind not in "iu" or array < 1:
        raise DataError(f"{source}: 'discrete_actions' is {array}; expected the number of actions, 1 or more")
    return int(array)
