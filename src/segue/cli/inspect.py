"""`segue inspect`: what is in a dataset, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import tyro

from segue.cli.dataset_flags import ColumnFlags, given, named
from segue.cli.parse import parse
from segue.console import PlainConsole
from segue.errors import DataError


@dataclasses.dataclass(frozen=True)
class Flags:
    """Which log, and how to show it."""

    uri: tyro.conf.Positional[str]
    """segue:NAME, minari:ID, lerobot:FOLDER, mapped:FOLDER, live:LOG, or d4rl:, npz:, csv:, parquet: or ndjson:
    and a file."""
    columns: ColumnFlags
    plot: Path | None = None
    """Draw it to this PNG."""
    clip_actions: bool = False
    """Clip actions outside their bounds, and do not report it as a problem."""
    json: bool = False
    """Print JSON."""


def main(arguments: list[str]) -> int:
    """Print episodes, returns, lengths, action coverage, ends and problems."""
    flags = parse(Flags, arguments, "inspect", "What is in a dataset, and what is wrong with it.")
    from segue.data import load
    from segue.data.inspection import inspect, plot
    from segue.data.problems import OUT_OF_BOUNDS

    uri = named(flags.uri, given(flags.columns))
    try:
        dataset, refused = load(uri, clip_actions=flags.clip_actions), False
    except DataError:  # what can be loaded when it is clipped is shown
        dataset, refused = load(uri, clip_actions=True), True
    inspection = inspect(dataset)
    if refused:
        inspection = dataclasses.replace(inspection, problems=(OUT_OF_BOUNDS, *inspection.problems))
    if flags.json:
        print(json.dumps(inspection.to_dict(), indent=1))
    else:
        PlainConsole().print(inspection)
    if flags.plot is not None:
        plot(dataset, flags.plot)
        if not flags.json:
            print(f"plot: {flags.plot}")
    return 0
