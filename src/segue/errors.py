"""Errors meant for people: what was wrong, where, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SegueError(Exception):
    """Something the user can mend. The command line prints it as one line and exits with code 2."""


class DataError(SegueError):
    """A log that cannot be used as it is: names the source, the column and, where there is one, the row."""


class RecipeError(SegueError):
    """A recipe whose parts do not fit together, found before anything trains."""


class Diverged(SegueError):
    """Training produced NaN or Inf: names the phase, the step and the quantity."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that does not exist: the nearest match first, then everything there is."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}there is {', '.join(choices) or 'none'}"
