"""Hyper-parameters: frozen dataclasses that are pytrees, whose numbers are leaves.

A `float` is a leaf: another learning rate or discount runs the same compiled program, and a sweep can `vmap` over it.
All else (counts, widths, choices, flags) decides which program it is, and is static.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import jax
import numpy as np

from segue.errors import Checked, RecipeError

NUMBERS = (float, np.floating, np.ndarray, jax.Array)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HyperParameters(Checked):
    """Base of every algorithm, bridge and replay strategy."""

    name: ClassVar[str] = "part"
    """What the command line and the recipe call it."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        jax.tree_util.register_pytree_with_keys(cls, _flatten_with_keys, _unflatten(cls), _flatten)

    def __post_init__(self) -> None:
        """Subclasses check their ranges here."""

    def require(self, field: str, holds: bool, expected: str) -> None:
        """Refuse a hyper-parameter out of its range.

        Raises:
            RecipeError: naming the part, the field, its value and the range.
        """
        if not holds:
            raise RecipeError(f"{self.name}: {field} is {getattr(self, field)!r}; expected {expected}")

    def adjusted(self, **values: Any) -> Self:
        """A copy with these values, unchecked: they may be traced."""
        return _made(type(self), {**vars(self), **values})


def _made(cls: type, fields: dict[str, Any]) -> Any:
    part: Any = object.__new__(cls)
    vars(part).update(fields)
    return part


def _flatten(part: Any) -> tuple[list[Any], Any]:
    fields = {field.name: vars(part)[field.name] for field in dataclasses.fields(part) if field.name in vars(part)}
    numbers = [name for name, value in fields.items() if isinstance(value, NUMBERS)]
    rest = tuple((name, value) for name, value in fields.items() if not isinstance(value, NUMBERS))
    return [fields[name] for name in numbers], (tuple(numbers), rest)


def _flatten_with_keys(part: Any) -> tuple[list[Any], Any]:
    leaves, structure = _flatten(part)
    return [(jax.tree_util.GetAttrKey(n), leaf) for n, leaf in zip(structure[0], leaves, strict=True)], structure


def _unflatten(cls: type) -> Any:
    def unflatten(structure: Any, leaves: Any) -> Any:
        numbers, rest = structure
        return _made(cls, {**dict(zip(numbers, leaves, strict=True)), **dict(rest)})

    return unflatten
