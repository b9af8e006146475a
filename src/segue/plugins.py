"""Parts from other packages: what can be named in a recipe, by name, and where it comes from.

A package declares its classes as entry points (`segue.algorithms`, `segue.bridges`, `segue.replays`) and its readers of
datasets (`segue.datasets`, named by the scheme); a module that is not installed registers them when it is imported
(`segue.register`, `--import MODULE`). Files that name a part (recipes, checkpoints) name its module too, which is
imported when it is needed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import sys
import warnings
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from typing import Any, Generic, TypeVar

from segue.errors import SegueError

Part = TypeVar("Part")


class PluginError(SegueError):
    """A part from another package that cannot be used."""


class Registry(Mapping[str, Part], Generic[Part]):
    """Parts by name: Segue's own, those of installed packages, and those registered by hand.

    Entry points are looked up when a name is not known or all names are asked for, and no earlier.
    """

    def __init__(self, kind: str, own: Mapping[str, Part]) -> None:
        self.kind, self._parts = kind, dict(own)
        self._entries: dict[str, importlib.metadata.EntryPoint] | None = None

    def add(self, name: str, part: Part) -> None:
        """Register a part.

        Raises:
            PluginError: if another one has the name.
        """
        before = self._parts.get(name)
        if before is not None and (_place(before) != _place(part)):
            raise PluginError(f"{_place(part)}: the name {name!r} is taken by {_place(before)}; choose another one")
        self._parts[name] = part

    def __getitem__(self, name: str) -> Part:
        if name not in self._parts:
            entry = self._found().get(name)
            if entry is None:
                raise KeyError(name)
            try:
                part = entry.load()
            except Exception as error:
                what = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise PluginError(f"the {self.kind} {name!r} ({entry.value}) cannot be loaded: {what}") from error
            if getattr(part, "name", name) != name:
                raise PluginError(
                    f"the entry point {name!r} is {_place(part)}, whose name is {part.name!r}; make them one"
                )
            self._parts[name] = part
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts or name in self._found()

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._parts, *self._found()]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def items(self) -> ItemsView[str, Part]:
        """Names and parts, without those that cannot be loaded, which a warning names."""
        found: dict[str, Part] = {}
        for name in self:
            try:
                found[name] = self[name]
            except PluginError as error:
                warnings.warn(str(error), stacklevel=2)
        return found.items()

    def values(self) -> ValuesView[Part]:
        """The parts, without those that cannot be loaded."""
        return dict(self.items()).values()

    def _found(self) -> dict[str, importlib.metadata.EntryPoint]:
        if self._entries is None:
            points = importlib.metadata.entry_points(group=f"segue.{self.kind}s")
            self._entries = {point.name: point for point in points}
        return self._entries


def register(part: type[Part]) -> type[Part]:
    """Make an algorithm, a bridge or a replay strategy known by its `name`; usable as a decorator.

    Raises:
        PluginError: if it is none of these, or its name is taken.
    """
    from segue.algorithms import ALGORITHMS, Algorithm
    from segue.bridges import BRIDGES, Bridge
    from segue.replay import REPLAYS, ReplayStrategy

    homes: list[tuple[type, Any]] = [(Algorithm, ALGORITHMS), (Bridge, BRIDGES), (ReplayStrategy, REPLAYS)]
    for base, registry in homes:
        if isinstance(part, type) and issubclass(part, base):
            if "name" not in vars(part) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", part.name):  # type: ignore[attr-defined]
                raise PluginError(f'{_place(part)}: give it a name of its own: name: ClassVar[str] = "lower-case"')
            if "__dataclass_params__" not in vars(part):
                raise PluginError(
                    f"{_place(part)} is no dataclass, so its fields would be neither flags nor saved: put "
                    "@dataclasses.dataclass(frozen=True, kw_only=True) above it"
                )
            registry.add(part.name, part)  # type: ignore[attr-defined]
            return part
    raise PluginError(f"{part!r} is no algorithm, bridge or replay strategy; readers of datasets: register_dataset")


def register_dataset(scheme: str, read: Callable[[str], Any]) -> None:
    """Make a reader of datasets known by the scheme of its URIs; it gets what follows the colon and returns Columns.

    Raises:
        PluginError: if the scheme is taken.
    """
    from segue.data import FORMATS

    FORMATS.add(scheme, read)


def import_module(name: str, why: str = "") -> None:
    """Import a module that registers parts, from the current folder too.

    Raises:
        PluginError: if it cannot be imported; `why` says who asked.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        importlib.import_module(name)
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise PluginError(f"{why}module {name!r} cannot be imported: {what}") from error


def search_path() -> str:
    """Where this process finds modules, a script's own folder too, as a PYTHONPATH for another one."""
    return os.pathsep.join(os.path.abspath(place) for place in sys.path)


def module_of(part: Any) -> str | None:
    """The module that a part of another package comes from; None for Segue's own.

    Raises:
        PluginError: if it is defined where another process cannot import it.
    """
    module: str = part.__module__
    if module == "__main__":
        raise PluginError(
            f"{part.__qualname__} is defined in the script or notebook itself, so neither worker processes nor a later "
            "command can import it: move it into a module, and import that"
        )
    return None if module.partition(".")[0] == "segue" else module


def _place(part: Any) -> str:
    return f"{part.__module__}.{part.__qualname__}"
