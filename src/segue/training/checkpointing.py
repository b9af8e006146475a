"""Where a loop stands: everything it needs to go on as if it had never stopped, and who keeps that.

A loop calls `checkpointer.due()` where its state is whole, and `checkpointer.save(position)` if it is; a loop that is
given a `position` goes on from it. What is saved, and when, changes nothing of what the loop computes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from segue.core import Learner
from segue.errors import SegueError
from segue.replay.replay_log import ReplayLog


@dataclasses.dataclass(frozen=True)
class Position:
    """The whole state of a loop at one step."""

    step: int
    learners: dict[str, Learner]
    """`learner`, and those that it may be rolled back to."""
    plain: dict[str, Any]
    """Counters, generators and unfinished episodes, as JSON has them."""
    arrays: dict[str, np.ndarray]
    """The same, where it is arrays."""
    rows: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Live transitions that the replay still held, in a position to go on from; a checkpointer saves them by its
    replay log."""


@runtime_checkable
class Checkpointer(Protocol):
    """Saves positions."""

    @property
    def replay_log(self) -> ReplayLog | None:
        """Is told what goes into the replay, if anybody is."""

    def due(self) -> bool:
        """Whether this is a moment to save."""

    def save(self, position: Position) -> None:
        """Save, and raise KeyboardInterrupt if the process was asked to stop."""


class NoCheckpoints:
    """Keeps nothing."""

    replay_log = None

    def due(self) -> bool:
        """Never."""
        return False

    def save(self, position: Position) -> None:
        """Nothing."""


NO_CHECKPOINTS = NoCheckpoints()


def flatten(learner: Learner) -> dict[str, np.ndarray]:
    """Every array of a learner by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(learner)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def unflatten(skeleton: Learner, arrays: Mapping[str, np.ndarray]) -> Learner:
    """The learner that `flatten` took apart, on the device; `skeleton` is one of the same structure.

    Raises:
        SegueError: if the arrays are those of another structure.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(skeleton)
    names = [jax.tree_util.keystr(path) for path, _ in paths]
    if set(names) != set(arrays):
        differ = sorted(set(names) ^ set(arrays))
        raise SegueError(f"the learner is built differently ({differ[0]} is on one side only)")
    # Copies: the device must own what an update will overwrite.
    return jax.tree.unflatten(structure, [jax.numpy.array(arrays[name]) for name in names])


def generator_state(source: np.random.Generator) -> dict[str, Any]:
    """Where a generator stands, as JSON has it."""
    return dict(source.bit_generator.state)


def restore_generator(source: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Put a generator where it stood."""
    source.bit_generator.state = dict(state)
