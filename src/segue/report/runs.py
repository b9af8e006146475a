"""Run directories as reports see them: a `summary.json` read with care."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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
        if not Path(directory).is_dir():
            raise SegueError(f"{directory}: no such directory") from None
        begun = (Path(directory) / "recipe.json").exists()
        expected = f"segue run --resume {directory} goes on" if begun else "expected the directory of a run"
        raise SegueError(f"{path}: not found; it is written when the run ends: {expected}") from None
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


def worst(statuses: Iterable[str]) -> str:
    """The status that a reader must know of first; `complete` only if all are."""
    found = set(statuses)
    return next((s for s in _WORST_FIRST if s in found), "complete" if not found else sorted(found)[0])


def is_finished(seed: Mapping[str, Any]) -> bool:
    """Whether this seed came to the end of its recipe."""
    return seed.get("status") == "complete"


def arm_status(arm: Mapping[str, Any]) -> str:
    """The worst status among an arm's seeds."""
    return worst(str(seed.get("status", "pending")) for seed in arm["seeds"].values())
