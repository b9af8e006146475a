"""The picture shows every arm as far as it got, and where it came from."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from reading import read

from segue.report import learning_curves
from segue.report.figures import DARK, LIGHT, spread_apart
from segue.report.figures_curves import CROWD, arm_lines, draw, draw_tasks


def drawn(summary: dict[str, Any]) -> tuple[Axes, Axes | None]:
    """The online and the offline panel."""
    figure = Figure()
    draw(figure, arm_lines(read(summary), list(summary["arms"])), LIGHT)
    online, *offline = figure.axes
    return online, offline[0] if offline else None


def texts(axes: Axes) -> str:
    return "\n".join(t.get_text() for t in axes.texts)


def thick(axes: Axes, colour: str) -> list[tuple[list[float], str]]:
    """Steps and style of the mean curves in this colour, leaving out those of a single point."""
    lines = [line for line in axes.lines if line.get_linewidth() > 2 and line.get_color() == colour]
    steps = [(np.asarray(line.get_xdata(), float).tolist(), str(line.get_linestyle())) for line in lines]
    return [(x, style) for x, style in steps if len(x) > 1]


def test_a_picture_is_a_png_of_200_dots_per_inch(summary: dict[str, Any]) -> None:
    content = learning_curves(read(summary))
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (2000, 1000)


def test_every_arm_is_drawn_over_its_evaluated_steps_and_named_with_its_final_return(
    summary: dict[str, Any],
) -> None:
    online, _ = drawn(summary)
    for colour in LIGHT.arms[:2]:
        assert thick(online, colour) == [([0, 1000, 2000], "-")]
    assert "scratch  300" in texts(online)
    assert "fine-tune  2,000" in texts(online)


def test_the_offline_score_is_a_dashed_level_with_a_dot_at_step_0(summary: dict[str, Any]) -> None:
    online, _ = drawn(summary)
    level = [line for line in online.lines if set(np.asarray(line.get_ydata())) == {1000.0}]
    assert sorted(str(line.get_marker()) for line in level) == ["None", "o"]
    assert "offline score  1,000" in texts(online)


def test_the_offline_phase_lies_left_of_the_handover(summary: dict[str, Any]) -> None:
    online, offline = drawn(summary)
    assert offline is not None
    assert offline.get_position().x1 == pytest.approx(online.get_position().x0)
    assert offline.get_xlim() == (0, 500)
    assert offline.get_ylim() == online.get_ylim()
    assert "handover" in texts(online)


def test_without_offline_evaluations_there_is_no_offline_panel_and_no_handover(summary: dict[str, Any]) -> None:
    for record in summary["arms"]["fine-tune"]["seeds"].values():
        record["offline_evaluations"] = []
    online, offline = drawn(summary)
    assert offline is None
    assert "handover" not in texts(online)


def test_a_pretraining_that_arms_share_is_drawn_once(summary: dict[str, Any]) -> None:
    summary["arms"]["q-filter"] = summary["arms"]["fine-tune"]
    _, offline = drawn(summary)
    assert offline is not None
    assert [len(thick(offline, colour)) for colour in (LIGHT.quiet, *LIGHT.arms[:3])] == [1, 0, 0, 0]
    assert "cql, shared by\n2 arms" in texts(offline)


def test_an_interrupted_arm_is_dotted_where_a_seed_is_missing_and_says_so(summary: dict[str, Any]) -> None:
    record = summary["arms"]["fine-tune"]["seeds"]["1"]
    record["online_evaluations"].pop()
    record["status"] = "interrupted"
    online, _ = drawn(summary)
    assert thick(online, LIGHT.arms[1]) == [([0, 1000], "-"), ([1000, 2000], ":")]
    assert "fine-tune\n(interrupted)" in texts(online)
    # The line ends on one seed's 1,900, which is not the final return of the arm.
    assert "1,900" not in texts(online)


def test_an_arm_without_evaluations_is_named_but_not_drawn(summary: dict[str, Any], arm: Any) -> None:
    summary["arms"]["waiting"] = arm([{"status": "pending"}])
    online, _ = drawn(summary)
    assert "waiting\n(pending)\nno evaluations" in texts(online)
    assert not [line for line in online.lines if line.get_color() == LIGHT.arms[2]]


def test_a_run_without_any_evaluation_still_has_a_picture(summary: dict[str, Any], arm: Any) -> None:
    summary["arms"] = {"waiting": arm([{"status": "pending"}])}
    assert "no online evaluations yet" in texts(drawn(summary)[0])
    assert learning_curves(read(summary)).startswith(b"\x89PNG")
    summary["arms"] = {}
    assert learning_curves(read(summary)).startswith(b"\x89PNG")


def test_thin_lines_are_seeds_and_one_seed_needs_none(summary: dict[str, Any]) -> None:
    del summary["arms"]["fine-tune"]["seeds"]["1"]
    online, _ = drawn(summary)
    thin = [sum(line.get_linewidth() < 1 and line.get_color() == c for line in online.lines) for c in LIGHT.arms[:2]]
    assert thin == [2, 0]


def test_among_many_arms_there_are_no_seeds_and_no_levels(summary: dict[str, Any]) -> None:
    summary["arms"] |= {f"again {i}": summary["arms"]["fine-tune"] for i in range(CROWD - 1)}
    online, offline = drawn(summary)
    assert offline is not None
    assert not [line for axes in (online, offline) for line in axes.lines if line.get_linewidth() < 1]
    assert not [line for line in online.lines if line.get_linestyle() == "--" and line.get_linewidth() == 1]
    assert "shared by" not in texts(offline)


def test_with_enough_seeds_the_band_is_an_interval_and_seeds_are_not_drawn(summary: dict[str, Any]) -> None:
    seeds = summary["arms"]["scratch"]["seeds"]
    seeds |= {str(i): seeds[str(i % 2)] for i in range(2, 6)}
    online, _ = drawn(summary)
    assert not [line for line in online.lines if line.get_linewidth() < 1 and line.get_color() == LIGHT.arms[0]]


def test_every_task_has_its_panel_and_its_own_scale_and_methods_share_one_legend(summary: dict[str, Any]) -> None:
    figure = Figure(figsize=(10, 5))
    lines = arm_lines(read(summary), list(summary["arms"]))
    draw_tasks(figure, {"Hopper": lines, "Ant": lines[:1]}, LIGHT)
    hopper, before, ant = figure.axes
    assert [len(axes.lines) > 0 for axes in (hopper, before, ant)] == [True] * 3
    assert hopper.get_ylim() == before.get_ylim() != ant.get_ylim()
    assert {"Hopper", "Ant"} <= {text.get_text() for text in figure.texts}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["scratch", "fine-tune"]


@pytest.mark.parametrize(("name", "count"), [("an arm with a name that is rather long", 7), ("iql", 14)])
def test_a_legend_of_many_arms_goes_into_rows_and_none_runs_into_another(
    summary: dict[str, Any], name: str, count: int
) -> None:
    names = [f"{name} {i}" for i in range(count)]
    summary["arms"] = dict.fromkeys(names, summary["arms"]["fine-tune"])
    panels = {task: arm_lines(read(summary), names) for task in ("Hopper", "Ant")}
    figure = Figure(figsize=(10, 6))
    draw_tasks(figure, panels, LIGHT)
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    boxes = [text.get_window_extent() for text in legend.get_texts()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    frame = legend.get_window_extent()
    assert frame.x0 >= 0
    assert frame.x1 <= figure.bbox.x1
    labels = [axes.xaxis.label.get_window_extent() for axes in figure.axes]
    assert not any(frame.overlaps(label) for label in labels)


def test_dollar_signs_in_a_name_are_not_mathematics(summary: dict[str, Any]) -> None:
    summary["arms"][r"$\undefined{$"] = summary["arms"].pop("scratch")
    assert learning_curves(read(summary)).startswith(b"\x89PNG")


def test_labels_keep_their_place_if_they_can_and_never_overlap() -> None:
    assert spread_apart([0.9, 0.1], [0.1, 0.1]) == [0.9, 0.1]
    wanted, heights = [0.5, 0.98, 0.5, 0.99, 0.51], [0.1, 0.2, 0.1, 0.1, 0.1]
    placed = sorted(zip(spread_apart(wanted, heights), heights, strict=True))
    gaps = [b - a - (h + k) / 2 for (a, h), (b, k) in itertools.pairwise(placed)]
    assert min(gaps) > -1e-9
    assert placed[-1][0] + placed[-1][1] / 2 <= 1 + 1e-9


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_colour_is_legible_on_its_background(theme: Any) -> None:
    for colour in (theme.ink, theme.quiet, *theme.arms):
        brighter, darker = sorted((luminance(colour), luminance(theme.paper)), reverse=True)
        assert (brighter + 0.05) / (darker + 0.05) >= 3, colour


def test_arms_beyond_the_palette_differ_in_their_dashes() -> None:
    looks = [LIGHT.arm(i) for i in range(3 * len(LIGHT.arms))]
    assert len(set(looks)) == len(looks)
