"""Rows as a table for Python: a pandas DataFrame where pandas is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any


class Columns(dict[str, list[Any]]):
    """Lists by the names of columns; prints as a table."""

    def __repr__(self) -> str:
        texts = [[name, *(f"{v:.6g}" if isinstance(v, float) else str(v) for v in self[name])] for name in self]
        widths = [max(map(len, column)) for column in texts]
        lines = zip(*texts, strict=True)
        return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def frame(rows: Sequence[dict[str, Any]]) -> Any:
    """A DataFrame of the rows, which have the same keys, or `Columns` without pandas."""
    if importlib.util.find_spec("pandas"):
        import pandas

        return pandas.DataFrame(list(rows))
    return Columns({name: [row[name] for row in rows] for name in (rows[0] if rows else ())})
