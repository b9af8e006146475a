"""How annotations are checked while testing: pytest's --jaxtyping-packages names this module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, beartype

#: An int is a float, as PEP 484 has it.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def annotations(function: Callable[..., Any]) -> Any:
    """Beartype, but for `Self`, which it understands only on methods of classes that it decorates whole."""
    kept = {name: hint for name, hint in function.__annotations__.items() if hint not in ("Self", Self)}
    function.__annotations__ = kept
    return _checked(function)
