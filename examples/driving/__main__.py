"""`python -m examples.driving`: from logs of rule-based drivers to fine-tuning on a test track with a limit on crashes.

Everything lands in --out. The same command continues where it stopped; README.md says what came of it.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from examples.driving.drivers import STYLES, log_of
from examples.driving.journeys import with_intervals
from examples.driving.judge import RULES, judge
from examples.driving.picture import draw
from examples.driving.roads import Highway, Merge
from examples.driving.telemetry import judge_telemetry
from studies.command import claim, ended, not_negative, parsed, whole
from studies.page import put
from studies.processes import pool

import segue
from segue.files import write_atomically
from segue.runner.result import Result

HERE = Path(__file__).parent
ENV = "examples.driving.roads:Track"
#: Crashes per episode that the guard allows; a clone costs 0.4 to 0.5 as it explores (README.md).
LIMIT = 0.6
#: The measures that the page has of every seed.
COMPARED = ("return", "crashes per 100 km", "km/h")
SMALL: dict[str, Any] = {"hidden_sizes": (128, 128), "batch_size": 128}


@dataclasses.dataclass(frozen=True)
class Size:
    """How long it takes."""

    logged: int
    """Episodes per style and road."""
    offline: int
    online: int
    runs: int
    judged: int
    """Episodes per policy, in the same traffic for all."""


SHORT, USUAL, FULL = Size(3, 20, 300, 1, 3), Size(60, 5000, 3000, 3, 50), Size(400, 20_000, 30_000, 5, 300)


def arms(size: Size, dataset: str, seed: int) -> dict[str, segue.Recipe]:
    """The recipes that are compared."""
    common: dict[str, Any] = {
        "dataset": dataset,
        "env": ENV,
        "cost": "crashed",
        "offline_steps": size.offline,
        "seed": seed,
        "seeds": size.runs,
        "eval_episodes": 10,
        "eval_every": max(size.offline, size.online) // 2,
    }
    live: dict[str, Any] = {"online_steps": size.online, "warmup_steps": size.online // 10}
    guard = (segue.Guard(cost_limit=LIMIT),)
    clone, chosen = segue.BC(**SMALL), segue.preset("discrete-cql", dataset=dataset, env=ENV).online
    assert isinstance(chosen, segue.DiscreteCQL)
    cql = dataclasses.replace(chosen, initial_epsilon=0.05)
    huber = dataclasses.replace(cql, loss="huber")
    bcq = segue.DiscreteBCQ(**SMALL, initial_epsilon=0.05, loss="mse")
    cloned = segue.Recipe(**common, offline=clone)
    # PPO with the step sizes of `auto`; discrete SAC with a critic that knows nothing yet, which is the plain handover.
    small_steps: dict[str, Any] = {
        "actor_learning_rate": 1e-4,
        "value_learning_rate": 1e-3,
        "rollout_steps": max(size.online // 6, SMALL["batch_size"]),
    }
    ppo = segue.Recipe(**common, **live, offline=clone, online=segue.PPO(**SMALL, **small_steps))
    plain = segue.Recipe(**common, **live, offline=clone, online=segue.DiscreteSAC(**SMALL), replay=segue.OnlineOnly())
    return {
        "cloned": cloned,
        "best tenth": dataclasses.replace(cloned, offline=segue.BC(**SMALL, top_fraction=0.1)),
        "plain": plain,
        "plain, guarded": dataclasses.replace(plain, bridges=guard),
        "PPO": ppo,
        **{
            name: segue.Recipe(**common, **live, offline=q, online=q, replay=segue.Mixed())
            for name, q in {"auto": cql, "auto, Huber's loss": huber, "discrete BCQ": bcq}.items()
        },
    }


def log(out: Path, episodes: int, seed: int, workers: ProcessPoolExecutor) -> str:
    """Every style on both roads, in one file."""
    path = out / "log.npz"
    if not path.exists():
        roads = [(name, road) for name in STYLES for road in (Highway, Merge)]
        parts = [workers.submit(log_of, name, road, episodes, seed + 1000 * i) for i, (name, road) in enumerate(roads)]
        columns = [part.result() for part in parts]
        whole = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
        with (out / "log.part.npz").open("wb") as file:
            np.savez(file, allow_pickle=False, **whole, discrete_actions=5)
        (out / "log.part.npz").rename(path)
    return f"npz:{path.resolve()}"


def training_of(run: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Crashes per episode while fine-tuning, (step, mean since the last look), of each seed of each arm."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    with (run / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["phase"] == "online" and row["training_cost"]:
                seeds = found.setdefault(row["arm"], {})
                seeds.setdefault(row["seed"], []).append((int(row["step"]), float(row["training_cost"])))
    return found


def judged(result: Result, size: Size, seed: int, workers: ProcessPoolExecutor) -> dict[str, Any]:
    """Every driver in the same traffic: its journeys, [runs, seeds, numbers], and what the guard did."""
    run = result.directory
    seeds = dict.fromkeys(RULES, (0,)) | {
        name: tuple(map(int, arm["seeds"])) for name, arm in result.summary["arms"].items()
    }
    waiting = {
        name: [workers.submit(judge, run, name, one, size.judged) for one in numbers] for name, numbers in seeds.items()
    }
    alarms = {
        name: {key: [event["message"] for event in of["events"]] for key, of in arm["seeds"].items()}
        for name, arm in result.summary["arms"].items()
    }
    return {
        "size": dataclasses.asdict(size),
        "seed": seed,
        "limit": LIMIT,
        "journeys": {name: [one.result() for one in parts] for name, parts in waiting.items()},
        "training": training_of(run),
        "events": alarms,
    }


def table(found: dict[str, Any]) -> str:
    """Markdown: each measure with its interval, and crashes against the cloned policy's in the same traffic."""
    journeys = {name: np.array(parts, float) for name, parts in found["journeys"].items()}
    lines: list[str] = []
    for name, one in journeys.items():
        values = with_intervals(one)
        if not lines:
            heads = ["driver", *values, "return with a crash", "crashes against cloned"]
            lines = ["| " + " | ".join(heads) + " |", "| --- |" + " --: |" * (len(heads) - 1)]
        against = with_intervals(one, journeys["cloned"])["crashes per 100 km"]
        cells = [f"{value:.3g} ({low:.3g} to {high:.3g})" for value, low, high in (*values.values(), against)]
        crashed = one[..., 1] == 1
        cells.insert(-1, f"{one[..., 0][crashed].mean():.3g}" if crashed.any() else "–")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| fine-tuned | crashes per training episode | alarms about crashes | about returns |",
        "| --- | --: | --: | --: |",
    ]
    for name, seeds in found["training"].items():
        means = [float(np.mean([value for _, value in seed])) for seed in seeds.values()]
        said = [message for messages in found["events"][name].values() for message in messages]
        counts = [sum(f": {what} (" in message for message in said) for what in ("costs", "returns")]
        lines.append(
            f"| {name} | {np.mean(means):.3f} ({min(means):.3f} to {max(means):.3f}) | {counts[0]} | {counts[1]} |"
        )
    return "\n".join([*lines, "", *by_stretch(found)])


def by_stretch(found: dict[str, Any]) -> list[str]:
    """Markdown: crashes per training episode in each sixth of the fine-tuning, and the range of the seeds."""
    ends = np.arange(1, 7) * found["size"]["online"] / 6
    lines = [
        "| crashes per training episode | " + " | ".join(f"to {end:,.0f}" for end in ends) + " |",
        "| --- |" + " --: |" * len(ends),
    ]
    for name, seeds in found["training"].items():
        cells = []
        for end in ends:
            inside = [[value for step, value in seed if end - ends[0] < step <= end] for seed in seeds.values()]
            means = [float(np.mean(values)) for values in inside if values]
            cells.append(f"{np.mean(means):.2f} ({min(means):.2f}–{max(means):.2f})" if means else "–")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main(argv: list[str] | None = None) -> int:
    """The command, which ends with this exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.driving", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/driving"), help="where everything lands")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--short", action="store_true", help="two minutes; its numbers mean nothing")
    sizes.add_argument("--full", action="store_true", help="longer logs and runs, more of them: hours")
    parser.add_argument("--seed", type=not_negative, default=0, help="the first seed of the runs, and that of the log")
    parser.add_argument(
        "--telemetry", type=Path, help="folder of Assetto Corsa CSV files: clone and judge them instead"
    )
    parser.add_argument("--page", action="store_true", help="store the results here, and write README.md anew")
    given = parsed(parser, argv)
    if given.page and (given.short or given.full):
        parser.error("--page stores results of the usual size; leave out --short and --full")
    return ended(lambda: go(given))


def go(given: argparse.Namespace) -> int:
    """The whole of it."""
    if given.telemetry is not None:
        return judge_telemetry(given.telemetry, given.out / "telemetry", given.seed)
    name, size = ("full", FULL) if given.full else ("short", SHORT) if given.short else ("usual", USUAL)
    claim(given.out, {"size": name, "seed": given.seed})
    with pool(2) as workers:
        print("the log …", flush=True)
        dataset = log(given.out, size.logged, given.seed, workers)
        recipes = arms(size, dataset, given.seed)
        result = whole(segue.compare(recipes, given.out / "run", workers=2, progress=True))
        print("every driver in the same traffic …", flush=True)
        found = judged(result, size, given.seed, workers)
    write_atomically(given.out / "results.json", json.dumps(found) + "\n")
    draw(found, given.out / "driving.png")
    print(table(found))
    if given.page:
        shutil.copy(given.out / "results.json", HERE / f"results-seed-{given.seed}.json")
        page()
    return 0


def page() -> None:
    """README.md's figure and tables: all of the first seed whose results are stored, and the seeds side by side."""
    stored = [json.loads(file.read_text()) for file in sorted(HERE.glob("results-seed-*.json"))]
    draw(stored[0], HERE / "driving.png")
    put(HERE / "README.md", "drivers", table(stored[0]))
    put(HERE / "README.md", "seeds", side_by_side(stored))


def side_by_side(stored: list[dict[str, Any]]) -> str:
    """Markdown: the learnt drivers of every stored seed; the others drive the same with any."""
    heads = [f"{name}, seed {one['seed']}" for name in COMPARED for one in stored]
    lines = ["| driver | " + " | ".join(heads) + " |", "| --- |" + " --: |" * len(heads)]
    for driver in [name for name in stored[0]["journeys"] if name not in RULES]:
        values = [with_intervals(np.array(one["journeys"][driver], float)) for one in stored]
        cells = ["{:.3g} ({:.3g} to {:.3g})".format(*of[name]) for name in COMPARED for of in values]
        lines.append(f"| {driver} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
