"""`segue run --resume`: go on with a run where it was saved, also with a longer budget."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from segue.cli.launch import Tracker, launch
from segue.cli.parse import parse
from segue.recipe import CHECKPOINT_EVERY

DESCRIPTION = """Go on with a run where it was saved last, to the numbers that it would have had without interruption.

With --online-steps (or, without an online phase, --offline-steps) it goes on to a longer budget; with --seeds it gets
more seeds, and those that it has stay as they are."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """Which run, and how long."""

    resume: Path
    """The run directory."""
    online_steps: int | None = None
    """Environment steps of the online phase, those already done included."""
    offline_steps: int | None = None
    """Updates of the offline phase, those already done included; for a run without an online phase."""
    seeds: int | None = None
    """How many seeds every arm is to have, those already done included."""
    workers: int | None = None
    """Worker processes."""
    on: str | None = None
    """Where jobs run: ray, or ray://HOST:PORT; by default this machine."""
    cores: int | None = None
    """With --on: cores per job; by default those that the run began with."""
    gpus: float = 0.0
    """With --on: GPUs per job."""
    checkpoint_every: float = CHECKPOINT_EVERY
    """Seconds between saves."""
    track: Tracker | None = None
    """Pass what happens on to this experiment tracker; in the same tracked runs if it was given before."""

    @property
    def out(self) -> Path:
        """Where it goes on: in its place."""
        return self.resume


def main(arguments: list[str]) -> int:
    """Go on, print the table, and say where the report is."""
    flags = parse(Flags, arguments, "run", DESCRIPTION)
    from segue.runner.longer import lengthen

    arms = lengthen(flags.resume, flags.online_steps, flags.offline_steps, flags.seeds)
    return launch(arms, flags, ["run", *arguments], resume=True)
