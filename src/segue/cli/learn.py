"""`segue learn`: fine-tune from a live log, and stage candidates in it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from segue.cli.parse import whole_number
from segue.cli.recipe_flags import last_value, names_part, recipe_from_flags, refuse_unknown
from segue.cli.trained import choose, is_exported
from segue.console import PlainConsole
from segue.errors import SegueError
from segue.recipe import Recipe
from segue.runner.jobs import Event

DESCRIPTION = """Fine-tune from the log of a live service, and stage candidates in it.

  segue learn --db live.db --run runs/x --every 1000

It starts from the end of a run, with the run's online algorithm, bridges, replay and dataset; flags of segue run change
them. It runs beside the service, may be stopped or killed at any time, and the same command goes on."""
#: Transitions over which schedules run, if the run had no online phase that says so.
STEPS = 100_000


def _flag(kind: Any, help: str) -> Any:
    return Annotated[kind, tyro.conf.arg(help=help)]


FLAGS: list[tuple[str, Any, Any]] = [
    ("db", _flag(str, "The live log: a file, sqlite:///FILE or postgresql://…; the service may be writing it."), ""),
    ("run", _flag(Path | None, "The run directory, or one checkpoint in it, that learning starts from."), None),
    ("arm", _flag(str | None, "Which arm of the run, as a folder in its checkpoints (also its offline phase)."), None),
    ("log_arm", _flag(str | None, "Only learn from episodes of this arm of the log: live, candidate, fallback, "
                                  "application."), None),
    ("out", _flag(Path | None, "The learner's own run directory; by default runs/live-NAME, after --run."), None),
    ("every", _flag(int, "Transitions between candidates."), 1000),
    ("overdue", _flag(int, "Rows of the log for which a missing outcome is waited for before what follows it in its "
                            "episode is learnt from."), 100_000),
    ("settle", _flag(int, "Rows of the log for which it is waited whether a decision was overridden, after its "
                          "outcome."), 0),
    ("once", _flag(bool, "Learn from what is there, then stop."), False),
]  # fmt: skip


def main(arguments: list[str]) -> int:
    """Learn until Ctrl-C; show where it stands in one line."""
    if "--help" in arguments or "-h" in arguments:
        recipe_from_flags(arguments, "learn", DESCRIPTION, FLAGS)
    db, run = last_value("db", arguments), last_value("run", arguments)
    if not db or not run:
        refuse_unknown(arguments, "learn", DESCRIPTION, FLAGS)
        raise SegueError("segue learn needs a log and a run to start from: --db live.db --run runs/x")
    if is_exported(Path(run)):
        raise SegueError(f"--run {run}: an exported policy has no critics; expected the run directory it came from")
    seed = last_value("seed", arguments)
    checkpoint = choose(Path(run), last_value("arm", arguments) or None, whole_number(seed) if seed else None)
    from segue.live.learner import Learner, decides, recipe_of, require_learnable

    base = recipe_of(checkpoint)
    for bridge in filter(decides, base.bridges):
        words = f"the run's bridge {bridge.name} is left out: in live operation the service decides who acts"
        PlainConsole().print(words, soft_wrap=True, markup=False)
    base = dataclasses.replace(base, bridges=tuple(bridge for bridge in base.bridges if not decides(bridge)))
    if not names_part(arguments, "online"):
        require_learnable(base)
    recipe, flags = recipe_from_flags(_completed(arguments, base), "learn", DESCRIPTION, FLAGS, base)
    out = flags.out or Path("runs") / f"live-{Path(run).resolve().name}"
    shown = _Shown()
    learner = Learner(
        flags.db,
        checkpoint,
        dataclasses.replace(recipe, seeds=1),
        out=out,
        every=flags.every,
        arm=flags.log_arm,
        overdue=flags.overdue,
        settle=flags.settle,
        on_event=shown,
    )
    shown.learner = learner
    try:
        learner.run(once=flags.once)
    finally:
        shown.end()
        learner.close()
    PlainConsole().print(f"Report: segue report {out}", soft_wrap=True, markup=False)
    return 0


def _completed(arguments: list[str], base: Recipe) -> list[str]:
    """The flags, with what follows from them."""
    more: list[str] = []
    if base.online is None and not names_part(arguments, "online-steps"):
        more += ["--online-steps", str(STEPS)]  # a run without an online phase says nothing of its length
    if last_value("dataset", arguments) == "None":
        more += ["--offline", "none", "--offline-steps", "0"]
    return [*arguments, *more]


class _Shown:
    """One line that is written over on a terminal; notes stay."""

    def __init__(self) -> None:
        self.learner: Any = None
        self.open, self.terminal = False, sys.stdout.isatty()

    def __call__(self, event: Event) -> None:
        if event["event"] == "note":
            self.end()
            print(event["message"], flush=True)
        elif event["event"] == "progress" and self.terminal and self.learner is not None:
            print(f"\r\x1b[K{self.learner.status()}", end="", flush=True)
            self.open = True

    def end(self) -> None:
        if self.open:
            print()
            self.open = False
