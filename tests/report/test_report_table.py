"""The tables show the measures, and how far to trust them."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from reading import read
from rich.console import Console

from segue.report import markdown_report, terminal_report
from segue.report.statistics import FEW_SEEDS
from segue.report.tables import Table, measures_tables
from segue.report.text import decimals, duration, number, setting


def tables(summary: dict[str, Any], reach: float | None = None) -> tuple[Table, Table]:
    """Of a report with one task: how good, and what the handover did."""
    (task,) = measures_tables(read(summary), reach).tasks
    return task.levels, task.handover


def cells(summary: dict[str, Any], arm: str, reach: float | None = None) -> dict[str, tuple[str, str]]:
    found = {}
    for table in tables(summary, reach):
        row = next(r for r in table.rows if r.arm == arm)
        found |= {name: (c.value, c.spread) for name, c in zip(table.columns, row.cells, strict=True)}
    return found


def notes(summary: dict[str, Any]) -> str:
    return " ".join(measures_tables(read(summary)).notes)


@pytest.fixture
def episodes(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary with two equal episodes behind every evaluation, and a dataset of mean return 500."""
    for arm in summary["arms"].values():
        for record in arm["seeds"].values():
            for evaluation in record["online_evaluations"]:
                evaluation["returns"] = [evaluation["mean_return"]] * 2
    summary["arms"]["fine-tune"]["dataset"] = {"mean_return": 500.0}
    summary["arms"]["fine-tune"]["recipe"]["dataset"] = "log"
    return summary


def test_a_row_has_the_mean_over_seeds_and_their_range(episodes: dict[str, Any]) -> None:
    assert cells(episodes, "fine-tune") == {
        "offline score": ("1,000", ""),
        "final": ("2,000", "1,900–2,100"),
        "area": ("1,175", "1,125–1,225"),
        "normalised": ("52.4", "49.8–55.1"),  # (2000 − 17.6) / 3782.4
        "regret": ("0.63", "0.61–0.65"),
        "steps to 300": ("0", ""),
        "dip": ("150", "100–200"),
        "swing": ("650", ""),
        "share below": ("50 %", ""),
        "recovery": ("2,000", ""),
        "stability": ("−150", "−200 to −100"),
        "plasticity": ("1,000", "900–1,100"),
    }


def test_an_arm_from_scratch_has_no_offline_score_and_nothing_to_fall_from(episodes: dict[str, Any]) -> None:
    row = cells(episodes, "scratch")
    fallen = ("offline score", "dip", "share below", "recovery", "stability", "plasticity")
    assert {row[name] for name in fallen} == {("–", "")}
    assert row["steps to 300"] == ("2,000", "")


def test_a_report_without_pretraining_has_one_table(summary: dict[str, Any]) -> None:
    del summary["arms"]["fine-tune"]
    assert len(measures_tables(read(summary)).tasks[0].tables) == 1
    assert "Dip" not in notes(summary)


def test_without_an_arm_from_scratch_there_is_no_level_to_reach_unless_it_is_given(summary: dict[str, Any]) -> None:
    assert cells(summary, "scratch", reach=150.0)["steps to 150"] == ("1,000", "")
    assert cells(summary, "fine-tune", reach=5000.0)["steps to 5,000"] == ("never", "")
    del summary["arms"]["scratch"]
    assert not any(name.startswith("steps to") for name in tables(summary)[0].columns)


def test_times_are_medians_in_which_never_is_later_than_all(summary: dict[str, Any], arm: Any, seed: Any) -> None:
    back, later, never = ({0: 9.0, 1000: 1.0, 2000: a, 3000: b} for a, b in ((9.0, 9.0), (2.0, 9.0), (2.0, 3.0)))
    for curves, cell in {
        (0, 1): ("2,500", "2,000–3,000"),
        (0, 1, 2): ("3,000", "1 of 3 never"),
        (0, 2): ("never", "1 of 2 never"),
        (2, 2): ("never", ""),
    }.items():
        records = [seed((back, later, never)[i], 9.0) for i in curves]
        summary["arms"] = {"x": arm(records)}
        assert cells(summary, "x")["recovery"] == cell


def test_a_share_stays_between_nothing_and_all(summary: dict[str, Any], arm: Any, seed: Any) -> None:
    records = [seed({0: 9.0, 1000: low}, 9.0) for low in (1.0, *[10.0] * FEW_SEEDS)]
    summary["arms"] = {"x": arm(records)}
    assert cells(summary, "x")["share below"] == ("17 %", "0–60 %")


def test_arms_that_got_differently_far_say_how_far(summary: dict[str, Any]) -> None:
    summary["arms"]["fine-tune"]["seeds"]["1"]["online_evaluations"].pop()
    assert cells(summary, "fine-tune")["online steps"] == ("1,000–2,000", "")
    assert cells(summary, "scratch")["online steps"] == ("2,000", "")


def test_steps_after_the_last_evaluation_count_as_done(summary: dict[str, Any]) -> None:
    summary["arms"]["fine-tune"]["seeds"]["1"]["steps"] = {"offline": 500, "online": 2600}
    assert cells(summary, "fine-tune")["online steps"] == ("2,000–2,600", "")


def test_arms_that_got_equally_far_say_so_once(summary: dict[str, Any]) -> None:
    assert "online steps" not in cells(summary, "scratch")
    assert "Online steps 2,000, seeds 2 for all arms." in notes(summary)


def test_an_arm_without_evaluations_is_listed_with_dashes(summary: dict[str, Any], arm: Any) -> None:
    summary["arms"]["waiting"] = arm([{"status": "pending"}, {"status": "pending"}])
    row = cells(summary, "waiting")
    assert row.pop("seeds") == ("0 of 2", "")
    assert set(row.values()) == {("–", "")}


def test_few_seeds_are_warned_of_and_many_are_not(summary: dict[str, Any]) -> None:
    assert measures_tables(read(summary)).warning.startswith("Few seeds (2)")
    for a in summary["arms"].values():
        a["seeds"] = {str(i): copy.deepcopy(a["seeds"][str(i % 2)]) for i in range(6)}
    assert measures_tables(read(summary)).warning == ""
    # Three times 1,900 and three times 2,100: 2,000 ± 2.5706 · 109.54 / √6.
    assert cells(summary, "fine-tune")["final"] == ("2,000", "1,885–2,115")


def test_one_seed_is_called_one_seed_and_has_no_spread(summary: dict[str, Any]) -> None:
    for a in summary["arms"].values():
        del a["seeds"]["1"]
    assert measures_tables(read(summary)).warning.startswith("One seed")
    assert cells(summary, "fine-tune")["final"] == ("1,900", "")


def test_the_convention_of_normalised_scores_is_named_or_its_absence(summary: dict[str, Any]) -> None:
    assert "Gymnasium's reward threshold (0 is 17.6, 100 is 3,800)" in notes(summary)
    for a in summary["arms"].values():
        a["recipe"]["env"] = "Mine-v0"
    assert "No reference returns, so no normalised score or regret, for Mine-v0." in notes(summary)
    assert not {"normalised", "regret"} & set(cells(summary, "scratch"))


def test_a_dataset_of_unknown_return_is_said_to_be_unknown(episodes: dict[str, Any]) -> None:
    assert "does not hold the dataset's mean return" not in notes(episodes)
    del episodes["arms"]["fine-tune"]["dataset"]
    assert "does not hold the dataset's mean return" in notes(episodes)
    assert "stability" not in cells(episodes, "fine-tune")


def terminal(summary: dict[str, Any], width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(terminal_report(read(summary)))
    return console.export_text()


def test_the_terminal_table_shows_every_figure_in_80_columns(summary: dict[str, Any]) -> None:
    text = terminal(summary, 80)
    for cell in ("1,900–2,100", "1,125–1,225", "fine-tune", "scratch"):
        assert cell in text
    assert "…" not in text.split("Online steps")[0]


NAMES = ["td3-bc with a conservative update", "td3-bc with a guard", "behaviour_cloning_of_the_best_tenth", "iql"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_name_and_number_is_whole_at_any_width(episodes: dict[str, Any], width: int) -> None:
    episodes["arms"] = {name: copy.deepcopy(episodes["arms"]["fine-tune"]) for name in NAMES}
    shown = terminal(episodes, width).split("Few seeds")[0]
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    words = {word for name in NAMES for word in name.split()} if width > 60 else {"td3-bc", "conservative", "guard"}
    figures = {cell for name in NAMES for cells_of in cells(episodes, name).values() for cell in cells_of if cell}
    assert {word for word in words | {f for text in figures for f in text.split()} if word not in shown} == set()


def test_markup_in_a_name_is_shown_and_not_obeyed(summary: dict[str, Any]) -> None:
    summary["arms"]["[red]x[/red]"] = summary["arms"].pop("scratch")
    rows = terminal(summary, 160).split("Online steps 2,000")[0]
    assert "[red]x[/red]" in rows


def test_an_interrupted_arm_is_marked(summary: dict[str, Any]) -> None:
    summary["arms"]["fine-tune"]["seeds"]["1"]["status"] = "interrupted"
    assert "| fine-tune (interrupted) |" in markdown_report(read(summary))
    assert "| scratch |" in markdown_report(read(summary))


def test_every_row_of_a_markdown_table_has_every_column(summary: dict[str, Any]) -> None:
    summary["arms"]["a | b\n<b>"] = summary["arms"].pop("scratch")
    blocks = [b.strip().splitlines() for b in markdown_report(read(summary)).split("\n\n") if b.strip().startswith("|")]
    assert [len(block) for block in blocks] == [4, 4, 4], "levels, the handover, statistics"
    for block in blocks:
        assert len({line.replace(r"\|", "").count("|") for line in block}) == 1
        assert any(line.startswith(r"| a \| b") and "&lt;b&gt; |" in line for line in block)


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


def test_how_far_stopped_seeds_came_is_said(summary: dict[str, Any]) -> None:
    first, second = summary["arms"]["fine-tune"]["seeds"].values()
    summary["arms"]["fine-tune"]["recipe"]["offline_steps"] = 10_000
    first |= {"status": "interrupted", "steps": {"offline": 10_000, "online": 1500}}
    second |= {"status": "interrupted", "steps": {"offline": 4200, "online": None}, "online_evaluations": []}
    notes = measures_tables(read(summary)).notes
    assert "“fine-tune”: 1 seed stopped after 4,200 of 10,000 offline steps." in notes
    assert "“fine-tune”: 1 seed stopped after 1,500 of 2,000 online steps." in notes
