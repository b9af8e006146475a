"""The tables show the measures, and how far to trust them."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from rich.console import Console

from segue.report import markdown_table, render_table
from segue.report.table import measures_table
from segue.report.text import decimals, duration, number, setting


def cells(summary: dict[str, Any], arm: str) -> dict[str, tuple[str, str]]:
    table = measures_table(summary)
    row = next(r for r in table.rows if r.arm == arm)
    return {name: (c.value, c.spread) for name, c in zip(table.columns, row.cells, strict=True)}


def test_a_row_has_the_mean_over_seeds_and_their_range(summary: dict[str, Any]) -> None:
    assert cells(summary, "fine-tune") == {
        "offline score": ("1,000", ""),
        "final": ("2,000", "1,900–2,100"),
        "best": ("2,000", "1,900–2,100"),
        "area": ("1,175", "1,125–1,225"),
        "dip": ("150", "100–200"),
        "steps to 300": ("0", ""),
    }


def test_an_arm_from_scratch_has_no_offline_score_and_no_dip(summary: dict[str, Any]) -> None:
    row = cells(summary, "scratch")
    assert row["offline score"] == row["dip"] == ("–", "")
    assert row["steps to 300"] == ("2,000", "")


def test_without_an_arm_from_scratch_there_is_no_level_to_reach(summary: dict[str, Any]) -> None:
    del summary["arms"]["scratch"]
    assert not any(name.startswith("steps to") for name in measures_table(summary).columns)


def test_arms_that_got_differently_far_say_how_far(summary: dict[str, Any]) -> None:
    summary["arms"]["fine-tune"]["seeds"]["1"]["online_evaluations"].pop()
    assert cells(summary, "fine-tune")["online steps"] == ("1,000–2,000", "")
    assert cells(summary, "scratch")["online steps"] == ("2,000", "")


def test_arms_that_got_equally_far_say_so_once(summary: dict[str, Any]) -> None:
    table = measures_table(summary)
    assert "online steps" not in table.columns
    assert "Online steps 2,000, seeds 2 for all arms." in table.notes


def test_an_arm_without_evaluations_is_listed_with_dashes(summary: dict[str, Any], arm: Any) -> None:
    summary["arms"]["waiting"] = arm([{"status": "pending"}, {"status": "pending"}])
    row = cells(summary, "waiting")
    assert row.pop("seeds") == ("0 of 2", "")
    assert set(row.values()) == {("–", "")}


def test_few_seeds_are_called_few_and_many_are_not(summary: dict[str, Any]) -> None:
    assert any(note.startswith("Few seeds") for note in measures_table(summary).notes)
    for a in summary["arms"].values():
        a["seeds"] = {str(i): copy.deepcopy(a["seeds"][str(i % 2)]) for i in range(6)}
    table = measures_table(summary)
    assert not any("seeds: differences" in note for note in table.notes)
    # Three times 1,900 and three times 2,100: 2,000 ± 2.5706 · 109.54 / √6.
    assert cells(summary, "fine-tune")["final"] == ("2,000", "1,885–2,115")


def test_one_seed_is_called_one_seed_and_has_no_spread(summary: dict[str, Any]) -> None:
    for a in summary["arms"].values():
        del a["seeds"]["1"]
    assert any(note.startswith("One seed") for note in measures_table(summary).notes)
    assert cells(summary, "fine-tune")["final"] == ("1,900", "")


def terminal(summary: dict[str, Any], width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render_table(summary))
    return console.export_text()


def test_the_terminal_table_shows_every_figure_in_80_columns(summary: dict[str, Any]) -> None:
    text = terminal(summary, 80)
    for cell in ("1,900–2,100", "1,125–1,225", "fine-tune", "scratch"):
        assert cell in text
    assert "…" not in text.split("Final:")[0]


def test_markup_in_a_name_is_shown_and_not_obeyed(summary: dict[str, Any]) -> None:
    summary["arms"]["[red]x[/red]"] = summary["arms"].pop("scratch")
    rows = terminal(summary, 160).split("Online steps 2,000")[0]
    assert "[red]x[/red]" in rows


def test_an_interrupted_arm_is_marked(summary: dict[str, Any]) -> None:
    summary["arms"]["fine-tune"]["seeds"]["1"]["status"] = "interrupted"
    assert "| fine-tune (interrupted) |" in markdown_table(summary)
    assert "| scratch |" in markdown_table(summary)


def test_every_row_of_the_markdown_table_has_every_column(summary: dict[str, Any]) -> None:
    summary["arms"]["a | b\n<b>"] = summary["arms"].pop("scratch")
    rows = [line for line in markdown_table(summary).splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {line.replace(r"\|", "").count("|") for line in rows} == {8}
    assert r"| a \| b &lt;b&gt; |" in rows[3]


def test_negative_ranges_are_not_written_with_a_dash(summary: dict[str, Any]) -> None:
    for record in summary["arms"]["fine-tune"]["seeds"].values():
        for e in record["online_evaluations"]:
            e["mean_return"] -= 5000
    assert cells(summary, "fine-tune")["final"] == ("−3,000", "−3,100 to −2,900")


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [(1234.5, 0, "1,234"), (-12.34, 1, "−12.3"), (-0.04, 1, "0.0"), (None, 0, "–"), (float("nan"), 2, "–")],
)
def test_numbers(value: float | None, places: int, text: str) -> None:
    assert number(value, places) == text


@pytest.mark.parametrize(("values", "places"), [([2000.0, 3], 0), ([-45.0], 1), ([4.0], 2), ([0.5], 3), ([], 3)])
def test_small_returns_get_decimals(values: list[float], places: int) -> None:
    assert decimals(values) == places


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.25, "8.2 s"), (59.97, "1 min 00 s"), (125.0, "2 min 05 s"), (3725.0, "1 h 02 min"), (None, "–")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        ([], "none"),
        (True, "yes"),
        (0, "0"),
        (100_000, "100,000"),
        (3e-4, "0.0003"),
        ([256, 256], "256, 256"),
    ],
)
def test_settings(value: Any, text: str) -> None:
    assert setting(value) == text
