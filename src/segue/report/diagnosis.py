"""What the numbers around the handover say, in sentences, and what they are a reason to try; never a cause."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segue.errors import RecipeError
from segue.report.handover import PROBE, HandoverArm, LowestPoint, handed_over, lowest_point, moments, parts_of
from segue.report.statistics import FEW_SEEDS, Estimate, mean_curve
from segue.report.text import ABSENT, decimals, figures, number, range_text, sentence

if TYPE_CHECKING:
    from segue.bridges import Bridge
    from segue.describe import Symptom
    from segue.recipe import Recipe

SHARE = 0.1
"""Two values agree if they differ by less than this share of the larger one."""
QUANTITIES = {
    "return": "return",
    "value_at_start": "critic's estimate",
    "return_from_start": "what followed (discounted)",
    "q_of_policy_actions": "Q of the policy's actions",
    "q_of_dataset_actions": "Q of the dataset's actions",
    "preference": "difference of these two",
    "distance_to_dataset": "distance to the dataset",
}


@dataclass(frozen=True)
class Finding:
    """A sentence or two about one of `return`, `critic`, `dataset`, `bridges`, `data`."""

    about: str
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """What was seen, what to try about it (flag → why), and how far it can be trusted."""

    findings: tuple[Finding, ...]
    suggestions: dict[str, str]
    notes: tuple[str, ...]


def diagnose(arm: HandoverArm) -> Diagnosis:
    """Findings from the curves in the window, suggestions only where the return fell by more than noise."""
    found = lowest_point(arm)
    findings = [Finding("return", text) for text in (*_handover(arm), _return(arm, found))]
    if found is not None:
        findings += [Finding("critic", text) for text in _critic(arm, found)]
        findings += [Finding("dataset", text) for text in _dataset(arm, found)]
    findings += [Finding("bridges", text) for text in _parts_did(arm)]
    missing = [name for name in PROBE if not arm.tracks[name]]
    if missing:
        findings.append(Finding("data", _missing(missing)))
    if not arm.pretrained:
        findings.append(Finding("data", "From scratch: no offline phase, so there is no handover in this arm."))
    return Diagnosis(tuple(findings), suggestions(arm, found), tuple(_notes(arm)))


def relation(expected: float, earned: float) -> str:
    """`above`, `below` or `equal`, within SHARE; `unknown` if one is missing."""
    if math.isnan(expected) or math.isnan(earned):
        return "unknown"
    if abs(expected - earned) <= SHARE * max(abs(expected), abs(earned)):
        return "equal"
    return "above" if expected > earned else "below"


def still_rising(arm: HandoverArm) -> bool:
    """Whether the critic's estimate rose over the later half of the offline phase: it had not settled."""
    values = mean_curve(arm.tracks["value_at_start"].offline).mean
    return values.size > 1 and relation(float(values[-1]), float(values[(values.size - 1) // 2])) == "above"


# Findings


def _handover(arm: HandoverArm) -> Iterator[str]:
    found = handed_over(arm)
    who = _instead(arm)
    if found is not None and who is not None:
        places = decimals([found.offline, found.online])
        yield (
            f"What is deployed at the handover is {who}: its return is {number(found.online, places)}. The last "
            f"offline evaluation, of the policy that was handed over, gave {number(found.offline, places)}."
        )
    elif found is not None and found.certain:
        places = decimals([found.offline, found.online])
        yield (
            f"Already at the handover, before any online update, the return is {number(found.online, places)}. The "
            f"last offline evaluation gave {number(found.offline, places)}, a difference beyond evaluation noise. So "
            "what acts online is not quite what was evaluated offline."
        )


def _return(arm: HandoverArm, found: LowestPoint | None) -> str:
    if found is None:
        return "There are too few evaluations to compare: none at step 0, or none after it."
    places = decimals([found.before, found.after])
    before, after, step = number(found.before, places), number(found.after, places), number(found.step)
    lowest = "the evaluation" if found.evaluations == 1 else f"the lowest of {found.evaluations} evaluations"
    if found.certain is None:
        return (
            f"{sentence(lowest)} is {after} at step {step}, against {before} at the {arm.start}. With one episode per "
            "evaluation this cannot be told from noise."
        )
    noise = f"Noise alone would reach {number(found.threshold, places)} in one run of twenty."
    if not found.certain:
        return (
            f"No fall beyond evaluation noise in the first {number(arm.window)} steps: {lowest} is {after} at step "
            f"{step}, against {before} at the {arm.start}. {noise} A smaller fall would not show."
        )
    text = f"The mean return was {before} at the {arm.start} and lowest at step {step}, at {after}."
    if arm.dip.seeds:
        text += f" The fall is beyond evaluation noise: the dip is {estimate_text(arm.dip, places)}, as in the table."
    else:
        text += f" The fall is beyond evaluation noise. {noise}"
    if len(arm.seeds) > 1:
        text += f" It fell in {found.seeds_down} of {len(arm.seeds)} seeds."
    if not found.matters:
        return f"{text} That is less than a tenth of the return."
    mean = mean_curve(arm.tracks["return"].online)
    back = mean.steps[(mean.steps > found.step) & (mean.mean >= found.before)]
    if back.size:
        return f"{text} The evaluation at step {number(back[0])} was back at that level."
    last = mean.steps[-1]
    if last <= found.step:
        return f"{text} That is the last evaluation in the window."
    return f"{text} By step {number(last)} it was at {number(mean.mean[-1], places)}, not back yet."


def estimate_text(e: Estimate, places: int) -> str:
    """`62`, or `62 (50–70)` with the spread over seeds."""
    value, spread = number(e.mean, places), range_text(*e.spread, places)
    return value if e.seeds < 2 or spread == value else f"{value} ({spread})"


def _critic(arm: HandoverArm, found: LowestPoint) -> Iterator[str]:
    step = found.step
    value, earned = arm.tracks["value_at_start"], arm.tracks["return_from_start"]
    x, y = (value.at(s).mean for s in (0, step))
    u, v = (earned.at(s).mean for s in (0, step))
    if any(map(math.isnan, (x, y, u, v))):
        return
    p = decimals([x, y, u, v])
    text = (
        f"From the {arm.start} to step {number(step)}, the critic's estimate at the first states went from "
        f"{number(x, p)} to {number(y, p)}. The discounted return that it should predict went from {number(u, p)} to "
        f"{number(v, p)}."
    )
    if _instead(arm) is not None:
        yield f"{text} It rates the learner's policy, and the return is that of what is deployed: they need not agree."
        return
    first, then = relation(x, u), relation(y, v)
    if found.matters and relation(y, x) == "above" and relation(v, u) == "below":
        text += " The estimate rose while the return fell"
        text += ", but it was rising in the offline phase already." if first == "below" and still_rising(arm) else "."
    if then == "above":
        text += f" At step {number(step)} the critic over-estimates by {number(y - v, p)}"
        text += f"; at the {arm.start} it already did, by {number(x - u, p)}." if first == "above" else "."
    elif then == "below":
        text += f" At step {number(step)} the critic under-estimates by {number(v - y, p)}"
        also = f"; at the {arm.start} it already did, by {number(u - x, p)}" if first == "below" else ""
        text += f"{also}. It is pessimistic or not fitted yet; this is not over-estimation at these states."
    else:
        text += f" At step {number(step)} the two agree within a tenth."
    yield text


def _instead(arm: HandoverArm) -> str | None:
    """What is deployed at the handover, if that is not the policy that was handed over."""
    from segue.bridges import Bridge

    return next((who for part, _ in parts_of(arm.recipe) if isinstance(part, Bridge) and (who := part.instead())), None)


def _dataset(arm: HandoverArm, found: LowestPoint) -> Iterator[str]:
    step = found.step
    distance = arm.tracks["distance_to_dataset"]
    near, far = (distance.at(s).mean for s in (0, step))
    if not (math.isnan(near) or math.isnan(far)):
        p = max(decimals([near, far]), 2)
        moved = {"above": "moved away from the dataset", "below": "came nearer to the dataset"}
        what = moved.get(relation(far, near), "stayed as far from the dataset as it was")
        yield (
            f"On the dataset's states the policy {what}: its distance to the dataset's actions was {number(near, p)} "
            f"at the {arm.start} and {number(far, p)} at step {number(step)}."
        )
    first, then = (arm.tracks["preference"].at(s).mean for s in (0, step))
    if math.isnan(first) or math.isnan(then):
        return
    p = decimals([first, then])
    text = (
        f"There the critic rated the policy's actions {_against(first, p)} at the {arm.start}, and "
        f"{_against(then, p)} at step {number(step)}."
    )
    if found.matters and then > max(first, 0) and relation(far, near) == "above":
        text += " So the policy moved to actions that the critic prefers to the dataset's, while the return fell."
    yield text


def _against(advantage: float, places: int) -> str:
    size = number(abs(advantage), places)
    return f"{size} {'above' if advantage >= 0 else 'below'} the dataset's"


def _parts_did(arm: HandoverArm) -> Iterator[str]:
    """A sentence per panel that has words for one."""
    for panel in (panel for part, _ in parts_of(arm.recipe) for panel in part.panels() if panel.words):
        curves = arm.tracks[panel.metric].online
        if panel.counts:
            counts = [float(values[-1]) for _, values in curves if values.size]
            if counts:
                among = f", in {sum(c > 0 for c in counts)} of {len(counts)} seeds" if len(counts) > 1 else ""
                yield f"{sentence(panel.words)}: {number(sum(counts)) + among if sum(counts) else 'none'}."
            continue
        mean = mean_curve(curves)
        if not mean.steps.size:
            continue
        # Single updates are noisy: the first and the last tenth of what was recorded.
        tenth = max(mean.mean.size // 10, 1)
        first, last = float(mean.mean[:tenth].mean()), float(mean.mean[-tenth:].mean())
        text = f"{sentence(panel.words)}: {figures(first)} at first, {figures(last)} at the end"
        shown = next((p for p in arm.panels if p.metric == panel.metric), panel)
        limit = "" if shown.threshold is None else f" ({shown.threshold_name}: {figures(shown.threshold)})"
        yield f"{text}{limit}."


def _missing(missing: list[str]) -> str:
    if len(missing) < len(PROBE):
        of_dataset = set(missing) <= {"q_of_dataset_actions", "q_of_policy_actions", "distance_to_dataset"}
        why = ": this arm uses no dataset, or its algorithm has no Q" if of_dataset else ""
        return f"Not recorded here: {', '.join(QUANTITIES[m] for m in missing)}{why}."
    return (
        "What the critic expected, and how far the policy moved from the dataset, was not recorded. The run is too "
        "old, or its metrics.csv is missing. Only returns are compared; run it again to see the rest."
    )


def _notes(arm: HandoverArm) -> Iterator[str]:
    from segue.bridges import Bridge

    per, started = arm.recipe.get("eval_episodes"), len(arm.seeds)
    seeds = "One seed" if started == 1 else f"Means over {started} seeds"
    episodes = f"; {per} episode{'s' * (per != 1)} per evaluation" if per else ""
    unknown = "; what other seeds would do is not known" if started < FEW_SEEDS else ""
    yield f"{seeds}{episodes}{unknown}. The numbers show what moved together, not what caused what."
    warmup = arm.recipe.get("warmup_steps")
    if warmup:
        yield f"Updates begin after step {number(warmup)} (warm-up)."
    if not arm.tracks["value_at_start"]:
        return
    doubts = ["the return is cut at the episode's time limit, and earned without exploration"]
    for part, _ in parts_of(arm.recipe):
        if not isinstance(part, Bridge):
            doubts += part.caveats()
        elif type(part).act is not Bridge.act:
            doubts.append(f"with {part.name} another policy acts too, which the critic does not rate")
    yield f"The critics' lowest estimate and the return are not quite comparable: {'; '.join(doubts)}."


# Suggestions


def suggestions(arm: HandoverArm, found: LowestPoint | None) -> dict[str, str]:
    """Flag → why, for what the numbers give a reason for and the arm does not use; none without a fall that matters.

    Each flag gives a recipe that `Recipe` accepts. A stored recipe that this version cannot read gets no suggestion.
    """
    if not arm.pretrained or found is None or not found.matters:
        return {}
    from segue.bridges import BRIDGES
    from segue.recipe import Recipe
    from segue.replay import REPLAYS

    try:
        recipe = Recipe.from_dict(arm.recipe)
    except RecipeError:
        return {}
    used = {bridge.name for bridge in recipe.bridges}
    distance = arm.tracks["distance_to_dataset"]
    value, earned = arm.tracks["value_at_start"], arm.tracks["return_from_start"]
    first, then = (relation(value.at(s).mean, earned.at(s).mean) for s in (0, found.step))
    away = relation(distance.at(found.step).mean, distance.at(0).mean) == "above"
    symptoms: dict[Symptom, bool] = {
        "critic off at the handover": first in ("above", "below"),
        "over-estimation after the handover": then == "above" and first != "above",
        "policy left the dataset": away,
        "fall": True,
    }
    flags: dict[str, str] = {}
    for symptom, seen in symptoms.items():
        for kind in BRIDGES.values() if seen else ():
            for remedy in kind.remedies if kind.name not in used else ():
                if remedy.against == symptom and (flag := _with_bridge(recipe, kind(), remedy.replay)) is not None:
                    flags.setdefault(flag, remedy.why)
    if first == "below" and still_rising(arm):
        flags["more --offline-steps"] = "the critic's estimate was still rising towards the return as they ended"
    without_dataset = recipe.replay is not None and not recipe.replay.needs_dataset
    if away and without_dataset and _accepts(recipe, replay=REPLAYS["mixed"]()):
        flags["--replay mixed"] = "the policy moved away from the dataset, and no batch contained the dataset any more"
    return flags


def _with_bridge(recipe: Recipe, bridge: Bridge, replay: str | None) -> str | None:
    """The flags that add this bridge to the recipe's, with that replay if it needs it; None if nothing helps."""
    from segue.replay import REPLAYS

    bridges = (*recipe.bridges, bridge)
    flag = f"--bridges {','.join(one.name for one in bridges)}"
    if _accepts(recipe, bridges=bridges):
        return flag
    if replay is not None and _accepts(recipe, bridges=bridges, replay=REPLAYS[replay]()):
        return f"{flag} --replay {replay}"
    return None


def _accepts(recipe: Recipe, **changes: Any) -> bool:
    """Whether the recipe with these changes is one."""
    try:
        dataclasses.replace(recipe, **changes)
    except RecipeError:
        return False
    return True


# As data


def moments_table(arm: HandoverArm) -> tuple[list[str], list[list[str]]]:
    """Head and rows, a row per quantity that was recorded, each with the decimals that it needs."""
    columns = moments(arm)
    rows = []
    for quantity, name in QUANTITIES.items():
        values = [of[quantity].mean for of in columns.values()]
        if any(map(math.isfinite, values)):
            places = decimals(values)
            rows.append([name, *(ABSENT if math.isnan(v) else number(v, places) for v in values)])
    return ["", *columns], rows


def handover_data(arm: HandoverArm) -> dict[str, Any]:
    """What the picture, the table and the diagnosis of one arm rest on, for `--json`; NaN becomes None."""
    found, diagnosis = lowest_point(arm), diagnose(arm)
    return {
        "status": arm.status,
        "seeds": len(arm.seeds),
        "pretrained": arm.pretrained,
        "window": arm.window,
        "dip": _plain(arm.dip) if arm.dip.seeds else None,
        "fall": None if found is None else {**_plain(found), "certain": found.certain},
        "moments": {
            moment: {name: _plain(e) for name, e in of.items() if e.seeds} for moment, of in moments(arm).items()
        },
        "events": [dataclasses.asdict(event) for event in arm.events],
        "findings": [dataclasses.asdict(finding) for finding in diagnosis.findings],
        "suggestions": diagnosis.suggestions,
        "notes": list(diagnosis.notes),
    }


def _plain(value: Any) -> dict[str, Any]:
    fields = dataclasses.asdict(value)
    if isinstance(value, Estimate):
        fields = {name: fields[name] for name in ("mean", "smallest", "largest", "seeds")}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
