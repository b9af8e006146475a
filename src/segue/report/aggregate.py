"""Methods over seeds and tasks: the scores that may be put together, and the statistics of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segue.report.evaluations import Array
from segue.report.measures import arm_seeds
from segue.report.references import Reference, reference
from segue.report.runs import Summary
from segue.report.seeds import FEW_SEEDS
from segue.report.statistics import Interval, Profile, improvement, iqm, performance_profile
from segue.report.tasks import environment, method, places, scratch, tasks

THRESHOLDS = 201
"""Points of a performance profile."""


@dataclass(frozen=True)
class Method:
    """One method over its tasks; `place` decides its colour. What may not or cannot be computed is None."""

    name: str
    place: int
    runs: int
    final: Interval | None
    area: Interval | None
    improvement: Interval | None
    """Probability that one of its runs ends higher than one of the baseline's; None for the baseline itself."""
    profile: Profile | None


@dataclass(frozen=True)
class Aggregate:
    """Every method that has results on all tasks."""

    tasks: tuple[str, ...]
    unit: str
    """What final returns and areas are measured in: `return` on one task, `normalised score` on several."""
    methods: tuple[Method, ...]
    baseline: str
    pairs: Mapping[tuple[str, str], Interval]
    """P(first ends higher than second), for every two methods."""
    notes: tuple[str, ...]


def aggregate(summary: Summary) -> Aggregate | None:
    """Statistics over seeds and tasks of final returns (and areas); None without two methods of two seeds or more.

    On several tasks scores are averaged only if all are normalised by one convention; otherwise only ranks within
    tasks are compared. Methods without results on one of the tasks are left out, and named.
    """
    grouped = tasks(summary)
    final, area = (_scores(summary, measure) for measure in ("final", "area"))
    complete = [name for name, of in final.items() if len(of) == len(grouped)]
    # One seed drawn again is the same seed: its interval would have no width.
    if len(complete) < 2 or any(runs.size < 2 for name in complete for runs in final[name].values()):
        return None
    plain = {name: [final[name][task] for task in grouped] for name in complete}
    pairs = {(x, y): improvement(plain[x], plain[y]) for x in complete for y in complete if x != y}
    fresh = {method(summary, n) for names in grouped.values() if (n := scratch(summary, names)) is not None}
    baseline = next((name for name in complete if name in fresh), complete[0])
    notes = [f"{name} has no results on some task and is left out." for name in final if name not in complete]
    conventions = {task: reference(environment(summary["arms"][names[0]])) for task, names in grouped.items()}
    refusal = "" if len(grouped) == 1 else why_not_averaged(conventions)
    if refusal:
        notes.append(refusal)
    enough = min(sum(map(len, of)) for of in plain.values()) >= FEW_SEEDS
    if not enough and not refusal:
        notes.append(f"No performance profiles: they need {FEW_SEEDS} runs of every method.")

    def scaled(of: Mapping[str, Array]) -> list[Array]:
        """Per task, on a scale that tasks share; a single task stays as it is."""
        by = {task: convention.scores if convention else np.asarray for task, convention in conventions.items()}
        return [by[task](runs) if len(grouped) > 1 else runs for task, runs in of.items()]

    order = {method(summary, name): place for name, place in places(summary).items()}
    finals = {} if refusal else {name: scaled(final[name]) for name in complete}
    grid = _thresholds([runs for of in finals.values() for runs in of])
    methods = [
        Method(
            name=name,
            place=order[name],
            runs=sum(map(len, plain[name])),
            final=None if refusal else iqm(finals[name]),
            area=None if refusal else iqm(scaled(area[name])),
            improvement=pairs.get((name, baseline)),
            profile=performance_profile(finals[name], grid) if enough and not refusal else None,
        )
        for name in complete
    ]
    unit = "return" if len(grouped) == 1 else "normalised score"
    return Aggregate(tuple(grouped), unit, tuple(methods), baseline, pairs, tuple(notes))


def why_not_averaged(conventions: Mapping[str, Reference | None]) -> str:
    """Why scores of these tasks (name → convention) may not be averaged; empty if they may."""
    missing = [task for task, convention in conventions.items() if convention is None]
    if missing:
        return f"Scores are not averaged over tasks: there are no reference returns for {', '.join(missing)}."
    of = {convention.source: task for task, convention in conventions.items() if convention is not None}
    if len(of) > 1:
        named = "; ".join(f"{task}: {source}" for source, task in of.items())
        return f"Scores are not averaged over tasks: they are normalised by different references ({named})."
    return ""


def _scores(summary: Summary, measure: str) -> dict[str, dict[str, Array]]:
    """Method → task → the seeds that have a value."""
    found: dict[str, dict[str, Array]] = {}
    for task, names in tasks(summary).items():
        for name in names:
            values = np.array([of[measure] for of in arm_seeds(summary["arms"][name]).values()])
            finite = values[np.isfinite(values)]
            of_method = found.setdefault(method(summary, name), {})
            if finite.size:
                of_method[task] = finite
    return found


def _thresholds(scores: Sequence[Array]) -> Array:
    """From the lowest score to the highest."""
    if not scores:
        return np.empty(0)
    runs = np.concatenate(scores)
    return np.linspace(runs.min(), runs.max(), THRESHOLDS)
