"""`segue run`: one recipe, from flags or from a recipe.json."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from segue.cli.console import PlainConsole
from segue.cli.parse import parse
from segue.cli.progress import Watcher
from segue.cli.recipe_flags import names_part, recipe_from_flags
from segue.errors import SegueError
from segue.presets import AUTO
from segue.recipe import CHECKPOINT_EVERY, Recipe, read_recipes

DESCRIPTION = """Pretrain on a log, hand over to an online algorithm, fine-tune live.

`segue run --dataset LOG --out DIR` runs the recipe that our studies support (--preset auto), `segue run RECIPE.json
--out DIR` repeats a run, `segue run --resume DIR` goes on with one that was interrupted (and so does the command that
began it), also with a longer budget (--resume DIR --online-steps 200000). Or name the parts (--offline cql --online sac
--bridges q-filter --replay mixed) and add --help to see the hyper-parameters of each as flags."""

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
        "checkpoint_every",
        Annotated[float, tyro.conf.arg(help="Seconds between saves of where the run stands; changes no result.")],
        CHECKPOINT_EVERY,
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
    checkpoint_every: float = CHECKPOINT_EVERY
    """Seconds between saves."""


def main(arguments: list[str]) -> int:
    """Run, print the table, and say where the report is."""
    if arguments and not arguments[0].startswith("-"):
        again = parse(Again, arguments, "run", DESCRIPTION)
        if len(again.recipes) != 1:
            raise SegueError("segue run repeats one recipe.json; segue compare takes several")
        return launch(read_recipes(again.recipes[0]), again, ["run", *arguments])
    if names_part(arguments, "resume"):
        from segue.cli import resume

        return resume.main(arguments)
    recipe, place = recipe_from_flags(arguments, "run", DESCRIPTION, PLACE)
    if place.preset == AUTO:
        PlainConsole().print(f"auto: {_words(recipe)}", soft_wrap=True)
    return launch({"run": recipe}, place, ["run", *arguments])


def _words(recipe: Recipe) -> str:
    """What a recipe does, in a line."""
    parts = []
    if recipe.offline is not None:
        parts.append(f"{recipe.offline.name} for {recipe.offline_steps:,} updates")
    if recipe.online is not None:
        parts.append(f"{recipe.online.name} for {recipe.online_steps:,} live steps")
    parts += [bridge.name for bridge in recipe.bridges]
    return ", ".join(parts) + "; --help shows its flags"


def launch(arms: Mapping[str, Recipe], place: Any, arguments: list[str], resume: bool = False) -> int:
    """Run the arms with progress and end with the tables; exit code 0, 1 (failed) or 130 (interrupted).

    `place` has the fields of PLACE.
    """
    from segue.report import decode, terminal_report
    from segue.runner import compare

    with Watcher() as watcher:
        result = compare(
            arms,
            place.out,
            workers=place.workers,
            on_event=watcher,
            command=shlex.join(["segue", *arguments]),
            checkpoint_every=place.checkpoint_every,
            resume=resume,
        )
    console = PlainConsole()
    console.print(terminal_report(decode(result.summary, place.out.resolve().name)))
    for name, arm in result.summary["arms"].items():
        for seed, outcome in arm["seeds"].items():
            if outcome["error"]:
                console.print(f"[red]{name}, seed {seed}: {outcome['error']}[/red]", soft_wrap=True)
    if result.status == "interrupted":
        console.print("Interrupted, and saved: the results so far are in the report; the same command goes on.")
    console.print(f"Report: {result.report}", soft_wrap=True)
    return {"complete": 0, "failed": 1, "interrupted": 130}[result.status]
