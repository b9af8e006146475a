"""What a seed's record says of its evaluations: curves, and the returns of the episodes behind every point of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Curve = tuple[Array, Array]
"""`(steps [n], returns [n])`: steps ascending, and the mean return of the evaluation made there."""


def curve(evaluations: Sequence[Mapping[str, Any]]) -> Curve:
    """In order of step; evaluations without a finite mean are left out."""
    points = [(float(e["step"]), float(e["mean_return"])) for e in _usable(evaluations)]
    steps, returns = np.asarray(points, dtype=float).reshape(-1, 2).T
    return steps, returns


def score(seed: Mapping[str, Any], name: str = "offline_score") -> float:
    """A number of the seed's record; NaN where there is none."""
    value = seed.get(name)
    return math.nan if value is None else float(value)


def online_curve(seed: Mapping[str, Any]) -> Curve:
    """The online curve of one seed, from its offline score if it has one and step 0 was not evaluated."""
    steps, returns = curve(seed.get("online_evaluations") or ())
    if _begins_offline(seed, steps):
        return np.concatenate([[0.0], steps]), np.concatenate([[score(seed)], returns])
    return steps, returns


def online_episodes(seed: Mapping[str, Any]) -> list[Array]:
    """The episodes' returns behind every point of `online_curve`; empty arrays where they are not known.

    Behind an offline score that was not measured again at step 0 is the last evaluation of the offline phase.
    """
    online = _usable(seed.get("online_evaluations") or ())
    if _begins_offline(seed, curve(online)[0]):
        last = _usable(seed.get("offline_evaluations") or ())[-1:]
        online = [*(last or [{}]), *online]
    return [np.asarray(e.get("returns") or (), dtype=float) for e in online]


def _usable(evaluations: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    finite = [e for e in evaluations if e.get("mean_return") is not None and math.isfinite(e["mean_return"])]
    return sorted(finite, key=lambda e: float(e["step"]))


def _begins_offline(seed: Mapping[str, Any], steps: Array) -> bool:
    return math.isfinite(score(seed)) and (not steps.size or steps[0] > 0)
