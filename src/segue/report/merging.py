"""Several runs in one report: their arms side by side, those of one name on several tasks as one method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from segue.report.runs import Summary, worst
from segue.report.tasks import tasks


def merge(summaries: Sequence[Summary]) -> dict[str, Any]:
    """One summary with the arms of all, each with its `run` and its `method`.

    The arm of a run of a single recipe is called as the run. An arm name that occurs in several runs becomes
    `run/arm`, or the run's where it is all of it; its method is the bare name if the runs are of different tasks. What
    belongs to a run and not to an arm (machine, versions, command, wall time) is kept under `sources`.
    """
    called = [str(s.get("run") or f"run {i}") for i, s in enumerate(summaries, start=1)]
    runs = _distinct(called)
    alone = [list(summary["arms"]) == ["run"] for summary in summaries]
    found = [
        (i, called[i] if alone[i] else name, arm)
        for i, summary in enumerate(summaries)
        for name, arm in summary["arms"].items()
    ]
    occurrences = Counter(name for _, name, _ in found)
    labels = _distinct(
        [runs[i] if alone[i] else f"{runs[i]}/{name}" if occurrences[name] > 1 else name for i, name, _ in found]
    )
    merged: dict[str, Any] = {
        "segue_version": ", ".join(dict.fromkeys(str(s.get("segue_version")) for s in summaries)),
        "status": worst(str(s.get("status")) for s in summaries),
        "run": ", ".join(runs),
        "sources": [{**s, "run": run} for run, s in zip(runs, summaries, strict=True)],
        "arms": {label: {**arm, "run": runs[i]} for label, (i, _, arm) in zip(labels, found, strict=True)},
    }
    bare = dict(zip(labels, (name for _, name, _ in found), strict=True))
    for together in tasks(merged).values():
        within = Counter(bare[label] for label in together)
        for label in together:
            merged["arms"][label]["method"] = bare[label] if within[bare[label]] == 1 else label
    return merged


def _distinct(names: Sequence[str]) -> list[str]:
    """The names in order, each later twin with the first free number behind it."""
    distinct: list[str] = []
    for name in names:
        candidate, n = name, 2
        while candidate in distinct or (candidate != name and candidate in names):
            candidate, n = f"{name} ({n})", n + 1
        distinct.append(candidate)
    return distinct
