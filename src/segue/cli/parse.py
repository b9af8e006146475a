"""Command lines from dataclasses and functions, by tyro, with one-line errors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from segue.errors import SegueError

T = TypeVar("T")


def parse(spec: Callable[..., T], arguments: Sequence[str], command: str, description: str) -> T:
    """Build `spec` from the arguments.

    Raises:
        SegueError: for a flag that does not exist, the nearest one first.
        SystemExit: for --help, and (code 2) for a value that does not fit, which tyro explains.
    """
    config = (tyro.conf.OmitSubcommandPrefixes,)
    value, rest = tyro.cli(
        spec,
        args=list(arguments),
        prog=f"segue {command}",
        description=description,
        return_unknown_args=True,
        config=config,
    )
    if rest:
        raise SegueError(_unknown_argument(rest[0], spec, command, config))
    return value


def _unknown_argument(word: str, spec: Callable[..., Any], command: str, config: Any) -> str:
    parser = tyro.extras.get_parser(spec, config=config)
    flags = [flag for flag in _flags(parser) if not flag.startswith("--no-")]
    if not word.startswith("-"):
        return f"unexpected argument {word!r}; see segue {command} --help"
    name = word.split("=")[0].replace("_", "-")
    near = difflib.get_close_matches(name, flags, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown flag {word.split('=')[0]!r}: {hint}segue {command} --help lists {len(flags)} flags"


def _flags(parser: Any) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
