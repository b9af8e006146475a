"""Methods over seeds and tasks: the scores that may be put together, and the statistics of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segue.report.measures import arm_measures
from segue.report.references import Reference
from segue.report.statistics import FEW_SEEDS, Interval, Profile, improvement, iqm, performance_profile
from segue.report.summary import Array, Summary

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
    """Also None where there is no online phase."""
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
    """Statistics over seeds and tasks of final returns (and areas); None without two methods to compare.

    Seeds that are not finished do not count. Methods without two seeds on each task are left out, and named: one seed
    drawn again is the same seed, and its interval would have no width. On several tasks scores are averaged over those
    that have references, if these are of one convention; ranks are within tasks and need none.
    """
    grouped = summary.tasks()
    final, area = (_scores(summary, measure) for measure in ("final", "area"))
    compared = [name for name, of in final.items() if not _lacks(of, grouped)]
    if len(compared) < 2:
        return None
    plain = {name: [final[name][task] for task in grouped] for name in compared}
    pairs = {(x, y): improvement(plain[x], plain[y]) for x in compared for y in compared if x != y}
    fresh = {summary.arms[n].method for names in grouped.values() if (n := summary.scratch(names)) is not None}
    baseline = next((name for name in compared if name in fresh), compared[0])
    notes = [f"{name} {lack} and is left out." for name, of in final.items() if (lack := _lacks(of, grouped))]
    notes += _unfinished(summary)
    notes += [note for names in grouped.values() for note in _other_lengths(summary, names)]
    known = {task: summary.arms[names[0]].reference for task, names in grouped.items()}
    conventions = known if len(grouped) == 1 else {task: found for task, found in known.items() if found is not None}
    refusal = "" if len(grouped) == 1 else why_not_averaged(known)
    if refusal:
        notes.append(refusal)
    elif missing := [task for task in grouped if task not in conventions]:
        notes.append(
            f"Scores are averaged over {', '.join(conventions)} only: there are no reference returns for "
            f"{', '.join(missing)}. Probabilities of improvement are over all tasks."
        )
    enough = min(sum(map(len, of)) for of in plain.values()) >= FEW_SEEDS
    if not enough and not refusal:
        notes.append(f"No performance profiles: they need {FEW_SEEDS} runs of every method.")

    def scaled(of: Mapping[str, Array]) -> list[Array]:
        """Per task, on a scale that tasks share; a single task stays as it is."""
        return [
            of[task] if convention is None or len(grouped) == 1 else convention.scores(of[task])
            for task, convention in conventions.items()
        ]

    order = {summary.arms[name].method: place for name, place in summary.places().items()}
    finals = {} if refusal else {name: scaled(final[name]) for name in compared}
    grid = _thresholds([runs for of in finals.values() for runs in of])
    methods = [
        Method(
            name=name,
            place=order[name],
            runs=sum(map(len, plain[name])),
            final=None if refusal else iqm(finals[name]),
            area=None if refusal or area[name].keys() < set(conventions) else iqm(scaled(area[name])),
            improvement=pairs.get((name, baseline)),
            profile=performance_profile(finals[name], grid) if enough and not refusal else None,
        )
        for name in compared
    ]
    unit = "return" if len(grouped) == 1 else "normalised score"
    return Aggregate(tuple(grouped), unit, tuple(methods), baseline, pairs, tuple(notes))


def why_there_are_none(summary: Summary) -> str:
    """Why there are no statistics, for a reader who ran several seeds of several methods; empty otherwise."""
    grouped, final = summary.tasks(), _scores(summary, "final")
    if len(final) < 2 or all(runs.size < 2 for of in final.values() for runs in of.values()):
        return ""
    lacks = "; ".join(f"{name} {lack}" for name, of in final.items() if (lack := _lacks(of, grouped)))
    return f"No statistics across seeds: they need two methods with two finished seeds on every task ({lacks})."


def why_not_averaged(conventions: Mapping[str, Reference | None]) -> str:
    """Why scores of these tasks (name → convention) may not be averaged; empty if those with a convention may."""
    of = {convention.source: task for task, convention in conventions.items() if convention is not None}
    if len(of) > 1:
        named = "; ".join(f"{task}: {source}" for source, task in of.items())
        return f"Scores are not averaged over tasks: they are normalised by different references ({named})."
    missing = [task for task, convention in conventions.items() if convention is None]
    if len(conventions) - len(missing) < 2:
        return f"Scores are not averaged over tasks: there are no reference returns for {', '.join(missing)}."
    return ""


def _lacks(of_method: Mapping[str, Array], grouped: Mapping[str, Sequence[str]]) -> str:
    """What a method is without, of two finished seeds on each task; empty if nothing."""
    for task in grouped:
        seeds = of_method[task].size if task in of_method else 0
        if seeds < 2:
            where = "" if len(grouped) == 1 else f" on {task}"
            return f"has {'one finished seed' if seeds else 'no finished seed'}{where}"
    return ""


def _unfinished(summary: Summary) -> Iterator[str]:
    """What lacks seeds, a line for each number of them."""
    lacking: dict[tuple[int, int], list[str]] = {}
    for name, arm in summary.arms.items():
        finished = sum(seed.finished for seed in arm.seeds.values())
        if 0 < finished < len(arm.seeds):
            lacking.setdefault((len(arm.seeds) - finished, len(arm.seeds)), []).append(name)
    for (missing, seeds), names in lacking.items():
        who = names[0] if len(names) == 1 else f"{len(names)} arms, such as {names[0]}"
        yield f"{who}: {missing} of {seeds} seeds are not finished and do not count."


def _other_lengths(summary: Summary, names: Sequence[str]) -> Iterator[str]:
    """A note on arms of one task that are not compared like with like."""
    ends: dict[int, list[str]] = {}
    for name in names:
        finished = [seed for seed in summary.arms[name].seeds.values() if seed.finished]
        for step in {seed.online_curve[0][-1:].max(initial=0) for seed in finished}:
            ends.setdefault(int(step), []).append(name)
    if len(ends) > 1:
        each = "; ".join(f"{', '.join(of)} after {step:,}" for step, of in sorted(ends.items()))
        yield f"Runs end after different numbers of online steps, and so do the returns that are compared ({each})."


def _scores(summary: Summary, measure: str) -> dict[str, dict[str, Array]]:
    """Method → task → the values of the finished seeds that have one."""
    found: dict[str, dict[str, Array]] = {}
    for task, names in summary.tasks().items():
        for name in names:
            arm = summary.arms[name]
            values = np.array([of[measure] for key, of in arm_measures(arm).items() if arm.seeds[key].finished])
            of_method = found.setdefault(arm.method, {})
            if np.isfinite(values).any():
                of_method[task] = values[np.isfinite(values)]
    return found


def _thresholds(scores: Sequence[Array]) -> Array:
    """From the lowest score to the highest."""
    if not scores:
        return np.empty(0)
    runs = np.concatenate(scores)
    return np.linspace(runs.min(), runs.max(), THRESHOLDS)
