"""In a study's picture a name has one colour, and two names of one panel never share theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies.collapse.__main__ import STUDY as COLLAPSE
from studies.family.__main__ import STUDY as FAMILY
from studies.guidance.__main__ import STUDY as GUIDANCE
from studies.leaderboard.__main__ import STUDY as LEADERBOARD
from studies.levers.__main__ import STUDY as LEVERS
from studies.panels import Panel, _places, panels
from studies.results import Study, known

NAMES = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True)


@given(st.lists(NAMES, min_size=1, max_size=6))
def test_names_of_one_panel_have_different_colours(drawn: list[list[str]]) -> None:
    places = _places([[(str(i), {name: name for name in names}) for i, names in enumerate(drawn)]])
    assert places.keys() == {name for names in drawn for name in names}
    for names in drawn:
        assert len({places[name] for name in names}) == len(names)


def test_colours_begin_anew_where_names_are_not_seen_together() -> None:
    rows: list[list[Panel]] = [[("one", {"plain": "", "a": ""})], [("two", {"plain": "", "b": "", "c": ""})]]
    assert _places(rows) == {"plain": 0, "a": 1, "b": 1, "c": 2}


@pytest.mark.parametrize("study", [COLLAPSE, FAMILY, GUIDANCE, LEADERBOARD, LEVERS], ids=lambda one: one.folder.name)
def test_every_arm_is_drawn_and_nothing_that_is_no_arm(study: Study) -> None:
    arms = {f"{task}: {arm}" for task, recipes in study.tasks(False).items() for arm in recipes}
    assert {label for row in study.panels for _, lines in row for label in lines.values()} == arms


@pytest.mark.pictures
def test_before_anything_has_run_there_is_a_picture_without_curves(tmp_path: Path) -> None:
    nothing = known(tmp_path / "results.json", FAMILY.tasks(False))
    assert panels(nothing, FAMILY.panels).startswith(b"\x89PNG")
