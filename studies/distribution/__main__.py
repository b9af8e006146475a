"""The published policy distribution of IQL and AWAC against the squashed one: `python -m studies.distribution`.

It needs `make data` for HalfCheetah, and takes the path of NeoRL-2's `simglucose-val.npz` for the third dataset:

    python -m studies.distribution --glucose PATH

Two datasets have a live environment, where policies are scored. The third has none: there the policy's actions are
compared with those of the dataset. Results are kept in results.json; runs that are finished are not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import segue
from segue.data import load
from segue.data.dataset import Dataset
from segue.data.problems import AT_BOUND
from segue.evaluation import evaluate
from studies.logs import LOGS

FOLDER = Path(__file__).parent
ALGORITHMS = {"IQL": segue.IQL, "AWAC": segue.AWAC}
DISTRIBUTIONS = ("gaussian", "squashed")
SEEDS = 5
UPDATES = 10_000
SMALL: dict[str, Any] = {"hidden_sizes": (128, 128), "batch_size": 128}
EPISODES = 20


def main(arguments: list[str]) -> int:
    """Run what is missing, write results.json and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glucose", type=Path, help="path of NeoRL-2's simglucose-val.npz")
    parser.add_argument("--out", type=Path, default=Path("runs/distribution"), help="where the runs are kept")
    flags = parser.parse_args(arguments)
    datasets: dict[str, tuple[Any, str | None]] = {
        name: LOGS[name] for name in ("hopper-mixed", "halfcheetah-medium-replay")
    }
    if flags.glucose is not None:
        datasets["simglucose"] = (glucose(flags.glucose), None)
    rows = []
    for name, (source, env_id) in datasets.items():
        dataset = source if isinstance(source, Dataset) else load(source)
        for algorithm, cls in ALGORITHMS.items():
            for distribution in DISTRIBUTIONS:
                recipe = segue.Recipe(
                    dataset=source,
                    env=env_id,
                    offline=cls(**SMALL, distribution=distribution),
                    offline_steps=UPDATES,
                    eval_every=UPDATES,
                    eval_episodes=1,
                    seeds=SEEDS,
                )
                run = segue.run(recipe, flags.out / f"{name}-{algorithm}-{distribution}").directory
                rows.append(measured(name, dataset, env_id, f"{algorithm} {distribution}", run))
                print(rows[-1], flush=True)
    (FOLDER / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))
    return 0


def glucose(path: Path) -> Dataset:
    """NeoRL-2's glucose dataset; an episode ends where `done` or `truncated` is set."""
    with np.load(path) as file:
        return load(
            {
                "observations": file["obs"],
                "actions": file["action"],
                "rewards": file["reward"],
                "next_observations": file["next_obs"],
                "terminals": file["done"],
                "timeouts": file["truncated"] * (1 - file["done"]),
                "action_low": [-1.0],
                "action_high": [1.0],
            }
        )


def measured(name: str, dataset: Dataset, env_id: str | None, arm: str, run: Path) -> dict[str, Any]:
    """Scores of every seed, and how far each policy's actions are from those of the dataset."""
    bounds = np.abs(dataset.actions) > AT_BOUND
    rows = np.linspace(0, len(dataset) - 1, 5_000).astype(int)
    scores, means, distances, saturated = [], [], [], []
    for seed in range(SEEDS):
        policy = segue.load_checkpoint(next(run.glob(f"checkpoints/*/seed-{seed}/final"))).policy()
        action = policy(dataset.observations[rows])
        means.append(float(action.mean()))
        distances.append(float(np.sqrt(((action - dataset.actions[rows]) ** 2).mean())))
        saturated.append(float((np.abs(action) > AT_BOUND).mean()))
        if env_id is not None:
            scores.append(float(evaluate(policy, env_id, EPISODES, 1_000 + seed).mean()))
    return {
        "dataset": name,
        "arm": arm,
        "dataset_at_bound": float(bounds.mean()),
        "dataset_mean_action": float(dataset.actions.mean()),
        "dataset_mean_return": float(dataset.episode_returns.mean()),
        "scores": scores,
        "mean_action": means,
        "distance": distances,
        "at_bound": saturated,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| dataset | arm | return (lowest–highest seed) | mean action | actions at a bound | distance from the data |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    for row in rows:
        scores = row["scores"]
        shown = f"{np.mean(scores):,.0f} ({min(scores):,.0f}–{max(scores):,.0f})" if scores else "no environment"
        lines.append(
            f"| {row['dataset']} | {row['arm']} | {shown} | {np.mean(row['mean_action']):.3f} | "
            f"{np.mean(row['at_bound']):.1%} | {np.mean(row['distance']):.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
