"""`segue evaluate`: judge a run's final policies over more episodes."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from segue.cli.parse import parse
from segue.cli.policies import acting, find
from segue.errors import SegueError


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to judge, and how."""

    run: tyro.conf.Positional[Path]
    """A run directory, one checkpoint in it, or an exported policy."""
    episodes: int = 100
    """Episodes per policy, without exploration noise."""
    env: str | None = None
    """Another environment than the one it was trained for."""
    seed: int = 0
    """Seed of the episodes; every policy gets the same starting states."""
    json: bool = False
    """Print JSON with every return."""


def main(arguments: list[str]) -> int:
    """Print mean, standard error and range of the returns of every final policy."""
    flags = parse(Flags, arguments, "evaluate", "Judge a run's final policies over more episodes.")
    if flags.episodes < 1:
        raise SegueError(f"--episodes is {flags.episodes}; expected at least 1")
    rows = [_judge(name, place, flags) for name, place in find(flags.run).items()]
    if flags.json:
        print(json.dumps(rows, indent=1))
        return 0
    table = Table(box=None, pad_edge=False)
    table.add_column("policy")
    for heading in ("mean return", "± std. error", "lowest", "highest", "episodes"):
        table.add_column(heading, justify="right")
    for row in rows:
        returns = row["returns"]
        table.add_row(
            row["policy"],
            f"{row['mean_return']:.1f}",
            "–" if row["standard_error"] is None else f"{row['standard_error']:.1f}",
            f"{min(returns):.1f}",
            f"{max(returns):.1f}",
            str(len(returns)),
        )
    Console(highlight=False).print(table)
    return 0


def _judge(name: str, place: Path, flags: Flags) -> dict[str, Any]:
    import numpy as np

    from segue.evaluation import evaluate

    policy, env_id = acting(place, flags.env)
    returns = evaluate(policy, env_id, flags.episodes, flags.seed)
    return {
        "policy": name,
        "env": env_id,
        "mean_return": float(np.mean(returns)),
        "standard_error": float(np.std(returns, ddof=1) / math.sqrt(len(returns))) if len(returns) > 1 else None,
        "returns": returns.tolist(),
    }
