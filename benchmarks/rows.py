"""A row of the benchmark: what was measured, against what, and whether it meets its target."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    `target` binds the ratio where there is one, and `ours` where there is none.
    """

    name: str
    unit: str = ""
    ours: float | None = None
    peer: float | None = None
    ratio: float | None = None
    target: float | None = None
    bound: Literal["at least", "at most"] = "at least"
    note: str = ""
    """How it was measured, or why it was not."""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing was measured."""
        value = self.ours if self.ratio is None else self.ratio
        if value is None or self.target is None:
            return None
        return value >= self.target if self.bound == "at least" else value <= self.target

    def as_json(self) -> dict[str, Any]:
        """The row as it stands in `latest.json`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {key: float(f"{v:.4g}") if isinstance(v, float) else v for key, v in fields.items()} | {"met": self.met}


def faster(name: str, ours: float, peer: float | None, unit: str, target: float | None, note: str = "") -> Row:
    """Ours against a peer's, both as rates."""
    return Row(
        name=name, unit=unit, ours=ours, peer=peer, ratio=peer and ours / peer, target=peer and target, note=note
    )


def sooner(name: str, ours: float, peer: float | None, unit: str, target: float | None, note: str = "") -> Row:
    """Ours against a peer's, both as times: the ratio says how many times as fast ours is."""
    return Row(
        name=name, unit=unit, ours=ours, peer=peer, ratio=peer and peer / ours, target=peer and target, note=note
    )


def line(row: Row) -> str:
    """The row as a line of text."""
    numbers = [_number(row.ours, 10), _number(row.peer, 10), _number(row.ratio, 8)]
    target = "" if row.target is None else f"{'≥' if row.bound == 'at least' else '≤'} {row.target:g}"
    verdict = {True: "yes", False: "NO", None: ""}[row.met]
    return f"{row.name:<38}{''.join(numbers)}  {row.unit:<12}{target:>8} {verdict:<4}{row.note}".rstrip()


HEADER = f"{'':<38}{'ours':>10}{'peer':>10}{'ratio':>8}  {'unit':<12}{'target':>8} met"


def _number(value: float | None, width: int) -> str:
    if value is None:
        return " " * width
    return f"{value:>{width}.0f}" if abs(value) >= 1000 else f"{value:>{width}.3g}"


def write(path: Path, machine: dict[str, Any], rows: Iterable[Row]) -> None:
    """Rows of this run; those of other groups stay from the run before if it was on the same machine."""
    fresh = {row.name: row.as_json() for row in rows}
    kept = {row["name"]: row for row in _before(path, machine)}
    text = json.dumps({"machine": machine, "rows": list({**kept, **fresh}.values())}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n")


def _before(path: Path, machine: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if path.exists():
        before = json.loads(path.read_text())
        if before["machine"] == machine:
            yield from before["rows"]
