"""The replay log: what has happened to the ring since it was last written down, so that a save costs what is new.

A part of the replay log is the transitions that came in, and the columns that became known later. The parts in
their order make the ring again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import numpy as np

from segue.core import Transition
from segue.replay.base import Replay

#: The columns of a live transition; the others are of on-policy batches.
COLUMNS = Transition._fields[:11]


class ReplayLog:
    """Collects on the host what goes into the ring."""

    def __init__(self) -> None:
        self.batches: list[Transition] = []
        self.amended: list[tuple[str, np.ndarray, np.ndarray]] = []

    def append(self, batch: Transition) -> None:
        """These transitions came in."""
        self.batches.append(batch)

    def amend(self, column: str, numbers: np.ndarray, values: np.ndarray) -> None:
        """This column of the transitions with these numbers became known."""
        self.amended.append((column, numbers, values))

    def take(self) -> dict[str, np.ndarray]:
        """The part since the last call, by name."""
        part: dict[str, np.ndarray] = {}
        if self.batches:
            whole: Transition = jax.tree.map(lambda *columns: np.concatenate(columns), *self.batches)
            part = {name: getattr(whole, name) for name in COLUMNS if getattr(whole, name) is not None}
        for column in {column for column, _, _ in self.amended}:
            pairs = [(numbers, values) for name, numbers, values in self.amended if name == column]
            numbers, values = (np.concatenate(side) for side in zip(*pairs, strict=True))
            part |= {f"{column}.numbers": numbers, f"{column}.values": values}
        self.batches, self.amended = [], []
        return part


def assemble(parts: Iterable[tuple[int, Mapping[str, np.ndarray]]]) -> dict[str, np.ndarray]:
    """The transitions of consecutive parts (number of the first transition, part) with what became known later.

    Returns:
        Columns, and under `first` the number of the first transition.
    """
    kept = list(parts)
    whole = {
        name: np.concatenate([part[name] for _, part in kept if name in part])
        for name in COLUMNS
        if any(name in part for _, part in kept)
    }
    if not whole:
        return {}
    first = kept[0][0]
    for _, part in kept:
        for name in COLUMNS:
            if f"{name}.numbers" in part:
                rows = part[f"{name}.numbers"] - first
                whole[name][rows[rows >= 0]] = part[f"{name}.values"][rows >= 0]
    return {**whole, "first": np.asarray(first)}


def refill(replay: Replay, rows: Mapping[str, np.ndarray]) -> Replay:
    """The replay with the ring as it was, from transitions that include all it held."""
    if not rows:
        return replay
    assert replay.online is not None
    first, capacity = int(rows["first"]), replay.capacity
    count = first + len(rows["reward"])
    numbers = np.arange(max(first, count - capacity), count)

    def column(name: str) -> jax.Array:
        ring = np.array(getattr(replay.online, name))
        ring[numbers % capacity] = rows[name][numbers - first]
        return jax.numpy.array(ring)

    ring = Transition(**{name: column(name) for name in COLUMNS if getattr(replay.online, name) is not None})
    return dataclasses.replace(replay, online=ring, count=jax.numpy.asarray(count, replay.count.dtype))
