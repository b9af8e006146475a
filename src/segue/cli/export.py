"""`segue export`: write a trained policy for use elsewhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from segue.cli.env_flags import environment_from_flags
from segue.cli.parse import parse
from segue.cli.trained import choose
from segue.console import PlainConsole


@dataclasses.dataclass(frozen=True)
class Flags:
    """Which policy, and where it goes."""

    run: tyro.conf.Positional[Path]
    """A run directory, or one checkpoint in it."""
    to: Path
    """Directory to write; it must not exist, or be empty."""
    arm: str | None = None
    """Which arm of the run, as a folder in its checkpoints (also the offline phase, offline-td3-bc for example)."""
    seed: int | None = None
    """Which seed of the run."""
    env: str | None = None
    """Environment whose spaces the policy acts in, if the checkpoint names none or another."""
    env_kwargs: str = "{}"
    """With --env: keyword arguments of its constructor, as JSON."""


def main(arguments: list[str]) -> int:
    """Write the ONNX models and the spaces of one policy; print what a user should know of it."""
    flags = parse(Flags, arguments, "export", "Write a trained policy for use elsewhere.")
    checkpoint = choose(flags.run, flags.arm, flags.seed)
    from segue.deployment.export import export_policy

    export = export_policy(checkpoint, flags.to, environment_from_flags(flags.env, flags.env_kwargs, None))
    console = PlainConsole()
    about = export.policy.about
    console.print(f"{checkpoint}: {about['algorithm']['name']} for {about['env'] or 'no environment'}", soft_wrap=True)
    for note in export.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    for file in sorted(export.directory.iterdir()):
        console.print(f"wrote {file} ({file.stat().st_size / 1e3:,.0f} kB)", soft_wrap=True, markup=False)
    return 0
