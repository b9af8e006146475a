"""Command lines from dataclasses and functions, by tyro, with one-line errors."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from segue.errors import SegueError, nearest

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
        raise SegueError(_unknown_argument(rest[0], arguments, spec, command, config))
    return value


def _unknown_argument(word: str, arguments: Sequence[str], spec: Callable[..., Any], command: str, config: Any) -> str:
    if not word.startswith("-"):
        flag, before = ["", "", *arguments][arguments.index(word) :][:2] if word in arguments else ("", "")
        if before.startswith("--") and "=" not in before:
            owner, dot, field = before.removeprefix("--").rpartition(".")
            return f"unexpected argument {word!r}: {before} takes no value; to switch it off: --{owner}{dot}no-{field}"
        if flag.startswith("--") and "=" not in flag:
            return f"unexpected argument {word!r}: {flag} takes one value; a list is joined by commas: {before},{word}"
        return f"unexpected argument {word!r}; see segue {command} --help"
    flags = _flags(spec, config)
    name = word.split("=")[0]
    near = nearest(name, flags)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown flag {name!r}: {hint}segue {command} --help lists {len(flags)} flags"


def _flags(spec: Callable[..., Any], config: Any) -> list[str]:
    """Every flag that the help names, without the --no- forms."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        tyro.cli(spec, args=["--help"], config=config)
    found = re.findall(r"^[│ ]*(--[a-z0-9.-]+)", page.getvalue(), re.MULTILINE)
    return list(dict.fromkeys(found))


def docs_of_fields(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass."""
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        before.target.id: str(after.value.value)
        for before, after in zip(body.body, body.body[1:], strict=False)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }
