"""A recipe from flags: the parts are named first, then every hyper-parameter of the named parts is a flag.

`--offline cql` makes `--offline.conservative-weight` exist; `--bridges q-filter` makes
`--bridges.q-filter.percentile` exist; `--replay mixed` makes `--replay.offline-fraction` exist.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import tyro

from segue.algorithms import ALGORITHMS
from segue.bridges import BRIDGES
from segue.cli.dataset_flags import NO_COLUMNS, WEIGHTS, ColumnFlags, with_one_dataset
from segue.cli.env_flags import json_flag
from segue.cli.parse import docs_of_fields, parse
from segue.errors import DataError, RecipeError, unknown
from segue.presets import AUTO, RECIPES, fixed
from segue.recipe import PARTS, Recipe

NONE = "none"
PRESET = (
    f"{AUTO}: what our studies support for the task, and the default where no part is named; a published recipe "
    f"({', '.join(RECIPES)}); or published hyper-parameters of a domain or task for the named algorithms (antmaze, "
    "adroit, hopper-medium…); flags given go before it"
)
#: Fields whose flag is a JSON text, and its kind.
AS_JSON = {"env_kwargs": dict, "env_wrappers": list}


def recipe_from_flags(
    arguments: Sequence[str],
    command: str,
    description: str,
    extra: Sequence[tuple[str, Any, Any]] = (),
    base: Recipe | None = None,
) -> tuple[Recipe, Any]:
    """The recipe of a command line, and the parsed namespace with the `extra` fields (name, type, default).

    With a `base`, flags change that; a part that is named replaces its part together with the hyper-parameters.

    Raises:
        RecipeError: for an unknown part, or parts that do not fit together.
        SegueError: for an unknown flag.
    """
    arguments = with_one_dataset(arguments)
    named = {part: _named(part, arguments) for part in PARTS}
    preset = last_value("preset", arguments)
    values: dict[str, Any] = {}
    if base is not None:
        if preset:
            raise RecipeError("--preset has no use here: what the flags do not name is the run's")
        values = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    else:
        preset = preset or _default(arguments)
        if preset == AUTO or preset in RECIPES:
            try:
                values = fixed(preset, **_task(arguments))
            except DataError:  # perhaps since a flag of the dataset is misspelt
                refuse_unknown(arguments, command, description, extra)
                raise
    for part in [part for part in PARTS if part in values]:
        if names_part(arguments, part) or not values[part]:
            del values[part]
        else:
            named[part] = [one.name for one in values[part]] if part == "bridges" else [values[part].name]
    if preset and not values:
        values = _domain(preset, named)
    _require_named(named, arguments)
    spec = _spec(named, {**values, "preset": preset or None}, extra)
    parsed = parse(spec, arguments, command, description)
    fields = {
        field.name: getattr(parsed, field.name) for field in dataclasses.fields(Recipe) if field.name not in PARTS
    }
    for name, kind in AS_JSON.items():
        value = json_flag(f"--{name.replace('_', '-')}", fields[name], kind)
        fields[name] = tuple(value) if kind is list else value
    for part in ("offline", "online", "replay"):
        fields[part] = getattr(parsed, f"{part}_options") if named[part] else None
    fields["bridges"] = tuple(getattr(parsed.bridges_options, name.replace("-", "_")) for name in named["bridges"])
    return Recipe(**fields), parsed


def refuse_unknown(
    arguments: Sequence[str], command: str, description: str, extra: Sequence[tuple[str, Any, Any]] = ()
) -> None:
    """Look at the flags only: no dataset is read, and those of parts, which may not be named, are left out.

    Raises:
        SegueError: for a flag that does not exist.
    """
    words = functools.reduce(without_part, PARTS, list(arguments))
    parse(_spec({part: [] for part in PARTS}, {"preset": None}, extra), words, command, description)


def _default(arguments: Sequence[str]) -> str:
    """`auto` where there is a task, and nothing says what to do with it."""
    task = last_value("dataset", arguments) or last_value("env", arguments)
    return AUTO if task and not any(names_part(arguments, part) for part in ("offline", "online", "bridges")) else ""


def _task(arguments: Sequence[str]) -> dict[str, Any]:
    """What a preset is told of the task; `None` is how a flag says that there is no dataset or environment."""
    task: dict[str, Any] = {
        name: value for name in ("dataset", "env") if (value := last_value(name, arguments)) not in ("", "None")
    }
    if text := last_value("env-kwargs", arguments):
        task["env_kwargs"] = json_flag("--env-kwargs", text, dict)
    for name, kind in (("held-out", float), ("online-steps", int), ("max-episode-steps", int)):
        with contextlib.suppress(ValueError):  # the parser says what is wrong with it
            if text := last_value(name, arguments):
                task[name.replace("-", "_")] = kind(text)
    return {**task, "clip_actions": "--clip-actions" in arguments}


def _domain(preset: str, named: Mapping[str, list[str]]) -> dict[str, Any]:
    """The instances that a domain's preset starts each named algorithm from, by part.

    An algorithm that has no such preset takes over the other's discount and rewards, so that their returns agree.
    """
    classes = {part: ALGORITHMS[named[part][0]] for part in ("offline", "online") if named[part]}
    able = {part: cls for part, cls in classes.items() if preset in cls.presets}
    if not able:
        known = [AUTO, *RECIPES, *sorted({name for cls in classes.values() for name in cls.presets})]
        names = " or ".join(cls.name for cls in classes.values())
        raise RecipeError(unknown(f"preset of {names}" if names else "preset", preset, known))
    shared = {
        field: value
        for cls in able.values()
        for field, value in cls.presets[preset].items()
        if field in ("discount", "reward_scale", "reward_shift")
    }
    return {part: cls.preset(preset) if part in able else cls(**shared) for part, cls in classes.items()}


def without_part(arguments: Sequence[str], part: str) -> list[str]:
    """The arguments without this part and its hyper-parameters, for an arm that names another."""
    kept: list[str] = []
    skipping = False
    for word in arguments:
        if word.startswith("-") and not _is_number(word):
            flag = word.split("=")[0]
            skipping = flag == f"--{part}" or flag.startswith(f"--{part}.")
        if not skipping:
            kept.append(word)
    return kept


def names_part(arguments: Sequence[str], part: str) -> bool:
    """Whether this part is named among the arguments."""
    return any(word == f"--{part}" or word.startswith(f"--{part}=") for word in arguments)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _named(part: str, arguments: Sequence[str]) -> list[str]:
    """The names given to a part, checked; the last flag counts."""
    kind, known = PARTS[part]
    names = [name for name in last_value(part, arguments).split(",") if name and name != NONE]
    if len(set(names)) < len(names):
        raise RecipeError(f"a {kind} is named twice: {', '.join(names)}")
    for name in names:
        if name not in known:
            raise RecipeError(unknown(kind, name, [*known, NONE]))
    return names


def _require_named(named: Mapping[str, list[str]], arguments: Sequence[str]) -> None:
    """Refuse a hyper-parameter of a part that is not named."""
    for word in arguments:
        part, *path = word.split("=")[0].removeprefix("--").split(".")
        if not word.startswith("--") or part not in PARTS or not path:
            continue
        if part == "bridges" and path[0] in BRIDGES and path[0] not in named[part]:
            names = ",".join([*named[part], path[0]])
            raise RecipeError(f"{word.split('=')[0]}: the bridge is not in the recipe; add --bridges {names}")
        if not named[part]:
            raise RecipeError(f"{word.split('=')[0]}: no {PARTS[part][0]} is named; add --{part} NAME")


def _low_high(words: list[str]) -> tuple[float, ...]:
    return tuple(map(float, words[0].split(",")))


#: `--reference LOW,HIGH`.
LOW_HIGH = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="LOW,HIGH",
    instance_from_str=_low_high,
    is_instance=lambda value: value is None or isinstance(value, tuple),
    str_from_instance=lambda value: ["None" if value is None else ",".join(map(str, value))],
)


def last_value(flag: str, arguments: Sequence[str]) -> str:
    """The last value given to a flag, or nothing."""
    value = ""
    for i, word in enumerate(arguments):
        if word == f"--{flag}":
            value = arguments[i + 1] if i + 1 < len(arguments) else ""
        elif word.startswith(f"--{flag}="):
            value = word.split("=", 1)[1]
    return value


def _spec(named: Mapping[str, list[str]], values: Mapping[str, Any], extra: Sequence[tuple[str, Any, Any]]) -> type:
    """A dataclass with a field per flag, for tyro; `values` are the defaults that a preset changes."""
    fields: list[Any] = []
    docs, hints = docs_of_fields(Recipe), get_type_hints(Recipe)
    for field in dataclasses.fields(Recipe):
        name = field.name
        if name in PARTS:
            _, known = PARTS[name]
            what = f"{docs[name]} ({'any of, with commas: ' if name == 'bridges' else ''}{', '.join([*known, NONE])})"
            argument = Annotated[str, tyro.conf.arg(name=name, help=what, metavar="NAME")]
            fields.append((f"{name}_name", argument, ",".join(named[name]) or NONE))
            if name == "bridges" and named[name]:
                given = {bridge.name: bridge for bridge in values.get(name, ())}
                parts = [(b.replace("-", "_"), known[b], given.get(b) or known[b]()) for b in named[name]]
                options = dataclasses.make_dataclass(
                    "Bridges", [(b, t, dataclasses.field(default=d)) for b, t, d in parts], frozen=True
                )
                fields.append((f"{name}_options", Annotated[options, tyro.conf.arg(name=name)], options()))
            elif named[name]:
                cls = known[named[name][0]]
                default = values[name] if name in values else cls()
                fields.append((f"{name}_options", Annotated[cls, tyro.conf.arg(name=name)], default))
        else:
            kind: Any = str | None if name in ("dataset", "env") else hints[name]
            default = values.get(name, field.default)
            if name == "reference":
                kind = Annotated[kind, LOW_HIGH]
            if name in AS_JSON:
                kind, default = str, json.dumps(values.get(name, AS_JSON[name]()))
            fields.append((name, Annotated[kind, tyro.conf.arg(help=docs[name])], default))
    # Only for --help: `with_one_dataset` has taken them.
    fields.append(("dataset_weights", Annotated[tuple[float, ...], tyro.conf.arg(help=WEIGHTS)], ()))
    fields.append(("columns", ColumnFlags, NO_COLUMNS))
    fields.append(("preset", Annotated[str | None, tyro.conf.arg(help=PRESET, metavar="NAME")], values["preset"]))
    fields += extra
    return dataclasses.make_dataclass(
        "Flags", [(name, kind, dataclasses.field(default=default)) for name, kind, default in fields]
    )
