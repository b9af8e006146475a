"""Statistics over seeds and tasks as a section of the page and as Markdown."""

from __future__ import annotations

from html import escape

from segue.report.aggregate import Aggregate, Method, aggregate, why_there_are_none
from segue.report.elements import picture, swatch, table
from segue.report.runs import Summary
from segue.report.statistics import Interval
from segue.report.statistics_picture import statistics_picture
from segue.report.table import escaped, few_seeds, markdown, range_text
from segue.report.text import ABSENT, decimals, number
from segue.report.theme import DARK, LIGHT

HEADING = "Across seeds and tasks"


def statistics_section(summary: Summary) -> str:
    """The reason where there is none; nothing where nobody would look for it."""
    found = aggregate(summary)
    if found is None:
        reason = why_there_are_none(summary)
        return f'<p class="note">{escape(reason)}</p>' if reason else ""
    light, dark = (statistics_picture(found, theme) for theme in (LIGHT, DARK))
    figure = picture(light, dark, "Interquartile means, probabilities of improvement and performance profiles", "")
    rows = [
        [swatch(method.place, method.name), *(escape(cell) for cell in _cells(found, method))]
        for method in found.methods
    ]
    warning = few_seeds(summary)
    alarm = f'<p class="banner">{escape(warning)}</p>' if warning else ""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in _notes(found))
    return f"<h2>{HEADING}</h2>{alarm}{figure}{table(_head(found), rows)}{notes}"


def statistics_markdown(summary: Summary) -> str:
    """The same as Markdown."""
    found = aggregate(summary)
    if found is None:
        return escaped(why_there_are_none(summary))
    rows = [[method.name, *_cells(found, method)] for method in found.methods]
    notes = "  \n".join(escaped(note) for note in _notes(found))
    return f"{markdown(_head(found), rows)}\n\n{notes}\n"


def _head(found: Aggregate) -> list[str]:
    scaled = {"final": f"IQM of final {found.unit}", "area": f"IQM of area, {found.unit}"}
    return ["method", "runs", *(scaled[name] for name in _known(found)), f"P(improvement over {found.baseline})"]


def _known(found: Aggregate) -> list[str]:
    """Which of the two means some method has."""
    return [name for name in ("final", "area") if any(getattr(method, name) for method in found.methods)]


def _cells(found: Aggregate, method: Method) -> list[str]:
    places = decimals(m.final.value for m in found.methods if m.final is not None)
    scaled = [_interval(getattr(method, name), places) for name in _known(found)]
    return [str(method.runs), *scaled, _interval(method.improvement, 2)]


def _interval(interval: Interval | None, places: int) -> str:
    if interval is None:
        return ABSENT
    return f"{number(interval.value, places)} [{range_text(interval.low, interval.high, places)}]"


def _notes(found: Aggregate) -> list[str]:
    over = f"{len(found.tasks)} tasks" if len(found.tasks) > 1 else f"one task, {found.tasks[0]}"
    return [
        f"Over {over}. Brackets and bars: 95 % intervals of a bootstrap that draws the seeds of each task again; they "
        "speak of other seeds, not of other tasks. IQM: mean of the middle half of all runs. P(improvement): how often "
        "a run ends higher than one of the baseline's on the same task.",
        *found.notes,
    ]
