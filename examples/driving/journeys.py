"""Journeys: many episodes side by side, and what a driver is judged by beside the return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from examples.driving.roads import Track
from jaxtyping import Float, Int

#: Chooses an action in each of these environments, by what they show and the environments themselves.
Drive = Callable[[Float[np.ndarray, "roads observation"], Sequence[Any]], Int[np.ndarray, " roads"]]
#: Time gaps below this many seconds are close.
CLOSE = 1.0
DRAWS = 2000


class Journey(NamedTuple):
    """An episode."""

    value: float
    """Return."""
    crashed: bool
    metres: float
    seconds: int
    close: int
    """Seconds with a time gap to the vehicle ahead below CLOSE."""
    jerk: float
    """Sum of squares of the jerk, in m²/s⁶, over the seconds: its mean is that of the simulation's frames."""


def drive(drives: Drive, seeds: Sequence[int]) -> list[Journey]:
    """One episode in the traffic of each seed."""
    roads = [Track() for _ in seeds]
    seen = [road.reset(seed=seed)[0] for road, seed in zip(roads, seeds, strict=True)]
    start = [float(road.driven.vehicle.position[0]) for road in roads]
    sums = np.zeros((len(roads), 4))
    over: dict[int, Journey] = {}
    while running := [i for i in range(len(roads)) if i not in over]:
        actions = drives(np.array(seen), roads)
        for i in running:
            seen[i], reward, terminated, truncated, info = roads[i].step(int(actions[i]))
            jerk = info["jerk"]
            sums[i] += reward, 1, info["time_gap"] < CLOSE, np.mean(jerk**2) if len(jerk) else 0.0
            if terminated or truncated:
                value, seconds, close, squares = sums[i].tolist()
                metres = info["x"] - start[i]
                over[i] = Journey(value, bool(info["crashed"]), metres, int(seconds), int(close), squares)
    return [over[i] for i in range(len(roads))]


def measures(journeys: Float[np.ndarray, "... 6"]) -> dict[str, Float[np.ndarray, ...]]:
    """What a set of journeys comes to, over the last axis but one: ratios of sums, so that long ones weigh more."""
    value, crashed, metres, seconds, close, squares = np.moveaxis(journeys.sum(-2), -1, 0)
    return {
        "return": value / journeys.shape[-2],
        "crashes per 100 km": crashed / metres * 1e5,
        "km/h": metres / seconds * 3.6,
        f"time gap < {CLOSE:g} s, %": close / seconds * 100,
        "jerk, m/s³": np.sqrt(squares / seconds),
    }


def with_intervals(
    journeys: Float[np.ndarray, "runs seeds 6"], of: Any = None
) -> dict[str, tuple[float, float, float]]:
    """Each measure with its 95 % interval; of the difference to the journeys `of` in the same traffic, if given.

    A bootstrap of traffic seeds and of runs: the same draws of traffic for both, as they are paired.
    """
    source, seeds = np.random.default_rng(0), journeys.shape[1]
    traffic = source.integers(seeds, size=(DRAWS, seeds))

    def drawn(table: np.ndarray) -> dict[str, np.ndarray]:
        chosen = source.integers(len(table), size=(DRAWS, len(table)))
        again = np.stack([table[run][:, one].reshape(-1, 6) for run, one in zip(chosen, traffic, strict=True)])
        return measures(again)

    found, spread = measures(journeys.reshape(-1, 6)), drawn(journeys)
    if of is not None:
        theirs, theirs_spread = measures(of.reshape(-1, 6)), drawn(of)
        found = {name: found[name] - theirs[name] for name in found}
        spread = {name: spread[name] - theirs_spread[name] for name in spread}
    ends = {name: np.nanquantile(spread[name], (0.025, 0.975)) for name in found}
    return {name: (float(value), float(ends[name][0]), float(ends[name][1])) for name, value in found.items()}
