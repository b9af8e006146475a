"""The page: what `templates/page.html.j2` shows of a summary. The template escapes every value."""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable, Sequence
from importlib.resources import files
from math import isfinite
from typing import TYPE_CHECKING, Any

from segue.report.aggregate import Aggregate, why_there_are_none
from segue.report.conclusion import conclusion
from segue.report.figures import DARK, LIGHT, Theme
from segue.report.figures_curves import CROWD, crowded, learning_curves, offline_only, shared_pretraining
from segue.report.figures_statistics import statistics_picture
from segue.report.statistics import FEW_SEEDS
from segue.report.summary import Summary, without_folder
from segue.report.tables import compare, measures_tables, statistics_notes, statistics_table
from segue.report.text import ABSENT, decimals, duration, number

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = files("segue.report") / "templates"


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((TEMPLATES / "page.html.j2").read_text(encoding="utf-8"))


def html_page(summary: Summary, found: Aggregate | None, reach: float | None = None) -> str:
    """The page as text, with the pictures in it. `found` are the statistics of the summary."""
    from markupsafe import Markup

    arms = summary.arms
    differing, shared = compare({name: arm.recipe for name, arm in arms.items()})
    parts: dict[str, dict[str, str]] = {}
    for path, value in shared.items():
        parts.setdefault(_words(path[:-1]) or "recipe", {})[_words(path[-1:])] = value
    return (
        _template()
        .render(
            summary=summary,
            title=", ".join(_values(summary, "env")) or "Offline to online",
            lede=_lede(summary),
            colours=Markup(_colours()),
            css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
            palette=len(LIGHT.arms),
            dash=lambda place: LIGHT.arm(place)[1],
            places=summary.places(),
            conclusion=conclusion(summary, found),
            unfinished=[
                f"{name}, seed {key}: {seed.status}{f' – {seed.error}' if seed.error else ''}"
                for name, arm in arms.items()
                for key, seed in arm.seeds.items()
                if not seed.finished
            ],
            curves=_pair([learning_curves(summary, theme) for theme in (LIGHT, DARK)]),
            curves_alt="The offline phase: returns, losses, values and actions"
            if offline_only(summary)
            else "Return against online environment steps, one line per arm",
            curves_caption=_caption(summary),
            measures=measures_tables(summary, reach),
            statistics=None if found is None else _statistics(found),
            no_statistics=why_there_are_none(summary) if found is None else "",
            handover=_handover(summary),
            datasets={
                without_folder(str(arm.recipe.get("dataset"))): arm.dataset_notes
                for arm in arms.values()
                if arm.dataset_notes
            },
            differing={_words(path): values for path, values in differing.items()},
            shared=parts,
            settings_count=len(shared),
            crowd=CROWD,
            copied=[arm for arm in arms.values() if arm.handover],
            seeds=_seeds(summary),
            absent=ABSENT,
            number=number,
            duration=duration,
        )
        .lstrip()
    )


def _pair(pictures: Sequence[bytes]) -> dict[str, str]:
    """PNG bytes for a light and for a dark screen, as addresses that hold them."""
    light, dark = ("data:image/png;base64," + base64.b64encode(content).decode() for content in pictures)
    return {"light": light, "dark": dark}


def _colours() -> str:
    """The theme of the pictures as CSS variables; `.arm-i` is the place of an arm in the palette."""

    def variables(theme: Theme, wash: str) -> str:
        names = {"paper": theme.paper, "ink": theme.ink, "quiet": theme.quiet, "rule": theme.rule}
        names |= {"alert": theme.alert, "wash": wash}
        root = "; ".join(f"--{name}: {value}" for name, value in names.items())
        arms = "\n".join(f".arm-{i} {{ --arm: {colour} }}" for i, colour in enumerate(theme.arms))
        return f":root {{ {root} }}\n{arms}\n"

    dark = variables(DARK, "#1f2329")
    return f"{variables(LIGHT, '#f5f6f8')}@media screen and (prefers-color-scheme: dark) {{\n{dark}}}"


def _values(summary: Summary, field: str) -> list[str]:
    """The distinct values of a recipe field."""
    values = (arm.recipe.get(field) for arm in summary.arms.values())
    return list(dict.fromkeys(str(v) for v in values if v is not None))


def _words(path: Iterable[str]) -> str:
    """A recipe field's path in words."""
    return " · ".join(part.replace("_", " ") for part in path)


def _lede(summary: Summary) -> str:
    arms, seeds = len(summary.arms), {len(arm.seeds) for arm in summary.arms.values()}
    most = max(seeds, default=0)
    facts = [
        f"{arms} arm{'s' * (arms != 1)}",
        f"{'up to ' * (len(seeds) > 1)}{most} seed{'s' * (most != 1)}{' each' * (arms > 1)}",
    ]
    for phase, unit in (("offline", "updates"), ("online", "steps")):
        steps = _values(summary, f"{phase}_steps")
        if len(steps) == 1 and steps[0].isdecimal() and int(steps[0]) and (phase == "online" or offline_only(summary)):
            limit = "up to " if phase == "offline" and any(map(int, _values(summary, "patience"))) else ""
            facts.append(f"{limit}{int(steps[0]):,} {phase} {unit}")
    return " · ".join([*facts, *(f"dataset {without_folder(name)}" for name in _values(summary, "dataset"))])


def _caption(summary: Summary) -> str:
    """What the learning curves show; only what is drawn."""
    arms = summary.arms.values()
    seeds = [len(arm.seeds) for arm in arms]
    caption = []
    if offline_only(summary):
        caption.append("One line per arm; losses and values as recorded during the updates.")
        if any(seed.actions is not None for arm in arms for seed in arm.seeds.values()):
            caption.append("Actions: those of the dataset in grey, the policy's on the same states as a line.")
    elif any(isfinite(seed.offline_score) for arm in arms for seed in arm.seeds.values()):
        level = "Dot" if crowded(summary) else "Dot and dashed level"
        caption.append(f"{level}: score of the policy deployed at the handover.")
    if shared_pretraining(summary) and not offline_only(summary):
        caption.append("Grey: pretraining that arms share.")
    if max(seeds, default=0) > 1:
        range_only, interval = max(seeds) < FEW_SEEDS, min(seeds) >= FEW_SEEDS
        few = f"with fewer than {FEW_SEEDS} seeds from the lowest to the highest"
        width = "from the lowest to the highest seed" if range_only else "95 % interval of the mean"
        caption.append(f"Band: {width}{'' if range_only or interval else ', ' + few}.")
        if not crowded(summary) and any(1 < count < FEW_SEEDS for count in seeds):
            caption.append("Thin lines are seeds.")
    return " ".join(caption)


def _statistics(found: Aggregate) -> dict[str, Any]:
    head, rows = statistics_table(found)
    pictures = [statistics_picture(found, theme) for theme in (LIGHT, DARK)]
    return {"picture": _pair(pictures), "head": head, "rows": rows, "notes": statistics_notes(found)}


def _handover(summary: Summary) -> dict[str, Any] | None:
    """None where no arm has a handover; without a probe words and returns only, no picture."""
    # These bring JAX in, for the bridges' own panels.
    from segue.evaluation.probe import ROWS
    from segue.report.diagnosis import diagnose, moments_table
    from segue.report.figures_handover import handover_pictures
    from segue.report.handover import PROBE, handover_arms

    arms = handover_arms(summary)
    if not any(arm.pretrained for arm in arms):
        return None
    pairs = []
    if any(arm.tracks[name] for arm in arms for name in PROBE):
        pairs = [_pair(pair) for pair in zip(*(handover_pictures(arms, t) for t in (LIGHT, DARK)), strict=True)]
    longest = max(arm.window for arm in arms)
    spread = "Thick lines are means over seeds, thin ones the seeds. " if any(len(a.seeds) > 1 for a in arms) else ""
    marks = "Dotted lines are events, of any seed. " if any(arm.events for arm in arms) else ""
    told = []
    for arm in arms:
        head, rows = moments_table(arm)
        about = {"name": arm.name, "status": arm.status, "events": arm.events}
        told.append({**about, "head": head, "rows": rows, "diagnosis": diagnose(arm)})
    return {
        "pictures": pairs,
        "arms": told,
        "caption": f"Left of the line the offline phase, right of it the first {number(longest)} online steps. {spread}"
        f"{marks}The critic is asked about the first states of the evaluation episodes, and about {ROWS} states of the "
        "dataset.",
    }


def _seeds(summary: Summary) -> list[dict[str, Any]]:
    seeds = [(name, key, seed) for name, arm in summary.arms.items() for key, seed in arm.seeds.items()]
    places = decimals(value for *_, s in seeds for value in (s.offline_score, s.final_score))
    rows = []
    for name, key, seed in seeds:
        speeds = {phase: seed.updates_per_second.get(phase) for phase in ("offline", "online")}
        rows.append(
            {
                "arm": name,
                "key": key,
                "status": seed.status,
                "error": seed.error,
                "told": [event.message for event in seed.events if event.phase == "offline"],
                "digest": seed.digest,
                "scores": [
                    number(seed.offline_score, places),
                    number(seed.final_score, places),
                    number(seed.steps.get("offline")),
                    number(seed.online_steps),
                ],
                "phases": [
                    (duration(seed.wall_time_s.get(phase)), "" if speed is None else f"{number(speed)} updates/s")
                    for phase, speed in speeds.items()
                ],
            }
        )
    return rows
