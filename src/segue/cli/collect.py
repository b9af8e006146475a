"""`segue collect`: record policies in an environment into a dataset."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.table import Table

from segue.cli.env_flags import environment_from_flags
from segue.cli.parse import parse
from segue.cli.trained import acting
from segue.console import PlainConsole
from segue.errors import SURE, SegueError, nearest

RANDOM = "random"


@dataclasses.dataclass(frozen=True)
class Flags:
    """What acts, where, for how long, and where the data goes."""

    policies: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="POLICY…", help_behavior_hint="")]]
    """WHAT:STEPS, in order; WHAT is `random`, a checkpoint directory (runs/…/seed-0/final) or an exported policy."""
    env: str
    """Gymnasium id, module:Id, module:Class or module:function."""
    to: str
    """minari:ID (a new Minari dataset in the local root) or npz:FILE (a compressed archive)."""
    env_kwargs: str = "{}"
    """Keyword arguments of the environment's constructor, as JSON."""
    max_episode_steps: int | None = None
    """Time limit of an episode in steps; by default the environment's own."""
    explore: bool = True
    """Act with the policy's own exploration noise; --no-explore records its mean actions."""
    cost: str | None = None
    """Key of the environment's `info` that holds the cost of a step; it becomes the column `cost`."""
    seed: int = 0
    """Seed of episodes and actions."""


def main(arguments: list[str]) -> int:
    """Record whole episodes until each policy has its steps; print what was recorded."""
    flags = parse(Flags, arguments, "collect", "Record policies in an environment into a dataset.")
    parts = [_part(text) for text in flags.policies]
    if not parts:
        raise SegueError("no policy was given: segue collect random:10000 --env ID --to minari:NAME-v0")
    scheme, _, place = flags.to.partition(":")
    if scheme not in ("minari", "npz") or not place:
        raise SegueError(f"--to is {flags.to!r}; expected minari:ID or npz:FILE")

    from segue.data import minari, npz
    from segue.envs.record import as_columns, record

    environment = environment_from_flags(flags.env, flags.env_kwargs, flags.max_episode_steps)
    assert environment is not None
    (minari if scheme == "minari" else npz).require_free(place)  # before hours of recording, not after
    table = Table(box=None, pad_edge=False)
    costs = () if flags.cost is None else ("mean cost",)
    for heading in ("policy", "episodes", "steps", "mean return", "lowest", "highest", *costs):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    episodes = []
    for index, (what, steps) in enumerate(parts):
        policy = None if what == RANDOM else acting(Path(what), environment)[0]
        recorded = record(
            policy, environment, steps, explore=flags.explore, seed=flags.seed, part=index, cost_key=flags.cost
        )
        returns = [float(np.sum(episode.rewards)) for episode in recorded]
        count = sum(len(episode.rewards) for episode in recorded)
        row = (len(recorded), count, np.mean(returns), min(returns), max(returns))
        cost = [f"{np.mean([e.costs.sum() for e in recorded if e.costs is not None]):.2f}"] if costs else []
        table.add_row(what, *(f"{value:.0f}" for value in row), *cost)
        episodes += recorded
    if scheme == "npz":
        npz.write(place, as_columns(episodes, environment))
    else:
        description = f"segue collect {' '.join(flags.policies)} --env {environment} --seed {flags.seed}"
        minari.write(place, episodes, env_id=environment, description=description, algorithm="segue collect")
    console = PlainConsole()
    console.print(table)
    console.print(f"wrote {flags.to}", soft_wrap=True)
    return 0


def _part(text: str) -> tuple[str, int]:
    what, _, steps = text.rpartition(":")
    if not what or not steps.isdigit() or int(steps) < 1:
        raise SegueError(
            f"{text!r}: expected WHAT:STEPS, for example random:10000 or runs/x/checkpoints/run/seed-0/final:10000"
        )
    if what != RANDOM and nearest(what, [RANDOM], SURE) and not Path(what).exists():
        raise SegueError(f"{text!r}: did you mean {RANDOM}:{steps}? No checkpoint or exported policy is at {what}")
    return what, int(steps)
