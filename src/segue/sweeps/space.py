"""What a sweep varies: values of the fields of a recipe and of its parts."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from segue.errors import SURE, Checked, RecipeError, nearest, unknown
from segue.recipe import PARTS, Recipe

#: Fields that a sweep may not vary, and why.
FIXED = {
    **dict.fromkeys(("seed", "seeds"), "seeds are no hyper-parameters: every trial has the same ones; give --seeds"),
    **dict.fromkeys(
        ("env", "env_kwargs", "env_wrappers", "max_episode_steps", "reference", "cost"),
        "returns of different tasks cannot be compared; give each its own sweep",
    ),
    **dict.fromkeys(
        ("eval_every", "handover_eval_every", "eval_episodes", "keep_policies"),
        "it changes how policies are judged, not what they learn",
    ),
}


@dataclasses.dataclass(frozen=True)
class Range(Checked):
    """Numbers from `low` to `high`, both included; whole ones where the field is a whole number.

    With `log`, every factor is equally likely instead of every distance.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise RecipeError(f"a range is {self.low:g} to {self.high:g}; expected the lower number first")
        if self.log and self.low <= 0:
            raise RecipeError(f"a logarithmic range begins at {self.low:g}; expected a number above 0")


Values = Sequence[Any] | Range


def parsed(text: str) -> tuple[str, Values]:
    """The field and its values of `PATH=1,2.5,5`, `PATH=LOW:HIGH` or `PATH=LOW:HIGH:log`.

    Raises:
        RecipeError: if it is none of these.
    """
    path, equals, given = text.partition("=")
    if not equals or not path or not given:
        raise RecipeError(f"--vary {text}: expected FIELD=VALUE,VALUE… or FIELD=LOW:HIGH, such as offline.alpha=1,2.5")
    bounds = given.split(":")
    if len(bounds) in (2, 3) and bounds[2:] in ([], ["log"]):
        try:
            return path, Range(float(bounds[0]), float(bounds[1]), bool(bounds[2:]))
        except ValueError:  # a text with a colon, such as the name of a dataset
            pass
    try:
        return path, json.loads(f"[{given}]")
    except ValueError:
        return path, [_plain(word) for word in given.split(",")]


def _plain(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word


def field_of(path: str, recipe: Recipe) -> tuple[str, ...]:
    """The names on the way to a field: `offline.conservative-weight`, `online_steps`, `bridges.q-filter.percentile`.

    Raises:
        RecipeError: if a sweep may not vary it; it names the fields of this recipe that may be meant.
    """
    first, *rest = path.removeprefix("--").split(".")
    names = (first.replace("-", "_"), *rest[:-1], *[last.replace("-", "_") for last in rest[-1:]])
    if names[0] in FIXED:
        raise RecipeError(f"vary {path}: {FIXED[names[0]]}")
    if rest and names[0] not in PARTS:
        raise RecipeError(unknown("part of a recipe", names[0], PARTS))
    if names[0] not in {field.name for field in dataclasses.fields(Recipe)}:
        raise RecipeError(_unknown_field(names[0], recipe))
    if len(names) > 2 + (names[0] == "bridges"):
        raise RecipeError(f"vary {path}: {names[0]} has no such field")
    if names[0] == "bridges" and len(names) == 2:
        raise RecipeError(f"vary {path}: expected a field of this bridge, as bridges.q-filter.percentile")
    return names


def _unknown_field(name: str, recipe: Recipe) -> str:
    """What may be meant by a name: a field, or a hyper-parameter without its part."""
    parts: dict[str, Any] = {"offline": recipe.offline, "online": recipe.online, "replay": recipe.effective_replay}
    parts |= {f"bridges.{bridge.name}": bridge for bridge in recipe.bridges}
    paths = {field.name: [field.name] for field in dataclasses.fields(Recipe)}
    for owner, part in parts.items():
        for field in dataclasses.fields(part) if part is not None else ():
            paths.setdefault(field.name, []).append(f"{owner}.{field.name}")
    meant = [repr(path) for near in nearest(name, paths, SURE) for path in paths[near]]
    hint = "a hyper-parameter is named with its part, as offline.alpha; segue run --help lists all"
    if meant:
        hint = f"did you mean {' or '.join(meant)}?"
    return f"unknown field of a recipe {name!r}: {hint}"


def changed(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with these values; parts are replaced first, then their hyper-parameters.

    Raises:
        RecipeError: if a field does not exist, or a value does not fit.
    """
    for path, value in sorted(values.items(), key=lambda item: item[0].count(".")):
        try:
            recipe = _changed(recipe, field_of(path, recipe), value)
        except RecipeError as error:
            raise RecipeError(f"vary {path}={value}: {error}") from error
    return recipe


def _changed(recipe: Recipe, names: tuple[str, ...], value: Any) -> Recipe:
    field, *rest = names
    if not rest:
        return dataclasses.replace(recipe, **{field: value})
    part = _part(recipe, names)
    new = dataclasses.replace(part, **{rest[-1]: value})
    if field == "bridges":
        return dataclasses.replace(recipe, bridges=tuple(new if one is part else one for one in recipe.bridges))
    return dataclasses.replace(recipe, **{field: new})


def _part(recipe: Recipe, names: tuple[str, ...]) -> Any:
    """The part of the recipe that has the field."""
    field, *rest = names
    kind = PARTS[field][0]
    if field == "bridges":
        there = {bridge.name: bridge for bridge in recipe.bridges}
        if rest[0] not in there:
            raise RecipeError(unknown("bridge of the recipe", rest[0], there))
        return there[rest[0]]
    part = recipe.effective_replay if field == "replay" else getattr(recipe, field)
    if part is None:
        raise RecipeError(f"the recipe has no {field} {kind}")
    return part


def whole(recipe: Recipe, path: str) -> bool:
    """Whether the field holds whole numbers."""
    names = field_of(path, recipe)
    owner: Any = recipe if len(names) == 1 else _part(recipe, names)
    hint = typing.get_type_hints(type(owner)).get(names[-1])
    return int in (hint, *typing.get_args(hint)) and float not in (hint, *typing.get_args(hint))


def title(number: int, values: Mapping[str, Any]) -> str:
    """What a trial is called: its number, and its values by the shortest names that tell them apart."""
    last = [path.rpartition(".")[2] for path in values]
    names = [path if last.count(short) > 1 else short for path, short in zip(values, last, strict=True)]
    return " ".join([f"{number:03d}", *(f"{n}={shown(v)}" for n, v in zip(names, values.values(), strict=True))])


def shown(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "x".join(map(shown, value)) if isinstance(value, list | tuple) else str(value)
