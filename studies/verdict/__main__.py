"""How often the offline verdict is "yes": `python -m studies.verdict`, about half an hour of a busy core.

Datasets are noise, or have a better policy by construction (studies/verdict/noise.py). Four parts, all into
results.json and as tables on standard output:

1. Noise, and policies that Segue trains with `segue.run`: discrete CQL, and SAC as it explores.
2. Noise, and policies fitted by least squares, on more datasets.
3. Noise without logged propensities: how often the bounds would say "yes" if they decided.
4. A better policy exists: how often it is found and recognised.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import segue
from segue.data.dataset import Dataset
from segue.ope import bootstrap, evaluate_offline
from segue.policy import Policy
from studies.parts import run
from studies.verdict.noise import fitted, noise

HERE = Path(__file__).parent
METHODS = ("pdis", "is")
TRAINED, FITTED, ESTIMATED, POWER = 25, 200, 20, 100
SMALL, LARGE = 120, 2000
NETWORK: dict[str, Any] = {"hidden_sizes": (64, 64), "batch_size": 64}
Learn = Callable[[Dataset, float], tuple[Any, bool]]


def trained(dataset: Dataset, held_out: float) -> tuple[Policy, bool]:
    """A policy that a run learns from all but the held-out episodes, and whether it is judged as it explores."""
    discrete = dataset.spaces.discrete
    algorithm = segue.DiscreteCQL(**NETWORK) if discrete else segue.SAC(**NETWORK, initial_temperature=0.01)
    recipe = segue.Recipe(dataset=dataset, held_out=held_out, offline=algorithm, offline_steps=1000, eval_episodes=1)
    with tempfile.TemporaryDirectory() as folder:
        result = segue.run(recipe, Path(folder) / "run")
        (final,) = result.directory.glob("checkpoints/*/seed-0/final")
        return segue.load_checkpoint(final).policy(), not discrete


def least_squares(dataset: Dataset, held_out: float) -> tuple[Any, bool]:
    """The same by least squares."""
    kept, _ = dataset.split(held_out, 0)
    return fitted(kept, seen=np.sort(kept.episode_fingerprints())), False


def judge(policy: Any, dataset: Dataset, explore: bool, **options: Any) -> Any:
    return evaluate_offline(policy, dataset, methods=METHODS, discount=1.0, explore=explore, **options)


def on_noise(learn: Learn, datasets: int) -> list[dict[str, Any]]:
    """Rates of "yes" by kind of dataset: on the episodes held out, and on all of them as if they were new."""
    rows = []
    for discrete in (True, False):
        for steps in (1, 2):
            for episodes in (SMALL, LARGE):
                counts = {way: dict.fromkeys(METHODS, 0) for way in ("held out", "nothing held out", "not refused")}
                for seed in range(datasets):
                    dataset = noise(seed, episodes, steps=steps, discrete=discrete)
                    some, everything = learn(dataset, 0.1), learn(dataset, 0.0)
                    results = {
                        "held out": judge(some[0], dataset, some[1]),
                        "nothing held out": judge(everything[0], dataset, everything[1]),
                        "not refused": judge(everything[0], dataset, everything[1], fresh=True),
                    }
                    for way, method in itertools.product(counts, METHODS):
                        counts[way][method] += results[way][method].verdict.answer == "yes"
                kind = {"actions": "discrete" if discrete else "continuous", "steps": steps, "episodes": episodes}
                rows.append({**kind, "datasets": datasets, "yes": counts})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def without_propensities() -> list[dict[str, Any]]:
    """How often a betting bound with estimated propensities is on the wrong side, on noise of rewards near 1."""
    rows = []
    for discrete in (True, False):
        for episodes in (LARGE, 10 * LARGE):
            better, worse = dict.fromkeys(METHODS, 0), dict.fromkeys(METHODS, 0)
            for seed in range(ESTIMATED):
                dataset = noise(seed, episodes, discrete=discrete, logged=False)
                dataset = dataclasses.replace(dataset, rewards=(0.8 + 0.2 * dataset.rewards).astype(np.float32))
                policy, explore = least_squares(dataset, 0.1)
                result = judge(policy, dataset, explore)
                for method in METHODS:
                    assert result[method].verdict.answer == "not enough evidence"
                    better[method] += result[method].bounds.difference_lower > 0
                    worse[method] += result[method].bounds.difference_upper < 0
            kind = {"actions": "discrete" if discrete else "continuous", "episodes": episodes}
            rows.append({**kind, "datasets": ESTIMATED, "points to better": better, "points to worse": worse})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def power() -> list[dict[str, Any]]:
    """Rates of "yes" by the gain of the better actions and the number of episodes."""
    rows = []
    for discrete in (True, False):
        for gain in (0.1, 0.2, 0.4, 0.8):
            for episodes in (500, 2000, 10_000):
                yes = dict.fromkeys(METHODS, 0)
                for seed in range(POWER):
                    dataset = noise(seed, episodes, discrete=discrete, gain=gain)
                    policy, explore = least_squares(dataset, 0.1)
                    result = judge(policy, dataset, explore)
                    for method in METHODS:
                        yes[method] += result[method].verdict.answer == "yes"
                best = gain * (2 / 3 if discrete else 1 / 2)
                kind = {"actions": "discrete" if discrete else "continuous", "gain": gain, "episodes": episodes}
                rows.append({**kind, "best difference": best, "datasets": POWER, "yes": yes})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Run it, and print its tables."""
    bootstrap.RESAMPLES = 100  # for the interval of the dataset's value alone; no verdict here rests on it
    parts: dict[str, Callable[[], Any]] = {
        "noise, least squares": lambda: on_noise(least_squares, FITTED),
        "estimated propensities": without_propensities,
        "power": power,
        "noise, trained": lambda: on_noise(trained, TRAINED),
    }
    results = run(__doc__, HERE / "results.json", parts)
    print("\n".join(tables(results)))


def tables(results: dict[str, Any]) -> list[str]:
    """Markdown of what results.json holds; each cell is pdis, is."""
    lines = []
    for name in ("noise, trained", "noise, least squares"):
        lines += ["", f"**{name}**", "", "| actions | steps | episodes | held out | nothing held out | not refused |"]
        lines.append("| --- | --- | --- | --- | --- | --- |")
        for row in results[name]:
            rates = " | ".join(_rates(row["yes"][way], row["datasets"]) for way in row["yes"])
            lines.append(f"| {row['actions']} | {row['steps']} | {row['episodes']:,} | {rates} |")
    lines += ["", "| actions | episodes | points to better | points to worse |", "| --- | --- | --- | --- |"]
    for row in results["estimated propensities"]:
        rates = " | ".join(_rates(row[f"points to {way}"], row["datasets"]) for way in ("better", "worse"))
        lines.append(f"| {row['actions']} | {row['episodes']:,} | {rates} |")
    sizes = list(dict.fromkeys(row["episodes"] for row in results["power"]))
    lines += ["", "| actions | best difference | " + " | ".join(f"{n:,} episodes" for n in sizes) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(sizes))
    for start in range(0, len(results["power"]), len(sizes)):
        rows = results["power"][start : start + len(sizes)]
        rates = " | ".join(_rates(row["yes"], row["datasets"]) for row in rows)
        lines.append(f"| {rows[0]['actions']} | {rows[0]['best difference']:.2g} | {rates} |")
    return lines


def _rates(counts: dict[str, int], datasets: int) -> str:
    return ", ".join(f"{100 * count / datasets:.3g} %" for count in counts.values())


if __name__ == "__main__":
    main()
