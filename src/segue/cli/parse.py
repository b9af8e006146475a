"""Command lines from dataclasses and functions, by tyro, with one-line errors."""

from __future__ import annotations

import contextlib
import dataclasses
import decimal
import functools
import inspect
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, Union, get_args

import tyro

from segue.errors import SegueError, nearest

T = TypeVar("T")
#: What a number may end in, and its factor.
UNITS = {"k": 1_000, "K": 1_000, "M": 1_000_000}
#: Flags that a command looks for before its parser does.
BY_HAND = {"run": ("--resume",), "compare": ("--arm",), "sweep": ("--vary",)}
#: Least similarity of the flag that may be meant.
LIKE = 0.6
_OFF = re.compile(r"^(--(?:.+\.)?)no-")
_REGISTRY = tyro.constructors.ConstructorRegistry()
#: Not empty while tyro's own rule is asked for.
_ASKING: list[bool] = []


def whole_number(text: str) -> int:
    """A whole number as people write it: 1000, 1_000, 1e3, 10k or 2M.

    Raises:
        ValueError: if it is none.
    """
    factor = UNITS.get(text[-1:], 1)
    try:
        value = decimal.Decimal(text[:-1] if factor > 1 else text) * factor
        if value == value.to_integral_value() and abs(value) < 2**63:
            return int(value)
    except decimal.DecimalException:  # no number, NaN, or too large
        pass
    raise ValueError(f"{text!r} is not a whole number; expected one such as 1000, 1_000, 1e3 or 10k")


@_REGISTRY.primitive_rule
def _whole_numbers(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[int] | None:
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: whole_number(words[0]),
        is_instance=lambda value: type(value) is int,
        str_from_instance=lambda value: [str(value)],
    )


@_REGISTRY.primitive_rule
def _optional(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """What may be left out is shown as what it is otherwise; the word None leaves it out, too."""
    kinds = get_args(info.type)
    if type(None) not in kinds:
        return None
    kind: Any = Union[tuple(kind for kind in kinds if kind is not type(None))]  # noqa: UP007
    make = tyro.constructors.PrimitiveTypeInfo.make(kind, info.markers)
    given = tyro.constructors.ConstructorRegistry.get_primitive_spec(make)
    if isinstance(given, tyro.constructors.UnsupportedTypeAnnotationError):
        return None
    counts = (given.nargs,) if isinstance(given.nargs, int) else given.nargs
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*" if counts == "*" else 1 if counts == (1,) else tuple(sorted({1, *counts})),
        choices=given.choices and (*given.choices, "None"),
        metavar=given.metavar,
        instance_from_str=lambda words: None if words == ["None"] else given.instance_from_str(words),
        is_instance=lambda value: value is None or given.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else given.str_from_instance(value),
    )


@_REGISTRY.struct_rule
def _explained(info: tyro.constructors.StructTypeInfo) -> tyro.constructors.StructConstructorSpec | None:
    """Tyro's own rule for dataclasses, but each explanation is one paragraph: Tyro keeps breaks of the source."""
    if not dataclasses.is_dataclass(info.type) or _ASKING:
        return None
    _ASKING.append(True)
    try:
        made = tyro.constructors.ConstructorRegistry.get_struct_spec(info)
    finally:
        _ASKING.pop()
    if not isinstance(made, tyro.constructors.StructConstructorSpec):
        return None
    explain = functools.partial(_explanation, info.type)
    fields = (dataclasses.replace(field, helptext=functools.partial(explain, field)) for field in made.fields)
    return dataclasses.replace(made, fields=tuple(fields))


def _explanation(cls: type, field: tyro.constructors.StructFieldSpec) -> str | None:
    """The string under the field; where there is none, what Tyro finds, such as a comment."""
    found = docs_of_fields(cls).get(field.name)
    return found or (field.helptext() if callable(field.helptext) else field.helptext)


def parse(spec: Callable[..., T], arguments: Sequence[str], command: str, description: str) -> T:
    """Build `spec` from the arguments.

    Raises:
        SegueError: for a flag that does not exist, the nearest one first.
        SystemExit: for --help, and (code 2) for a value that does not fit, which tyro explains.
    """
    config, said = (tyro.conf.OmitSubcommandPrefixes,), io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            value, rest = tyro.cli(
                spec,
                args=list(arguments),
                prog=f"segue {command}",
                description=_wrapped(description),
                return_unknown_args=True,
                config=config,
                registry=_REGISTRY,
            )
    except SystemExit as stopped:
        # After a flag that it does not know, Tyro misses the argument that comes next, and says only that.
        known = _flags(spec, config, command) if stopped.code else []
        names = (word for word in arguments if re.match("-+[A-Za-z]", word))
        if known and (unknown := next((name for name in names if not _among(name, known)), None)):
            raise SegueError(_unknown_argument(unknown, arguments, known, command)) from None
        sys.stderr.write(said.getvalue())
        raise
    sys.stderr.write(said.getvalue())
    if rest:
        raise SegueError(_unknown_argument(rest[0], arguments, _flags(spec, config, command), command))
    return value


def _among(word: str, flags: Sequence[str]) -> bool:
    """Whether a word of the command line is one of the flags, also to switch it off."""
    name = word.split("=")[0].replace("_", "-")
    return name in ("-h", "--help", *flags) or _OFF.sub(r"\1", name) in flags


def _wrapped(description: str) -> str:
    """A headline, and below it paragraphs that fit the terminal; lines that are further in are examples, and stay.

    Tyro keeps a line only where it begins with a space.
    """
    wrapper = textwrap.TextWrapper(
        shutil.get_terminal_size().columns, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    lines = []
    for paragraph in description.split("\n\n"):
        if paragraph.startswith(" "):
            lines += ["  " + line for line in paragraph.splitlines()]
        else:
            lines += wrapper.wrap(" ".join(paragraph.split()))
    return "\n".join(lines).removeprefix("  ")


def _unknown_argument(word: str, arguments: Sequence[str], flags: Sequence[str], command: str) -> str:
    if not word.startswith("-"):
        if word in arguments:
            flag, before = ["", "", *arguments][arguments.index(word) :][:2]
        else:  # it came as --flag=word
            flag, before = "", next((one.split("=")[0] for one in arguments if one.endswith(f"={word}")), "")
        if before.startswith("--") and "=" not in before:
            off = "" if _OFF.match(before) else f"; to switch it off: {_switched_off(before)}"
            return f"unexpected argument {word!r}: {before} takes no value{off}"
        if flag.startswith("--") and "=" not in flag:
            return f"unexpected argument {word!r}: {flag} takes one value; a list is joined by commas: {before},{word}"
        return f"unexpected argument {word!r}; see segue {command} --help"
    name = word.split("=")[0]
    near = nearest(_OFF.sub(r"\1", name), flags, LIKE)
    if _OFF.match(name):
        near = [_switched_off(one) for one in near]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown flag {name!r}: {hint}segue {command} --help lists {len(flags)} flags"


def _switched_off(flag: str) -> str:
    owner, dot, field = flag.removeprefix("--").rpartition(".")
    return f"--{owner}{dot}no-{field}"


def _flags(spec: Callable[..., Any], config: Any, command: str) -> list[str]:
    """Every flag that the help names, without the --no- forms, and those that the command looks for itself."""
    page, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "120"  # a narrow page cuts long flags, and a wide one has two columns
    try:
        with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
            tyro.cli(spec, args=["--help"], config=config, registry=_REGISTRY)
    finally:
        del os.environ["COLUMNS"]
        if columns is not None:
            os.environ["COLUMNS"] = columns
    found = re.findall(r"^[│ ]*(--[a-z][a-z0-9.-]*)", page.getvalue(), re.MULTILINE)
    return list(dict.fromkeys([*found, *BY_HAND.get(command, ())]))


@functools.cache
def docs_of_fields(cls: type) -> Mapping[str, str]:
    """The string under each field of a dataclass and of those it extends, in one line; none for one made in code."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            with contextlib.suppress(OSError, TypeError):
                docs |= _docs_in(inspect.getsource(base))
    return docs


def _docs_in(source: str) -> dict[str, str]:
    import ast

    body = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        before.target.id: " ".join(str(after.value.value).split())
        for before, after in zip(body.body, body.body[1:], strict=False)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }
