"""`segue convert`: a dataset in another format."""

from __future__ import annotations

import dataclasses

import tyro

from segue.cli.dataset_flags import ColumnFlags, given, named
from segue.cli.parse import parse
from segue.console import PlainConsole

DESCRIPTION = """Write a dataset in another format. It keeps what the dataset knows, and never overwrites anything.

  segue convert csv:log.csv npz:log.npz --episode user_id --step t --observation 'f_*'"""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is read, and where it goes."""

    source: tyro.conf.Positional[str]
    """The dataset: anything that segue inspect reads."""
    to: tyro.conf.Positional[str]
    """npz:FILE, parquet:FILE, csv:FILE, minari:ID, or mapped:FOLDER for a dataset larger than memory."""
    columns: ColumnFlags
    clip_actions: bool = False
    """Clip actions outside their bounds instead of refusing the dataset."""


def main(arguments: list[str]) -> int:
    """Read, write, and say how to name the result."""
    flags = parse(Flags, arguments, "convert", DESCRIPTION)
    from segue.data import load, mapped, parts
    from segue.data.convert import convert, target

    scheme, place = target(flags.to)  # before reading, which may take long
    source, lost = named(flags.source, given(flags.columns)), None
    if scheme == "mapped":
        uri, dataset = f"mapped:{place}", mapped.write(place, parts(source, clip_actions=flags.clip_actions))
    else:
        dataset = load(source, clip_actions=flags.clip_actions)
        uri, lost = convert(dataset, flags.to)
    console = PlainConsole()
    for note in dataset.notes:
        console.print(f"note {note}", soft_wrap=True)
    if lost is not None:
        console.print(f"not kept: {lost}", soft_wrap=True)
    console.print(f"wrote {len(dataset):,} transitions; read them as '{uri}'", soft_wrap=True)
    return 0
