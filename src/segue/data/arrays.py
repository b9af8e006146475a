"""A dict of arrays, by D4RL's names; the other formats end here too."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from segue.data.dataset import Columns, listed
from segue.data.encoding import Encoding
from segue.envs.spec import Environment
from segue.errors import DataError, RecipeError

REQUIRED = ("observations", "actions", "terminals")
OPTIONAL = ("rewards", "timeouts", "next_observations", "behaviour_log_prob", "cost", "allowed_actions")
#: What a dataset may say about itself next to its columns.
METADATA = ("env_id", "env_spec", "action_low", "action_high", "discrete_actions", "encoding")
KNOWN = (*REQUIRED, *OPTIONAL, *METADATA)

#: What other libraries call the same columns.
FOREIGN = {
    "observations": ("observation", "obs", "states", "state"),
    "actions": ("action", "act"),
    "terminals": ("terminal", "terminations", "termination", "terminated"),
    "rewards": ("reward",),
    "timeouts": ("timeout", "truncations", "truncation", "truncated"),
    "next_observations": ("next_observation", "next_obs", "next_states", "next_state"),
    "behaviour_log_prob": ("behavior_log_prob",),
    "cost": ("costs", "infos/cost"),
    "allowed_actions": ("action_mask", "action_masks", "infos/action_mask"),
}
#: Episode ends of either kind.
EITHER = ("dones", "done", "dones_float", "episode_ends", "episode_terminals", "is_last")
#: Marks of first rows.
STARTS = ("episode_starts", "is_first")
#: A name this similar to a known one is taken for a misspelling of it.
MISSPELT = 0.85


def names(source: str, present: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The file's name of each column that is used, and notes. All other names are ignored, which is noted too.

    Besides `KNOWN` columns there may be `masks` (1 - terminal), `ends` (of either kind) and `starts` (first rows).

    Raises:
        DataError: a column is missing, a name looks misspelt, or nothing tells terminal states from time limits.
    """
    present = [str(name) for name in present]
    used = {name: name for name in (*KNOWN, "masks") if name in present}
    for name, others in FOREIGN.items():
        if name not in used and (there := [other for other in others if other in present]):
            used[name] = there[0]
    either, starts = ([name for name in group if name in present] for group in (EITHER, STARTS))
    if either and ("masks" in used or not {"terminals", "timeouts"} <= set(used)):
        used["ends"] = either[0]
    if starts and "timeouts" not in used:
        used["starts"] = starts[0]
    ignored = [name for name in present if name not in used.values()]
    for name in ignored:
        near = difflib.get_close_matches(name, [known for known in KNOWN if known not in used], n=1, cutoff=MISSPELT)
        if near:
            raise DataError(f"{source}: unknown column {name!r}: did you mean {near[0]!r}? {_expected(present)}")
    if "ends" in used and not {"masks", "terminals", "timeouts"} & set(used):
        raise DataError(
            f"{source}: '{used['ends']}' does not tell terminal states from time limits; store 'terminals' (1 in a "
            "true terminal state, where nothing follows) and 'timeouts' (1 where a limit cut the episode)"
        )
    told = {"terminals"} if {"masks", "ends"} & set(used) else set()
    require(source, {*used, *told}, present)
    notes = [f"'{other}' is read as '{name}'" for name, other in used.items() if name in KNOWN and other != name]
    if "masks" in used:
        marks = _names(used[name] for name in ("terminals", "ends") if name in used)
        notes.append(
            f"'masks' is 1 - terminal: 0 marks true terminals; {marks or 'nothing'} marks ends of trajectories"
        )
    elif "ends" in used and "terminals" in used:
        notes.append(f"'{used['ends']}' is a time-out where '{used['terminals']}' is not set")
    elif "ends" in used:
        notes.append(f"'{used['ends']}' is a terminal where '{used['timeouts']}' is not set")
    if "starts" in used:
        notes.append(f"'{used['starts']}' marks first rows: an episode ends in the row before each")
    if ignored:
        notes.append("ignored: " + listed([f"'{name}'" for name in sorted(ignored)]))
    return used, tuple(notes)


def read(named: Mapping[str, Any], source: str) -> Columns:
    """Columns from arrays with one row per step, by the names of `KNOWN` or `FOREIGN`. No other entry is looked at.

    Raises:
        DataError: a name that is missing or misspelt, ragged rows, or metadata that makes no sense.
    """
    used, notes = names(source, named)
    arrays: dict[str, Any] = {}
    for name, other in used.items():
        try:
            arrays[name] = _array(source, other, named[other])
        except DataError as error:
            if name != "cost":
                raise
            # Nobody asked for it, and learning does without it.
            notes += (f"left out: {str(error).removeprefix(f'{source}: ')}",)
    marks = [name for name in ("terminals", "ends", "timeouts") if name in arrays]
    if "masks" in arrays:
        flags = _flags(source, arrays, ["masks", *marks])
        arrays["terminals"] = ~flags[0]
        if marks:
            arrays["timeouts"] = np.any(flags[1:], axis=0) & flags[0]
    elif "ends" in arrays and "terminals" in arrays:
        ends, terminals = _flags(source, arrays, ["ends", "terminals"])
        arrays["timeouts"] = ends & ~terminals
    elif "ends" in arrays:
        ends, timeouts = _flags(source, arrays, ["ends", "timeouts"])
        arrays["terminals"] = ends & ~timeouts
    if "starts" in arrays:
        (starts,) = _flags(source, arrays, ["starts"])
        arrays["timeouts"] = np.append(starts[1:], True)
    return Columns(
        **{name: arrays[name] for name in (*REQUIRED, *OPTIONAL) if name in arrays},
        env_id=_text(source, arrays, "env_id"),
        env_spec=_env_spec(source, arrays),
        action_bounds=_action_bounds(source, arrays),
        discrete_actions=_discrete_actions(source, arrays),
        encoding=Encoding.from_json(source, str(arrays["encoding"])) if "encoding" in arrays else None,
        notes=notes,
    )


def _flags(source: str, arrays: Mapping[str, np.ndarray], wanted: Sequence[str]) -> list[np.ndarray]:
    """These columns as one bool per row, all of one length."""
    flags = [arrays[name].reshape(-1) for name in wanted]
    for name, flag in zip(wanted, flags, strict=True):
        if flag.dtype.kind not in "fiub" or len(flag) != len(flags[0]) or not ((flag == 0) | (flag == 1)).all():
            raise DataError(
                f"{source}: the column of {name} holds {flag.dtype} of shape {arrays[name].shape}; expected 0 or 1 in "
                f"each of {len(flags[0]):,} rows"
            )
    return [flag.astype(bool) for flag in flags]


def require(source: str, found: Iterable[str], present: Iterable[str]) -> None:
    """Say which required columns are missing and what is `present` instead.

    Raises:
        DataError: if any of `REQUIRED` is not in `found`.
    """
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise DataError(f"{source}: missing {_names(missing)}; {_expected(present)}")


def _expected(present: Iterable[str]) -> str:
    return f"there is {_names(present) or 'nothing'}; expected {_names(REQUIRED)}, and where known {_names(OPTIONAL)}"


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
