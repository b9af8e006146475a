"""Several datasets as one: `A@0.7 + B@0.3`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from segue.data.dataset import Dataset
from segue.errors import Checked, DataError

#: Between the parts of a mixture's text.
PLUS = " + "


@dataclasses.dataclass(frozen=True)
class Mixture(Checked):
    """Datasets with equal spaces, and the share of samples that each of them gives.

    Args:
        parts: datasets as `segue.load` takes them.
        weights: shares of the samples, one per part, in any unit; None draws every transition equally often.

    Raises:
        DataError: if there are no parts, or the weights are not one positive number per part.
    """

    parts: Sequence[Any]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not self.parts:
            raise DataError("a mixture has no parts; expected one dataset or more")
        if self.weights is None:
            return
        if len(self.weights) != len(self.parts):
            raise DataError(
                f"a mixture has {len(self.parts)} datasets and {len(self.weights)} weights; expected one weight each"
            )
        if not all(isinstance(weight, int | float | np.number) and 0 < weight < math.inf for weight in self.weights):
            raise DataError(f"the weights of a mixture are {list(self.weights)}; expected numbers above 0")

    def text(self, names: Sequence[str]) -> str:
        """The mixture as one line, its parts by these names.

        Raises:
            DataError: if a name would be read as two.
        """
        for name in names:
            if PLUS in name:
                raise DataError(
                    f"{name}: {PLUS!r} separates the parts of a mixture; rename that file, or list the parts of a "
                    "mixture within the mixture one by one"
                )
        weights = [""] * len(names) if self.weights is None else [f"@{float(weight):.12g}" for weight in self.weights]
        return PLUS.join(name + weight for name, weight in zip(names, weights, strict=True))

    @classmethod
    def parse(cls, text: str) -> Mixture:
        """The mixture of `text`.

        Raises:
            DataError: if only some parts have weights.
        """
        names, weights = [], []
        for part in text.split(PLUS):
            name, at, weight = part.strip().rpartition("@")
            try:
                weights.append(float(weight) if at else None)
            except ValueError:  # an @ of the name
                weights.append(None)
            names.append(part.strip() if weights[-1] is None else name)
        given = [weight for weight in weights if weight is not None]
        if given and len(given) < len(weights):
            raise DataError(f"{text}: some parts have a weight (@0.7) and others none; give every part one, or none")
        return cls(names, given or None)


def has_weights(source: Any) -> bool:
    """Whether a dataset is a mixture whose parts have weights."""
    if isinstance(source, str) and PLUS in source:
        source = Mixture.parse(source)
    return isinstance(source, Mixture) and source.weights is not None


def combined(parts: Sequence[Dataset], weights: Sequence[float] | None, source: str) -> Dataset:
    """The parts one after the other.

    Raises:
        DataError: naming both, if two differ in their spaces, environment, or in what their numbers mean.
    """
    parts = [part.in_memory() for part in parts]
    first = parts[0]
    for part in parts[1:]:
        for what, ours, theirs in (
            ("spaces", first.spaces.describe(), part.spaces.describe()),
            ("environments", first.env_id, part.env_id),
            ("columns", first.encoding and first.encoding.to_json(), part.encoding and part.encoding.to_json()),
        ):
            if ours != theirs and None not in (ours, theirs):
                raise DataError(
                    f"{first.source} and {part.source} have different {what}: {ours} and {theirs}; expected equal ones"
                )
        if first.bounds_known != part.bounds_known:
            known, other = (first, part) if first.bounds_known else (part, first)
            raise DataError(
                f"{known.source} names the bounds of its actions, {other.source} does not; expected both to: give the "
                "second one action_low and action_high"
            )
    bounds = [part.action_bounds and [bound.tolist() for bound in part.action_bounds] for part in parts]
    alike = all(own == bounds[0] for own in bounds)
    named = next((part for part in parts if part.env_id is not None), first)
    notes = [f"{part.source}: {note}" for part in parts for note in part.notes]
    optional: dict[str, Any] = {}
    for name, words in (
        ("behaviour_log_prob", "propensities"),
        ("cost", "costs"),
        ("allowed_actions", "allowed actions"),
    ):
        lost = [part.source for part in parts if getattr(part, name) is None]
        optional[name] = None if lost else np.concatenate([getattr(part, name) for part in parts])
        if lost and len(lost) < len(parts):
            notes.append(f"{words} are left out: {', '.join(lost)} has none")
    offsets = np.cumsum([0, *map(len, parts)])
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("observations", "actions", "rewards", "next_observations", "terminals")
    }
    return dataclasses.replace(
        first,
        **joined,
        **optional,
        episode_starts=np.concatenate(
            [part.episode_starts + offset for part, offset in zip(parts, offsets, strict=False)]
        ),
        source=source,
        action_bounds=first.action_bounds if alike else None,
        env_id=named.env_id,
        env_spec=named.env_spec,
        encoding=next((part.encoding for part in parts if part.encoding is not None), None),
        notes=tuple(notes),
        part_of_episode=np.repeat(np.arange(len(parts)), [len(part.episode_starts) for part in parts]),
        part_weights=() if weights is None else tuple(float(weight) / math.fsum(weights) for weight in weights),
    )
