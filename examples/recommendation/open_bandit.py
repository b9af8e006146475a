"""Open Bandit: what one log of real clicks says of another policy, beside what the other policy's log says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest

import segue
from segue.data.dataset import Dataset
from segue.ope import FQE, DiscretePolicy, OfflineEvaluation, evaluate_offline

ITEMS, POSITIONS = 34, 3
#: The first gives the verdict; it is chosen before anything is seen.
METHODS = ("pdis", "wpdis", "dr", "fqe")


def uniform(observation: Float[np.ndarray, "rows observation"]) -> Float[np.ndarray, "rows items"]:
    """The random policy: every item equally often."""
    return np.full((len(observation), ITEMS), 1 / ITEMS)


def read(folder: Path, name: str) -> Dataset:
    """One log: an impression is an episode of one step, its observation is the position (1 to 3) on the page."""
    return segue.load(
        segue.Table(
            folder / f"{name}-men.csv",
            episode="row",
            step="timestamp",
            observation="position",
            action="item_id",
            reward="click",
            propensity="propensity_score",
            terminal="end",
            discrete=ITEMS,
        )
    )


def by_position(table: Float[np.ndarray, "positions items"]) -> DiscretePolicy:
    """A policy that only looks at the position."""
    return DiscretePolicy(lambda observation: table[observation[:, 0].astype(int) - 1])


def shown(log: Dataset) -> Float[np.ndarray, "positions items"]:
    """How often a log shows each item at each position: its policy, averaged over its week. Clicks play no part."""
    count = np.zeros((POSITIONS, ITEMS))
    np.add.at(count, (log.observations[:, 0].astype(int) - 1, log.actions), 1)
    return count / count.sum(1, keepdims=True)


def go(folder: Path, out: Path, steps: int, seed: int) -> list[dict[str, Any]]:
    """Three questions to the logs; the answers are kept in `out/open-bandit.json`.

    Args:
        folder: with `bts-men.csv` and `random-men.csv`.
        out: where results go.
        steps: updates of fitted Q evaluation.
        seed: of fits and resamples.
    """
    bts, random = read(folder, "bts"), read(folder, "random")
    thompson = shown(bts)
    rarest = np.eye(ITEMS)[thompson.argmin(1)]
    asked = [
        ("random, from the bts log", DiscretePolicy(uniform), bts, random),
        ("bts, from the random log", by_position(thompson), random, bts),
        ("the items that bts shows least, from the bts log", by_position(rarest), bts, None),
    ]
    found = [_answer(name, policy, log, truth, steps, seed) for name, policy, log, truth in asked]
    out.mkdir(parents=True, exist_ok=True)
    (out / "open-bandit.json").write_text(json.dumps(found, indent=1))
    return found


def _answer(
    name: str, policy: DiscretePolicy, log: Dataset, other: Dataset | None, steps: int, seed: int
) -> dict[str, Any]:
    result: OfflineEvaluation = evaluate_offline(policy, log, methods=METHODS, fqe=FQE(steps=steps), seed=seed)
    return {
        "question": name,
        "impressions": len(log),
        "log": _rate(log),
        "truth": None if other is None else _rate(other),
        **{name: part for name, part in result.to_dict().items() if name in ("estimates", "verdict")},
    }


def _rate(log: Dataset) -> dict[str, float]:
    """Clicks per impression with an exact 95 % interval."""
    clicks = int(log.rewards.sum())
    low, high = binomtest(clicks, len(log)).proportion_ci()
    return {"rate": clicks / len(log), "low": float(low), "high": float(high)}
