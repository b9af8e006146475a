"""`segue watch`: a video of a policy."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import tyro

from segue.cli.env_flags import environment_from_flags
from segue.cli.parse import parse
from segue.cli.trained import acting, choose, is_exported
from segue.console import PlainConsole
from segue.errors import SegueError


@dataclasses.dataclass(frozen=True)
class Flags:
    """Which policy, and where the video goes."""

    run: tyro.conf.Positional[Path]
    """A run directory, one checkpoint in it, or an exported policy."""
    video: Path
    """The file to write: .mp4 (pip install 'segue[video]') or .gif."""
    arm: str | None = None
    """Which arm of the run, as a folder in its checkpoints (also the offline phase, offline-td3-bc for example)."""
    seed: int | None = None
    """Which seed of the run."""
    episodes: int = 1
    """Episodes, without exploration noise."""
    episode_seed: int = 0
    """Seed of the episodes."""
    env: str | None = None
    """Another environment than the policy's."""
    env_kwargs: str = "{}"
    """Keyword arguments of the environment's constructor, as JSON."""
    max_episode_steps: int | None = None
    """Time limit in steps."""


def main(arguments: list[str]) -> int:
    """Write the video, and print the returns of its episodes."""
    flags = parse(Flags, arguments, "watch", "Write a video of a policy.")
    if flags.episodes < 1:
        raise SegueError(f"--episodes is {flags.episodes}; expected at least 1")
    if flags.video.suffix not in (".mp4", ".gif"):
        raise SegueError(f"--video is {flags.video}; expected a file that ends in .mp4 or .gif")
    if not flags.video.absolute().parent.is_dir():
        raise SegueError(f"--video is {flags.video}; its folder does not exist")
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import mujoco  # noqa: F401 - it looks for its driver as it is imported
    except Exception as error:
        raise SegueError(
            f"MUJOCO_GL is {os.environ.get('MUJOCO_GL')}, and MuJoCo cannot be imported with that "
            f"({type(error).__name__}: {' '.join(str(error).split())}): unset it, use egl, or install osmesa"
        ) from error
    from segue.envs.film import film

    place = flags.run if is_exported(flags.run) else choose(flags.run, flags.arm, flags.seed)
    given = environment_from_flags(flags.env, flags.env_kwargs, flags.max_episode_steps)
    policy, environment = acting(place, given)
    returns = film(policy, environment, flags.video, episodes=flags.episodes, seed=flags.episode_seed)
    for number, value in enumerate(returns, 1):
        print(f"episode {number}: return {value:.1f}")
    PlainConsole().print(f"Video: {flags.video}", soft_wrap=True, markup=False)
    return 0
