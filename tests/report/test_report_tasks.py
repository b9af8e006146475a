"""Several tasks: arms of one name are one method, and only what is comparable is put together."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading import merged, page, read
from rich.console import Console

from segue.cli.main import main
from segue.report import Summary, markdown_report, render, terminal_report
from segue.report.aggregate import aggregate
from segue.report.statistics import iqm
from segue.report.tables import measures_tables


def on(
    summary: dict[str, Any], env: str, log: str | None = None, run: str | None = None, **recipe: Any
) -> dict[str, Any]:
    """The same run in another environment, the pretrained arm with another dataset; keywords change the recipes."""
    other = copy.deepcopy(summary)
    for arm in other["arms"].values():
        arm["recipe"] |= {"env": env, "dataset": log if arm["recipe"]["offline"] else None, **recipe}
    return {**other, "run": run or env}


def more_seeds(summary: dict[str, Any]) -> dict[str, Any]:
    """Three times as many seeds, six an arm."""
    for arm in summary["arms"].values():
        arm["seeds"] = {str(i): copy.deepcopy(arm["seeds"][str(i % 2)]) for i in range(6)}
    return summary


@pytest.fixture
def two(summary: dict[str, Any]) -> Summary:
    """Both arms on two tasks whose references are of one kind."""
    return merged(on(summary, "Hopper-v5"), on(summary, "Ant-v5"))


def test_an_environment_is_a_task_and_one_name_is_one_method(two: Summary) -> None:
    assert two.tasks() == {
        "Hopper-v5": ["Hopper-v5/scratch", "Hopper-v5/fine-tune"],
        "Ant-v5": ["Ant-v5/scratch", "Ant-v5/fine-tune"],
    }
    assert [arm.method for arm in two.arms.values()] == ["scratch", "fine-tune"] * 2
    assert list(two.places().values()) == [0, 1, 0, 1]


def test_two_datasets_make_two_tasks_and_an_arm_without_one_goes_with_its_run(summary: dict[str, Any]) -> None:
    both = merged(on(summary, "Hopper-v5", "x/medium.npz", "a"), on(summary, "Hopper-v5", "x/replay.npz", "b"))
    assert both.tasks() == {
        "Hopper-v5 · medium.npz": ["a/scratch", "a/fine-tune"],
        "Hopper-v5 · replay.npz": ["b/scratch", "b/fine-tune"],
    }


def test_one_name_twice_on_a_task_is_two_methods(summary: dict[str, Any]) -> None:
    both = merged(on(summary, "Hopper-v5", run="a"), on(summary, "Hopper-v5", run="b", warmup_steps=7))
    assert [arm.method for arm in both.arms.values()] == list(both.arms)
    assert list(both.places().values()) == [0, 1, 2, 3]


def test_every_task_has_its_tables_with_the_methods_in_them(two: Summary) -> None:
    built = measures_tables(two).tasks
    assert [task.task for task in built] == ["Hopper-v5", "Ant-v5"]
    assert [[row.label for row in task.levels.rows] for task in built] == [["scratch", "fine-tune"]] * 2
    text = io.StringIO()
    Console(file=text, width=80).print(terminal_report(two))
    for where in (text.getvalue(), markdown_report(two), page(two)):
        assert where.index("Hopper-v5") < where.index("Ant-v5")


def test_scores_are_normalised_before_they_are_averaged(two: Summary) -> None:
    found = aggregate(two)
    assert found is not None
    assert found.unit == "normalised score"
    hopper, ant = (100 * (x - low) / (high - low) for x, low, high in ((300, 17.6, 3800), (300, -67.5, 6000)))
    spread = [100 * 100 / (3800 - 17.6), 100 * 100 / (6000 + 67.5)]
    # Runs end at 200 and 400 on both: the middle two of four are the inner ones.
    inner = sorted([hopper - spread[0], hopper + spread[0], ant - spread[1], ant + spread[1]])[1:3]
    assert found.methods[0].final is not None
    assert found.methods[0].final.value == pytest.approx(sum(inner) / 2)


def test_different_references_are_never_averaged(summary: dict[str, Any]) -> None:
    found = aggregate(merged(on(summary, "Hopper-v5"), on(summary, "Hopper-v4")))
    assert found is not None
    assert all(m.final is m.area is m.profile is None for m in found.methods)
    assert found.methods[1].improvement is not None, "ranks within a task need no reference"
    assert "normalised by different references (Hopper-v5: random policy" in " ".join(found.notes)


def test_without_two_references_nothing_is_averaged(summary: dict[str, Any]) -> None:
    found = aggregate(merged(on(summary, "Hopper-v5"), on(summary, "Mine-v0")))
    assert found is not None
    assert found.methods[0].final is None
    assert "no reference returns for Mine-v0" in " ".join(found.notes)


def test_what_has_references_is_averaged_and_named_and_ranks_are_over_all(summary: dict[str, Any]) -> None:
    three = merged(on(summary, "Hopper-v5"), on(summary, "Mine-v0"), on(summary, "Ant-v5"))
    found, of_two = aggregate(three), aggregate(merged(on(summary, "Hopper-v5"), on(summary, "Ant-v5")))
    assert found is not None
    assert of_two is not None
    assert [m.final for m in found.methods] == [m.final for m in of_two.methods]
    assert [m.runs for m in found.methods] == [6, 6]
    assert "averaged over Hopper-v5, Ant-v5 only: there are no reference returns for Mine-v0" in " ".join(found.notes)


def test_seeds_that_are_not_finished_do_not_count_and_are_named(summary: dict[str, Any]) -> None:
    whole = aggregate(read(more_seeds(summary)))
    more = more_seeds(summary)
    more["arms"]["scratch"]["seeds"]["9"] = {**summary["arms"]["scratch"]["seeds"]["0"], "status": "interrupted"}
    found = aggregate(read(more))
    assert found is not None
    assert whole is not None
    assert found.pairs == whole.pairs
    assert any(note.startswith("scratch: 1 of ") and "not finished" in note for note in found.notes)
    assert not any("not finished" in note for note in whole.notes)


def test_returns_after_different_budgets_are_said_to_be(summary: dict[str, Any]) -> None:
    found = aggregate(read(summary))
    assert found is not None
    assert not any("different numbers" in note for note in found.notes)
    for record in summary["arms"]["scratch"]["seeds"].values():
        record["online_evaluations"][-1]["step"] = 9_000
    found = aggregate(read(summary))
    assert found is not None
    assert any("(fine-tune after 2,000; scratch after 9,000)" in note for note in found.notes)


def test_an_arm_of_one_seed_is_left_out_and_the_others_are_compared(summary: dict[str, Any]) -> None:
    one = summary["arms"]["fine-tune"]
    summary["arms"]["single"] = {**one, "seeds": {"0": one["seeds"]["0"]}}
    found = aggregate(read(summary))
    assert found is not None
    assert [m.name for m in found.methods] == ["scratch", "fine-tune"]
    assert "single has one finished seed and is left out." in found.notes


def test_runs_of_one_recipe_on_two_tasks_are_one_method(summary: dict[str, Any]) -> None:
    def alone(env_id: str, **recipe: Any) -> dict[str, Any]:
        run = on(summary, env_id, run="held", **recipe)
        return {**run, "arms": {"run": run["arms"]["fine-tune"]}}

    both = merged(alone("Hopper-v5"), alone("Ant-v5"))
    assert list(both.arms) == ["held", "held (2)"]
    assert {arm.method for arm in both.arms.values()} == {"held"}
    twice = merged(alone("Hopper-v5"), alone("Hopper-v5", warmup_steps=7))
    assert [arm.method for arm in twice.arms.values()] == ["held", "held (2)"]


def test_arms_without_an_online_phase_have_no_area_and_are_compared(seed: Any, arm: Any) -> None:
    """By the scores that their offline phases ended with."""
    short = [seed({}, final, {500: final}) for final in (100.0, 200.0)]
    long = [seed({}, final, {500: final}) for final in (300.0, 400.0)]
    arms = {"short": arm(short, online=None, online_steps=0), "long": arm(long, online=None, online_steps=0)}
    found = aggregate(read({"arms": arms}))
    assert found is not None
    assert [method.final.value for method in found.methods] == [150, 350]
    assert found.pairs["long", "short"].value == 1
    text = markdown_report(read({"arms": arms}))
    assert "IQM of final return" in text
    assert "area" not in text.splitlines()[0]
    mixed = {**arms, "tuned": arm([seed({0: 1.0, 2000: 3.0}), seed({0: 1.0, 2000: 5.0})])}
    line = next(line for line in markdown_report(read({"arms": mixed})).splitlines() if line.startswith("| short"))
    assert line.split("|")[4].strip() == "–"


def test_one_task_needs_no_reference(summary: dict[str, Any]) -> None:
    found = aggregate(read(on(summary, "Mine-v0")))
    assert found is not None
    assert found.unit == "return"
    assert [m.final.value for m in found.methods if m.final] == [300.0, 2000.0]
    assert (found.baseline, found.methods[0].improvement) == ("scratch", None)
    assert found.methods[1].improvement is not None
    assert found.methods[1].improvement.value == 1.0
    assert found.pairs["scratch", "fine-tune"].value == 0.0


def test_a_method_that_lacks_a_task_is_left_out_and_named(summary: dict[str, Any]) -> None:
    other = on(summary, "Ant-v5")
    other["arms"]["new"] = other["arms"]["scratch"]
    found = aggregate(merged(on(summary, "Hopper-v5"), other))
    assert found is not None
    assert [m.name for m in found.methods] == ["scratch", "fine-tune"]
    assert "new has no finished seed on Hopper-v5 and is left out." in found.notes


def test_single_seeds_have_no_statistics(summary: dict[str, Any]) -> None:
    del summary["arms"]["scratch"]["seeds"]["1"]
    assert aggregate(read(summary)) is None
    assert "Across seeds" not in page(summary)
    assert "they need two methods with two finished seeds on every task (scratch has one" in page(summary)
    del summary["arms"]["fine-tune"]["seeds"]["1"]
    assert "No statistics" not in page(summary), "nobody would look for them"


def test_profiles_need_enough_runs(summary: dict[str, Any]) -> None:
    few = aggregate(read(summary))
    assert few is not None
    assert few.methods[0].profile is None
    enough = aggregate(read(more_seeds(summary)))
    assert enough is not None
    profile = enough.methods[0].profile
    assert profile is not None
    assert (profile.share[0], profile.share[-1]) == (0.5, 0.0)  # three of the six end at 200, the lowest of all


def test_the_page_has_statistics_with_the_warning_beside_them(summary: dict[str, Any], two: Summary) -> None:
    text = page(two)
    assert text.count("Few seeds (2)") == 2
    assert "Across seeds and tasks" in text
    assert "Few seeds" not in page(merged(*(more_seeds(on(summary, env)) for env in ("Hopper-v5", "Ant-v5"))))


def test_the_csv_has_every_number_of_every_seed(tmp_path: Path, two: Summary) -> None:
    render(two, tmp_path)
    rows = list(csv.DictReader((tmp_path / "measures.csv").open()))
    assert [(r["task"], r["method"], r["seed"]) for r in rows][:3] == [
        ("Hopper-v5", "scratch", "0"),
        ("Hopper-v5", "scratch", "1"),
        ("Hopper-v5", "fine-tune", "0"),
    ]
    assert [float(r["final"]) for r in rows] == [200, 400, 1900, 2100] * 2
    assert [r["steps to level"] for r in rows[:3]] == ["inf", "1000.0", "0.0"]
    assert rows[0]["dip"] == "", "no offline score, no number"
    pairs = list(csv.DictReader((tmp_path / "comparisons.csv").open()))
    assert [(p["first"], p["second"], float(p["probability"])) for p in pairs] == [
        ("scratch", "fine-tune", 0.0),
        ("fine-tune", "scratch", 1.0),
    ]
    assert math.isclose(float(rows[2]["normalised"]), 100 * (1900 - 17.6) / 3782.4)


def test_a_return_to_reach_is_refused_on_several_tasks(
    tmp_path: Path, summary: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for env in ("Hopper-v5", "Ant-v5"):
        (tmp_path / env).mkdir()
        (tmp_path / env / "summary.json").write_text(json.dumps(on(summary, env)))
    runs = [str(tmp_path / env) for env in ("Hopper-v5", "Ant-v5")]
    assert main(["report", *runs, "--reach", "500", "--out", str(tmp_path / "x")]) == 2
    assert "a return means something else on each of 2 tasks (Hopper-v5, Ant-v5)" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert main(["report", runs[0], "--reach", "150", "--markdown"]) == 0
    assert "steps to 150" in capsys.readouterr().out


def test_the_statistics_are_those_of_the_runs(summary: dict[str, Any]) -> None:
    found = aggregate(read(summary))
    assert found is not None
    assert found.methods[1].final == iqm([np.array([1900.0, 2100.0])])
