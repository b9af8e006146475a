"""Three plain sentences at the top of a report: what was best, whether it fell at the handover, how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from segue.report.aggregate import Aggregate
from segue.report.handover import HandoverArm, LowestPoint, handover_arms, lost_peak, lowest_point
from segue.report.measures import arm_measures
from segue.report.statistics import FEW_SEEDS, Interval, difference, estimate
from segue.report.summary import Arm, Array, Summary
from segue.report.tables import one_line
from segue.report.text import decimals, number, range_text, sentence

NAMED = 3
"""Arms that a sentence names; of more it gives the number."""


def conclusion(summary: Summary, found: Aggregate | None) -> tuple[str, ...]:
    """What was best and by how much, whether it fell at the handover and how deep, and how sure that is.

    Nothing for a run without a single evaluation. `found` are the statistics of the summary.
    """
    if not any(_finals(summary, name).size for name in summary.arms):
        return ()
    best = _best_method(summary, found) if len(summary.tasks()) > 1 else _best_arm(summary)
    return best, _fall(summary), _sure(summary)


def _finals(summary: Summary, name: str) -> Array:
    values = np.array([of["final"] for of in arm_measures(summary.arms[name]).values()])
    return values[np.isfinite(values)]


def _best_arm(summary: Summary) -> str:
    """Of one task: the highest final return, and its distance to the next."""
    finals = {name: values for name in summary.arms if (values := _finals(summary, name)).size}
    first, *others = sorted(finals, key=lambda name: -finals[name].mean())
    places = decimals(v for values in finals.values() for v in values)
    name, value = _name(summary, first), number(finals[first].mean(), places)
    if others:
        ahead = difference(finals[first], finals[others[0]])
        done = all(seed.finished for one in finals for seed in summary.arms[one].seeds.values())
        ended = "ended highest" if done else "has the highest last evaluations"
        return (
            f"{sentence(name)} {ended}, with a mean return of {value}: {number(ahead.value, places)} above "
            f"{_name(summary, others[0])} ({_interval(ahead, places)})."
        )
    arm = summary.arms[first]
    if arm.offline_only:
        dataset = f"; the dataset's episodes earn {number(arm.dataset_return, places)}"
        against = "" if math.isnan(arm.dataset_return) else dataset
        return f"{sentence(name)} {_ended(arm, ' its offline phase')} a mean return of {value}{against}."
    text = f"{sentence(name)} {_ended(arm)} a mean return of {value}"
    peak = lost_peak(arm)
    lost = "" if peak is None else f"; its best evaluation was {number(peak[1], places)}, at step {number(peak[0])}"
    gain = estimate([of["final"] - of["offline score"] for of in arm_measures(arm).values()])
    if not gain.seeds:
        return f"{text}{lost}."
    change, direction = Interval(gain.mean, gain.low, gain.high), "above"
    if gain.mean < 0:
        change, direction = Interval(-gain.mean, -gain.high, -gain.low), "below"
    return f"{text}: {number(change.value, places)} {direction} its offline score ({_interval(change, places)}){lost}."


def _ended(arm: Arm, what: str = "") -> str:
    """The verb before its mean return; it ended only if all of its seeds did."""
    finished = [seed.finished for seed in arm.seeds.values()]
    if all(finished):
        return f"ended{what} with"
    return f"did not finish{' all seeds' * any(finished)}; the last evaluations have"


def _interval(interval: Interval, places: int) -> str:
    if math.isnan(interval.low):
        return "one seed, so no interval"
    chance = ", which contains 0: it may be chance" if interval.low <= 0 <= interval.high else ""
    return f"95 % interval {range_text(interval.low, interval.high, places)}{chance}"


def _best_method(summary: Summary, found: Aggregate | None) -> str:
    """Of several tasks: the highest interquartile mean, or the method that most often ends higher than the others."""
    tasks = len(summary.tasks())
    if found is None:
        return f"No method is compared over the {tasks} tasks: that needs two finished seeds on each."
    scored = [method for method in found.methods if method.final is not None]
    if scored:
        best = max(scored, key=lambda method: method.final.value if method.final else -math.inf)
    else:
        wins = {m.name: np.mean([p.value for (x, _), p in found.pairs.items() if x == m.name]) for m in found.methods}
        best = max(found.methods, key=lambda method: wins[method.name])
    rival = min((p.value, second) for (first, second), p in found.pairs.items() if first == best.name)[1]
    odds = found.pairs[best.name, rival]
    score = ""
    if best.final is not None:
        bounds = range_text(best.final.low, best.final.high, 1)
        score = f" with an interquartile mean score of {number(best.final.value, 1)} (95 % interval {bounds})"
    share = f"{100 * odds.value:.0f} % of pairs (95 % interval {range_text(100 * odds.low, 100 * odds.high, 0)} %)"
    return (
        f"{one_line(best.name)} ended highest over {tasks} tasks{score}; a run of it beats one of {rival} in {share}."
    )


def _fall(summary: Summary) -> str:
    arms = [arm for arm in handover_arms(summary) if arm.pretrained]
    if not arms:
        only = all(arm.offline_only for arm in summary.arms.values())
        why = "the run ends with its offline phase" if only else "no pretrained arm was evaluated online"
        return f"There was no handover: {why}."
    lowest = {arm.name: lowest_point(arm) for arm in arms}
    fell = [(arm, point) for arm in arms if (point := lowest[arm.name]) is not None and point.certain]
    calm = {name: point for name, point in lowest.items() if point is not None and point.certain is False}
    if not fell and not calm:
        return "Whether the return fell at the handover is unknown: that needs evaluations of two episodes or more."
    if not fell:
        who = f"{sentence(_name(summary, *calm))} showed no" if len(calm) == 1 else "No arm showed a"
        window = number(max(arm.window for arm in arms))
        return f"{who} fall beyond evaluation noise in the first {window} online steps{_doubt(calm)}."
    fell.sort(key=lambda pair: -(pair[1].before - pair[1].after))
    words = [_depth(summary, arm, point) for arm, point in fell[:NAMED]]
    more = [f"in {len(fell) - NAMED} more"] if len(fell) > NAMED else []
    who = sentence(_name(summary, *calm)) if len(calm) == 1 else f"The other {len(calm)} pretrained arms"
    others = f" {who} stayed within evaluation noise{_doubt(calm)}." if calm else ""
    return f"After the handover the return fell {_listed([*words, *more])}.{others}"


def _doubt(calm: Mapping[str, LowestPoint]) -> str:
    """What to know of arms whose lowest mean return is much lower, but not beyond the noise of few episodes."""
    low = [point for point in calm.values() if point.before - point.after >= 0.1 * abs(point.before)]
    if not low:
        return ""
    if len(calm) == 1:
        places = decimals([low[0].before, low[0].after])
        drop = f"its lowest mean return was {number(low[0].after, places)} against {number(low[0].before, places)}"
    else:
        drop = f"in {len(low)} of them the lowest mean return was more than a tenth lower"
    return f", but {drop}: more episodes per evaluation would tell"


def _depth(summary: Summary, arm: HandoverArm, point: LowestPoint) -> str:
    places = decimals([point.before, point.after])
    share = "" if point.matters else ", less than a tenth of it"
    if not arm.dip.seeds:
        return f"in {_name(summary, arm.name)} by an unknown amount"
    by, start = number(arm.dip.mean, places), number(point.before, places)
    spread = range_text(*arm.dip.spread, places)
    over = f" ({spread} over seeds)" if arm.dip.seeds > 1 and spread != by else ""
    return f"in {_name(summary, arm.name)} by {by} from {start}{over}{share}"


def _sure(summary: Summary) -> str:
    counts = sorted({_finals(summary, name).size for name in summary.arms} - {0})
    seeds = f"{counts[0]} seed{'s' * (counts[0] > 1)}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    per = {arm.recipe.get("eval_episodes") for arm in summary.arms.values()} - {None}
    episodes = f" and {(n := next(iter(per)))} episode{'s' * (n != 1)} per evaluation" if len(per) == 1 else ""
    if counts[0] == 1:
        sure = "nothing is known of how other seeds would do"
    elif counts[0] < FEW_SEEDS:
        what = "an order" if len(summary.arms) > 1 else "what other seeds would do"
        sure = f"too few seeds to be sure of {what}; take {FEW_SEEDS} or more"
    else:
        sure = "the intervals are over seeds and speak for these tasks only"
    open_ones = sum(not seed.finished for arm in summary.arms.values() for seed in arm.seeds.values())
    left = f" {open_ones} seed{'s are' if open_ones > 1 else ' is'} not finished." if open_ones else ""
    return f"This rests on {seeds} per arm{episodes}: {sure}.{left}"


def _name(summary: Summary, name: str) -> str:
    method = one_line(summary.arms[name].method)
    return "the run" if method == "run" else f"“{method}”"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
