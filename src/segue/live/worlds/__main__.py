"""`python -m segue.live.worlds WORLD --to FILE.npz`: a logged dataset of a world's own behaviour policy.

`python -m segue.live.worlds WORLD --url URL` drives a service that runs already.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import tyro

from segue.cli.parse import parse
from segue.errors import SegueError
from segue.live.worlds import WORLDS, behaviour, make_world
from segue.live.worlds.settings import Traffic
from segue.live.worlds.traffic import drive


@dataclasses.dataclass(frozen=True)
class Flags:
    """Which world, and what is done with it."""

    world: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="WORLD")]]
    """recommendation, glucose, cartpole, or env:ID with any Gymnasium id."""
    to: Path | None = None
    """Write a logged dataset here, an .npz archive."""
    url: str | None = None
    """Drive the service at this address; its token is read from SEGUE_TOKEN."""
    traffic: Traffic = dataclasses.field(default_factory=lambda: Traffic(episodes=1_000))
    """Episodes, seed; and for a service, how the clients behave."""


def logged(world: gym.Env, name: str, episodes: int, seed: int) -> dict[str, Any]:
    """Columns of a dataset (`npz:FILE`) of a world's behaviour policy, with its log-probabilities."""
    columns: dict[str, list[Any]] = {}
    for number in range(episodes):
        source = np.random.default_rng([seed, number])
        observation, _ = world.reset(seed=int(source.integers(2**31)))
        ended = False
        while not ended:
            action, log_prob = behaviour(world, observation, source)
            following, reward, terminated, truncated, _ = world.step(action)
            ended = bool(terminated or truncated)
            row = {
                "observations": observation,
                "actions": action,
                "rewards": float(reward),
                "terminals": bool(terminated),
                "timeouts": bool(truncated and not terminated),
                "next_observations": following,
                "behaviour_log_prob": log_prob,
            }
            for column, value in row.items():
                columns.setdefault(column, []).append(value)
            observation = following
    space = world.action_space
    about = (
        {"discrete_actions": np.array(int(space.n))}
        if isinstance(space, gym.spaces.Discrete)
        else {"action_low": space.low, "action_high": space.high}  # type: ignore[attr-defined]
    )
    place = f"segue.live.worlds:{WORLDS[name].__name__}" if name in WORLDS else world.spec and world.spec.id
    return {**{column: np.asarray(values) for column, values in columns.items()}, **about, "env_id": np.array(place)}


def main(arguments: list[str]) -> int:
    """Write a dataset, or drive a service."""
    flags = parse(Flags, arguments, "live.worlds", __doc__ or "")
    if (flags.to is None) == (flags.url is None):
        raise SegueError("expected --to FILE.npz or --url URL, one of both")
    if flags.to is None:
        assert flags.url is not None
        asyncio.run(drive(flags.url, flags.world, flags.traffic, os.environ.get("SEGUE_TOKEN"), _say))
        return 0
    if flags.to.exists():
        raise SegueError(f"{flags.to}: is there already; choose another name")
    if flags.traffic.episodes is None:
        raise SegueError("expected --traffic.episodes N: a dataset has an end")
    columns = logged(make_world(flags.world), flags.world, flags.traffic.episodes, flags.traffic.seed)
    np.savez_compressed(flags.to, **columns)
    print(f"{flags.to}: {len(columns['rewards']):,} steps of {flags.traffic.episodes:,} episodes")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SegueError as error:
        sys.exit(f"segue: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
