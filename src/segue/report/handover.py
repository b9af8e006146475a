"""What was measured around the handover, per arm: tracks, the lowest point, and the moments that matter.

Everything is looked at in a window of online steps after the handover. A quantity is a `Track`: one curve per seed in
each phase.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segue.errors import RecipeError
from segue.report.measures import arm_measures
from segue.report.statistics import Estimate, estimate, mean_curve
from segue.report.summary import Arm, Array, Curve, Seed, Summary
from segue.student_t import student_t

if TYPE_CHECKING:
    from segue.algorithms import Algorithm
    from segue.bridges import Bridge
    from segue.describe import Panel

PROBE = ("value_at_start", "return_from_start", "q_of_dataset_actions", "q_of_policy_actions", "distance_to_dataset")
"""What is measured of every algorithm that has it (segue.evaluation.probe)."""
COMMON = (*PROBE, "training_return")


def parts_of(recipe: Mapping[str, Any]) -> Iterator[tuple[Algorithm | Bridge, bool]]:
    """The bridges and the online algorithm of a stored recipe, each with whether this version can read its values.

    A part whose values cannot be read has its defaults; one whose name is unknown is left out.
    """
    from segue.algorithms import ALGORITHMS
    from segue.bridges import BRIDGES
    from segue.recipe import decode

    stored: list[tuple[str, Any, Mapping[str, Any]]]
    stored = [("bridge", plain, BRIDGES) for plain in recipe.get("bridges") or ()]
    stored.append(("algorithm", recipe.get("online"), ALGORITHMS))
    for kind, plain, known in stored:
        if not plain:
            continue
        try:
            yield decode(kind, plain, known), True
        except RecipeError:
            name = plain if isinstance(plain, str) else plain.get("name")
            if name in known:
                yield known[name](), False


def panels_of(recipe: Mapping[str, Any]) -> tuple[Panel, ...]:
    """The panels that the parts of a stored recipe ask for, bridges first; without thresholds for unreadable values."""
    found = {
        panel.metric: panel if known else dataclasses.replace(panel, threshold=None)
        for part, known in parts_of(recipe)
        for panel in part.panels()
    }
    return tuple(found.values())


@dataclass(frozen=True)
class Track:
    """One quantity of one arm: a curve per seed left and right of the handover."""

    offline: tuple[Curve, ...]
    online: tuple[Curve, ...]

    def __bool__(self) -> bool:
        return any(steps.size for steps, _ in (*self.offline, *self.online))

    def at(self, step: float) -> Estimate:
        """Over the seeds that recorded it exactly at this online step."""
        return estimate([values[steps == step][0] for steps, values in self.online if (steps == step).any()])

    def before(self) -> Estimate:
        """Over the seeds, the last value of the offline phase."""
        return estimate([values[-1] for _, values in self.offline if values.size])


@dataclass(frozen=True)
class Happening:
    """An event of one seed."""

    seed: str
    step: float
    message: str


@dataclass(frozen=True)
class HandoverArm:
    """One arm around its handover; `place` decides its colour. `seeds` are those with online evaluations."""

    name: str
    place: int
    status: str
    recipe: Mapping[str, Any]
    seeds: Mapping[str, Seed]
    window: float
    tracks: Mapping[str, Track]
    panels: tuple[Panel, ...]
    """Of its algorithm and its bridges, those with something to show."""
    events: tuple[Happening, ...]
    dip: Estimate
    """As in the table of measures: how far the return fell, over the whole online phase and without noise."""

    @property
    def pretrained(self) -> bool:
        """Whether there is an offline phase before the online one."""
        return bool(self.recipe.get("offline")) or bool(self.tracks["return"].offline[0][0].size)

    @property
    def offline_score(self) -> float:
        """Mean return of the policy at the handover; NaN without an offline phase."""
        return estimate([seed.offline_score for seed in self.seeds.values()]).mean

    @property
    def start(self) -> str:
        """What its first online step is called."""
        return "handover" if self.pretrained else "start"


def handover_arms(summary: Summary) -> list[HandoverArm]:
    """The arms that have an online phase, in the summary's order."""
    places = summary.places()
    return [handover_arm(arm, places[name]) for name, arm in summary.arms.items() if _started(arm)]


def _started(arm: Arm) -> dict[str, Seed]:
    return {key: seed for key, seed in arm.seeds.items() if seed.online}


def handover_arm(arm: Arm, place: int) -> HandoverArm:
    """One arm of which a seed was evaluated online."""
    seeds = _started(arm)
    window = _window([seed.online_curve for seed in seeds.values()])
    panels = panels_of(arm.recipe)

    def track(curves: Iterator[tuple[Curve, Curve]]) -> Track:
        offline, online = zip(*curves, strict=True)
        return Track(offline, tuple((s[s <= window], v[s <= window]) for s, v in online))

    tracks = {"return": track((seed.offline_curve, seed.online_curve) for seed in seeds.values())}
    tracks["cost"] = track(seed.cost_curves for seed in seeds.values())
    for name in (*COMMON, *(metric for panel in panels for metric, _ in panel.lines)):
        tracks[name] = track((seed.metric("offline", name), seed.metric("online", name)) for seed in seeds.values())
    tracks["preference"] = _difference(tracks["q_of_policy_actions"], tracks["q_of_dataset_actions"])
    shown = [
        panel
        for panel in panels
        if any(values.size and (not panel.counts or (values > 0).any()) for _, values in tracks[panel.metric].online)
    ]
    events = (
        Happening(key, event.step, event.message)
        for key, seed in seeds.items()
        for event in seed.events
        if event.phase != "offline"
    )
    dip = estimate([of["dip"] for of in arm_measures(arm).values()])
    return HandoverArm(arm.name, place, arm.status, arm.recipe, seeds, window, tracks, tuple(shown), tuple(events), dip)


def _window(curves: Sequence[Curve]) -> float:
    """The loop's HANDOVER_STEPS; the first evaluation if that is later, and the last if the phase ended earlier."""
    from segue.training.online import HANDOVER_STEPS

    later = np.unique(np.concatenate([steps[steps > 0] for steps, _ in curves]))
    if not later.size:
        return float(HANDOVER_STEPS)
    return float(max(later[0], min(HANDOVER_STEPS, later[-1])))


def _difference(first: Track, second: Track) -> Track:
    """The one minus the other, where a seed recorded both."""

    def minus(a: Curve, b: Curve) -> Curve:
        steps, i, j = np.intersect1d(a[0], b[0], return_indices=True)
        return steps, a[1][i] - b[1][j]

    return Track(
        tuple(map(minus, first.offline, second.offline)),
        tuple(map(minus, first.online, second.online)),
    )


@dataclass(frozen=True)
class LowestPoint:
    """The lowest evaluation in the window against the one at the handover, both means over seeds."""

    step: float
    before: float
    after: float
    error: float
    """Standard error of the difference, from the spread of the episodes; NaN if an evaluation had one episode."""
    threshold: float
    """The fall that evaluation noise alone would exceed in 5 % of runs, for any number of evaluations."""
    evaluations: int
    """How many evaluations in the window the lowest was chosen from."""
    seeds_down: int
    """Seeds whose own evaluation at that step lies below their own at the handover."""

    @property
    def certain(self) -> bool | None:
        """Whether it is lower by more than evaluation noise; None if that is unknown."""
        return None if math.isnan(self.threshold) else self.before - self.after > self.threshold

    @property
    def matters(self) -> bool:
        """Whether it is certain and no less than a tenth of the return at the handover."""
        return bool(self.certain) and self.before - self.after >= 0.1 * abs(self.before)


def lowest_point(arm: HandoverArm) -> LowestPoint | None:
    """The lowest mean return in the window; None without an evaluation at the handover and one after it.

    The threshold is Bonferroni's: the one-sided 5 % / k quantile of Student's t (Welch's degrees of freedom) times the
    standard error, for the lowest of k evaluations. It speaks of these seeds' policies, not of other seeds.
    """
    mean = mean_curve(arm.tracks["return"].online)
    whole = mean.seeds == mean.seeds.max(initial=0)
    steps, values = mean.steps[whole], mean.mean[whole]
    if steps.size < 2 or steps[0] != 0:
        return None
    lowest = 1 + int(np.argmin(values[1:]))
    step, count = float(steps[lowest]), steps.size - 1
    down = sum(1 for s, v in arm.tracks["return"].online if (s == step).any() and v[s == step][0] < v[0])
    error, threshold = _noise([_episodes(seed, at) for seed in arm.seeds.values() for at in (0.0, step)], count)
    return LowestPoint(step, float(values[0]), float(values[lowest]), error, threshold, count, down)


def lost_peak(arm: Arm) -> tuple[float, float] | None:
    """Step and mean return of the best online evaluation, if the last one lies below it by more than their noise.

    None also where that is less than a tenth of it, or evaluations had one episode.
    """
    mean = mean_curve(arm.curves())
    whole = mean.seeds == mean.seeds.max(initial=0)
    steps, values = mean.steps[whole], mean.mean[whole]
    if steps.size < 2:
        return None
    best = int(np.argmax(values))
    episodes = [_episodes(seed, at) for seed in arm.seeds.values() for at in (steps[best], steps[-1])]
    _, threshold = _noise(episodes, steps.size - 1)
    fall = values[best] - values[-1]
    lost = not math.isnan(threshold) and fall > threshold and fall >= 0.1 * abs(values[best])
    return (float(steps[best]), float(values[best])) if lost else None


@dataclass(frozen=True)
class HandedOver:
    """The last offline evaluation against the one at the handover, before any online update; means over seeds."""

    offline: float
    online: float
    certain: bool
    """Whether they differ by more than evaluation noise."""


def handed_over(arm: HandoverArm) -> HandedOver | None:
    """None where one of the two evaluations is missing, or had one episode."""
    offline, online = arm.tracks["return"].before(), arm.tracks["return"].at(0)
    both = [seed.offline[-1:] + tuple(e for e in seed.online if e.step == 0) for seed in arm.seeds.values()]
    episodes = [evaluation.returns for found in both for evaluation in found]
    # Two sides, so the threshold of the lower of two.
    _, threshold = _noise(episodes, 2)
    if len(episodes) != 2 * len(arm.seeds) or math.isnan(threshold):
        return None
    return HandedOver(offline.mean, online.mean, abs(offline.mean - online.mean) > threshold)


def moments(arm: HandoverArm) -> dict[str, dict[str, Estimate]]:
    """Return and probe at the moments that matter: name of the moment → quantity → estimate over seeds."""
    quantities = ("return", *PROBE, "preference")
    last = max((float(s[-1]) for s, _ in arm.tracks["return"].online if s.size), default=0.0)
    found = lowest_point(arm)
    steps = {f"at the {arm.start}": 0.0}
    if found is not None and found.step != last:
        steps[f"lowest return, step {found.step:,.0f}"] = found.step
    if last > 0:
        lowest = " (lowest return)" if found is not None and found.step == last else ""
        steps[f"step {last:,.0f}{lowest}"] = last
    columns = {"offline, last": {q: arm.tracks[q].before() for q in quantities}} if arm.pretrained else {}
    return columns | {name: {q: arm.tracks[q].at(step) for q in quantities} for name, step in steps.items()}


def _episodes(seed: Seed, step: float) -> Array:
    """The returns of one evaluation; at the handover those of the last offline one, if it was not repeated."""
    return next((e.returns for e in seed.from_handover if e.step == step), np.empty(0))


def _noise(evaluations: Sequence[Array], chosen_from: int) -> tuple[float, float]:
    """Standard error of a difference of means over seeds, and what it exceeds by chance once in twenty."""
    if not evaluations or any(len(returns) < 2 for returns in evaluations):
        return math.nan, math.nan
    parts = np.array([np.var(returns, ddof=1) / len(returns) for returns in evaluations])
    degrees = np.array([len(returns) - 1 for returns in evaluations])
    error = float(np.sqrt(parts.sum())) / (len(evaluations) / 2)
    if error == 0:
        return 0.0, 0.0
    welch = parts.sum() ** 2 / float((parts**2 / degrees).sum())
    return error, error * student_t(1 - 0.05 / chosen_from, welch)
