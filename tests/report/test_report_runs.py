"""Run directories are read with care, merged without loss, and written whole or not at all."""

from __future__ import annotations

import copy
import csv
import json
import os
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from reading import merged, read

from segue.errors import SegueError
from segue.files import write_atomically
from segue.report import decode, markdown_report, merge, read_run, render, write_report


def test_a_missing_summary_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegueError, match=r"summary\.json: not found"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"arms": {', "not JSON \\(line 1"),
        ("[]", "expected an object with 'arms'"),
        ("{}", "expected an object with 'arms'"),
        ('{"arms": {"x": 1}}', "arm 'x' is not a Segue arm"),
        ('{"arms": {"x": {}}}', "expected an object with 'seeds'"),
    ],
)
def test_a_corrupt_summary_is_refused_with_what_was_expected(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(SegueError, match=complaint):
        write_report(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SegueError, match="cannot be read"):
        read_run(tmp_path)


def test_a_report_is_a_page_with_its_pictures_and_tables_and_nothing_else(
    tmp_path: Path, summary: dict[str, Any]
) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert write_report(tmp_path) == tmp_path / "report.html"
    always = ["curves.csv", "learning_curves.png", "measures.csv", "report.html", "report.md", "summary.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*always, "comparisons.csv", "statistics.png"])


def test_curves_hold_every_evaluation_with_its_episodes(
    tmp_path: Path, summary: dict[str, Any], seed: Any, arm: Any
) -> None:
    first = summary["arms"]["scratch"]["seeds"]["0"]["online_evaluations"][1]
    first["returns"] = [99.5, 100.25]
    only = seed({}, 7.0, {250: 1.0, 500: 7.0})
    summary["arms"]["offline only"] = arm([only], online=None, online_steps=0)
    render(read(summary), tmp_path)
    rows = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert list(rows[0]) == ["arm", "seed", "step", "mean_return", "episode_returns"]
    assert [tuple(row.values()) for row in rows[:2]] == [
        ("scratch", "0", "0", "0.0", "0.0"),
        ("scratch", "0", "1000", "100.0", "99.5 100.25"),
    ]
    assert [(r["step"], r["mean_return"]) for r in rows if r["arm"] == "offline only"] == [
        ("250", "1.0"),
        ("500", "7.0"),
    ]
    assert len(rows) == 3 * 4 + 2


def test_a_damaged_summary_is_refused_by_its_run() -> None:
    with pytest.raises(SegueError, match="x: its summary is damaged"):
        decode({"arms": {"a": {"seeds": {"0": {"online_evaluations": [{"step": "soon", "mean_return": 1.0}]}}}}}, "x")


def test_template_and_style_sheet_are_in_the_package() -> None:
    found = {file.name for file in (files("segue.report") / "templates").iterdir()}
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert found == {"page.css", "page.html.j2"}
    assert "report/templates/*" in declared["tool"]["setuptools"]["package-data"]["segue"]


def test_one_arm_is_compared_with_nobody(tmp_path: Path, summary: dict[str, Any]) -> None:
    del summary["arms"]["scratch"]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    write_report(tmp_path)
    assert not {"comparisons.csv", "statistics.png"} & {p.name for p in tmp_path.iterdir()}


def changed(arm: dict[str, Any], **recipe: Any) -> dict[str, Any]:
    return {**arm, "recipe": {**arm["recipe"], **recipe}}


def test_arms_with_different_names_keep_them(summary: dict[str, Any]) -> None:
    other = copy.deepcopy(summary)
    other["arms"] = {"q-filter": changed(other["arms"].pop("fine-tune"), bridges=["q-filter"])}
    assert list(merged({**summary, "run": "a"}, {**other, "run": "b"}).arms) == ["scratch", "fine-tune", "q-filter"]


def test_arms_with_one_name_are_told_apart_by_their_run(summary: dict[str, Any]) -> None:
    other = {**summary, "arms": {"scratch": changed(summary["arms"]["scratch"], warmup_steps=7)}, "run": "b"}
    assert list(merged({**summary, "run": "a"}, other).arms) == ["a/scratch", "fine-tune", "b/scratch"]


def test_the_arm_of_a_single_recipe_is_called_as_its_run(summary: dict[str, Any]) -> None:
    sac, td3 = (
        {"arms": {"run": changed(summary["arms"]["scratch"], online=name)}, "run": name} for name in ("sac", "td3")
    )
    assert list(merged(sac, td3).arms) == ["sac", "td3"]


def test_recipes_that_differ_in_their_seeds_are_one_method_with_all_seeds(summary: dict[str, Any], seed: Any) -> None:
    arm = summary["arms"]["scratch"]

    def run(name: str, number: int, status: str = "complete") -> dict[str, Any]:
        record = {**seed({0: 0.0, 1000: 10.0 * number}), "status": status}
        recipe = {**arm["recipe"], "seed": number, "seeds": 1}
        return {"arms": {"run": {"recipe": recipe, "seeds": {str(number): record}}}, "run": name}

    array = merged(run("cql-seed-10", 10), run("cql-seed-2", 2), run("cql-seed-3", 3))
    assert list(array.arms) == ["cql"]
    assert list(array.arms["cql"].seeds) == ["2", "3", "10"]
    assert array.arms["cql"].seeds["10"].final_score == 100
    assert array.notes == ()

    twice = merged(run("a", 1, "interrupted"), run("b", 1))
    assert twice.arms["a"].seeds["1"].finished, "the one that came to its end"
    assert twice.notes == ("WARNING: of “a” seed 1 of b was there before: counted once.",)
    assert "counted once" in markdown_report(twice)


def test_runs_with_one_name_are_told_apart_by_their_place(summary: dict[str, Any]) -> None:
    runs = [("a", 0), ("a", 1), ("a (2)", 2)]
    others = [{"arms": {n: changed(a, warmup_steps=w) for n, a in summary["arms"].items()}, "run": r} for r, w in runs]
    arms = list(merged(*others).arms)
    assert len(arms) == len(set(arms)) == 6
    assert arms[:2] == ["a/scratch", "a/fine-tune"]


def test_an_arm_named_like_another_runs_label_is_not_lost(summary: dict[str, Any]) -> None:
    tricky = {**summary, "arms": {"scratch": {"seeds": {}}, "a/scratch": {"seeds": {}}}, "run": "b"}
    assert len(merged({**summary, "run": "a"}, tricky).arms) == 4


def test_merging_keeps_each_runs_machine_and_the_worst_status(summary: dict[str, Any]) -> None:
    broken = {**summary, "status": "interrupted", "machine": {"cores": 64}}
    both = merged(summary, broken)
    assert both.status == "interrupted"
    assert [source.machine["cores"] for source in both.sources] == [2, 64]
    assert [source.run for source in both.sources] == ["run 1", "run 2"]


def test_merging_leaves_its_input_alone(summary: dict[str, Any]) -> None:
    one = read(summary)
    merge([one, one])
    assert [(name, arm.name, arm.method, arm.run) for name, arm in one.arms.items()] == [
        (name, name, name, "") for name in summary["arms"]
    ]


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (("complete", "complete"), "complete"),
        (("complete", "pending"), "pending"),
        (("pending", "interrupted"), "interrupted"),
        (("interrupted", "failed", "complete"), "failed"),
    ],
)
def test_an_arm_is_as_good_as_its_worst_seed(statuses: tuple[str, ...], status: str) -> None:
    seeds = {str(i): {"status": s} for i, s in enumerate(statuses)}
    assert read({"arms": {"x": {"seeds": seeds}}}).arms["x"].status == status


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SegueError, match=r"report\.html: cannot be written: No space left"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
