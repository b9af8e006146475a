"""Spaces as plain data: how an observation is flattened, and what the environment takes as an action.

An observation space is a dict of JSON: its Gymnasium type and what flattening it needs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from segue.errors import SegueError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Space = dict[str, Any]


def flat_size(space: Space) -> int:
    """Numbers in a flattened observation."""
    match space["type"]:
        case "Box" | "MultiBinary":
            return math.prod(space["shape"])
        case "Discrete":
            return int(space["n"])
        case "MultiDiscrete":
            return int(np.sum(space["nvec"]))
        case "Tuple":
            return sum(map(flat_size, space["spaces"]))
        case "Dict":
            return sum(flat_size(part) for _, part in space["spaces"])
        case other:
            raise ValueError(f"the observation space is of type {other!r}")


def flatten(space: Space, observation: Any) -> Float[np.ndarray, "*batch observation"]:
    """An observation (or a batch) as Gymnasium's `flatten` has it, float32; one that is already flat as it is.

    Raises:
        SegueError: if it is not of that space.
    """
    if space["type"] == "Box" and len(space["shape"]) == 1:  # the usual case, by the shortest way
        return _leaf(observation, tuple(space["shape"]), "the observation")
    if isinstance(observation, np.ndarray) and _is_flat(space, observation):
        return observation.astype(np.float32)
    return _flatten(space, observation, "the observation")


def _is_flat(space: Space, observation: np.ndarray) -> bool:
    shape = tuple(space.get("shape", ()))
    if shape and observation.shape[-len(shape) :] == shape:
        return False  # the environment's own form goes first
    if space["type"] in ("Discrete", "MultiDiscrete") and observation.dtype.kind != "f":
        return False
    return observation.shape[-1:] == (flat_size(space),)


def _flatten(space: Space, value: Any, what: str) -> Float[np.ndarray, "*batch observation"]:
    match space["type"]:
        case "Box" | "MultiBinary":
            shape = tuple(space["shape"])
            array = _leaf(value, shape, what)
            return array.reshape(*array.shape[: array.ndim - len(shape)], -1)
        case "Discrete":
            return _one_hot(value, np.array(space["n"]), np.array(space["start"]), what)
        case "MultiDiscrete":
            return _one_hot(value, np.array(space["nvec"]), np.array(space["start"]), what)
        case "Tuple":
            if not isinstance(value, tuple | list) or len(value) != len(space["spaces"]):
                raise SegueError(f"{what} is {_words(value)}; expected a tuple of {len(space['spaces'])} parts")
            parts = [_flatten(part, value[i], f"{what}[{i}]") for i, part in enumerate(space["spaces"])]
        case _:
            names = [name for name, _ in space["spaces"]]
            if not isinstance(value, Mapping) or set(value) != set(names):
                raise SegueError(f"{what} is {_words(value)}; expected a dictionary of {', '.join(names)}")
            parts = [_flatten(part, value[name], f"{what}[{name!r}]") for name, part in space["spaces"]]
    if len({part.shape[:-1] for part in parts}) > 1:
        raise SegueError(f"{what} has parts of different batch sizes: {[part.shape[:-1] for part in parts]}")
    return np.concatenate(parts, axis=-1)


def _leaf(value: Any, shape: tuple[int, ...], what: str) -> Float[np.ndarray, "..."]:
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError, OverflowError):
        raise SegueError(f"{what} is {_words(value)}; expected numbers of shape {_shape(shape)}") from None
    if array.shape[array.ndim - len(shape) :] != shape or array.ndim < len(shape):
        raise SegueError(f"{what} has shape {array.shape}; expected {_shape(shape)}")
    return array


def _one_hot(
    value: Any, counts: Int[np.ndarray, "..."], start: Int[np.ndarray, "..."], what: str
) -> Float[np.ndarray, "*batch one_hot"]:
    array = np.asarray(value)
    if (
        array.dtype.kind not in "iub"
        or array.ndim < counts.ndim
        or array.shape[array.ndim - counts.ndim :] != counts.shape
    ):
        raise SegueError(f"{what} is {_words(value)}; expected whole numbers of shape {_shape(counts.shape)}")
    index = array.astype(np.int64) - start
    if ((index < 0) | (index >= counts)).any():
        raise SegueError(f"{what} is {_words(value)}; expected numbers from {start} to {start + counts - 1}")
    index = index.reshape(*index.shape[: index.ndim - counts.ndim], -1)
    flat = counts.ravel()
    first = np.cumsum(flat) - flat
    hot = np.zeros((*index.shape[:-1], int(flat.sum())), np.float32)
    np.put_along_axis(hot, index + first, 1, axis=-1)
    return hot


def _shape(shape: tuple[int, ...]) -> str:
    return f"{shape}, or with batch axes before it"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dictionary of {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} with shape {value.shape}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


@dataclasses.dataclass(frozen=True)
class ContinuousActions:
    """A box with finite bounds, which networks see as [-1, 1]."""

    low: Float[np.ndarray, " action"]
    high: Float[np.ndarray, " action"]

    @property
    def size(self) -> int:
        """Dimensions."""
        return len(self.low)

    @property
    def centre(self) -> Float[np.ndarray, " action"]:
        """Where -1 and 1 meet; halved first, so that the largest bounds do not overflow."""
        return self.low / 2 + self.high / 2

    @property
    def half_range(self) -> Float[np.ndarray, " action"]:
        """From the centre to a bound."""
        return self.high / 2 - self.low / 2


@dataclasses.dataclass(frozen=True)
class DiscreteActions:
    """Whole numbers from `start`, which networks count from 0."""

    size: int
    """How many."""
    start: int = 0
    """The first."""


Actions = ContinuousActions | DiscreteActions
