"""Putting what a study measured into its page, between `<!-- name -->` and `<!-- /name -->`."""

from __future__ import annotations

from pathlib import Path

from segue.files import write_atomically


def put(page: Path, name: str, text: str) -> None:
    """Replace what is between the two lines of this name; everything else stays."""
    before, start, rest = page.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not (start and end):
        raise ValueError(f"{page} has no lines <!-- {name} --> and <!-- /{name} -->")
    write_atomically(page, f"{before}{start}{text.rstrip()}\n{end}{after}")
