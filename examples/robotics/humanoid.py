"""A humanoid's log in LeRobot's format: cloned, exported, and the exported policy judged on an unseen episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from studies.command import whole

import segue
from segue.data import npz
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
        place = out / f"without-{left_out}"
        file = place / "known.npz"
        if not file.exists():
            place.mkdir(parents=True, exist_ok=True)
            npz.write(str(file), known.in_units())
        recipe = segue.Recipe(
            dataset=f"npz:{file}",
            env="none",
            offline=segue.BC(hidden_sizes=(256, 256)),
            offline_steps=updates,
            held_out=0.0,
            seeds=seeds,
        )
        result = whole(segue.run(recipe, place / "run", workers=1, progress=True))
        own = []
        for seed in map(int, result.summary["arms"]["run"]["seeds"]):
            exported = place / f"policy-{seed}"
            if not exported.exists():
                segue.export_policy(result.checkpoint(seed=seed), exported)
            own.append(segue.load_policy(exported)(unseen.observations))
        found = {"exported policy": own, **references(known, unseen)}
        for name, predictions in found.items():
            for part, joints in parts.items():
                wrong = np.abs([one - unseen.in_units().actions for one in predictions])[..., joints]
                errors[part].setdefault(name, []).append(round(float(wrong.mean()), 5))
    return {
        "episodes": episodes,
        "steps": len(dataset),
        "joints": {part: int(joints.sum()) for part, joints in parts.items()},
        "updates": updates,
        "seeds": seeds,
        "errors": errors,
    }


def references(known: Dataset, unseen: Dataset) -> dict[str, list[Float[np.ndarray, "steps action"]]]:
    """What needs no learning: the mean action, that of the nearest logged state, the measured joints, the last action.

    The robot has an action per joint of its state, in the same order and unit.
    """
    normaliser, actions, taken = known.normaliser(), known.in_units().actions, unseen.in_units().actions
    logged, asked = normaliser(known.observations), normaliser(unseen.observations)
    nearest = np.argmin(((asked[:, None] - logged[None]) ** 2).sum(-1), axis=1)
    return {
        "mean action": [np.broadcast_to(actions.mean(0), taken.shape)],
        "action of the nearest logged state": [actions[nearest]],
        "measured joints": [unseen.observations],
        "action of the step before": [np.concatenate([taken[:1], taken[:-1]])],
    }
