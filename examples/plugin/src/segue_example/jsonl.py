"""Datasets as lines of JSON, a step each: {"observation": [...], "action": [...], "reward": 0.1, "terminal": false}."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from segue.data import Columns
from segue.errors import DataError


def read(name: str) -> Columns:
    """One step a line, episodes one after the other; an optional "timeout" marks a cut episode."""
    try:
        lines = Path(name).read_text().splitlines()
    except OSError as error:
        raise DataError(f"jsonl:{name}: cannot be read: {error.strerror}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"jsonl:{name}: line {number} is not JSON ({error})") from error
    missing = [n for n, row in enumerate(rows, 1) if {"observation", "action", "reward", "terminal"} - set(row)]
    if missing:
        raise DataError(f"jsonl:{name}: line {missing[0]} lacks observation, action, reward or terminal")
    column = {field: np.asarray([row[field] for row in rows]) for field in ("observation", "action", "reward")}
    return Columns(
        observations=column["observation"],
        actions=column["action"],
        rewards=column["reward"],
        terminals=np.asarray([row["terminal"] for row in rows]),
        timeouts=np.asarray([row.get("timeout", False) for row in rows]),
    )
