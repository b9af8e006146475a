"""`segue run`: one recipe, from flags or from a recipe.json."""

from __future__ import annotations

from segue.cli import resume
from segue.cli.launch import PLACE, Again, launch
from segue.cli.parse import parse
from segue.cli.recipe_flags import names_part, recipe_from_flags
from segue.console import PlainConsole
from segue.errors import SegueError
from segue.presets import AUTO, in_words
from segue.recipe import read_recipes

DESCRIPTION = """Pretrain on a dataset, hand over to an online algorithm, fine-tune live.

`segue run --dataset LOG --out DIR` runs the recipe that our studies support (--preset auto). `segue run RECIPE.json
--out DIR` repeats a run. `segue run --resume DIR` continues one that was interrupted, and so does the command that
began it. It also takes a longer budget (--resume DIR --online-steps 200000). Or name the parts (--offline cql
--online sac --bridges q-filter --replay mixed) and add --help to see the hyper-parameters of each as flags."""


def main(arguments: list[str]) -> int:
    """Run, print the table, and say where the report is."""
    if arguments and not arguments[0].startswith("-"):
        again = parse(Again, arguments, "run", DESCRIPTION)
        if len(again.recipes) != 1:
            raise SegueError("segue run repeats one recipe.json; segue compare takes several")
        return launch(read_recipes(again.recipes[0]), again, ["run", *arguments])
    if names_part(arguments, "resume"):
        return resume.main(arguments)
    recipe, place = recipe_from_flags(arguments, "run", DESCRIPTION, PLACE)
    if place.preset == AUTO:
        PlainConsole().print(f"auto: {in_words(recipe)}; --help shows its flags", soft_wrap=True)
    return launch({"run": recipe}, place, ["run", *arguments])
