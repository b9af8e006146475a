"""`segue list`: the algorithms, bridges, replay strategies and datasets there are."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from rich.table import Table
from rich.text import Text

from segue.cli.parse import parse
from segue.console import PlainConsole


@dataclasses.dataclass(frozen=True)
class Flags:
    """How to show it."""

    json: bool = False
    """Print JSON."""


def main(arguments: list[str]) -> int:
    """Print what there is."""
    flags = parse(Flags, arguments, "list", "The algorithms, bridges, replay strategies and datasets there are.")
    listing = catalogue()
    if flags.json:
        print(json.dumps(listing, indent=1))
        return 0
    table = Table(box=None, pad_edge=False, show_header=False)
    for kind, entries in listing.items():
        table.add_row(f"[bold]{kind}[/bold]", "")
        for entry in entries:
            details = f"  [{', '.join(entry['phases'])}; {', '.join(entry['actions'])}]" if "phases" in entry else ""
            # Text, not markup: summaries hold brackets.
            table.add_row(Text(f"  {entry['name']}"), Text.assemble(entry["summary"], (details, "dim")))
    PlainConsole().print(table)
    return 0


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Everything that can be named in a recipe."""
    from segue.algorithms import ALGORITHMS
    from segue.bridges import BRIDGES
    from segue.data import FORMATS, bundled
    from segue.replay import REPLAYS

    def entry(name: str, what: object) -> dict[str, Any]:
        return {"name": name, "summary": (what.__doc__ or "").strip().splitlines()[0]}

    return {
        "algorithms": [
            {**entry(name, cls), "phases": list(cls.phases), "actions": list(cls.actions)}
            for name, cls in ALGORITHMS.items()
        ],
        "bridges": [entry(name, cls) for name, cls in BRIDGES.items()],
        "replays": [entry(name, cls) for name, cls in REPLAYS.items()],
        "datasets": [
            *({"name": f"segue:{name}", "summary": "Bundled log."} for name in bundled()),
            *(
                {"name": f"{scheme}:…", "summary": entry("", read)["summary"]}
                for scheme, read in FORMATS.items()
                if scheme != "segue"
            ),
        ],
    }
