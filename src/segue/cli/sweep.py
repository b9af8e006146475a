"""`segue sweep`: values of hyper-parameters, the best of them, and what it is worth on fresh seeds."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from segue.cli.launch import PLACE, where
from segue.cli.recipe_flags import names_part, recipe_from_flags
from segue.console import PlainConsole
from segue.errors import RecipeError, SegueError
from segue.sweeps.objectives import OBJECTIVES
from segue.sweeps.search import Kind
from segue.sweeps.space import Values, parsed

DESCRIPTION = """Try values of hyper-parameters, choose the best, and judge it again on fresh seeds.

  segue sweep FLAGS --vary offline.alpha=1,2.5,5 --vary online.actor-learning-rate=1e-4,3e-4 --out DIR
  segue sweep FLAGS --search tpe --trials 20 --vary online.actor-learning-rate=1e-5:1e-3:log --out DIR

FLAGS are those of segue run. --vary FIELD=VALUE,VALUE… or FIELD=LOW:HIGH[:log] may be given several times. The same
command goes on with a sweep that was stopped."""

EXTRA: list[tuple[str, Any, Any]] = [
    ("search", Annotated[Kind, tyro.conf.arg(help="grid tries every combination; the others are Optuna's.")], "grid"),
    ("trials", Annotated[int | None, tyro.conf.arg(help="Combinations that random, tpe and cma try.")], None),
    (
        "objective",
        Annotated[str, tyro.conf.arg(help=f"What trials are ranked by: {', '.join(OBJECTIVES)} (docs/measures.md).")],
        "final",
    ),
    (
        "halving",
        Annotated[bool, tyro.conf.arg(help="Stop trials by successive halving over seeds: 1, 2, 4, … up to --seeds.")],
        False,
    ),
    ("confirm", Annotated[int, tyro.conf.arg(help="Fresh seeds that judge the winner again.")], 5),
    ("batch", Annotated[int, tyro.conf.arg(help="Trials that tpe and cma ask for at a time.")], 4),
]


def main(arguments: list[str]) -> int:
    """Sweep, print what came of it, and say where it is."""
    flags, vary = _split(arguments)
    extra = [*PLACE, *EXTRA]
    if "--help" in flags or "-h" in flags:
        recipe_from_flags(flags, "sweep", DESCRIPTION, extra)
    recipe, place = recipe_from_flags(flags, "sweep", DESCRIPTION, extra)
    if not names_part(flags, "out"):
        raise SegueError("segue sweep needs --out: where the sweep goes")
    from segue.sweeps import sweep

    result = sweep(
        recipe,
        place.out,
        vary=vary,
        search=place.search,
        trials=place.trials,
        objective=place.objective,
        halving=place.halving,
        confirm=place.confirm,
        batch=place.batch,
        workers=place.workers,
        on=where(place),
        progress=True,
        track=place.track,
        command=shlex.join(["segue", "sweep", *arguments]),
        checkpoint_every=place.checkpoint_every,
    )
    console = PlainConsole()
    console.print(str(result), soft_wrap=True, markup=False)
    if result.status == "interrupted":
        console.print("Interrupted, and saved: the same command goes on.")
    console.print(f"Sweep: {Path(result.directory)}", soft_wrap=True)
    return {"complete": 0, "failed": 1, "interrupted": 130}[result.status]


def _split(arguments: Sequence[str]) -> tuple[list[str], dict[str, Values]]:
    """The flags without --vary, and the values by field."""
    kept: list[str] = []
    vary: dict[str, Values] = {}
    words = iter(arguments)
    for word in words:
        if word != "--vary" and not word.startswith("--vary="):
            kept.append(word)
            continue
        path, values = parsed(word.partition("=")[2] if word.startswith("--vary=") else next(words, ""))
        if path in vary:
            raise RecipeError(f"--vary {path} is given twice; give all of its values at once")
        vary[path] = values
    return kept, vary
