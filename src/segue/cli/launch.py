"""Running arms from the command line: where the results go, who does the work, and what is printed."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.markup import escape

from segue.console import PlainConsole
from segue.errors import RecipeError
from segue.recipe import CHECKPOINT_EVERY, Recipe

#: An experiment tracker.
Tracker = Literal["wandb", "mlflow"]
#: Where the results go and who does the work; not part of the recipe.
PLACE: list[tuple[str, Any, Any]] = [
    ("out", Annotated[Path, tyro.conf.arg(help="The run directory.")], Path("runs/latest")),
    (
        "workers",
        Annotated[
            int | None,
            tyro.conf.arg(help="Worker processes; by default one per core, if there are as many jobs."),
        ],
        None,
    ),
    (
        "on",
        Annotated[
            str | None,
            tyro.conf.arg(metavar="ray[://HOST:PORT]", help="Where jobs run: a Ray cluster; by default this machine."),
        ],
        None,
    ),
    ("cores", Annotated[int | None, tyro.conf.arg(help="With --on: cores per job; by default 1.")], None),
    ("gpus", Annotated[float, tyro.conf.arg(help="With --on: GPUs per job; 0.25 lets four share one.")], 0.0),
    (
        "checkpoint_every",
        Annotated[float, tyro.conf.arg(help="Seconds between saves of where the run stands; changes no result.")],
        CHECKPOINT_EVERY,
    ),
    (
        "track",
        Annotated[Tracker | None, tyro.conf.arg(help="Pass what happens on to this experiment tracker.")],
        None,
    ),
]


@dataclasses.dataclass(frozen=True)
class Again:
    """Flags that go with recipe files."""

    recipes: tyro.conf.Positional[tuple[Path, ...]]
    """recipe.json files."""
    out: Path = Path("runs/latest")
    """The run directory."""
    workers: int | None = None
    """Worker processes."""
    on: str | None = None
    """Where jobs run: ray, or ray://HOST:PORT; by default this machine."""
    cores: int | None = None
    """With --on: cores per job."""
    gpus: float = 0.0
    """With --on: GPUs per job."""
    checkpoint_every: float = CHECKPOINT_EVERY
    """Seconds between saves."""
    track: Tracker | None = None
    """Pass what happens on to this experiment tracker."""


def where(place: Any) -> Any:
    """Where jobs run, by the fields of PLACE; None is this machine.

    Raises:
        RecipeError: if something is asked of a cluster that is not named.
    """
    from segue.runner import Ray

    if place.on is not None:
        return dataclasses.replace(Ray.of(place.on), cores=place.cores, gpus=place.gpus)
    if place.cores is not None or place.gpus:
        raise RecipeError("--cores and --gpus go with --on ray; on this machine --workers shares out the cores")
    return None


def launch(arms: Mapping[str, Recipe], place: Any, arguments: list[str], resume: bool = False) -> int:
    """Run the arms with progress and end with the tables; exit code 0, 1 (failed) or 130 (interrupted).

    `place` has the fields of PLACE.
    """
    from segue.report import decode, terminal_report
    from segue.runner import RunFailed, compare

    console, failed = PlainConsole(), None
    try:
        result = compare(
            arms,
            place.out,
            workers=place.workers,
            on=where(place),
            progress=True,
            track=place.track,
            command=shlex.join(["segue", *arguments]),
            checkpoint_every=place.checkpoint_every,
            resume=resume,
        )
    except RunFailed as error:
        result, failed = error.result, error
    console.print(terminal_report(decode(result.summary, place.out.resolve().name)))
    for name, seed, cause in failed.causes() if failed else ():
        console.print(f"[red]{name}, seed {seed}: {escape(cause)}[/red]", soft_wrap=True)
    if result.status == "interrupted":
        console.print("Interrupted, and saved: the results so far are in the report; the same command goes on.")
    console.print(f"Report: {result.report}", soft_wrap=True)
    return {"complete": 0, "failed": 1, "interrupted": 130}[result.status]
