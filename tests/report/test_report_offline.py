"""A run that ends with its offline phase has a picture of what it recorded there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from reading import page, read

from segue.report import Summary, decode, learning_curves
from segue.report.figures import LIGHT
from segue.report.figures_curves import arm_lines, draw_offline, draw_tasks, offline_only

ACTIONS = {"edges": [-1.0, 0.0, 1.0], "dataset": [[0.5, 0.5], [0.2, 0.8]], "policy": [[0.0, 1.0], [1.0, 0.0]]}


@pytest.fixture
def only(arm: Any, seed: Any) -> dict[str, Any]:
    record = {**seed({}, 5.0, {250: 1.0, 500: 5.0}), "actions": ACTIONS, "metrics_of": {"offline": "offline x"}}
    return {"arms": {"x": arm([record], online=None, online_steps=0, dataset="log")}}


def with_metrics(plain: dict[str, Any]) -> Summary:
    curve = (np.array([250.0, 500.0]), np.array([2.0, 1.0]))
    names = ("critic_loss", "actor_loss", "q_of_policy_actions", "q_of_dataset_actions")
    return decode(plain, history={("offline x", "0"): {"offline": dict.fromkeys(names, curve), "online": {}}})


def titles(summary: Summary) -> list[str]:
    figure = Figure(figsize=(10, 8))
    draw_offline(figure, summary, LIGHT)
    assert all(axes.has_data() or axes.patches for axes in figure.axes)
    return [axes.texts[0].get_text() for axes in figure.axes]


def test_returns_losses_values_and_actions_have_a_panel_each(only: dict[str, Any]) -> None:
    assert titles(with_metrics(only)) == [
        "Return",
        "Actor loss",
        "Critic loss",
        "Q on the dataset's states",
        "Actions, dimension 1",
        "Actions, dimension 2",
    ]


def test_without_an_environment_there_are_no_returns_but_losses_and_actions(only: dict[str, Any]) -> None:
    only["arms"]["x"]["seeds"]["0"] |= {"offline_evaluations": [], "offline_score": None, "final_score": None}
    assert titles(with_metrics(only))[0] == "Actor loss"
    assert "<h2>Seeds</h2>" in page(with_metrics(only))


def test_a_run_older_than_the_histogram_is_drawn_without_it(only: dict[str, Any]) -> None:
    del only["arms"]["x"]["seeds"]["0"]["actions"]
    assert titles(read(only)) == ["Return"]


def test_discrete_actions_have_a_bin_each(only: dict[str, Any]) -> None:
    discrete = {"edges": None, "dataset": [[0.1, 0.2, 0.7]], "policy": [[0.0, 0.0, 1.0]]}
    only["arms"]["x"]["seeds"]["0"]["actions"] = discrete
    assert titles(read(only)) == ["Return", "Actions, dimension 1"]


def test_arms_of_an_offline_phase_share_panels_and_one_may_lack_the_histogram(
    only: dict[str, Any],
) -> None:
    (record,) = only["arms"]["x"]["seeds"].values()
    bare = {name: value for name, value in record.items() if name != "actions"}
    only["arms"]["bare"] = {**only["arms"]["x"], "seeds": {"0": bare}}
    only["arms"]["other"] = only["arms"]["x"]
    figure = Figure(figsize=(10, 8))
    draw_offline(figure, read(only), LIGHT)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["x", "bare", "other"]
    actions = figure.axes[1]
    assert len(actions.patches) == 3, "the dataset once, and the policies of two arms"


def test_an_offline_phase_of_which_nothing_is_recorded_yet_says_so(only: dict[str, Any]) -> None:
    record = only["arms"]["x"]["seeds"]["0"]
    record |= {"actions": None, "offline_evaluations": [], "offline_score": None, "final_score": None}
    figure = Figure(figsize=(10, 8))
    draw_offline(figure, read(only), LIGHT)
    assert [text.get_text() for text in figure.texts] == ["nothing recorded yet"]


def test_a_task_whose_arms_all_end_offline_has_one_panel_over_offline_updates(only: dict[str, Any]) -> None:
    figure = Figure()
    draw_tasks(figure, {"task": arm_lines(read(only), ["x"])}, LIGHT)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "offline updates"
    assert [line.get_xdata().tolist() for line in axes.lines if len(line.get_xdata()) > 1] == [[250, 500]]


def test_a_run_that_goes_on_online_has_learning_curves(only: dict[str, Any], summary: dict[str, Any]) -> None:
    assert offline_only(read(only))
    assert learning_curves(read(only)).startswith(b"\x89PNG")
    only["arms"]["y"] = summary["arms"]["fine-tune"]
    assert not offline_only(read(only))


def test_the_page_shows_the_offline_phase_and_says_what_grey_is(only: dict[str, Any]) -> None:
    text = page(only)
    assert "those of the dataset in grey" in text
    assert "500 offline updates" not in text, "offline_steps is not in this recipe"
    assert "The handover</h2>" not in text


def test_a_phase_that_held_out_episodes_ended_shows_the_measure_and_where_and_why_it_ended(
    only: dict[str, Any],
) -> None:
    curve = (np.array([250.0, 500.0]), np.array([0.5, 0.7]))
    why = "pretraining ends here: held_out_agreement was 0.7 at update 500"
    only["arms"]["x"]["recipe"] |= {"offline_steps": 9000, "patience": 3}
    only["arms"]["x"]["seeds"]["0"] |= {
        "events": [{"phase": "offline", "step": 700, "message": why}],
        "steps": {"offline": 700, "online": None},
    }
    summary = decode(only, history={("offline x", "0"): {"offline": {"held_out_agreement": curve}, "online": {}}})
    assert "Held-out agreement" in titles(summary)
    text = page(summary)
    assert why in text
    assert '<td class="number">700</td>' in text
    assert "up to 9,000 offline updates" in text
