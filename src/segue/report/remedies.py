"""Bridges in the diagnosis: what those in the recipe did, and which others the numbers give a reason to try."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from segue.bridges import SAMG, Bridge, ConservativeUpdate, CriticRefit, Guard
from segue.errors import RecipeError
from segue.recipe import Recipe
from segue.replay import Mixed, OnlineOnly
from segue.report.fall import Fall
from segue.report.seam import BRIDGES, SeamArm
from segue.report.seeds import mean_curve
from segue.report.text import figures, sentence

SHARE = 0.1
"""Two values agree if they differ by less than this share of the larger one."""
NAMES = {
    "samg_coefficient": "SAMG's share of the offline critic in the target",
    "samg_intrinsic_reward": "SAMG's intrinsic reward",
    "constraint": "distance to the slowly moving average of the policy",
    "constraint_multiplier": "multiplier of that distance",
    "q_filter_kept": "share of samples that the Q-filter kept",
    "jump_start_horizon": "steps of each episode that the offline policy acts",
    "guard_log_evidence": "log of the guard's evidence",
    "guard_alarms": "alarms of the guard",
    "guard_distance": "distance to the policy that the guard keeps",
    "temperature": "entropy temperature",
    "conservative_gap": "conservative gap of the critic",
}


def relation(expected: float, earned: float) -> str:
    """`above`, `below` or `equal`, within SHARE; `unknown` if one is missing."""
    if math.isnan(expected) or math.isnan(earned):
        return "unknown"
    if abs(expected - earned) <= SHARE * max(abs(expected), abs(earned)):
        return "equal"
    return "above" if expected > earned else "below"


def still_rising(arm: SeamArm) -> bool:
    """Whether the critic's estimate rose over the later half of the offline phase: it had not settled."""
    values = mean_curve(arm.tracks["value_at_start"].offline).mean
    return values.size > 1 and relation(float(values[-1]), float(values[(values.size - 1) // 2])) == "above"


def bridges_did(arm: SeamArm) -> Iterator[str]:
    """A sentence per quantity that a bridge recorded."""
    for name in BRIDGES:
        mean = mean_curve(arm.tracks[name].online)
        if not mean.steps.size or name in ("guard_log_evidence", "guard_alarms", "temperature", "conservative_gap"):
            continue
        # Single updates are noisy: the first and the last tenth of what was recorded.
        tenth = max(mean.mean.size // 10, 1)
        first, last = float(mean.mean[:tenth].mean()), float(mean.mean[-tenth:].mean())
        text = f"{sentence(NAMES[name])}: {figures(first)} at first, {figures(last)} at the end"
        update = arm.bridge(ConservativeUpdate)
        if name == "constraint" and update is not None:
            text += f", its bound is {figures(update.epsilon)}"
        yield f"{text}."
    alarms = [float(values[-1]) for _, values in arm.tracks["guard_alarms"].online if values.size]
    if alarms:
        count = int(sum(alarms))
        rang = sum(a > 0 for a in alarms)
        seeds = f" in {rang} of {len(alarms)} seeds" if len(alarms) > 1 else ""
        yield f"The guard raised {count} alarm{'s' * (count != 1)}{seeds}." if count else "The guard raised no alarm."


def suggestions(arm: SeamArm, found: Fall | None) -> dict[str, str]:
    """Flag → why, for what the numbers give a reason for and the arm does not use; none without a fall that matters.

    Each flag gives a recipe that `Recipe` accepts. A stored recipe that this version cannot read gets no suggestion.
    """
    if not arm.pretrained or found is None or not found.matters:
        return {}
    try:
        recipe = Recipe.from_dict(arm.recipe)
    except RecipeError:
        return {}
    used = {type(bridge) for bridge in recipe.bridges}
    distance = arm.tracks["distance_to_log"]
    tracks = arm.tracks["value_at_start"], arm.tracks["return_from_start"]
    first, then = (relation(tracks[0].at(s).mean, tracks[1].at(s).mean) for s in (0, found.step))
    away = relation(distance.at(found.step).mean, distance.at(0).mean) == "above"
    proposed: dict[type[Bridge], str] = {}
    if first in ("above", "below"):
        proposed[CriticRefit] = f"the critic was {first} what the policy earned at the switch already"
    if then == "above" and first != "above":
        proposed[SAMG] = "the over-estimation came after the switch; it keeps the offline critic in the target"
    if away:
        proposed[ConservativeUpdate] = "the policy moved away from the log; it bounds how fast"
    proposed[Guard] = "it rolls back when live returns fall, whatever the cause"
    flags = {
        flag: why
        for kind, why in proposed.items()
        if kind not in used and (flag := _with_bridge(recipe, kind())) is not None
    }
    if first == "below" and still_rising(arm):
        flags["more --offline-steps"] = "the critic's estimate was still rising towards the return as they ended"
    if away and isinstance(recipe.replay, OnlineOnly) and _accepts(recipe, replay=Mixed()):
        flags["--replay mixed"] = "the policy moved away from the log, and no batch held the log any more"
    return flags


def _with_bridge(recipe: Recipe, bridge: Bridge) -> str | None:
    """The flags that add this bridge to the recipe's, with another replay if it needs that; None if nothing helps."""
    bridges = (*recipe.bridges, bridge)
    flag = f"--bridges {','.join(one.name for one in bridges)}"
    if _accepts(recipe, bridges=bridges):
        return flag
    if _accepts(recipe, bridges=bridges, replay=OnlineOnly()):
        return f"{flag} --replay {OnlineOnly.name}"
    return None


def _accepts(recipe: Recipe, **changes: Any) -> bool:
    """Whether the recipe with these changes is one."""
    try:
        dataclasses.replace(recipe, **changes)
    except RecipeError:
        return False
    return True
