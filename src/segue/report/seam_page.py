"""The page's section on the seam: the picture, and per arm the moments that matter and what they say."""

from __future__ import annotations

from html import escape

from segue.evaluation.probe import ROWS
from segue.report.diagnosis import diagnose
from segue.report.elements import arm_name, picture, table
from segue.report.runs import Summary
from segue.report.seam import PROBE, SeamArm, seam_arms
from segue.report.seam_curves import seam_pictures
from segue.report.seam_table import moments_table
from segue.report.text import number
from segue.report.theme import DARK, LIGHT


def seam_section(summary: Summary) -> str:
    """Nothing where no arm has a switch; without a probe words and returns only, no picture."""
    arms = seam_arms(summary)
    if not any(arm.pretrained for arm in arms):
        return ""
    figures = ""
    if any(arm.tracks[name] for arm in arms for name in PROBE):
        pairs = list(zip(seam_pictures(arms, LIGHT), seam_pictures(arms, DARK), strict=True))
        alt = "Return, critic, policy and bridges around the switch, a column per arm"
        figures = "".join(picture(*pair, alt, _caption(arms) if pair == pairs[-1] else "") for pair in pairs)
    return f"<h2>The seam</h2>{figures}{''.join(_arm(summary, arm) for arm in arms)}"


def _caption(arms: list[SeamArm]) -> str:
    longest = max(arm.window for arm in arms)
    spread = "Thick lines are means over seeds, thin ones the seeds. " if any(len(a.seeds) > 1 for a in arms) else ""
    marks = "Dotted lines are events, of any seed. " if any(arm.events for arm in arms) else ""
    return (
        f"Left of the line the offline phase, right of it the first {number(longest)} online steps. {spread}{marks}"
        f"The critic is asked about the first states of the evaluation episodes, and about {ROWS} states of the log."
    )


def _arm(summary: Summary, arm: SeamArm) -> str:
    diagnosis = diagnose(arm)
    items = "".join(f"<li>{escape(finding.text)}</li>" for finding in diagnosis.findings)
    tries = "".join(
        f"<li>To try: <code>{escape(flag)}</code> – {escape(why)}.</li>" for flag, why in diagnosis.suggestions.items()
    )
    notes = f'<p class="note">{escape(" ".join(diagnosis.notes))}</p>'
    head, rows = moments_table(arm)
    numbers = table(head, [[escape(cell) for cell in row] for row in rows])
    events = "".join(f"<li>Seed {escape(e.seed)}, step {number(e.step)}: {escape(e.message)}</li>" for e in arm.events)
    happened = f"<details><summary>Events ({len(arm.events)})</summary><ul>{events}</ul></details>" if events else ""
    return (
        f'<section class="seam"><h3>{arm_name(summary, arm.name, arm.status)}</h3>{numbers}'
        f"<ul>{items}{tries}</ul>{notes}{happened}</section>"
    )
