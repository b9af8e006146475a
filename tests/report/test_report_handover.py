"""The handover: what was measured around it, whether the return fell, and only what the numbers say about it."""

from __future__ import annotations

import ast
import csv
import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from reading import page, read

from segue.algorithms import ALGORITHMS
from segue.bridges import BRIDGES, Bridge, Guard
from segue.cli.recipe_flags import recipe_from_flags
from segue.describe import Panel, Remedy
from segue.errors import RecipeError
from segue.evaluation import probe
from segue.recipe import Recipe
from segue.report import handover, read_run
from segue.report.conclusion import conclusion
from segue.report.diagnosis import Diagnosis, diagnose, handover_data, moments_table, relation
from segue.report.figures import LIGHT
from segue.report.figures_handover import draw, handover_pictures, size
from segue.report.handover import COMMON, PROBE, HandoverArm, handover_arms, lowest_point, moments
from segue.report.summary import History, decode, read_metrics
from segue.report.tables import measures_tables
from segue.training import online

EPISODES = (-10.0, 0.0, 10.0)
Build = Callable[..., HandoverArm]
#: A recipe that `Recipe` accepts, as a run stores it.
RECIPE = {
    "dataset": "log",
    "offline": {"name": "cql"},
    "offline_steps": 500,
    "online": {"name": "sac"},
    "online_steps": 2000,
    "eval_episodes": 3,
}
DISCRETE = {"offline": {"name": "discrete-cql"}}


@pytest.fixture
def record(seed: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A seed's record with these episodes around the mean of every evaluation."""

    def make(
        online: Mapping[int, float], offline: float | None = 100.0, episodes: Sequence[float] = EPISODES
    ) -> dict[str, Any]:
        made = seed(online, offline, {500: offline} if offline is not None else None)
        for evaluation in (*made["online_evaluations"], *made["offline_evaluations"]):
            evaluation["returns"] = [evaluation["mean_return"] + noise for noise in episodes]
        return {**made, "metrics_of": {"offline": "x", "online": "x"}}

    return make


def history(online: Mapping[str, Mapping[int, float]], offline: Mapping[str, Mapping[int, float]]) -> History:
    """Metrics of the first seed of arm x: name → {step: value}."""

    def curves(of: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
        return {n: (np.array([*at], float), np.array([*at.values()], float)) for n, at in of.items()}

    return {("x", "0"): {"offline": curves(offline), "online": curves(online)}}


@pytest.fixture
def build(record: Callable[..., Any], arm: Callable[..., Any]) -> Build:
    """One arm with one seed; `recipe` replaces fields of its recipe, other keywords are metrics of the online phase."""

    def make(
        online: Mapping[int, float],
        recipe: dict[str, Any] | None = None,
        offline: float | None = 100.0,
        events: Sequence[Mapping[str, Any]] = (),
        episodes: Sequence[float] = EPISODES,
        before: Mapping[str, Mapping[int, float]] | None = None,
        **metrics: Mapping[int, float],
    ) -> HandoverArm:
        one = {**record(online, offline, episodes), "events": events}
        plain = {"arms": {"x": arm([one], **{**RECIPE, **(recipe or {})})}}
        (made,) = handover_arms(decode(plain, history=history(metrics, before or {})))
        return made

    return make


def said(diagnosis: Diagnosis, about: str) -> str:
    return " ".join(finding.text for finding in diagnosis.findings if finding.about == about)


COLLAPSE = {0: 100.0, 500: 20.0, 1000: 60.0}


# Reading metrics.csv


def write_metrics(directory: Path, rows: list[dict[str, Any]], extra: str = "") -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (directory / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
        file.write(extra)


def row(arm: str, phase: str, step: int, **values: Any) -> dict[str, Any]:
    return {"arm": arm, "seed": 0, "phase": phase, "step": step, **values}


def test_several_rows_of_a_step_become_one_curve_per_metric(tmp_path: Path) -> None:
    rows = [
        row("x", "online", 0, value_at_start=1.0, distance_to_dataset=0.5),
        row("x", "online", 50, actor_loss=0.9),
        row("x", "online", 50, value_at_start=2.0),
        row("x", "online", 100, value_at_start="nan"),
        row("x", "critic-fit", 100, value_at_start=7.0),
    ]
    write_metrics(tmp_path, rows, extra="x,0,online,15")
    curves = read_metrics(tmp_path / "metrics.csv", COMMON)["x", "0"]["online"]
    assert {name: [s.tolist(), v.tolist()] for name, (s, v) in curves.items()} == {
        "value_at_start": [[0, 50], [1, 2]],
        "distance_to_dataset": [[0], [0.5]],
        "actor_loss": [[50], [0.9]],
    }


def test_only_the_named_columns_and_losses_are_kept(tmp_path: Path) -> None:
    write_metrics(tmp_path, [row("x", "online", 0, value_at_start=1.0, critic_norm=3.0)])
    assert set(read_metrics(tmp_path / "metrics.csv", COMMON)["x", "0"]["online"]) == {"value_at_start"}


@pytest.mark.parametrize("content", [None, b"", b"arm,step\nx,0\n", b"\xff\xfe\x00"])
def test_a_run_without_readable_metrics_has_none(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.csv").write_bytes(content)
    assert read_metrics(tmp_path / "metrics.csv", COMMON) == {}


def test_an_offline_phase_that_arms_share_belongs_to_each_of_them(tmp_path: Path, summary: dict[str, Any]) -> None:
    write_metrics(
        tmp_path,
        [row("offline cql", "offline", 500, value_at_start=5.0), row("fine-tune", "online", 0, value_at_start=6.0)],
    )
    summary["arms"]["fine-tune"]["seeds"]["0"]["metrics_of"] = {"offline": "offline cql", "online": "fine-tune"}
    arms = decode(summary, history=read_metrics(tmp_path / "metrics.csv", COMMON)).arms
    record = arms["fine-tune"].seeds["0"]
    assert record.metric("offline", "value_at_start")[1].tolist() == [5]
    assert record.metric("online", "value_at_start")[1].tolist() == [6]
    assert arms["scratch"].seeds["0"].metrics == {"offline": {}, "online": {}}


# Measures


@pytest.mark.parametrize(
    ("steps", "window"),
    [((0, 1000, 20_000), 10_000), ((0, 1000, 4000), 4000), ((0, 50_000, 90_000), 50_000), ((0,), 10_000)],
)
def test_the_window_is_ten_thousand_steps_or_what_there_is(steps: tuple[int, ...], window: float, build: Build) -> None:
    assert build(dict.fromkeys(steps, 1.0)).window == window


def test_the_lowest_point_is_that_of_the_mean_against_the_handover(build: Build) -> None:
    found = lowest_point(build(COLLAPSE))
    assert found is not None
    assert (found.step, found.before, found.after, found.evaluations, found.seeds_down) == (500, 100, 20, 2, 1)
    # Variance 100 over three episodes in both evaluations.
    assert found.error == pytest.approx(math.sqrt(200 / 3))
    assert found.certain


def test_a_fall_within_the_noise_is_not_one(build: Build) -> None:
    found = lowest_point(build({0: 100.0, 500: 90.0}))
    assert found is not None
    assert found.certain is False


def test_one_episode_says_nothing_about_noise(build: Build) -> None:
    arm = build(COLLAPSE, episodes=(0.0,))
    found = lowest_point(arm)
    assert found is not None
    assert found.certain is None
    assert "cannot be told from noise" in said(diagnose(arm), "return")
    assert diagnose(arm).suggestions == {}


def test_a_policy_that_does_not_change_falls_in_about_one_run_of_twenty_at_most() -> None:
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        returns = random.normal(size=(12, 5))
        evaluations = [{"step": 250 * i, "mean_return": r.mean(), "returns": r.tolist()} for i, r in enumerate(returns)]
        seeds = {"0": {"online_evaluations": evaluations, "offline_score": returns[0].mean()}}
        found = lowest_point(handover_arms(read({"arms": {"x": {"recipe": RECIPE, "seeds": seeds}}}))[0])
        assert found is not None
        alarms += bool(found.certain)
    assert alarms / 300 < 0.09


def test_moments_are_at_the_handover_at_the_lowest_return_and_at_the_end(build: Build) -> None:
    arm = build(COLLAPSE, value_at_start={0: 1.0, 500: 2.0, 1000: 3.0})
    found = moments(arm)
    assert list(found) == ["offline, last", "at the handover", "lowest return, step 500", "step 1,000"]
    assert [of["value_at_start"].mean for of in found.values()][1:] == [1, 2, 3]
    head, rows = moments_table(arm)
    assert len(head) == len(rows[0]) == 5
    assert [name for name, *_ in rows] == ["return", "critic's estimate"], "only what was recorded"


# Diagnosis


@pytest.mark.parametrize(
    ("expected", "earned", "what"),
    [(100, 95, "equal"), (100, 50, "above"), (50, 100, "below"), (0, 0, "equal"), (math.nan, 1, "unknown")],
)
def test_two_values_agree_within_a_tenth(expected: float, earned: float, what: str) -> None:
    assert relation(expected, earned) == what


def test_over_estimation_is_named_where_the_critic_promises_more_than_follows(build: Build) -> None:
    arm = build(
        COLLAPSE, value_at_start={0: 50.0, 500: 80.0, 1000: 70.0}, return_from_start={0: 50.0, 500: 10.0, 1000: 30.0}
    )
    text = said(diagnose(arm), "critic")
    assert "from 50 to 80" in text.replace(".0", "")
    assert "The estimate rose while the return fell." in text
    assert "over-estimates by 70" in text
    assert "pessimistic" not in text
    assert "--bridges samg --replay online-only" in diagnose(arm).suggestions
    assert "--bridges critic-refit" not in diagnose(arm).suggestions, "it was right at the handover"


def test_a_pessimistic_critic_is_not_called_over_estimation(build: Build) -> None:
    arm = build(COLLAPSE, value_at_start={0: 5.0, 500: 8.0}, return_from_start={0: 50.0, 500: 30.0})
    text = said(diagnose(arm), "critic")
    assert "under-estimates by 22" in text
    assert "not over-estimation" in text
    assert "--bridges critic-refit" in diagnose(arm).suggestions


def test_moving_from_the_dataset_is_told_with_both_distances(build: Build) -> None:
    arm = build(
        COLLAPSE,
        {"replay": {"name": "online-only"}},
        distance_to_dataset={0: 0.2, 500: 0.6},
        q_of_policy_actions={0: 10.0, 500: 15.0},
        q_of_dataset_actions={0: 10.0, 500: 12.0},
    )
    text = said(diagnose(arm), "dataset")
    assert "was 0.200 at the handover and 0.600 at step 500" in text
    assert "prefers to the dataset's, while the return fell" in text
    assert {"--bridges conservative-update", "--replay mixed"} <= set(diagnose(arm).suggestions)


def test_an_estimate_that_was_rising_before_the_handover_is_not_blamed_on_it(build: Build) -> None:
    arm = build(
        COLLAPSE,
        before={"value_at_start": {250: 2.0, 500: 5.0}},
        value_at_start={0: 5.0, 500: 8.0},
        return_from_start={0: 50.0, 500: 30.0},
    )
    assert "it was rising in the offline phase already" in said(diagnose(arm), "critic")
    assert "more --offline-steps" in diagnose(arm).suggestions


def test_a_fall_of_less_than_a_tenth_is_told_but_gets_no_suggestion(build: Build) -> None:
    arm = build({0: 1000.0, 500: 950.0})
    found = lowest_point(arm)
    assert found is not None
    assert found.certain
    assert not found.matters
    assert "less than a tenth" in said(diagnose(arm), "return")
    assert diagnose(arm).suggestions == {}


def test_a_policy_that_acts_otherwise_at_the_handover_is_noticed(build: Build) -> None:
    arm = build({0: 40.0, 500: 40.0}, offline=100.0)
    assert "Already at the handover" in said(diagnose(arm), "return")
    assert "Already at the handover" not in said(diagnose(build({0: 95.0, 500: 90.0}, offline=100.0)), "return")


def test_a_clone_that_is_deployed_instead_is_named_and_the_critic_is_not_judged_by_what_it_earns(build: Build) -> None:
    for bridges, expected in (([], "pessimistic"), ([{"name": "promotion", "clone_steps": 5}], "they need not agree")):
        rated = {"value_at_start": {0: 5.0, 500: 8.0}, "return_from_start": {0: 50.0, 500: 30.0}}
        told = diagnose(build({0: 40.0, 500: 20.0}, {"bridges": bridges}, offline=100.0, **rated))
        assert expected in said(told, "critic")
        assert ("a clone of the dataset's best episodes: its return is 40" in said(told, "return")) == bool(bridges)
        assert ("Already at the handover" in said(told, "return")) != bool(bridges)


def test_what_does_not_fit_the_algorithm_is_not_suggested(build: Build) -> None:
    probe = {"value_at_start": {0: 5.0, 500: 8.0}, "return_from_start": {0: 50.0, 500: 30.0}}
    assert set(diagnose(build(COLLAPSE, {"online": {"name": "ppo"}}, **probe)).suggestions) == {
        "--bridges guard",
        "--bridges earned-freedom",
    }
    dqn = build(COLLAPSE, {**DISCRETE, "online": {"name": "dqn"}}, **probe)
    assert set(diagnose(dqn).suggestions) == {"--bridges guard", "--bridges promotion"}, (
        "it has no actor to refit a critic to"
    )


#: What gives a reason for every bridge that is ever suggested.
MOVED = {
    "value_at_start": {0: 30.0, 500: 80.0},
    "return_from_start": {0: 50.0, 500: 10.0},
    "distance_to_dataset": {0: 0.2, 500: 0.6},
}


@pytest.mark.parametrize(
    "online",
    [
        pytest.param(name, marks=() if name in {"sac", "cql", "iql", "ppo"} else pytest.mark.slow)
        for name, kind in ALGORITHMS.items()
        if "online" in kind.phases
    ],
)
def test_every_suggestion_is_a_recipe(build: Build, online: str) -> None:
    """With every replay and bridge that there is, the suggested flags give a recipe that is accepted."""
    offline = "iql" if "continuous" in ALGORITHMS[online].actions else "discrete-cql"
    for replay, bridges in itertools.product((None, "online-only"), [(), *((name,) for name in BRIDGES)]):
        parts = {
            "env": "Hopper-v5",
            "offline": {"name": offline},
            "online": {"name": online},
            "replay": replay and {"name": replay},
            "bridges": [{"name": name} for name in bridges],
        }
        try:
            recipe = Recipe.from_dict({**RECIPE, **parts})
        except RecipeError:
            continue
        added = set()
        for flag in diagnose(build(COLLAPSE, parts, **MOVED)).suggestions:
            if not flag.startswith("--"):
                continue
            words = flag.split()
            given = dict(zip(words[::2], words[1::2], strict=True))
            names = given["--bridges"].split(",") if "--bridges" in given else [*bridges]
            assert set(names) >= set(bridges)
            added |= {*names} - {*bridges}
            changed = {**RECIPE, **parts, "bridges": names, "replay": given.get("--replay", parts["replay"])}
            assert Recipe.from_dict(changed) != recipe
        assert ("guard" in added) == (
            not {"guard", "policy-expansion", "promotion", "earned-freedom"}.intersection(bridges)
        ), bridges


def test_a_suggestion_is_a_flag_of_the_command_line(build: Build) -> None:
    stored = {**RECIPE, "bridges": [{"name": "q-filter", "percentile": 50.0}]}
    flags = [flag for flag in diagnose(build(COLLAPSE, stored, **MOVED)).suggestions if "samg" in flag]
    assert flags == ["--bridges q-filter,samg --replay online-only"]
    changed, _ = recipe_from_flags(flags[0].split(), "branch", "", base=Recipe.from_dict(stored))
    assert [bridge.name for bridge in changed.bridges] == ["q-filter", "samg"]


def test_a_stored_recipe_that_cannot_be_read_gets_no_suggestion(build: Build) -> None:
    arm = build(COLLAPSE, {"online": {"name": "sac", "of_another_version": 1}}, **MOVED)
    assert diagnose(arm).suggestions == {}
    assert "beyond evaluation noise" in said(diagnose(arm), "return")


def test_without_a_fall_nothing_is_suggested(build: Build) -> None:
    arm = build({0: 100.0, 500: 110.0}, value_at_start={0: 5.0, 500: 500.0}, return_from_start={0: 50.0, 500: 55.0})
    assert "No fall beyond evaluation noise" in said(diagnose(arm), "return")
    assert diagnose(arm).suggestions == {}


def test_a_bridge_that_is_in_use_is_not_suggested(build: Build) -> None:
    arm = build(COLLAPSE, {"bridges": [{"name": "guard", "alpha": 0.05}]}, guard_alarms={500: 0.0, 1000: 2.0})
    assert "--bridges guard" not in diagnose(arm).suggestions
    assert "Alarms of the guard: 2." in said(diagnose(arm), "bridges")
    assert "--bridges guard" in diagnose(build(COLLAPSE)).suggestions


def test_seeds_and_episodes_are_stated_and_no_cause(build: Build) -> None:
    notes = " ".join(diagnose(build(COLLAPSE)).notes)
    assert "One seed; 3 episodes per evaluation" in notes
    assert "not what caused what" in notes


def test_what_an_algorithm_says_against_its_estimate_is_in_the_notes(build: Build) -> None:
    probe = {"value_at_start": {0: 1.0}, "return_from_start": {0: 1.0}}
    for used, told in (({"name": "sac"}, True), ({"name": "sac", "backup_entropy": False}, False)):
        assert ("entropy bonus" in " ".join(diagnose(build(COLLAPSE, {"online": used}, **probe)).notes)) == told


def test_a_run_older_than_the_probe_says_so_in_words(build: Build) -> None:
    text = said(diagnose(build(COLLAPSE)), "data")
    assert "was not recorded" in text
    assert "run it again" in text


def test_an_arm_from_scratch_has_no_handover(build: Build) -> None:
    arm = build(COLLAPSE, {"offline": None}, offline=None)
    assert not arm.pretrained
    assert "there is no handover in this arm" in said(diagnose(arm), "data")
    assert "offline, last" not in moments(arm)
    assert diagnose(arm).suggestions == {}


def test_everything_is_plain_json(build: Build) -> None:
    arm = build(COLLAPSE, events=[{"step": 500, "message": "guard: alarm"}], value_at_start={0: 1.0})
    data = json.loads(json.dumps(handover_data(arm), allow_nan=False))
    assert data["fall"]["certain"] is True
    assert data["events"] == [{"seed": "0", "step": 500, "message": "guard: alarm"}]


# Picture


def drawn(*arms: HandoverArm) -> tuple[str, Figure]:
    """Every text on the figure, and the figure."""
    figure = Figure()
    draw(figure, arms, LIGHT)
    notes = [t.get_text() for axes in figure.axes for t in axes.texts] + [t.get_text() for t in figure.texts]
    legends = [axes.get_legend() for axes in figure.axes]
    names = [t.get_text() for legend in legends if legend is not None for t in legend.get_texts()]
    return "\n".join(notes + names), figure


def test_the_picture_has_a_panel_for_what_was_recorded_and_none_that_is_empty(build: Build) -> None:
    text, figure = drawn(build(COLLAPSE, {"bridges": [{"name": "q-filter"}]}, q_filter_kept={500: 0.7, 1000: 0.8}))
    assert "Return" in text
    assert "Q-filter: samples kept" in text
    assert "Critic against reality" not in text
    assert len(figure.axes) == 4, "two panels, each with both phases"
    probe = {name: {0: 1.0, 500: 2.0} for name in PROBE}
    text, figure = drawn(build(COLLAPSE, **probe))
    assert "Critic against reality" in text
    assert len(figure.axes) == 10


def test_an_arm_beside_others_says_what_it_did_not_record(build: Build) -> None:
    text, _ = drawn(build(COLLAPSE, value_at_start={0: 1.0, 500: 2.0}), build(COLLAPSE))
    assert "Critic against reality: not recorded in this arm" in text


def test_the_handover_the_lowest_point_and_the_events_are_marked(build: Build) -> None:
    text, figure = drawn(build(COLLAPSE, events=[{"step": 700, "message": "guard: alarm 1"}]))
    assert "handover" in text
    assert "lowest 20, step 500" in text.replace(".0,", ",")
    assert "guard" in text
    marks = [np.asarray(line.get_xdata(), float).tolist() for axes in figure.axes for line in axes.lines]
    assert [700, 700] in marks


def test_an_arm_from_scratch_has_no_handover_in_the_picture(build: Build) -> None:
    text, figure = drawn(build({0: 1.0, 500: 50.0}, {"offline": None}, offline=None))
    assert "handover" not in text
    assert "no offline phase" in text
    assert len(figure.axes) == 1


def test_over_estimation_is_shaded_and_named_only_where_it_occurs(build: Build) -> None:
    over = build(COLLAPSE, value_at_start={0: 5.0, 500: 9.0}, return_from_start={0: 1.0, 500: 2.0})
    under = build(COLLAPSE, value_at_start={0: 1.0, 500: 2.0}, return_from_start={0: 5.0, 500: 9.0})
    assert "over-estimated" in drawn(over)[0]
    assert "under-estimated" not in drawn(over)[0]
    assert "under-estimated" in drawn(under)[0]


def test_the_alarm_line_is_where_the_guard_alarms(build: Build) -> None:
    evidence = {500: 0.5, 1000: 1.0}
    text, figure = drawn(build(COLLAPSE, {"bridges": [{"name": "guard", "alpha": 0.05}]}, guard_log_evidence=evidence))
    levels = [set(np.asarray(line.get_ydata(), float)) for axes in figure.axes for line in axes.lines]
    assert {math.log(Guard(alpha=0.05).threshold)} == {math.log(40)}
    assert {math.log(40)} in levels
    assert "alarm, log 40" in text


def test_the_report_copies_no_constant_of_what_it_reports() -> None:
    """A number that a bridge, the loop or the probe owns is imported, so that the two cannot differ."""
    for file in Path(handover.__file__).parent.glob("*.py"):
        assigned = [node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Assign)]
        numbers = [value.value for value in assigned if isinstance(value, ast.Constant)]
        assert not {online.HANDOVER_STEPS, probe.ROWS} & {n for n in numbers if isinstance(n, int)}, file.name
        assert f"{probe.ROWS} states" not in file.read_text(), file.name


@pytest.mark.parametrize("count", [1, 2, 3])
def test_legends_and_titles_of_columns_do_not_run_into_each_other(build: Build, count: int) -> None:
    over = {"value_at_start": {0: 1.0, 500: 9.0, 1000: 1.0}, "return_from_start": {0: 5.0, 500: 2.0, 1000: 8.0}}
    probe = {name: {0: 1.0, 500: 2.0} for name in PROBE}
    events = [{"step": 700, "message": "a bridge of a long name: event"}]
    arm = build(COLLAPSE, {"bridges": [{"name": "guard"}]}, events=events, **{**probe, **over})
    figure = Figure(figsize=size([arm] * count))
    draw(figure, [arm] * count, LIGHT)
    FigureCanvasAgg(figure).draw()
    legends = [legend for axes in figure.axes if (legend := axes.get_legend()) is not None]
    heads = [text for axes in figure.axes for text in axes.texts if text.get_text() and text.get_weight() == "bold"]
    boxes = [artist.get_window_extent() for artist in (*legends, *heads)]
    assert len(legends) == 3 * count
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_more_arms_than_columns_go_into_further_pictures(build: Build) -> None:
    pictures = handover_pictures([build(COLLAPSE)] * 4)
    assert len(pictures) == 2
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


# Page


def test_the_page_tells_the_handover_in_words_and_draws_it_only_with_a_probe(
    summary: dict[str, Any], arm: Any, record: Any
) -> None:
    text = page(summary)
    assert "<h2>The handover</h2>" in text
    assert "was not recorded" in text
    assert text.count("<figure>") == 2, "the curves and the statistics"
    assert "around the handover" not in text
    summary["arms"]["x"] = arm([record(COLLAPSE)])
    assert "around the handover" in page(decode(summary, history=history({"value_at_start": {0: 1.0, 500: 2.0}}, {})))


def test_a_page_of_arms_from_scratch_has_no_handover(summary: dict[str, Any]) -> None:
    del summary["arms"]["fine-tune"]
    assert "The handover" not in page(summary)


def test_events_on_the_page_are_text(summary: dict[str, Any]) -> None:
    summary["arms"]["fine-tune"]["seeds"]["0"]["events"] = [{"step": 5, "message": "<script>x</script>"}]
    text = page(summary)
    assert "<script>" not in text
    assert "&lt;script&gt;x" in text


def test_one_fall_is_one_number_in_table_conclusion_and_diagnosis(arm: Any, record: Any) -> None:
    """The dip: the lowest of noisy means against the first is a larger number, and is shown as two returns only."""
    noisy = record({0: 100.0, 500: 20.0, 1000: 125.0}, episodes=(-9.0, -4.0, 2.0, 11.0))
    summary = read({"arms": {"x": arm([noisy], **RECIPE)}})
    (one,) = handover_arms(summary)
    dip = f"{one.dip.mean:.0f}"
    assert dip != "80"
    (row,) = measures_tables(summary).tasks[0].handover.rows
    assert row.cells[0].value == dip
    assert f"by {dip} from 100" in " ".join(conclusion(summary, None))
    assert f"the dip is {dip}, as in the table" in said(diagnose(one), "return")
    assert "80" not in said(diagnose(one), "return")


# Parts that describe themselves


@dataclasses.dataclass(frozen=True, kw_only=True)
class Brake(Bridge):
    """A bridge that the report has never heard of."""

    name: ClassVar[str] = "brake"
    remedies: ClassVar[tuple[Remedy, ...]] = (Remedy("fall", "it brakes"),)
    limit: float = 3.0

    def panels(self) -> tuple[Panel, ...]:
        heat = Panel("brake_heat", "Brake: heat", "°C", "heat of the brake", 2 * self.limit, "melts")
        heat = dataclasses.replace(heat, name="disc", beside=("brake_pad_heat", "pad"))
        return heat, Panel("brake_stops", "Brake: stops", "so far", "stops", counts=True)


@pytest.fixture
def brake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BRIDGES._parts, "brake", Brake)


@pytest.mark.usefixtures("brake")
def test_a_made_up_bridge_shows_its_panels_with_the_threshold_of_its_own_values(build: Build) -> None:
    metrics = {"brake_heat": {500: 1.0, 1000: 4.0}, "brake_stops": {500: 0.0, 1000: 2.0}}
    metrics["brake_pad_heat"] = {500: 2.0, 1000: 7.0}
    arm = build(COLLAPSE, {"bridges": [{"name": "brake", "limit": 5.0}]}, **metrics)
    text, figure = drawn(arm)
    assert {"Brake: heat", "°C", "melts", "disc", "pad", "Brake: stops"} <= set(text.splitlines())
    levels = [set(np.asarray(line.get_ydata(), float)) for axes in figure.axes for line in axes.lines]
    assert {10.0} in levels
    assert {2.0, 7.0} in levels, "what is beside its metric"
    told = said(diagnose(arm), "bridges")
    assert "Heat of the brake: 1.00 at first, 4.00 at the end (melts: 10.0)." in told
    assert "Stops: 2." in told


@pytest.mark.parametrize(
    ("last", "labels"),
    [(2.0, {"1.2", "1.6", "2"}), (50.0, {"1", "10", "30"}), (1e5, {"1", "100", "10k"})],
    ids=["a factor of two", "of fifty", "many powers of ten"],
)
def test_a_logarithmic_panel_has_few_ticks_at_round_numbers(build: Build, last: float, labels: set[str]) -> None:
    arm = build(COLLAPSE, {"bridges": [{"name": "earned-freedom"}]}, freedom_epsilon={500: 1.0, 1000: last})
    _, figure = drawn(arm)
    (axes, *_) = [one for one in figure.axes if one.get_yscale() == "log"]
    low, high = axes.get_ylim()
    ticks = [y for y in axes.yaxis.get_majorticklocs() if low <= y <= high]
    assert 2 <= len(ticks) <= 4
    said = {axes.yaxis.get_major_formatter()(y) for y in ticks}
    assert said >= labels, said


@pytest.mark.usefixtures("brake")
def test_counts_that_stayed_zero_are_told_and_not_drawn(build: Build) -> None:
    arm = build(COLLAPSE, {"bridges": [{"name": "brake"}]}, brake_stops={500: 0.0, 1000: 0.0})
    assert "Brake: stops" not in drawn(arm)[0]
    assert "Stops: none." in said(diagnose(arm), "bridges")


@pytest.mark.usefixtures("brake")
def test_values_that_cannot_be_read_give_panels_without_a_threshold(build: Build) -> None:
    arm = build(COLLAPSE, {"bridges": [{"name": "brake", "of_another_version": 1}]}, brake_heat={500: 1.0, 1000: 4.0})
    text, _ = drawn(arm)
    assert "Brake: heat" in text
    assert "melts" not in text


@pytest.mark.usefixtures("brake")
def test_a_made_up_remedy_is_suggested(build: Build) -> None:
    assert diagnose(build(COLLAPSE)).suggestions["--bridges brake"] == "it brakes"


@pytest.mark.usefixtures("brake")
def test_what_a_made_up_bridge_recorded_is_read_from_the_run_directory(tmp_path: Path, arm: Any, record: Any) -> None:
    hot = {"brake_heat": 4.0, "brake_pad_heat": 7.0}
    write_metrics(tmp_path, [row("x", "online", 500, brake_heat=1.0), row("x", "online", 1000, **hot)])
    plain = {"arms": {"x": arm([record(COLLAPSE)], **{**RECIPE, "bridges": [{"name": "brake"}]})}}
    (tmp_path / "summary.json").write_text(json.dumps(plain))
    seed = read_run(tmp_path).arms["x"].seeds["0"]
    assert seed.metric("online", "brake_heat")[1].tolist() == [1, 4]
    assert seed.metric("online", "brake_pad_heat")[1].tolist() == [7]


def test_the_report_names_no_bridge_and_no_algorithm() -> None:
    """Neither a class nor a name, in code or in text; docstrings included."""
    classes = {kind.__name__ for kind in (*BRIDGES.values(), *ALGORITHMS.values())}
    names = {*BRIDGES, *ALGORITHMS}
    metrics = {panel.metric for kind in BRIDGES.values() for panel in kind().panels()}
    for file in Path(handover.__file__).parent.rglob("*.*"):
        if file.suffix in (".py", ".j2", ".css"):
            words = set(re.findall(r"[\w-]+", file.read_text()))
            assert not words & (classes | names | metrics), file.name


def test_a_run_that_was_never_evaluated_has_no_evaluation_noise() -> None:
    assert np.isnan(handover._noise([], 2)).all()
