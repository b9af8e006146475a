"""What came of a sweep, in words: how many policies were looked at, and what the best of them is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from segue.report.statistics import FEW_SEEDS, difference, estimate
from segue.report.tables import markdown
from segue.report.text import ABSENT, decimals, number, range_text
from segue.sweeps.objectives import OBJECTIVES, measure_of

#: The arms of the confirmation.
WINNER, GIVEN = "winner", "as given"
#: Trials in the table; trials.csv has all.
SHOWN = 10


def in_words(plain: Mapping[str, Any]) -> str:
    """The report of a sweep as Markdown; `plain` is what `sweep.json` holds."""
    spec, trials = plain["spec"], plain["trials"]
    measure, more = measure_of(spec["objective"]), OBJECTIVES[spec["objective"]]
    policies = sum(len(trial["by_seed"]) for trial in trials)
    halved = ", stopped by successive halving over seeds" if spec["halving"] else ""
    blocks = [
        f"# Sweep of {', '.join(spec['vary'])}",
        f"Search: {spec['search']}{halved}. Objective: {measure}, the mean over seeds; {'more' if more else 'less'} is "
        f"better. {len(trials)} trials, {policies} policies were judged.",
    ]
    ranked = sorted(
        (trial for trial in trials if trial["score"] is not None),
        key=lambda trial: (-len(trial["by_seed"]), -trial["score"] if more else trial["score"]),
    )
    if ranked:
        places = decimals(score for trial in ranked for score in trial["by_seed"].values())
        rows = [[t["name"], str(len(t["by_seed"])), number(t["score"], places), _spread(t, places)] for t in ranked]
        blocks.append(markdown(["trial", "seeds", measure, "lowest and highest seed"], rows[:SHOWN]))
        if len(rows) > SHOWN:
            blocks.append(f"{len(rows) - SHOWN} more are in trials.csv.")
    lost = len(trials) - len(ranked)
    if lost and plain["status"] != "interrupted":
        blocks.append(f"Not ranked, because a seed failed or has no {measure}: {lost} of the trials.")
    if plain["winner"] is None:
        blocks.append({"failed": "No trial came to its end."}.get(plain["status"], "The sweep has not ended."))
        return "\n\n".join(blocks)
    return "\n\n".join([*blocks, *_verdict(plain, measure, more, len(ranked))])


def _spread(trial: Mapping[str, Any], places: int) -> str:
    values = list(trial["by_seed"].values())
    return range_text(min(values), max(values), places) if len(values) > 1 else ABSENT


def _verdict(plain: Mapping[str, Any], measure: str, more: bool, count: int) -> Sequence[str]:
    """The winner on its old and its fresh seeds, and against the recipe as given."""
    winner = plain["winner"]
    scores = {name: [v for v in of["by_seed"].values() if math.isfinite(v)] for name, of in winner["fresh"].items()}
    places = decimals([winner["score"], *(value for values in scores.values() for value in values)])
    seeds = plain["spec"]["recipe"]["seeds"]
    rows = [["on the seeds that chose it", str(seeds), number(winner["score"], places), ABSENT]]
    names = {WINNER: "on fresh seeds", GIVEN: "the recipe as given, on the same fresh seeds"}
    for name, values in scores.items():
        found = estimate(values)
        spread = range_text(*found.spread, places) if found.seeds > 1 else ABSENT
        rows.append([names[name], str(found.seeds), number(found.mean, places), spread])
    few = plain["spec"]["confirm"] < FEW_SEEDS
    head = [f"{winner['name']}", "seeds", measure, "lowest and highest seed" if few else "95 % interval"]
    bias = "upwards" if more else "downwards"
    said = (
        f"The first number is the best of {count}, so it is biased {bias}. The fresh seeds chose nothing: "
        "theirs is what to expect."
    )
    if GIVEN not in scores:
        return markdown(head, rows), f"{said} The winner is the recipe as given."
    if not scores[WINNER] or not scores[GIVEN]:
        return markdown(head, rows), f"{said} Seeds failed, so the two are not compared."
    ahead = difference(scores[WINNER], scores[GIVEN])
    bounds = range_text(ahead.low, ahead.high, places)
    chance = ", which contains 0: it may be chance" if ahead.low <= 0 <= ahead.high else ""
    interval = "one seed, so no interval" if math.isnan(ahead.low) else f"95 % interval {bounds}{chance}"
    return (
        markdown(head, rows),
        f"{said} On fresh seeds the winner's {measure} is {number(abs(ahead.value), places)} "
        f"{'above' if ahead.value >= 0 else 'below'} that of the recipe as given (difference "
        f"{number(ahead.value, places)}, {interval}).",
    )
