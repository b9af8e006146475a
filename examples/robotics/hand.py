"""A hand that opens a door: cloning and FQL from human demonstrations, judged in `AdroitHandDoor-v1`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from examples.robotics.trials import trials
from studies.command import whole
from studies.processes import pool

import segue
from segue.envs import Environment

DOOR = Environment("gymnasium_robotics:AdroitHandDoor-v1")
#: Demonstrations take up to 300 steps, the registered time limit is 200: both are tried.
PATIENT = DOOR.changed(Environment("", {}, 300))
SUCCESS, TRIAL_SEED = "success", 1


def run(demonstrations: Path, out: Path, full: bool, workers: int) -> dict[str, Any]:
    """Train on the demonstrations and judge what came of it, with both time limits.

    Args:
        demonstrations: an HDF5 file in D4RL's layout.
        out: where runs go; what is there goes on.
        full: published sizes and more updates.
        workers: processes.

    Raises:
        SegueError: as `segue.compare` does.
    """
    uri = f"d4rl:{demonstrations}"
    dataset = segue.load(uri, clip_actions=True)
    width = (256, 256)
    shared: dict[str, Any] = {
        "dataset": uri,
        "clip_actions": True,
        "env": "none",
        "held_out": 0.0,
        "offline_steps": 100_000 if full else 10_000,
        "seeds": 5 if full else 2,
    }
    flow: dict[str, Any] = {} if full else {"hidden_sizes": width, "batch_size": 128}
    arms = {
        "BC": segue.Recipe(**shared, offline=segue.BC(hidden_sizes=width)),
        "FQL": segue.Recipe(**shared, offline=segue.FQL(**flow, bc_weight=10.0)),
    }
    result = whole(segue.compare(arms, out, workers=workers, progress=True))
    jobs = [
        (arm, int(seed), environment)
        for arm, found in result.summary["arms"].items()
        for seed in found["seeds"]
        for environment in (DOOR, PATIENT)
    ]
    policies = [result.policy(arm, seed) for arm, seed, _ in jobs]
    count = len(jobs)
    places, episodes = [environment for *_, environment in jobs], 100 if full else 30
    with pool(workers) as team:
        measured = list(team.map(trials, policies, places, [SUCCESS] * count, [episodes] * count, [TRIAL_SEED] * count))
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for (arm, seed, environment), one in zip(jobs, measured, strict=True):
        found[arm].append({"seed": seed, "limit": 300 if environment is PATIENT else 200, **one})
    return {
        "episodes": len(dataset.episode_starts),
        "steps": len(dataset),
        "return": round(float(dataset.episode_returns.mean()), 1),
        "lengths": [int(dataset.episode_lengths.min()), int(dataset.episode_lengths.max())],
        "updates": shared["offline_steps"],
        "trials": episodes,
        "arms": found,
    }
