"""Training metrics as reports see them: the columns of `metrics.csv` that they look at, as one curve per seed."""

from __future__ import annotations

import contextlib
import csv
import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segue.report.evaluations import Curve
from segue.report.runs import Summary

PHASES = ("offline", "online")
NO_CURVE: Curve = (np.empty(0), np.empty(0))

#: (what metrics.csv calls the arm, seed) → phase → metric → curve.
History = dict[tuple[str, str], dict[str, dict[str, Curve]]]


def attach_metrics(summary: Summary, directory: Path, names: Collection[str]) -> dict[str, Any]:
    """The summary with `metrics` in every seed: phase → name → curve. A run without metrics.csv has none."""
    history = read_metrics(Path(directory) / "metrics.csv", names)
    arms = {}
    for name, arm in summary["arms"].items():
        metrics = {key: _of_seed(history, arm, key) for key in arm["seeds"]}
        arms[name] = {**arm, "seeds": {key: {**seed, "metrics": metrics[key]} for key, seed in arm["seeds"].items()}}
    return {**summary, "arms": arms}


def metric(seed: Mapping[str, Any], phase: str, name: str) -> Curve:
    """One curve of a seed; empty where it was not recorded."""
    return ((seed.get("metrics") or {}).get(phase) or {}).get(name, NO_CURVE)


def read_metrics(path: Path, names: Collection[str]) -> History:
    """The named columns of a `metrics.csv`. Cells that are empty, cut off or not finite are left out."""
    found: dict[tuple[str, str], Any] = defaultdict(lambda: {p: defaultdict(list) for p in PHASES})
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            head = next(rows, [])
            if not {"arm", "seed", "phase", "step"} <= set(head):
                return {}
            arm, seed, phase, step = (head.index(name) for name in ("arm", "seed", "phase", "step"))
            columns = [(i, name) for i, name in enumerate(head) if name in names]
            for row in rows:
                if len(row) != len(head) or row[phase] not in PHASES:
                    continue
                of_phase = found[row[arm], row[seed]][row[phase]]
                for i, name in columns:
                    if row[i]:
                        with contextlib.suppress(ValueError):
                            of_phase[name].append((float(row[step]), float(row[i])))
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    return {
        key: {phase: {name: _curve(points) for name, points in of.items()} for phase, of in phases.items()}
        for key, phases in found.items()
    }


def _curve(points: list[tuple[float, float]]) -> Curve:
    finite = sorted(point for point in points if all(map(math.isfinite, point)))
    steps, values = np.asarray(finite, dtype=float).reshape(-1, 2).T
    return steps, values


def _of_seed(history: History, arm: Mapping[str, Any], key: str) -> dict[str, dict[str, Curve]]:
    listed = arm["seeds"][key].get("metrics_of", {})
    return {phase: history.get((str(listed.get(phase)), key), {}).get(phase, {}) for phase in PHASES}
