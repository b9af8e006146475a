"""`segue handover`: what happened at the handover from the dataset to online interaction, and what it says."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.table import Table
from rich.text import Text

from segue.cli.parse import parse
from segue.cli.read import read
from segue.console import PlainConsole
from segue.errors import SegueError, unknown

if TYPE_CHECKING:
    from segue.report.handover import HandoverArm


@dataclasses.dataclass(frozen=True)
class Flags:
    """Which run, and how to show it."""

    run: tyro.conf.Positional[Path]
    """A run directory."""
    arm: str | None = None
    """Only this arm."""
    out: Path | None = None
    """Where handover.png goes; by default the run directory."""
    json: bool = False
    """Print JSON; draws only if --out is given."""


def main(arguments: list[str]) -> int:
    """Draw the handover, and print its numbers and what they say."""
    flags = parse(Flags, arguments, "handover", "What happened at the handover, and what the numbers say about it.")
    from segue.report.diagnosis import handover_data
    from segue.report.handover import handover_arms

    summary = read(flags.run)
    if flags.arm is not None and flags.arm not in summary.arms:
        raise SegueError(unknown("arm", flags.arm, summary.arms))
    every = handover_arms(summary)
    arms = [arm for arm in every if flags.arm in (None, arm.name)]
    if not arms:
        which = f"arm {flags.arm!r}" if flags.arm is not None and every else "the run"
        raise SegueError(f"{flags.run}: {which} has no online phase that was evaluated, so there is no handover to see")
    if not any(arm.pretrained for arm in every):
        raise SegueError(f"{flags.run}: every arm is from scratch, so there is no handover to see")
    console = PlainConsole()
    if flags.json:
        print(json.dumps({arm.name: handover_data(arm) for arm in arms}, indent=1))
    else:
        for arm in arms:
            _show(console, arm)
    if flags.json and flags.out is None:
        return 0
    # Last: where nothing can be written, there is still something to read.
    try:
        pictures = _draw(arms, flags.out or flags.run)
    except SegueError as error:
        if flags.out is not None:
            raise
        print(f"segue: no picture: {error}; --out DIR puts it elsewhere", file=sys.stderr)
        return 0
    for path in [] if flags.json else pictures:
        console.print(f"Picture: {path}", soft_wrap=True)
    return 0


def _draw(arms: list[HandoverArm], out: Path) -> list[Path]:
    from segue.files import make_directory, write_atomically
    from segue.report.figures_handover import handover_pictures

    make_directory(out)
    paths = []
    for i, content in enumerate(handover_pictures(arms), start=1):
        paths.append(out / ("handover.png" if i == 1 else f"handover-{i}.png"))
        write_atomically(paths[-1], content)
    return paths


def _show(console: PlainConsole, arm: HandoverArm) -> None:
    from segue.report.diagnosis import diagnose, moments_table

    diagnosis = diagnose(arm)
    head, rows = moments_table(arm)
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if i else "left", no_wrap=not i)
    for row in rows:
        table.add_row(*row)
    console.print(Text(arm.name, style="bold"))
    console.print(table)
    console.print()
    for finding in diagnosis.findings:
        console.print(_item(finding.text))
    for flag, why in diagnosis.suggestions.items():
        console.print(_item(f"To try: {flag}: {why}."))
    for event in arm.events:
        console.print(_item(f"Seed {event.seed}: {event.message}"))
    console.print(Text(" ".join(diagnosis.notes), style="dim"))
    console.print()


def _item(text: str) -> Text:
    # Text, not str: what a run recorded is no markup.
    return Text(f"• {text}")
