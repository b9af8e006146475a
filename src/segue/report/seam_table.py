"""The seam as text: the moments that matter as a table, and everything as plain data for `--json`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from segue.report.diagnosis import diagnose
from segue.report.fall import fall, moments
from segue.report.seam import SeamArm
from segue.report.seeds import Estimate
from segue.report.text import ABSENT, decimals, number

QUANTITIES = {
    "return": "return",
    "value_at_start": "critic's estimate",
    "return_from_start": "what followed (discounted)",
    "q_of_policy_actions": "Q of policy's actions",
    "q_of_log_actions": "Q of logged actions",
    "preference": "difference of these two",
    "distance_to_log": "distance to the log",
}


def moments_table(arm: SeamArm) -> tuple[list[str], list[list[str]]]:
    """Head and rows, a row per quantity that was recorded, each with the decimals that it needs."""
    columns = moments(arm)
    rows = []
    for quantity, name in QUANTITIES.items():
        values = [of[quantity].mean for of in columns.values()]
        if any(map(math.isfinite, values)):
            places = decimals(values)
            rows.append([name, *(ABSENT if math.isnan(v) else number(v, places) for v in values)])
    return ["", *columns], rows


def seam_data(arm: SeamArm) -> dict[str, Any]:
    """What the picture, the table and the diagnosis of one arm rest on; NaN becomes None."""
    found, diagnosis = fall(arm), diagnose(arm)
    return {
        "status": arm.status,
        "seeds": arm.started,
        "pretrained": arm.pretrained,
        "window": arm.window,
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
