"""The seam: what was measured around the switch, whether the return fell, and only what the numbers say about it."""

from __future__ import annotations

import ast
import csv
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from segue.report.fall import fall, moments
from segue.report.history import attach_metrics, read_metrics
from segue.report.html import html_page
from segue.report.remedies import relation
from segue.report.seam import METRICS, PROBE, SeamArm, seam_arms
from segue.report.seam_curves import draw, seam_pictures
from segue.report.seam_table import moments_table, seam_data
from segue.report.theme import LIGHT

from segue.algorithms import ALGORITHMS
from segue.bridges import BRIDGES, Guard
from segue.cli.recipe_flags import recipe_from_flags
from segue.errors import RecipeError
from segue.evaluation import probe
from segue.recipe import Recipe
from segue.report import seam
from segue.report.diagnosis import Diagnosis, diagnose
from segue.training import online

EPISODES = (-10.0, 0.0, 10.0)
Build = Callable[..., SeamArm]
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
    """A seed of three episodes per evaluation around each mean, with metrics: name → {online step: value}."""

    def make(
        online: Mapping[int, float], offline: float | None = 100.0, **metrics: Mapping[int, float]
    ) -> dict[str, Any]:
        made = seed(online, offline, {500: offline} if offline is not None else None)
        for evaluation in (*made["online_evaluations"], *made["offline_evaluations"]):
            evaluation["returns"] = [evaluation["mean_return"] + noise for noise in EPISODES]
        curves = {n: (np.array([*at], float), np.array([*at.values()], float)) for n, at in metrics.items()}
        return {**made, "metrics": {"offline": {}, "online": curves}}

    return make


@pytest.fixture
def build(record: Callable[..., Any], arm: Callable[..., Any]) -> Build:
    """One arm with one seed; `recipe` replaces fields of its recipe."""

    def make(online: Mapping[int, float], recipe: dict[str, Any] | None = None, **rest: Any) -> SeamArm:
        events = rest.pop("events", [])
        one = {**record(online, **rest), "events": events}
        (made,) = seam_arms({"arms": {"x": arm([one], **{**RECIPE, **(recipe or {})})}})
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
        row("x", "online", 0, value_at_start=1.0, distance_to_log=0.5),
        row("x", "online", 50, temperature=0.9),
        row("x", "online", 50, value_at_start=2.0),
        row("x", "online", 100, value_at_start="nan"),
        row("x", "critic-fit", 100, value_at_start=7.0),
    ]
    write_metrics(tmp_path, rows, extra="x,0,online,15")
    curves = read_metrics(tmp_path / "metrics.csv", METRICS)["x", "0"]["online"]
    assert {name: [s.tolist(), v.tolist()] for name, (s, v) in curves.items()} == {
        "value_at_start": [[0, 50], [1, 2]],
        "distance_to_log": [[0], [0.5]],
        "temperature": [[50], [0.9]],
    }


def test_only_the_named_columns_are_kept(tmp_path: Path) -> None:
    write_metrics(tmp_path, [row("x", "online", 0, value_at_start=1.0, critic_loss=3.0)])
    assert set(read_metrics(tmp_path / "metrics.csv", METRICS)["x", "0"]["online"]) == {"value_at_start"}


@pytest.mark.parametrize("content", [None, b"", b"arm,step\nx,0\n", b"\xff\xfe\x00"])
def test_a_run_without_readable_metrics_has_none(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.csv").write_bytes(content)
    assert read_metrics(tmp_path / "metrics.csv", METRICS) == {}


def test_an_offline_phase_that_arms_share_belongs_to_each_of_them(tmp_path: Path, summary: dict[str, Any]) -> None:
    write_metrics(
        tmp_path,
        [row("offline cql", "offline", 500, value_at_start=5.0), row("fine-tune", "online", 0, value_at_start=6.0)],
    )
    summary["arms"]["fine-tune"]["seeds"]["0"]["metrics_of"] = {"offline": "offline cql", "online": "fine-tune"}
    arms = attach_metrics(summary, tmp_path, METRICS)["arms"]
    metrics = arms["fine-tune"]["seeds"]["0"]["metrics"]
    assert metrics["offline"]["value_at_start"][1].tolist() == [5]
    assert metrics["online"]["value_at_start"][1].tolist() == [6]
    assert arms["scratch"]["seeds"]["0"]["metrics"] == {"offline": {}, "online": {}}


# Measures


@pytest.mark.parametrize(
    ("steps", "window"),
    [((0, 1000, 20_000), 10_000), ((0, 1000, 4000), 4000), ((0, 50_000, 90_000), 50_000), ((0,), 10_000)],
)
def test_the_window_is_ten_thousand_steps_or_what_there_is(steps: tuple[int, ...], window: float, build: Build) -> None:
    assert build(dict.fromkeys(steps, 1.0)).window == window


def test_the_fall_is_from_the_switch_to_the_lowest_mean(build: Build) -> None:
    found = fall(build(COLLAPSE))
    assert found is not None
    assert (found.step, found.before, found.after, found.evaluations, found.seeds_down) == (500, 100, 20, 2, 1)
    # Variance 100 over three episodes in both evaluations.
    assert found.error == pytest.approx(math.sqrt(200 / 3))
    assert found.certain


def test_a_fall_within_the_noise_is_not_one(build: Build) -> None:
    found = fall(build({0: 100.0, 500: 90.0}))
    assert found is not None
    assert found.certain is False


def test_one_episode_says_nothing_about_noise(build: Build) -> None:
    arm = build(COLLAPSE)
    for evaluation in arm.seeds["0"]["online_evaluations"]:
        evaluation["returns"] = evaluation["returns"][:1]
    found = fall(arm)
    assert found is not None
    assert found.certain is None
    assert "cannot be told from noise" in said(diagnose(arm), "return")
    assert diagnose(arm).suggestions == {}


def test_a_policy_that_does_not_change_falls_in_about_one_run_of_twenty_at_most(build: Build) -> None:
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        arm = build(dict.fromkeys(range(0, 3000, 250), 0.0))
        for evaluation in arm.seeds["0"]["online_evaluations"]:
            evaluation["returns"] = random.normal(size=5).tolist()
            evaluation["mean_return"] = float(np.mean(evaluation["returns"]))
        (again,) = seam_arms({"arms": {"x": {"recipe": arm.recipe, "seeds": dict(arm.seeds)}}})
        found = fall(again)
        assert found is not None
        alarms += bool(found.certain)
    assert alarms / 300 < 0.09


def test_moments_are_at_the_switch_at_the_lowest_return_and_at_the_end(build: Build) -> None:
    arm = build(COLLAPSE, value_at_start={0: 1.0, 500: 2.0, 1000: 3.0})
    found = moments(arm)
    assert list(found) == ["offline, last", "at the switch", "lowest return, step 500", "step 1,000"]
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
    assert "timid" not in text
    assert "--bridges samg --replay online-only" in diagnose(arm).suggestions
    assert "--bridges critic-refit" not in diagnose(arm).suggestions, "it was right at the switch"


def test_a_timid_critic_is_not_called_over_estimation(build: Build) -> None:
    arm = build(COLLAPSE, value_at_start={0: 5.0, 500: 8.0}, return_from_start={0: 50.0, 500: 30.0})
    text = said(diagnose(arm), "critic")
    assert "under-estimates by 22" in text
    assert "not over-estimation" in text
    assert "--bridges critic-refit" in diagnose(arm).suggestions


def test_moving_from_the_log_is_told_with_both_distances(build: Build) -> None:
    arm = build(
        COLLAPSE,
        {"replay": {"name": "online-only"}},
        distance_to_log={0: 0.2, 500: 0.6},
        q_of_policy_actions={0: 10.0, 500: 15.0},
        q_of_log_actions={0: 10.0, 500: 12.0},
    )
    text = said(diagnose(arm), "log")
    assert "was 0.200 at the switch and 0.600 at step 500" in text
    assert "prefers to the logged ones, while the return fell" in text
    assert {"--bridges conservative-update", "--replay mixed"} <= set(diagnose(arm).suggestions)


def test_an_estimate_that_was_rising_before_the_switch_is_not_blamed_on_it(build: Build) -> None:
    arm = build(COLLAPSE, value_at_start={0: 5.0, 500: 8.0}, return_from_start={0: 50.0, 500: 30.0})
    arm.seeds["0"]["metrics"]["offline"]["value_at_start"] = (np.array([250.0, 500.0]), np.array([2.0, 5.0]))
    (arm,) = seam_arms({"arms": {"x": {"recipe": arm.recipe, "seeds": dict(arm.seeds)}}})
    assert "it was rising in the offline phase already" in said(diagnose(arm), "critic")
    assert "more --offline-steps" in diagnose(arm).suggestions


def test_a_fall_of_less_than_a_tenth_is_told_but_not_mended(build: Build) -> None:
    arm = build({0: 1000.0, 500: 950.0})
    found = fall(arm)
    assert found is not None
    assert found.certain
    assert not found.matters
    assert "less than a tenth" in said(diagnose(arm), "return")
    assert diagnose(arm).suggestions == {}


def test_a_policy_that_acts_otherwise_at_the_switch_is_noticed(build: Build) -> None:
    arm = build({0: 40.0, 500: 40.0}, offline=100.0)
    assert "Already at the switch" in said(diagnose(arm), "return")
    assert "Already at the switch" not in said(diagnose(build({0: 95.0, 500: 90.0}, offline=100.0)), "return")


def test_what_does_not_fit_the_algorithm_is_not_suggested(build: Build) -> None:
    probe = {"value_at_start": {0: 5.0, 500: 8.0}, "return_from_start": {0: 50.0, 500: 30.0}}
    assert set(diagnose(build(COLLAPSE, {"online": {"name": "ppo"}}, **probe)).suggestions) == {"--bridges guard"}
    dqn = build(COLLAPSE, {**DISCRETE, "online": {"name": "dqn"}}, **probe)
    assert set(diagnose(dqn).suggestions) == {"--bridges guard"}, "it has no actor to refit a critic to"


#: What gives a reason for every bridge that is ever suggested.
MOVED = {
    "value_at_start": {0: 30.0, 500: 80.0},
    "return_from_start": {0: 50.0, 500: 10.0},
    "distance_to_log": {0: 0.2, 500: 0.6},
}


@pytest.mark.parametrize("bridges", [(), *((name,) for name in BRIDGES)])
@pytest.mark.parametrize("replay", [None, "online-only"])
@pytest.mark.parametrize("online", [name for name, kind in ALGORITHMS.items() if "online" in kind.phases])
def test_every_suggestion_is_a_recipe(build: Build, online: str, replay: str | None, bridges: tuple[str, ...]) -> None:
    """With every algorithm, replay and bridge that there is, the suggested flags give a recipe that is accepted."""
    offline = "iql" if "continuous" in ALGORITHMS[online].actions else "discrete-cql"
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
        pytest.skip("no such recipe")
    suggested = diagnose(build(COLLAPSE, parts, **MOVED)).suggestions
    added = set()
    for flag in (flag for flag in suggested if flag.startswith("--")):
        words = flag.split()
        given = dict(zip(words[::2], words[1::2], strict=True))
        names = given.get("--bridges", ",".join(bridges)).split(",") if given.get("--bridges") or bridges else []
        assert set(names) >= set(bridges)
        added |= {*names} - {*bridges}
        changed = {**RECIPE, **parts, "bridges": names, "replay": given.get("--replay", parts["replay"])}
        assert Recipe.from_dict(changed) != recipe
    assert ("guard" in added) == (bridges not in (("guard",), ("policy-expansion",)))


def test_a_suggestion_is_a_flag_of_the_command_line(build: Build) -> None:
    stored = {**RECIPE, "bridges": [{"name": "q-filter", "percentile": 50.0}]}
    flags = [flag for flag in diagnose(build(COLLAPSE, stored, **MOVED)).suggestions if "samg" in flag]
    assert flags == ["--bridges q-filter,samg --replay online-only"]
    changed, _ = recipe_from_flags(flags[0].split(), "branch", "", base=Recipe.from_dict(stored))
    assert [bridge.name for bridge in changed.bridges] == ["q-filter", "samg"]


def test_a_stored_recipe_that_cannot_be_read_gets_no_suggestion(build: Build) -> None:
    arm = build(COLLAPSE, {"online": {"name": "sac", "of_another_version": 1}}, **MOVED)
    assert diagnose(arm).suggestions == {}
    assert "Return fell" in said(diagnose(arm), "return")


def test_without_a_fall_nothing_is_suggested(build: Build) -> None:
    arm = build({0: 100.0, 500: 110.0}, value_at_start={0: 5.0, 500: 500.0}, return_from_start={0: 50.0, 500: 55.0})
    assert "No fall beyond evaluation noise" in said(diagnose(arm), "return")
    assert diagnose(arm).suggestions == {}


def test_a_bridge_that_is_in_use_is_not_suggested(build: Build) -> None:
    arm = build(COLLAPSE, {"bridges": [{"name": "guard", "alpha": 0.05}]}, guard_alarms={500: 0.0, 1000: 2.0})
    assert "--bridges guard" not in diagnose(arm).suggestions
    assert "raised 2 alarms" in said(diagnose(arm), "bridges")
    assert "--bridges guard" in diagnose(build(COLLAPSE)).suggestions


def test_seeds_and_episodes_are_stated_and_no_cause(build: Build) -> None:
    notes = " ".join(diagnose(build(COLLAPSE)).notes)
    assert "One seed; 3 episodes per evaluation" in notes
    assert "not what caused what" in notes


def test_an_entropy_bonus_in_the_estimate_is_owned_up_to(build: Build) -> None:
    probe = {"value_at_start": {0: 1.0}, "return_from_start": {0: 1.0}}
    assert "entropy bonus" in " ".join(diagnose(build(COLLAPSE, {"online": {"backup_entropy": True}}, **probe)).notes)
    assert "entropy bonus" not in " ".join(diagnose(build(COLLAPSE, {"online": {"name": "td3"}}, **probe)).notes)


def test_a_run_older_than_the_probe_says_so_in_words(build: Build) -> None:
    text = said(diagnose(build(COLLAPSE)), "data")
    assert "was not recorded" in text
    assert "run it again" in text


def test_an_arm_from_scratch_has_no_switch(build: Build) -> None:
    arm = build(COLLAPSE, {"offline": None}, offline=None)
    assert not arm.pretrained
    assert "there is no switch in this arm" in said(diagnose(arm), "data")
    assert "offline, last" not in moments(arm)
    assert diagnose(arm).suggestions == {}


def test_everything_is_plain_json(build: Build) -> None:
    arm = build(COLLAPSE, events=[{"step": 500, "message": "guard: alarm"}], value_at_start={0: 1.0})
    data = json.loads(json.dumps(seam_data(arm), allow_nan=False))
    assert data["fall"]["certain"] is True
    assert data["events"] == [{"seed": "0", "step": 500, "message": "guard: alarm"}]


# Picture


def drawn(*arms: SeamArm) -> tuple[str, Figure]:
    """Every text on the figure, and the figure."""
    figure = Figure()
    draw(figure, arms, LIGHT)
    notes = [t.get_text() for axes in figure.axes for t in axes.texts] + [t.get_text() for t in figure.texts]
    legends = [axes.get_legend() for axes in figure.axes]
    names = [t.get_text() for legend in legends if legend is not None for t in legend.get_texts()]
    return "\n".join(notes + names), figure


def test_the_picture_has_a_panel_for_what_was_recorded_and_none_that_is_empty(build: Build) -> None:
    text, figure = drawn(build(COLLAPSE, q_filter_kept={500: 0.7, 1000: 0.8}))
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


def test_the_seam_the_dip_and_the_events_are_marked(build: Build) -> None:
    text, figure = drawn(build(COLLAPSE, events=[{"step": 700, "message": "guard: alarm 1"}]))
    assert "seam" in text
    assert "−80 at step 500" in text
    assert "guard" in text
    marks = [np.asarray(line.get_xdata(), float).tolist() for axes in figure.axes for line in axes.lines]
    assert [700, 700] in marks


def test_an_arm_from_scratch_has_no_seam_in_the_picture(build: Build) -> None:
    text, figure = drawn(build({0: 1.0, 500: 50.0}, {"offline": None}, offline=None))
    assert "seam" not in text
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
    for file in Path(seam.__file__).parent.glob("*.py"):
        assigned = [node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Assign)]
        numbers = [value.value for value in assigned if isinstance(value, ast.Constant)]
        assert not {online.SEAM_STEPS, probe.ROWS} & {n for n in numbers if isinstance(n, int)}, file.name
        assert f"{probe.ROWS} states" not in file.read_text(), file.name


def test_more_arms_than_columns_go_into_further_pictures(build: Build) -> None:
    pictures = seam_pictures([build(COLLAPSE)] * 4)
    assert len(pictures) == 2
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


# Page


def test_the_page_has_the_seam_in_words_and_draws_it_only_with_a_probe(
    summary: dict[str, Any], arm: Any, record: Any
) -> None:
    page = html_page(summary)
    assert "<h2>The seam</h2>" in page
    assert "was not recorded" in page
    assert page.count("<figure>") == 2, "the curves and the statistics"
    summary["arms"]["x"] = arm([record(COLLAPSE, value_at_start={0: 1.0, 500: 2.0})])
    assert "around the switch" in html_page(summary)
    assert "around the switch" not in page


def test_a_page_of_arms_from_scratch_has_no_seam(summary: dict[str, Any]) -> None:
    del summary["arms"]["fine-tune"]
    assert "The seam" not in html_page(summary)


def test_events_on_the_page_are_text(summary: dict[str, Any]) -> None:
    summary["arms"]["fine-tune"]["seeds"]["0"]["events"] = [{"step": 5, "message": "<script>x</script>"}]
    page = html_page(summary)
    assert "<script>" not in page
    assert "&lt;script&gt;x" in page
