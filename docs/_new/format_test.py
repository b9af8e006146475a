"""NewPart: files are read row by row, and damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.data import load
from segue.errors import DataError


def test_every_line_is_a_step(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("0.1 0.2 0.5 1.0 0\n0.3 0.4 -0.5 2.0 1\n")
    dataset = load(f"new-part:{tmp_path / 'log.txt'}")
    assert dataset.rewards.tolist() == [1.0, 2.0]
    assert dataset.terminals.tolist() == [False, True]


def test_a_line_that_is_no_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("0.1 zero 0.5 1.0 0\n")
    with pytest.raises(DataError, match="expected numbers"):
        load(f"new-part:{tmp_path / 'log.txt'}")
