"""`segue branch`: a new run from the end of another one's offline phase."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from segue.cli.launch import PLACE, launch
from segue.cli.recipe_flags import last_value, names_part, recipe_from_flags
from segue.errors import SegueError

DESCRIPTION = """Start from the end of a run's offline phase with another online algorithm, bridges or replay.

  segue branch RUN --at offline --online td3 --bridges q-filter --out DIR

Flags are those of segue run; what they do not name is as in RUN. The offline phase is taken over, not done again."""

WHERE: list[tuple[str, Any, Any]] = [
    ("at", Annotated[Literal["offline"], tyro.conf.arg(help="Where to branch off: the end of that phase.")], "offline"),
    ("arm", Annotated[str | None, tyro.conf.arg(help="Which arm of the run, if it has several.")], None),
]


def main(arguments: list[str]) -> int:
    """Prepare the branch, run it, print the table, and say where the report is."""
    if not arguments or arguments[0].startswith("-"):
        if "--help" in arguments or "-h" in arguments:
            recipe_from_flags(["--help"], "branch", DESCRIPTION, [*PLACE, *WHERE])
        raise SegueError("segue branch needs a run directory first: segue branch RUN --online td3 --out DIR")
    from segue.algorithms import ALGORITHMS
    from segue.runner.branching import branch_off, trunk

    directory, *flags = arguments
    arm = last_value("arm", flags) or None
    recipe = trunk(Path(directory), arm)
    base = recipe
    online = ALGORITHMS.get(last_value("online", flags))
    if online is not None and online.on_policy and not names_part(flags, "replay"):
        base = dataclasses.replace(base, replay=None)  # it has no use for one
    changed, place = recipe_from_flags(flags, "branch", DESCRIPTION, [*PLACE, *WHERE], base)
    if not names_part(flags, "out"):
        raise SegueError("segue branch needs --out: where the branch goes")
    changed = branch_off(Path(directory), recipe, changed, place.out)
    return launch({"run": changed}, place, ["branch", *arguments], resume=True)
