"""The page: one file with everything in it, readable without a server and without a network."""

from __future__ import annotations

from html import escape
from math import isfinite
from pathlib import Path

from segue.files import write_atomically
from segue.report.curves import CROWD, crowded, learning_curves, shared_pretraining
from segue.report.elements import arm_name, field_name, fields, fingerprint, picture, swatch, table
from segue.report.evaluations import online_curve, score
from segue.report.recipes import compare
from segue.report.runs import Summary
from segue.report.seeds import FEW_SEEDS
from segue.report.statistics_page import statistics_section
from segue.report.style import style_sheet
from segue.report.table import Cell, Table, measures_tables
from segue.report.tasks import places, without_folder
from segue.report.text import ABSENT, decimals, duration, number
from segue.report.theme import DARK, LIGHT


def write_html(summary: Summary, directory: Path, reach: float | None = None) -> Path:
    """Write the self-contained `report.html`; returns its path. For `reach` see `measures_tables`."""
    path = Path(directory) / "report.html"
    write_atomically(path, html_page(summary, reach).encode())
    return path


def html_page(summary: Summary, reach: float | None = None) -> str:
    """The page as text. Whatever comes from the summary is escaped where it enters the page."""
    from segue.report.seam_page import seam_section  # brings JAX in, for the bridges' own thresholds

    title = ", ".join(_recipe_values(summary, "env")) or "Offline to online"
    run = str(summary.get("run") or "report")
    sections = [
        f'<p class="kicker">Segue · {escape(run)}</p><h1>{escape(title)}</h1>',
        f'<p class="lede">{escape(_lede(summary))}</p>',
        _banner(summary),
        _picture(summary),
        _measures(summary, reach),
        statistics_section(summary),
        seam_section(summary),
        _recipes(summary),
        _handover(summary),
        _seeds(summary),
        *(_source(source) for source in summary.get("sources", [summary])),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} – Segue report</title>\n<style>{style_sheet()}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, sections))
        + "\n</body>\n</html>\n"
    )


def _recipe_values(summary: Summary, field: str) -> list[str]:
    values = ((arm.get("recipe") or {}).get(field) for arm in summary["arms"].values())
    return list(dict.fromkeys(str(v) for v in values if v is not None))


def _lede(summary: Summary) -> str:
    arms, seeds = len(summary["arms"]), {len(arm["seeds"]) for arm in summary["arms"].values()}
    most = max(seeds, default=0)
    facts = [
        f"{arms} arm{'s' * (arms != 1)}",
        f"{'up to ' * (len(seeds) > 1)}{most} seed{'s' * (most != 1)}{' each' * (arms > 1)}",
    ]
    steps = _recipe_values(summary, "online_steps")
    if len(steps) == 1 and steps[0].isdecimal():
        facts.append(f"{int(steps[0]):,} online steps")
    return " · ".join([*facts, *(f"log {without_folder(name)}" for name in _recipe_values(summary, "dataset"))])


def _banner(summary: Summary) -> str:
    status = str(summary.get("status", "complete"))
    if status == "complete":
        return ""
    items = "".join(
        f"<li>{escape(name)}, seed {escape(str(key))}: {escape(_outcome(seed))}</li>"
        for name, arm in summary["arms"].items()
        for key, seed in arm["seeds"].items()
        if seed.get("status") != "complete"
    )
    return (
        f'<div class="banner"><p><strong>Status: {escape(status)}.</strong> '
        f"The page shows what there was when it was written.</p><ul>{items}</ul></div>"
    )


def _outcome(seed: Summary) -> str:
    status = str(seed.get("status", "pending"))
    return f"{status} – {seed['error']}" if seed.get("error") else status


def _picture(summary: Summary) -> str:
    light, dark = (learning_curves(summary, theme) for theme in (LIGHT, DARK))
    seeds = [len(arm["seeds"]) for arm in summary["arms"].values()]
    caption = []
    pretrained = any(isfinite(score(s)) for arm in summary["arms"].values() for s in arm["seeds"].values())
    if pretrained:
        level = "Dot" if crowded(summary) else "Dot and dashed level"
        caption.append(f"{level}: score of the pretrained policy just before the switch.")
    if shared_pretraining(summary):
        caption.append("Grey: pretraining that arms share.")
    if max(seeds, default=0) > 1:
        range_only, interval = max(seeds) < FEW_SEEDS, min(seeds) >= FEW_SEEDS
        few = f"with fewer than {FEW_SEEDS} seeds from the lowest to the highest"
        width = "from the lowest to the highest seed" if range_only else "95 % interval of the mean"
        caption.append(f"Band: {width}{'' if range_only or interval else ', ' + few}.")
        if not crowded(summary) and any(1 < count < FEW_SEEDS for count in seeds):
            caption.append("Thin lines are seeds.")
    return picture(light, dark, "Return against online environment steps, one line per arm", " ".join(caption))


def _measures(summary: Summary, reach: float | None) -> str:
    measures = measures_tables(summary, reach)
    place = places(summary)

    def one(of: Table) -> str:
        rows = [[swatch(place[r.arm], r.label, r.status), *map(_cell, r.cells)] for r in of.rows]
        return table(("arm", *of.columns), rows)

    several = len(measures.tasks) > 1
    tables = "".join(
        (f"<h3>{escape(task.task)}</h3>" if several else "") + "".join(map(one, task.tables)) for task in measures.tasks
    )
    warning = f'<p class="banner">{escape(measures.warning)}</p>' if measures.warning else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in measures.notes)
    return f'<h2>Measures</h2>{warning}{tables}<ul class="notes">{notes}</ul>'


def _cell(cell: Cell) -> str:
    hover = f' title="{escape(cell.interval)}"' if cell.interval else ""
    spread = f'<span class="spread">{escape(cell.spread)}</span>' if cell.spread else ""
    return f"<span{hover}>{escape(cell.value)}{spread}</span>"


def _recipes(summary: Summary) -> str:
    arms = summary["arms"]
    differing, shared = compare({name: arm.get("recipe") or {} for name, arm in arms.items()})
    page = ""
    if differing:
        cells = {
            field_name(path): [ABSENT if v is None else escape(v) for v in values.values()]
            for path, values in differing.items()
        }
        if len(arms) > CROWD:  # a row per arm, since so many columns do not fit on a page
            rows = [
                [arm_name(summary, name), *row]
                for name, row in zip(arms, zip(*cells.values(), strict=True), strict=True)
            ]
            differences = table(("arm", *cells), rows, numbers=False)
        else:
            differences = table(("", *arms), [[escape(name), *row] for name, row in cells.items()], numbers=False)
        page += f"<h2>Where the arms differ</h2>{differences}"
    parts: dict[str, dict[str, object]] = {}
    for path, value in shared.items():
        parts.setdefault(field_name(path[:-1]) or "recipe", {})[field_name(path[-1:])] = value
    if parts:
        sections = "".join(f"<section><h3>{escape(p)}</h3>{fields(v)}</section>" for p, v in parts.items())
        columns = f'<div class="columns">{sections}</div>'
        if differing:
            page += f"<h2>All other settings</h2><details><summary>{len(shared)} settings</summary>{columns}</details>"
        else:
            page += f"<h2>Recipe</h2>{columns}"
    return page


def _handover(summary: Summary) -> str:
    cards = "".join(
        f"<section><h3>{arm_name(summary, name)}</h3><ul>"
        + "".join(f"<li>{escape(str(line))}</li>" for line in arm["handover"])
        + "</ul></section>"
        for name, arm in summary["arms"].items()
        if arm.get("handover")
    )
    return f'<h2>Handover</h2><div class="cards">{cards}</div>' if cards else ""


def _seeds(summary: Summary) -> str:
    seeds = [(name, key, s) for name, arm in summary["arms"].items() for key, s in arm["seeds"].items()]
    places = decimals(score(s, field) for *_, s in seeds for field in ("offline_score", "final_score"))
    head = ["arm and seed", "offline score", "final score", "online steps"]
    head += ["offline phase", "online phase", "parameters"]
    rows = []
    for name, key, seed in seeds:
        steps, _ = online_curve(seed)
        label = arm_name(summary, name, str(seed.get("status", "pending")))
        error = f'<span class="error">{escape(str(seed["error"]))}</span>' if seed.get("error") else ""
        rows.append(
            [
                f'{label} <span class="seed">seed {escape(str(key))}</span>{error}',
                number(score(seed), places),
                number(score(seed, "final_score"), places),
                number(steps[-1] if steps.size else None),
                _pace(seed, "offline"),
                _pace(seed, "online"),
                fingerprint(seed.get("parameters_sha256")),
            ]
        )
    return f"<h2>Seeds</h2>{table(head, rows)}"


def _pace(seed: Summary, phase: str) -> str:
    wall, speed = ((seed.get(field) or {}).get(phase) for field in ("wall_time_s", "updates_per_second"))
    return _cell(Cell(duration(wall), "" if speed is None else f"{number(speed)} updates/s"))


def _source(source: Summary) -> str:
    """Where one run came from: the machine, the versions and the command."""
    run = {"status": source.get("status"), "wall time": duration(source.get("wall_time_s"))}
    machine = {name.replace("_", " "): value for name, value in (source.get("machine") or {}).items()}
    versions = {"segue": source.get("segue_version"), **(source.get("versions") or {})}
    parts = {"run": run, "machine": machine, "versions": versions}
    sections = "".join(f"<section><h3>{name}</h3>{fields(part)}</section>" for name, part in parts.items() if part)
    command = f"<pre><code>{escape(str(source['command']))}</code></pre>" if source.get("command") else ""
    heading = f"Run {source['run']}" if source.get("run") else "Run"
    return f'<h2>{escape(heading)}</h2><div class="cards">{sections}</div>{command}'
