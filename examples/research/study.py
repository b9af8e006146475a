"""Three methods, five seeds: a table for the paper, a figure, and the numbers behind both.

python study.py                  # five minutes of processor time
python study.py --steps 100 --seeds 2   # a quick look
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from careful import Careful

import segue
from segue.cli.main import main as command


def record(steps: int, place: Path) -> None:
    """A dataset of mixed skill: random actions, and an early and a late policy of one TD3 run."""
    task = ["--env", "reach:Reach", "--max-episode-steps", "50"]
    teacher = str(place / "teacher")
    train = ["run", *task, "--online", "td3", "--online-steps", str(2 * steps), "--warmup-steps", str(steps // 5)]
    command([*train, "--eval-every", str(steps), "--keep-policies", "--out", teacher])
    policies = [f"{teacher}/checkpoints/run/seed-0/{name}:{5 * steps // 2}" for name in (f"step-{steps}", "final")]
    command(["collect", f"random:{5 * steps}", *policies, *task, "--to", f"npz:{place}/reach.npz"])


def main() -> None:
    """Record, compare, and write table.tex, curves.pdf and curves.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/research"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if not (given.out / "reach.npz").exists():
        record(given.steps, given.out)

    small: dict[str, Any] = {"hidden_sizes": (64, 64), "batch_size": 128}
    arms = {}
    for name, algorithm in {
        "TD3+BC": segue.TD3BC(**small),
        "IQL": segue.IQL(**small),
        "Careful (ours)": Careful(**small),
    }.items():
        arms[name] = segue.Recipe(
            dataset=f"npz:{given.out}/reach.npz",
            offline=algorithm,
            offline_steps=given.steps,
            online=algorithm,
            online_steps=given.steps,
            warmup_steps=given.steps // 10,
            eval_every=given.steps // 10,
            seeds=given.seeds,
        )
    result = segue.compare(arms, given.out / "comparison")

    table = result.table()[["arm", "seeds", "offline score", "final", "area", "dip"]]
    (given.out / "table.tex").write_text(table.to_latex(index=False, float_format="%.1f"))

    curves = result.curves()
    curves.to_csv(given.out / "curves.csv", index=False)
    figure, axis = plt.subplots(figsize=(3.4, 2.3), layout="constrained")  # one column of a paper
    for name, rows in curves.groupby("arm", sort=False):
        returns = rows.groupby("step")["mean_return"]
        line = axis.plot(returns.mean(), label=name, linewidth=1.2)[0]
        axis.fill_between(returns.min().index, returns.min(), returns.max(), alpha=0.2, color=line.get_color())
    axis.set(xlabel="live steps", ylabel="return")
    axis.legend(fontsize=7, frameon=False)
    figure.savefig(given.out / "curves.pdf")
    figure.savefig(given.out / "curves.png", dpi=200)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
