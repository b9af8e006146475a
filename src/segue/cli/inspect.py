"""`segue inspect`: what is in a dataset, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import tyro

from segue.cli.dataset_flags import ColumnFlags, given, named
from segue.cli.parse import parse
from segue.console import PlainConsole


@dataclasses.dataclass(frozen=True)
class Flags:
    """Which log, and how to show it."""

    uri: tyro.conf.Positional[str]
    """segue:NAME, minari:ID, lerobot:FOLDER, or d4rl:, npz:, csv:, parquet: or ndjson: and a file."""
    columns: ColumnFlags
    plot: Path | None = None
    """Draw it to this PNG."""
    clip_actions: bool = False
    """Clip actions outside their bounds instead of refusing the dataset."""
    json: bool = False
    """Print JSON."""


def main(arguments: list[str]) -> int:
    """Print episodes, returns, lengths, action coverage, ends and problems."""
    flags = parse(Flags, arguments, "inspect", "What is in a dataset, and what is wrong with it.")
    from segue.data import load
    from segue.data.inspection import inspect, plot

    dataset = load(named(flags.uri, given(flags.columns)), clip_actions=flags.clip_actions)
    inspection = inspect(dataset)
    if flags.json:
        print(json.dumps(inspection.to_dict(), indent=1))
    else:
        PlainConsole().print(inspection)
    if flags.plot is not None:
        plot(dataset, flags.plot)
        if not flags.json:
            print(f"plot: {flags.plot}")
    return 0
