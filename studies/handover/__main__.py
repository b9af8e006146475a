"""The plain handover and every bridge, on two environments: `python -m studies.handover` (`make handover`).

Hopper: TD3+BC pretrained on segue:hopper-mixed and handed to TD3. CartPole: BC on segue:cartpole-mixed, which has no
critic, handed to discrete SAC. Three seeds; results.json, handover.png and the tables of README.md come out. A run
that is there already is not run again, so the study can be stopped and gone on with.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

import segue
from segue.bridges import Bridge
from studies import parts
from studies.page import put

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
SEEDS = 3
LIVE = segue.OnlineOnly()


def hopper() -> dict[str, segue.Recipe]:
    """TD3+BC → TD3, and the bridges."""

    def arm(**changes: Any) -> segue.Recipe:
        values: dict[str, Any] = {
            "dataset": "segue:hopper-mixed",
            "held_out": 0.0,
            "offline": segue.TD3BC(),
            "offline_steps": 10_000,
            "online": segue.TD3(),
            "online_steps": 6_000,
            "replay": LIVE,
            "eval_every": 1_000,
            "handover_eval_every": 500,
            "seeds": SEEDS,
        }
        return segue.Recipe(**(values | changes))

    mixed = segue.Mixed()
    return {
        "plain handover": arm(),
        "warm-up of 3,000 steps": arm(warmup_steps=3_000),
        "mixed replay": arm(replay=mixed),
        "annealed replay": arm(replay=segue.Annealed()),
        "replaced replay": arm(replay=segue.Replaced()),
        "balanced replay": arm(replay=segue.Balanced()),
        "TD3+BC kept": arm(online=segue.TD3BC(), replay=mixed),
        "TD3+BC that lets go": arm(online=segue.TD3BC(), replay=mixed, bridges=(segue.LetGo(),)),
        "Q-filter": arm(replay=mixed, bridges=(segue.QFilter(),)),
        "Q-filter on the advantage": arm(replay=mixed, bridges=(segue.QFilter(on="advantage"),)),
        "conservative update": arm(bridges=(segue.ConservativeUpdate(),)),
        "SAMG": arm(bridges=(segue.SAMG(),)),
        "critic re-fit": arm(bridges=(segue.CriticRefit(),)),
        "policy expansion": arm(bridges=(segue.PolicyExpansion(),)),
        "jump start": arm(bridges=(segue.JumpStart(rule="conservative"),)),
        "guard": arm(bridges=(segue.Guard(),)),
        "mixed, conservative, guard": arm(replay=mixed, bridges=(segue.ConservativeUpdate(), segue.Guard())),
    }


def cartpole() -> dict[str, segue.Recipe]:
    """BC → discrete SAC, and the bridges."""

    def arm(*bridges: Bridge, **changes: Any) -> segue.Recipe:
        values: dict[str, Any] = {
            "dataset": "segue:cartpole-mixed",
            "held_out": 0.0,
            "offline": segue.BC(),
            "offline_steps": 5_000,
            "online": segue.DiscreteSAC(),
            "online_steps": 6_000,
            "replay": LIVE,
            "eval_every": 500,
            "seeds": SEEDS,
            "bridges": bridges,
        }
        return segue.Recipe(**(values | changes))

    return {
        "plain handover": arm(),
        "warm-up of 3,000 steps": arm(warmup_steps=3_000),
        "mixed replay": arm(replay=segue.Mixed()),
        "critic re-fit": arm(segue.CriticRefit()),
        "conservative update": arm(segue.ConservativeUpdate()),
        "re-fit, conservative": arm(segue.CriticRefit(), segue.ConservativeUpdate()),
        "re-fit, SAMG": arm(segue.CriticRefit(), segue.SAMG()),
        "policy expansion": arm(segue.PolicyExpansion()),
        "jump start": arm(segue.JumpStart(rule="conservative")),
        "guard": arm(segue.Guard()),
        "re-fit, conservative, guard": arm(segue.CriticRefit(), segue.ConservativeUpdate(), segue.Guard()),
    }


STUDIES = {"hopper-mixed": hopper, "cartpole-mixed": cartpole}


def measured(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Per arm and seed: the steps and returns of the curve, and what happened."""
    return {
        label: {
            seed: {
                "steps": [e["step"] for e in run["online_evaluations"]],
                "returns": [round(e["mean_return"], 1) for e in run["online_evaluations"]],
                "events": run.get("events", []),
            }
            for seed, run in arm["seeds"].items()
        }
        for label, arm in summary["arms"].items()
    }


def numbers(seeds: dict[str, Any]) -> dict[str, np.ndarray]:
    """Offline score, dip below it, area under the curve and final return, one value per seed."""
    curves = [(np.array(run["steps"]), np.array(run["returns"])) for run in seeds.values()]
    return {
        "offline": np.array([returns[0] for _, returns in curves]),
        "dip": np.array([returns[0] - returns.min() for _, returns in curves]),
        "area": np.array([np.trapezoid(returns, steps) / steps[-1] for steps, returns in curves]),
        "final": np.array([returns[-1] for _, returns in curves]),
    }


def table(arms: dict[str, Any]) -> str:
    """Markdown: mean and, in brackets, the range over seeds."""
    lines = ["| arm | offline | dip | area | final |", "| --- | ---: | ---: | ---: | ---: |"]
    for label, seeds in arms.items():
        cells = [f"{v.mean():,.0f} ({v.min():,.0f} to {v.max():,.0f})" for v in numbers(seeds).values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """A small panel per arm: its seeds and their mean over the plain handover."""
    columns = 6
    rows = [-(-len(arms) // columns) for arms in results.values()]
    figure, axes = plt.subplots(
        sum(rows), columns, figsize=(2.5 * columns, 2.0 * sum(rows)), sharex=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_visible(False)
    offset = 0
    for (log, arms), count in zip(results.items(), rows, strict=True):
        plain = mean_curve(arms["plain handover"])
        top = max(max(run["returns"]) for seeds in arms.values() for run in seeds.values())
        for i, (label, seeds) in enumerate(arms.items()):
            axis = axes[offset + i // columns, i % columns]
            axis.set_visible(True)
            axis.plot(plain[0] / 1000, plain[1], color="#999999", linewidth=1.2, linestyle="--")
            for run in seeds.values():
                axis.plot(np.array(run["steps"]) / 1000, run["returns"], color="#0072B2", linewidth=0.6, alpha=0.5)
            steps, returns = mean_curve(seeds)
            axis.plot(steps / 1000, returns, color="#0072B2", linewidth=2)
            axis.axhline(returns[0], color="#D55E00", linewidth=0.8, linestyle=":")
            axis.set_title(label, fontsize=9)
            axis.set_ylim(0, 1.05 * top)
            axis.tick_params(labelsize=7)
            if i % columns == 0:
                axis.set_ylabel(f"return\n{log}", fontsize=8)
            axis.set_xlabel("live steps, thousands", fontsize=7)
        offset += count
    figure.suptitle(
        "After the handover: each arm (mean and seeds) against the plain handover (dashed); dotted: the offline score",
        fontsize=10,
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)


def mean_curve(seeds: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and mean return over seeds."""
    runs = list(seeds.values())
    return np.array(runs[0]["steps"]), np.mean([run["returns"] for run in runs], axis=0)


def main() -> None:
    def compared(log: str) -> dict[str, Any]:
        return measured(segue.compare(STUDIES[log](), Path("runs/handover") / log).summary)

    results = parts.run(__doc__, HERE / "results.json", {log: partial(compared, log) for log in STUDIES})
    for log, arms in results.items():
        put(HERE / "README.md", log, table(arms))
    draw(results, HERE / "handover.png")


if __name__ == "__main__":
    main()
