"""CartPole from pixels: `python -m studies.pixels --out DIR`, some minutes on two cores.

Discrete CQL learns from `segue:cartpole-mixed`, drawn as images, and goes on live.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import segue
from segue.data import load
from segue.data.dataset import Columns, Dataset
from studies.pixels import ENV, draw


def drawn(log: Dataset) -> Dataset:
    """A dataset of CartPole states as one of images."""
    frames, following = draw(log.observations), draw(log.next_observations)
    before = np.roll(frames, 1, axis=0)
    before[log.episode_starts] = frames[log.episode_starts]
    ends = np.zeros(len(log), bool)
    ends[np.append(log.episode_starts[1:], len(log)) - 1] = True
    columns = Columns(
        observations=np.stack([before, frames], axis=1),
        next_observations=np.stack([frames, following], axis=1),
        actions=log.actions,
        rewards=log.rewards,
        terminals=log.terminals,
        timeouts=ends & ~log.terminals,
        discrete_actions=log.spaces.action_size,
    )
    return Dataset.from_columns(columns, f"{log.source}, drawn")


def recipe(seeds: int) -> segue.Recipe:
    """500 updates on the dataset, then 2,000 live steps with an update every four."""
    learner = segue.DiscreteCQL(batch_size=64, hidden_sizes=(64, 64))
    return segue.Recipe(
        dataset=drawn(load("segue:cartpole-mixed")),
        env=ENV,
        offline=learner,
        offline_steps=500,
        online=learner,
        online_steps=2_000,
        warmup_steps=500,
        updates_per_step=0.25,
        eval_every=500,
        eval_episodes=10,
        held_out=0.0,
        seeds=seeds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/pixels"))
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    result = segue.run(recipe(options.seeds), options.out)
    print(f"{result.status} after {time.monotonic() - began:.0f} s; {options.out}/report.html has the curves")


if __name__ == "__main__":
    main()
