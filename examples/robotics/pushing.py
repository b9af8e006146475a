"""Pushing: learnt from demonstrations in one simulator, adapted live in another with changed friction and mass."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from examples.robotics.pusher import Pusher
from examples.robotics.trials import trials
from studies.command import whole
from studies.processes import pool

import segue
from segue.data import npz
from segue.envs import Environment
from segue.envs.record import as_columns, record
from segue.files import write_atomically
from segue.recipe import read_recipes
from segue.runner import checkpoint
from segue.runner.directory import RunDirectory, slug

#: Where the demonstrations are recorded, and where the policy then has to work.
SIMULATOR = Environment("examples.robotics.worlds:push")
CHANGED = SIMULATOR.changed(Environment("", {"friction": 0.2, "mass": 2.0}))
SUCCESS, EPISODE_STEPS = "is_success", 50
#: How fast the demonstrators push, in strides per stride of distance, and the deviation of their noise.
GAINS, NOISE = (0.5, 0.75, 1.0), 0.2
DEMONSTRATION_SEED, TRIAL_SEED = 0, 1
#: What is kept of an arm besides its trials.
KEPT = ("status", "error", "training_return", "events")
PLAIN = "plain fine-tuning"


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is run."""

    demonstrations: int = 210
    cloning: int = 10_000
    live: int = 8_000
    warmup: int = 1_000
    eval_every: int = 2_000
    seeds: int = 2
    trials: int = 25
    width: int = 128

    @property
    def networks(self) -> dict[str, Any]:
        """Of every algorithm."""
        return {"hidden_sizes": (self.width, self.width), "batch_size": self.width}


SHORT = Size(demonstrations=6, cloning=20, live=100, warmup=50, eval_every=50, seeds=2, trials=2, width=16)
FULL = Size(live=100_000, warmup=2_500, eval_every=5_000, seeds=5, trials=100, width=256)


def demonstrate(to: Path, size: Size) -> dict[str, Any]:
    """Record the scripted controller into an archive, unless it is there; how good its episodes are."""
    if not to.exists():
        steps = size.demonstrations // len(GAINS) * EPISODE_STEPS
        episodes = [
            episode
            for part, gain in enumerate(GAINS)
            for episode in record(
                Pusher(NOISE, gain), SIMULATOR, steps, explore=True, seed=DEMONSTRATION_SEED, part=part
            )
        ]
        npz.write(str(to), as_columns(episodes, SIMULATOR))
    dataset = segue.load(f"npz:{to}")
    last = np.append(dataset.episode_starts[1:], len(dataset)) - 1
    return {
        "episodes": len(dataset.episode_starts),
        "steps": len(dataset),
        "success": round(float((dataset.rewards[last] == 0).mean()), 4),
    }


def arms(dataset: str, size: Size, seed: int) -> dict[str, segue.Recipe]:
    """What is compared. Plain fine-tuning and promotion start from the same cloned policy."""
    world: dict[str, Any] = {"env": CHANGED.name, "env_kwargs": CHANGED.kwargs}
    live: dict[str, Any] = {
        **world,
        "online_steps": size.live,
        "warmup_steps": size.warmup,
        "eval_every": size.eval_every,
        "eval_episodes": 1,  # `measure` judges the policies that are kept
        "seed": seed,
        "keep_policies": True,
    }
    cloned = {
        **live,
        "dataset": dataset,
        "hindsight": 4,
        "dataset_hindsight": 4,
        "offline": segue.BC(**size.networks),
        "offline_steps": size.cloning,
    }
    discount = 1 - 1 / EPISODE_STEPS
    sac = segue.SAC(**size.networks, discount=discount)
    critics: dict[str, Any] = {"ensemble_size": 3, "subset_size": 2, "critic_updates_per_actor_update": 1}
    rlpd = segue.RLPD(**size.networks, **critics, discount=discount, initial_temperature=0.1)
    awac = segue.AWAC(**size.networks, discount=discount)
    best = segue.BC(**size.networks, loss="nll", top_fraction=0.1)
    wide = {"hidden_sizes": size.networks["hidden_sizes"]}
    ppo = segue.PPO(**wide, actor_learning_rate=1e-4, value_learning_rate=1e-3, discount=discount)
    return {
        PLAIN: segue.Recipe(**cloned, online=sac),
        "promotion": segue.Recipe(**cloned, online=rlpd, updates_per_step=1.0, bridges=(segue.Promotion(),)),
        "AWAC, offline and live": segue.Recipe(**{**cloned, "offline": awac}, online=awac),
        "the best tenth, PPO": segue.Recipe(
            **live, dataset=dataset, offline=best, offline_steps=size.cloning, online=ppo
        ),
        "retraining from scratch": segue.Recipe(**live, hindsight=4, online=sac),
    }


def run(out: Path, size: Size, workers: int) -> dict[str, Any]:
    """Demonstrations, every seed of every arm, and the trials of every kept policy. Goes on where it stopped.

    Raises:
        SegueError: as `segue.compare` does.
    """
    out.mkdir(parents=True, exist_ok=True)
    demonstrations = demonstrate(out / "demonstrations.npz", size)
    seeds = [one(out, size, seed, workers) for seed in range(size.seeds)]
    worlds = {"simulator": SIMULATOR, "changed": CHANGED}
    return {
        "size": dataclasses.asdict(size),
        "demonstrations": demonstrations,
        "references": {
            "clone, simulator": [found[PLAIN]["taught"] for found in seeds],
            **{
                f"controller {gain}, {name}": [trials(Pusher(0.0, gain), world, SUCCESS, size.trials, TRIAL_SEED)]
                for name, world in worlds.items()
                for gain in GAINS
            },
        },
        "arms": {arm: [found[arm] for found in seeds] for arm in seeds[0]},
    }


def one(out: Path, size: Size, seed: int, workers: int) -> dict[str, Any]:
    """Every arm with one seed: how it ended, the mean return while it learnt, and the trials of every kept policy."""
    recipes, place = arms(f"npz:{out / 'demonstrations.npz'}", size, seed), out / f"seed-{seed}"
    try:
        result = whole(segue.compare(recipes, place, workers=workers, progress=True))
    except segue.RunFailed as failed:  # an arm whose learning diverged has the policies from before
        result = failed.result
    directory = RunDirectory(place, read_recipes(place))
    found: dict[str, Any] = {}
    with pool(workers) as team:
        for arm, ended in result.summary["arms"].items():
            file = out / "trials" / f"{slug(arm)}-{seed}-{size.trials}.json"
            if file.exists():
                found[arm] = json.loads(file.read_text())
                continue
            paths = directory.final(arm, seed).parent.glob("step-*")
            kept = sorted((int(path.name.removeprefix("step-")), path) for path in paths)
            measured = team.map(measure, [path for _, path in kept], [size.trials] * len(kept))
            found[arm] = {
                **{field: ended["seeds"][str(seed)][field] for field in KEPT},
                "points": [{"step": step, **point} for (step, _), point in zip(kept, measured, strict=True)],
            }
            if arm == PLAIN:
                clone = checkpoint.load(kept[0][1]).policy()
                found[arm]["taught"] = trials(clone, SIMULATOR, SUCCESS, size.trials, TRIAL_SEED)
            if found[arm]["status"] == "complete":  # what failed is tried again
                file.parent.mkdir(exist_ok=True)
                write_atomically(file, json.dumps(found[arm], indent=1) + "\n")
    return found


def measure(path: Path, episodes: int) -> dict[str, Any]:
    """A kept policy in the changed world: as it would be deployed, and as it explores."""
    policy = checkpoint.load(path).policy()
    return {
        name: trials(policy, CHANGED, SUCCESS, episodes, TRIAL_SEED, explore)
        for name, explore in (("deployed", False), ("exploring", True))
    }
