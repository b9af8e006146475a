"""Logs that come with the package: `segue:NAME`."""

from __future__ import annotations

from pathlib import Path

from segue.data import npz
from segue.data.dataset import Columns
from segue.errors import DataError, unknown

FOLDER = Path(__file__).with_name("bundled")


def bundled() -> list[str]:
    """Names of the bundled datasets, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


def read(name: str) -> Columns:
    """Columns of a bundled dataset.

    Raises:
        DataError: there is no such dataset.
    """
    if name not in bundled():
        raise DataError(unknown("bundled dataset", name, bundled()))
    return npz.read(str(FOLDER / f"{name}.npz"))
