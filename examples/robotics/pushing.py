"""Pushing: learnt from demonstrations in one simulator, adapted live in another with changed friction and mass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from examples.robotics.pusher import Pusher
from examples.robotics.trials import trials

import segue
from segue.data import npz
from segue.envs import Environment
from segue.envs.record import as_columns, record
from segue.runner import checkpoint

#: Where the demonstrations are recorded, and where the policy then has to work.
SIMULATOR = Environment("examples.robotics.worlds:push")
CHANGED = SIMULATOR.changed(Environment("", {"friction": 0.2, "mass": 2.0}))
SUCCESS, EPISODE_STEPS = "is_success", 50
#: How fast the demonstrators push, in strides per stride of distance, and the deviation of their noise.
GAINS, NOISE = (0.5, 0.75, 1.0), 0.2
DEMONSTRATION_SEED, TRIAL_SEED = 0, 1


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is run."""

    demonstrations: int = 210
    cloning: int = 15_000
    live: int = 8_000
    warmup: int = 1_000
    eval_every: int = 2_000
    seeds: int = 2
    trials: int = 40
    width: int = 128

    @property
    def networks(self) -> dict[str, Any]:
        """Of every algorithm."""
        return {"hidden_sizes": (self.width, self.width), "batch_size": self.width}


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


def arms(dataset: str, size: Size) -> dict[str, segue.Recipe]:
    """What is compared. All but retraining start from the same cloned policy."""
    live: dict[str, Any] = {
        "env": CHANGED.name,
        "env_kwargs": CHANGED.kwargs,
        "online_steps": size.live,
        "warmup_steps": size.warmup,
        "eval_every": size.eval_every,
        "eval_episodes": 1,  # `measure` judges the policies that are kept
        "seeds": size.seeds,
        "keep_policies": True,
        "hindsight": 4,
    }
    discount = 1 - 1 / EPISODE_STEPS
    cloned = {
        **live,
        "dataset": dataset,
        "dataset_hindsight": 4,
        "offline": segue.BC(**size.networks),
        "offline_steps": size.cloning,
    }
    sac = segue.SAC(**size.networks, discount=discount)
    critics: dict[str, Any] = {"ensemble_size": 3, "subset_size": 2, "critic_updates_per_actor_update": 1}
    rlpd = segue.RLPD(**size.networks, **critics, discount=discount, initial_temperature=0.1)
    return {
        "plain fine-tuning": segue.Recipe(**cloned, online=sac),
        "promotion": segue.Recipe(**cloned, online=rlpd, updates_per_step=1.0, bridges=(segue.Promotion(),)),
        "retraining from scratch": segue.Recipe(**live, online=sac),
    }


def run(out: Path, size: Size, workers: int) -> dict[str, Any]:
    """Demonstrations, every arm and seed, and the trials of every kept policy. Goes on where it stopped.

    Raises:
        SegueError: as `segue.compare` does.
    """
    out.mkdir(parents=True, exist_ok=True)
    demonstrations = demonstrate(out / "demonstrations.npz", size)
    recipes = arms(f"npz:{out / 'demonstrations.npz'}", size)
    result = segue.compare(recipes, out / "run", workers=workers)
    jobs = [
        (arm, seed, step, path)
        for arm, found in result.summary["arms"].items()
        for seed in found["seeds"]
        for step, path in _kept(result, arm, seed)
    ]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        measured = list(pool.map(measure, [path for *_, path in jobs], [size.trials] * len(jobs)))
    curves: dict[str, dict[str, list[dict[str, Any]]]] = {arm: {} for arm in recipes}
    for (arm, seed, step, _), found in zip(jobs, measured, strict=True):
        curves[arm].setdefault(seed, []).append({"step": step, **found})
    events = {arm: _events(result, arm) for arm in recipes}
    return {
        "size": dataclasses.asdict(size),
        "demonstrations": demonstrations,
        "references": references(result, size),
        "arms": curves,
        "events": events,
    }


def measure(path: Path, episodes: int) -> dict[str, Any]:
    """A kept policy in the changed world: as it would be deployed, and as it explores."""
    policy = checkpoint.load(path).policy()
    return {
        name: trials(policy, CHANGED, SUCCESS, episodes, TRIAL_SEED, explore)
        for name, explore in (("deployed", False), ("exploring", True))
    }


def references(result: segue.Result, size: Size) -> dict[str, Any]:
    """The cloned policy where it was taught, and the scripted controllers in both worlds."""
    cloned = [checkpoint.load(path).policy() for path in _cloned(result)]
    worlds = {"simulator": SIMULATOR, "changed": CHANGED}
    return {
        "cloned, in the simulator": [trials(policy, SIMULATOR, SUCCESS, size.trials, TRIAL_SEED) for policy in cloned],
        **{
            f"controller {gain}, {name}": trials(Pusher(0.0, gain), world, SUCCESS, size.trials, TRIAL_SEED)
            for name, world in worlds.items()
            for gain in GAINS
        },
    }


def _cloned(result: segue.Result) -> list[Path]:
    """The policy at live step 0 of every seed of plain fine-tuning: the clone."""
    arm = "plain fine-tuning"
    seeds: Mapping[str, Any] = result.summary["arms"][arm]["seeds"]
    return [next(path for step, path in _kept(result, arm, seed) if step == 0) for seed in seeds]


def _kept(result: segue.Result, arm: str, seed: str) -> list[tuple[int, Path]]:
    """Live step and checkpoint of every policy that was kept."""
    place = result.checkpoint(arm, int(seed)).parent
    return sorted((int(path.name.removeprefix("step-")), path) for path in place.glob("step-*"))


def _events(result: segue.Result, arm: str) -> dict[str, list[str]]:
    """What bridges said while learning, by seed."""
    return {
        seed: [event["message"] for event in found["events"]]
        for seed, found in result.summary["arms"][arm]["seeds"].items()
    }
