"""What the arms' recipes share and where they differ, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from segue.report.text import setting

Field = tuple[str, ...]


def flatten(recipe: Mapping[str, Any]) -> dict[Field, str]:
    """A nested recipe as `path → value`, in order.

    A part with a name, such as `offline: {"name": "cql", "alpha": 5}`, becomes `(offline,) → cql` and
    `(offline, cql, alpha) → 5`, so that hyper-parameters of different algorithms are never compared.
    """
    return {path: setting(value) for key, part in recipe.items() for path, value in _walk((key,), part)}


def _walk(path: Field, part: Any) -> Iterator[tuple[Field, Any]]:
    if isinstance(part, list | tuple) and part and all(isinstance(p, Mapping) and "name" in p for p in part):
        yield path, [p["name"] for p in part]
        for p in part:
            yield from _parameters((*path, str(p["name"])), p)
    elif isinstance(part, Mapping) and "name" in part:
        yield path, part["name"]
        yield from _parameters((*path, str(part["name"])), part)
    elif isinstance(part, Mapping) and part:
        for key, value in part.items():
            yield from _walk((*path, key), value)
    else:
        yield path, part


def _parameters(path: Field, part: Mapping[str, Any]) -> Iterator[tuple[Field, Any]]:
    for key, value in part.items():
        if key != "name":
            yield from _walk((*path, key), value)


def compare(
    recipes: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[Field, dict[str, str | None]], dict[Field, str]]:
    """`(differing, shared)`: field → arm → value (None where the arm has no such field), and field → value.

    A field is compared between the arms that have the part it belongs to: that one arm uses no CQL is one
    difference, not one for each of CQL's hyper-parameters.
    """
    flat = {name: flatten(recipe) for name, recipe in recipes.items()}
    differing: dict[Field, dict[str, str | None]] = {}
    shared: dict[Field, str] = {}
    for field in dict.fromkeys(field for fields in flat.values() for field in fields):
        part = field[:-1]
        concerned = [fields for fields in flat.values() if not part or any(f[: len(part)] == part for f in fields)]
        values = {fields.get(field) for fields in concerned}
        if len(values) > 1:
            differing[field] = {name: fields.get(field) for name, fields in flat.items()}
        else:
            shared[field] = concerned[0][field]
    return differing, shared
