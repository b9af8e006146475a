"""Whether the return fell at the switch by more than evaluation noise, and what else was measured at that moment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segue.report.seam import PROBE, SeamArm
from segue.report.seeds import Estimate, mean_curve


@dataclass(frozen=True)
class Fall:
    """The lowest evaluation in the window against the one at the switch, both means over seeds."""

    step: float
    before: float
    after: float
    error: float
    """Standard error of the difference, from the spread of the episodes; NaN if an evaluation had one episode."""
    threshold: float
    """The fall that evaluation noise alone would exceed in 5 % of runs, however many evaluations there are."""
    evaluations: int
    """How many evaluations in the window the lowest was chosen from."""
    seeds_down: int
    """Seeds whose own evaluation at that step lies below their own at the switch."""

    @property
    def certain(self) -> bool | None:
        """Whether it is more than evaluation noise; None if that cannot be said."""
        return None if math.isnan(self.threshold) else self.before - self.after > self.threshold

    @property
    def matters(self) -> bool:
        """Whether it is certain and no less than a tenth of the return at the switch."""
        return bool(self.certain) and self.before - self.after >= 0.1 * abs(self.before)


@dataclass(frozen=True)
class HandedOver:
    """The last offline evaluation against the one at the switch, before any live update; means over seeds."""

    offline: float
    online: float
    certain: bool
    """Whether they differ by more than evaluation noise."""


def handed_over(arm: SeamArm) -> HandedOver | None:
    """None where one of the two evaluations is missing, or had one episode."""
    offline, online = arm.tracks["return"].before(), arm.tracks["return"].at(0)
    episodes = [
        [float(r) for r in found["returns"]]
        for seed in arm.seeds.values()
        for found in (
            *list(seed.get("offline_evaluations") or ())[-1:],
            *[e for e in seed.get("online_evaluations") or () if e["step"] == 0],
        )
    ]
    # Two sides, so the threshold of the lower of two.
    _, threshold = _noise(episodes, 2)
    if len(episodes) != 2 * len(arm.seeds) or math.isnan(threshold):
        return None
    return HandedOver(offline.mean, online.mean, abs(offline.mean - online.mean) > threshold)


def fall(arm: SeamArm) -> Fall | None:
    """The deepest point of the mean return in the window; None without an evaluation at the switch and after it.

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
    returns = arm.tracks["return"].online
    down = sum(1 for s, v in returns if (s == step).any() and v[s == step][0] < v[0])
    error, threshold = _noise([_episodes(seed, at) for seed in arm.seeds.values() for at in (0.0, step)], count)
    return Fall(step, float(values[0]), float(values[lowest]), error, threshold, count, down)


def moments(arm: SeamArm) -> dict[str, dict[str, Estimate]]:
    """Return and probe at the moments that matter: name of the moment → quantity → estimate over seeds."""
    quantities = ("return", *PROBE, "preference")
    last = max((float(s[-1]) for s, _ in arm.tracks["return"].online if s.size), default=0.0)
    found = fall(arm)
    steps = {"at the switch" if arm.pretrained else "at the start": 0.0}
    if found is not None and found.step != last:
        steps[f"lowest return, step {found.step:,.0f}"] = found.step
    if last > 0:
        lowest = " (lowest return)" if found is not None and found.step == last else ""
        steps[f"step {last:,.0f}{lowest}"] = last
    columns = {"offline, last": {q: arm.tracks[q].before() for q in quantities}} if arm.pretrained else {}
    return columns | {name: {q: arm.tracks[q].at(step) for q in quantities} for name, step in steps.items()}


def _episodes(seed: Mapping[str, Any], step: float) -> list[float]:
    """The returns of one evaluation; at the switch those of the last offline one, if it was not repeated."""
    online = [e for e in seed.get("online_evaluations") or () if e["step"] == step]
    offline = list(seed.get("offline_evaluations") or ())[-1:] if step == 0 else []
    return [float(r) for e in (online or offline)[:1] for r in e.get("returns") or ()]


def _noise(evaluations: Sequence[Sequence[float]], chosen_from: int) -> tuple[float, float]:
    """Standard error of a difference of means over seeds, and what it exceeds by chance once in twenty."""
    if any(len(returns) < 2 for returns in evaluations):
        return math.nan, math.nan
    parts = np.array([np.var(returns, ddof=1) / len(returns) for returns in evaluations])
    degrees = np.array([len(returns) - 1 for returns in evaluations])
    error = float(np.sqrt(parts.sum())) / (len(evaluations) / 2)
    if error == 0:
        return 0.0, 0.0
    from scipy.stats import t

    welch = parts.sum() ** 2 / float((parts**2 / degrees).sum())
    return error, error * float(t.ppf(1 - 0.05 / chosen_from, welch))
