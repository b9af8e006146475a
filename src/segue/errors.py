"""Errors meant for people: what was wrong, where, what was expected, what to do."""

from __future__ import annotations

import difflib
import math
import numbers
import types
import typing
from collections.abc import Iterable
from typing import Any


class SegueError(Exception):
    """Something the user can fix. The command line prints it as one line and exits with code 2."""


class DataError(SegueError):
    """A dataset that cannot be used as it is: names the source, the column and, where there is one, the row."""


class RecipeError(SegueError):
    """A recipe whose parts do not fit together, found before anything trains."""


class Diverged(SegueError):
    """Training produced NaN or Inf: names the phase, the step and the quantity."""


def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar}


def require_types(part: Any, what: str) -> None:
    """Refuse a dataclass whose values are not of the declared types, or not finite; a JSON file may hold anything.

    Raises:
        RecipeError: naming the field, its value and what was expected.
    """
    for name, hint in _hints(type(part)).items():
        value = getattr(part, name)
        if not _fits(value, hint):
            raise RecipeError(f"{what}: {name} is {value!r}; expected {_words(hint)}")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is typing.Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, origin or hint)


def _words(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(argument) for argument in arguments)
    if origin is tuple:
        return f"a list (in Python a tuple), each {_words(arguments[0])}"
    plain = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text", type(None): "null"}
    return plain.get(hint, getattr(hint, "__name__", str(hint)))


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that does not exist: the nearest match first, then everything there is."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}there is {', '.join(choices) or 'none'}"
