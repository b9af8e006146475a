"""Run directories as reports see them: a `summary.json` read with care, several merged into one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segue.errors import SegueError

Summary = Mapping[str, Any]

_WORST_FIRST = ("failed", "interrupted", "pending", "complete")


def read_summary(directory: Path) -> dict[str, Any]:
    """The summary of one run directory, with the directory's name under `run`."""
    path = Path(directory) / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SegueError(f"{path}: not found; a run directory holds one once its run has started") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SegueError(f"{path}: cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise SegueError(f"{path}: not JSON (line {error.lineno}: {error.msg}); run again to rewrite it") from None
    arms = summary.get("arms") if isinstance(summary, dict) else None
    if not isinstance(arms, dict):
        raise SegueError(f"{path}: not a Segue summary: expected an object with 'arms'")
    for name, arm in arms.items():
        if not (isinstance(arm, dict) and isinstance(arm.get("seeds"), dict)):
            raise SegueError(f"{path}: arm {name!r} is not a Segue arm: expected an object with 'seeds'")
    return {**summary, "run": Path(directory).resolve().name}


def merge(summaries: Sequence[Summary]) -> dict[str, Any]:
    """One summary with the arms of all: an arm name that occurs in several runs becomes `run/arm`.

    What belongs to a run and not to an arm (machine, versions, command, wall time) is kept under `sources`.
    """
    runs = _distinct([str(s.get("run") or f"run {i}") for i, s in enumerate(summaries, start=1)])
    occurrences = Counter(name for s in summaries for name in s["arms"])
    labelled = [
        (f"{run}/{name}" if occurrences[name] > 1 else name, arm)
        for run, summary in zip(runs, summaries, strict=True)
        for name, arm in summary["arms"].items()
    ]
    names = _distinct([name for name, _ in labelled])
    return {
        "segue_version": ", ".join(dict.fromkeys(str(s.get("segue_version")) for s in summaries)),
        "status": worst(str(s.get("status")) for s in summaries),
        "run": ", ".join(runs),
        "sources": [{**s, "run": run} for run, s in zip(runs, summaries, strict=True)],
        "arms": {name: arm for name, (_, arm) in zip(names, labelled, strict=True)},
    }


def worst(statuses: Iterable[str]) -> str:
    """The status that a reader must know of first; `complete` only if all are."""
    found = set(statuses)
    return next((s for s in _WORST_FIRST if s in found), "complete" if not found else sorted(found)[0])


def arm_status(arm: Mapping[str, Any]) -> str:
    """The worst status among an arm's seeds."""
    return worst(str(seed.get("status", "pending")) for seed in arm["seeds"].values())


def _distinct(names: Sequence[str]) -> list[str]:
    """The names in order, each later twin with the first free number behind it."""
    distinct: list[str] = []
    for name in names:
        candidate, n = name, 2
        while candidate in distinct or (candidate != name and candidate in names):
            candidate, n = f"{name} ({n})", n + 1
        distinct.append(candidate)
    return distinct
