"""`segue compare`: several recipes as the arms of one report."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from segue.cli.launch import PLACE, Again, launch
from segue.cli.parse import parse
from segue.cli.recipe_flags import names_part, recipe_from_flags, refuse_unknown, without_part
from segue.errors import SegueError
from segue.recipe import PARTS, Recipe, read_recipes

DESCRIPTION = """Several recipes as the arms of one report; arms with the same offline phase share it.

  segue compare FLAGS --arm NAME "MORE FLAGS" --arm NAME "MORE FLAGS" … --out DIR
  segue compare A/recipe.json B/recipe.json … --out DIR

FLAGS are those of segue run and hold for every arm; an arm's own flags come on top (a part that it names replaces
the common one together with its hyper-parameters)."""


def main(arguments: list[str]) -> int:
    """Run every arm, print the table, and say where the report is."""
    if arguments and not arguments[0].startswith("-"):
        again = parse(Again, arguments, "compare", DESCRIPTION)
        arms: dict[str, Recipe] = {}
        for file in again.recipes:
            for name, recipe in read_recipes(file).items():
                key = file.absolute().parent.name if name == "run" else name
                if key in arms:
                    raise SegueError(f"{file}: an arm named {key!r} came before; rename that run directory")
                arms[key] = recipe
        return launch(arms, again, ["compare", *arguments])
    common, named = _split(arguments)
    if "--help" in arguments or "-h" in arguments:
        recipe_from_flags([*common, "--help"], "compare", DESCRIPTION, PLACE)
    if not named:
        refuse_unknown(common, "compare", DESCRIPTION, PLACE)
        raise SegueError(
            'no arm was given: add --arm NAME "FLAGS" for each, for example --arm scratch "--offline none"'
        )
    arms = {}
    for name, own in named:
        kept = list(common)
        for part in (*PARTS, "dataset"):
            if names_part(own, part):
                kept = without_part(kept, part)
        if names_part(own, "dataset"):  # the weights were those of the others
            kept = without_part(kept, "dataset-weights")
        try:
            arms[name], place = recipe_from_flags([*kept, *own], "compare", DESCRIPTION, PLACE)
        except SegueError as error:
            raise SegueError(f"arm {name!r}: {error}") from error
    return launch(arms, place, ["compare", *arguments])


def _split(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The common flags, and each arm's name and own flags."""
    common: list[str] = []
    arms: list[tuple[str, list[str]]] = []
    i = 0
    while i < len(arguments):
        if arguments[i] != "--arm":
            common.append(arguments[i])
            i += 1
            continue
        own = arguments[i + 2 : i + 4]  # a flag without quotes is followed by its value
        unquoted = len(own) == 2 and re.fullmatch(r"--[^\s=]+", own[0]) and not own[1].startswith("-")
        if not own or unquoted:
            raise SegueError('--arm takes a name and its flags in quotes, for example --arm scratch "--offline none"')
        name, flags = arguments[i + 1], arguments[i + 2]
        if name in dict(arms):
            raise SegueError(f"two arms are named {name!r}; rename one")
        arms.append((name, shlex.split(flags)))
        i += 3
    return common, arms
