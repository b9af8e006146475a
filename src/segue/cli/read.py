"""The run that a command looks at, also one that has not ended."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segue.report import Summary


def read(directory: Path) -> Summary:
    """The run's summary with its metrics.

    Of a run that has not ended it is made of the records so far, and a message says so.

    Raises:
        SegueError: if that is no run, or what it wrote cannot be read.
    """
    from segue.report import read_run

    if (directory / "sweep.json").exists():  # a sweep is the run of its trials
        directory = directory / "search"
    if not (directory / "recipe.json").exists():
        return read_run(directory)
    from segue.recipe import read_recipes
    from segue.runner.directory import RUNNING, RunDirectory

    run = RunDirectory(directory, read_recipes(directory))
    summary = run.earlier_summary()
    if summary is not None and summary["status"] != RUNNING:
        return read_run(directory)
    with tempfile.TemporaryDirectory() as place:
        run.so_far(Path(place))
        so_far = read_run(Path(place))
    if "live" in (run.provenance() or {}):
        said = "follows a live log, and this is what it recorded so far; the same segue learn goes on"
    else:
        said = "still runs or was killed, and this is what it recorded so far; "
        said += f"segue run --resume {directory} continues it"
    # On standard error: what is printed may be read by a program.
    print(f"segue: {directory} {said}", file=sys.stderr)
    return dataclasses.replace(so_far, run=directory.resolve().name)
