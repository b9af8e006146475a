"""A humanoid's log in LeRobot's format: cloned, exported, and the exported policy judged on an unseen episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

import segue
from segue.data.dataset import Dataset


def run(log: Path, out: Path, full: bool) -> dict[str, Any]:
    """Leave one episode out, clone the others, export, and compare its actions with those of the episode left out.

    Args:
        log: a LeRobot folder.
        out: where runs and exported policies go.
        full: more updates and seeds.

    Returns:
        For arms and hands, per way of predicting the action: the mean absolute error in the unit of the log, for each
        episode that was left out. Errors of the policies are means over their seeds.

    Raises:
        SegueError: as `segue.run`, `segue.export_policy` and `segue.load_policy` do.
    """
    dataset = segue.load(f"lerobot:{log}")
    episodes, updates = len(dataset.episode_starts), 20_000 if full else 2_000
    seeds = 5 if full else 2
    assert dataset.encoding is not None
    hands = np.array(["Hand" in name for name in dataset.encoding.actions])
    parts = {"arms": ~hands, "hands": hands}
    errors: dict[str, dict[str, list[float]]] = {part: {} for part in parts}
    for left_out in range(episodes):
        known = dataset.episodes(np.setdiff1d(np.arange(episodes), [left_out]))
        unseen = dataset.episodes(np.array([left_out]))
        recipe = segue.Recipe(
            dataset=known,
            env="none",
            offline=segue.BC(hidden_sizes=(256, 256)),
            offline_steps=updates,
            held_out=0.0,
            seeds=seeds,
        )
        place = out / f"without-{left_out}"
        result = segue.run(recipe, place / "run", workers=1)
        own = []
        for seed in map(int, result.summary["arms"]["run"]["seeds"]):
            exported = place / f"policy-{seed}"
            if not exported.exists():
                segue.export_policy(result.checkpoint(seed=seed), exported)
            own.append(segue.load_policy(exported)(unseen.observations))
        found = {"exported policy": own, **references(known, unseen)}
        for name, predictions in found.items():
            for part, joints in parts.items():
                wrong = [
                    np.abs(in_unit(known, p) - in_unit(known, unseen.actions))[:, joints].mean() for p in predictions
                ]
                errors[part].setdefault(name, []).append(round(float(np.mean(wrong)), 5))
    return {
        "episodes": episodes,
        "steps": len(dataset),
        "joints": {part: int(joints.sum()) for part, joints in parts.items()},
        "updates": updates,
        "seeds": seeds,
        "errors": errors,
    }


def references(known: Dataset, unseen: Dataset) -> dict[str, list[Float[np.ndarray, "steps action"]]]:
    """What needs no learning, as scaled actions: the mean action, those of the nearest logged state and of the step
    before, and the measured joints. The robot has an action per joint of its state, in the same order."""
    assert known.action_bounds is not None
    low, high = known.action_bounds
    normaliser = known.normaliser()
    logged, asked = normaliser(known.observations), normaliser(unseen.observations)
    nearest = np.argmin(((asked[:, None] - logged[None]) ** 2).sum(-1), axis=1)
    return {
        "mean action": [np.broadcast_to(known.actions.mean(0), unseen.actions.shape)],
        "action of the nearest logged state": [known.actions[nearest]],
        "measured joints": [2 * (unseen.observations - low) / (high - low) - 1],
        "action of the step before": [np.concatenate([unseen.actions[:1], unseen.actions[:-1]])],
    }


def in_unit(dataset: Dataset, action: Float[np.ndarray, "steps action"]) -> Float[np.ndarray, "steps action"]:
    """Scaled actions in the unit of the log."""
    assert dataset.action_bounds is not None
    low, high = dataset.action_bounds
    return low + (action + 1) / 2 * (high - low)
