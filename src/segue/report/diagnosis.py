"""What the numbers around the switch say, in sentences; never a cause that they do not show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from segue.bridges import Bridge
from segue.report.fall import Fall, fall, handed_over
from segue.report.remedies import bridges_did, relation, still_rising, suggestions
from segue.report.seam import PROBE, SeamArm
from segue.report.seeds import FEW_SEEDS, mean_curve
from segue.report.text import decimals, number, sentence


@dataclass(frozen=True)
class Finding:
    """A sentence or two about one of `return`, `critic`, `log`, `bridges`, `data`."""

    about: str
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """What was seen, what to try about it (flag → why), and how far it can be trusted."""

    findings: tuple[Finding, ...]
    suggestions: dict[str, str]
    notes: tuple[str, ...]


def diagnose(arm: SeamArm) -> Diagnosis:
    """Findings from the curves in the window, suggestions only where the return fell by more than noise."""
    found = fall(arm)
    findings = [Finding("return", text) for text in (*_handover(arm), _return(arm, found))]
    if found is not None:
        findings += [Finding("critic", text) for text in _critic(arm, found)]
        findings += [Finding("log", text) for text in _log(arm, found)]
    findings += [Finding("bridges", text) for text in bridges_did(arm)]
    missing = [name for name in PROBE if not arm.tracks[name]]
    if missing:
        findings.append(Finding("data", _missing(arm, missing)))
    if not arm.pretrained:
        findings.append(Finding("data", "From scratch: no offline phase, so there is no switch in this arm."))
    return Diagnosis(tuple(findings), suggestions(arm, found), tuple(_notes(arm)))


def _handover(arm: SeamArm) -> Iterator[str]:
    found = handed_over(arm)
    if found is not None and found.certain:
        places = decimals([found.offline, found.online])
        yield (
            f"Already at the switch, before any live update, the return is {number(found.online, places)} against "
            f"{number(found.offline, places)} in the last offline evaluation, a difference beyond evaluation noise: "
            "what acts there is not quite what was evaluated offline."
        )


def _return(arm: SeamArm, found: Fall | None) -> str:
    if found is None:
        return "There are too few evaluations to compare: none at step 0, or none after it."
    places = decimals([found.before, found.after])
    start = "switch" if arm.pretrained else "start"
    before, after, step = number(found.before, places), number(found.after, places), number(found.step)
    lowest = "the evaluation" if found.evaluations == 1 else f"the lowest of {found.evaluations} evaluations"
    if found.certain is None:
        return (
            f"{sentence(lowest)} is {after} at step {step}, against {before} at the {start}. With one episode per "
            "evaluation this cannot be told from noise."
        )
    chance = f"which would reach {number(found.threshold, places)} in one run of twenty"
    if not found.certain:
        return (
            f"No fall beyond evaluation noise in the first {number(arm.window)} steps: {lowest} is {after} at step "
            f"{step}, against {before} at the {start}. A fall that is smaller than the noise, {chance}, would not show."
        )
    everyone = "" if arm.started == 1 else f" It fell in {found.seeds_down} of {arm.started} seeds."
    text = (
        f"Return fell from {before} at the {start} to {after} at step {step}, by more than evaluation noise, {chance}."
        f"{everyone}"
    )
    if not found.matters:
        return f"{text} That is less than a tenth of it."
    mean = mean_curve(arm.tracks["return"].online)
    back = mean.steps[(mean.steps > found.step) & (mean.mean >= found.before)]
    if back.size:
        return f"{text} The evaluation at step {number(back[0])} was back at that level."
    last = mean.steps[-1]
    if last <= found.step:
        return f"{text} That is the last evaluation looked at."
    return f"{text} By step {number(last)} it was at {number(mean.mean[-1], places)}, not back yet."


def _critic(arm: SeamArm, found: Fall) -> Iterator[str]:
    step = found.step
    value, earned = arm.tracks["value_at_start"], arm.tracks["return_from_start"]
    x, y = (value.at(s).mean for s in (0, step))
    u, v = (earned.at(s).mean for s in (0, step))
    if any(map(math.isnan, (x, y, u, v))):
        return
    p = decimals([x, y, u, v])
    start = "switch" if arm.pretrained else "start"
    text = (
        f"From the {start} to step {number(step)}, the critic's estimate at the start states went from {number(x, p)} "
        f"to {number(y, p)}, the discounted return that it should predict from {number(u, p)} to {number(v, p)}."
    )
    first, then = relation(x, u), relation(y, v)
    if found.matters and relation(y, x) == "above" and relation(v, u) == "below":
        text += " The estimate rose while the return fell"
        text += ", but it was rising in the offline phase already." if first == "below" and still_rising(arm) else "."
    if then == "above":
        text += f" At step {number(step)} the critic over-estimates by {number(y - v, p)}"
        text += f"; at the {start} it already did, by {number(x - u, p)}." if first == "above" else "."
    elif then == "below":
        text += f" At step {number(step)} the critic under-estimates by {number(v - y, p)}"
        also = f"; at the {start} it already did, by {number(u - x, p)}" if first == "below" else ""
        text += f"{also}: a timid critic, or one not fitted yet, and not over-estimation at these states."
    else:
        text += f" At step {number(step)} the two agree within a tenth."
    yield text


def _log(arm: SeamArm, found: Fall) -> Iterator[str]:
    step = found.step
    distance = arm.tracks["distance_to_log"]
    near, far = (distance.at(s).mean for s in (0, step))
    start = "switch" if arm.pretrained else "start"
    if not (math.isnan(near) or math.isnan(far)):
        p = max(decimals([near, far]), 2)
        moved = {"above": "moved away from the log", "below": "came nearer to the log"}
        what = moved.get(relation(far, near), "stayed as far from the log as it was")
        yield (
            f"On the log's states the policy {what}: its distance to the logged actions was {number(near, p)} at the "
            f"{start} and {number(far, p)} at step {number(step)}."
        )
    first, then = (arm.tracks["preference"].at(s).mean for s in (0, step))
    if math.isnan(first) or math.isnan(then):
        return
    p = decimals([first, then])
    text = f"There the critic rated the policy's actions {_against(first, p)} at the {start}, {_against(then, p)} then."
    if found.matters and then > max(first, 0) and relation(far, near) == "above":
        text += " So it moved to actions that the critic prefers to the logged ones, while the return fell."
    yield text


def _against(advantage: float, places: int) -> str:
    size = number(abs(advantage), places)
    return f"{size} {'above' if advantage >= 0 else 'below'} the logged ones"


def _missing(arm: SeamArm, missing: list[str]) -> str:
    if len(missing) < len(PROBE):
        log_only = set(missing) <= {"q_of_log_actions", "q_of_policy_actions", "distance_to_log"}
        why = ": this arm uses no log, or its algorithm has no Q" if log_only else ""
        return f"Not recorded here: {', '.join(m.replace('_', ' ') for m in missing)}{why}."
    return (
        "What the critic expected, and how far the policy moved from the log, was not recorded: the run is older than "
        "that, or its metrics.csv is missing. Only returns are compared; run it again to see the rest."
    )


def _notes(arm: SeamArm) -> Iterator[str]:
    per = arm.recipe.get("eval_episodes")
    seeds = "One seed" if arm.started == 1 else f"Means over {arm.started} seeds"
    episodes = f"; {per} episode{'s' * (per != 1)} per evaluation" if per else ""
    unknown = "; what other seeds would do is not known" if arm.started < FEW_SEEDS else ""
    yield f"{seeds}{episodes}{unknown}. The numbers show what moved together, not what caused what."
    warmup = arm.recipe.get("warmup_steps")
    if warmup:
        yield f"Updates begin after step {number(warmup)} (warm-up)."
    if not arm.tracks["value_at_start"]:
        return
    doubts = ["the return is cut at the episode's time limit, and earned without exploration"]
    online = arm.recipe.get("online") or {}
    if online.get("backup_entropy"):
        doubts.append("the critic's estimate contains an entropy bonus that the return does not")
    mixed = [bridge.name for bridge in arm.bridges if type(bridge).act is not Bridge.act]
    if mixed:
        doubts.append(f"with {mixed[0]} another policy acts too, which the critic does not rate")
    yield f"The critics' lowest estimate and the return are not quite comparable: {'; '.join(doubts)}."
