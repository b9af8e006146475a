"""The switch as data: what was measured around it, per arm.

Everything is looked at in a window of online steps after the switch. Curves are those of `evaluations`; a quantity is
a `Track` of them, one curve per seed in each phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from segue import bridges as known
from segue.bridges import Bridge
from segue.errors import RecipeError
from segue.recipe import decode
from segue.report.evaluations import Curve, curve, online_curve, score
from segue.report.history import metric
from segue.report.runs import Summary, arm_status
from segue.report.seeds import Estimate, estimate
from segue.report.tasks import places
from segue.training.online import SEAM_STEPS

B = TypeVar("B", bound=Bridge)
PROBE = ("value_at_start", "return_from_start", "q_of_log_actions", "q_of_policy_actions", "distance_to_log")
BRIDGES = (
    "samg_coefficient",
    "samg_intrinsic_reward",
    "constraint",
    "constraint_multiplier",
    "q_filter_kept",
    "jump_start_horizon",
    "guard_log_evidence",
    "guard_alarms",
    "guard_distance",
    "temperature",
    "conservative_gap",
)
METRICS = (*PROBE, "training_return", *BRIDGES)
"""The columns of metrics.csv that the page on the seam looks at."""


@dataclass(frozen=True)
class Track:
    """One quantity of one arm: a curve per seed left and right of the switch."""

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
class SeamArm:
    """One arm around its switch; `place` is that of its method, for its colour."""

    name: str
    place: int
    status: str
    recipe: Mapping[str, Any]
    seeds: Mapping[str, Mapping[str, Any]]
    window: float
    tracks: Mapping[str, Track]
    events: tuple[Happening, ...]

    @property
    def pretrained(self) -> bool:
        """Whether there is a switch: an offline phase before the online one."""
        return bool(self.recipe.get("offline")) or bool(self.tracks["return"].offline[0][0].size)

    @property
    def offline_score(self) -> float:
        """Mean return of the handed-over policy; NaN without an offline phase."""
        return estimate([score(s) for s in self.seeds.values()]).mean

    @property
    def started(self) -> int:
        """Seeds with online evaluations."""
        return sum(bool(steps.size) for steps, _ in self.tracks["return"].online)

    @property
    def bridges(self) -> tuple[Bridge, ...]:
        """The bridges in the recipe, without those that this version of Segue cannot read."""
        return tuple(bridge for part in self.recipe.get("bridges") or () if (bridge := _bridge(part)) is not None)

    def bridge(self, kind: type[B]) -> B | None:
        """The bridge of this kind in the recipe, with its hyper-parameters; None if there is none."""
        return next((bridge for bridge in self.bridges if isinstance(bridge, kind)), None)


def seam_arms(summary: Summary) -> list[SeamArm]:
    """The arms that have an online phase, in the summary's order."""
    arms = []
    place = places(summary)
    for name, arm in summary["arms"].items():
        seeds = {key: seed for key, seed in arm["seeds"].items() if seed.get("online_evaluations")}
        if not seeds:
            continue
        window = _window([online_curve(seed) for seed in seeds.values()])
        tracks = {"return": _track(seeds.values(), window, None)}
        tracks |= {name: _track(seeds.values(), window, name) for name in METRICS}
        tracks["preference"] = _difference(tracks["q_of_policy_actions"], tracks["q_of_log_actions"])
        events = tuple(
            Happening(key, float(event["step"]), str(event["message"]))
            for key, seed in seeds.items()
            for event in seed.get("events") or ()
            if event.get("phase") != "offline"
        )
        recipe = arm.get("recipe") or {}
        arms.append(SeamArm(name, place[name], arm_status(arm), recipe, seeds, window, tracks, events))
    return arms


def _bridge(part: Any) -> Bridge | None:
    try:
        return decode("bridge", part, known.BRIDGES)
    except RecipeError:
        return None


def _window(curves: Sequence[Curve]) -> float:
    """SEAM_STEPS; the first evaluation where that comes later, and the last where the phase ended earlier."""
    later = np.unique(np.concatenate([steps[steps > 0] for steps, _ in curves]))
    if not later.size:
        return float(SEAM_STEPS)
    return float(max(later[0], min(SEAM_STEPS, later[-1])))


def _track(seeds: Any, window: float, name: str | None) -> Track:
    if name is None:
        offline = [curve(seed.get("offline_evaluations") or ()) for seed in seeds]
        online = [online_curve(seed) for seed in seeds]
    else:
        offline, online = ([metric(seed, phase, name) for seed in seeds] for phase in ("offline", "online"))
    return Track(tuple(offline), tuple((s[s <= window], v[s <= window]) for s, v in online))


def _difference(first: Track, second: Track) -> Track:
    """The one less the other, where a seed recorded both."""

    def less(a: Curve, b: Curve) -> Curve:
        steps, i, j = np.intersect1d(a[0], b[0], return_indices=True)
        return steps, a[1][i] - b[1][j]

    return Track(
        tuple(map(less, first.offline, second.offline)),
        tuple(map(less, first.online, second.online)),
    )
