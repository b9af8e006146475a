"""What `make data` records: everybody who acts in a dataset still does, and it can be read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies.data.__main__ import make
from studies.data.recipes import Recipe, recipes

import segue


@pytest.mark.parametrize(("name", "recipe"), recipes().items())
def test_a_dataset_is_recorded_and_read(name: str, recipe: Recipe, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    parts = tuple(dataclasses.replace(part, steps=3) for part in recipe.parts)
    make(name, dataclasses.replace(recipe, parts=parts))
    dataset = segue.load(f"minari:{name}")
    assert dataset.env_id == recipe.env_id
    assert len(np.unique(dataset.actions, axis=0)) == 3 * len(parts)
