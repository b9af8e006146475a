"""The leaderboard's arm `auto` is what `auto` does."""

from __future__ import annotations

import pytest
from studies.leaderboard.__main__ import tasks

import segue
from segue.errors import DataError


@pytest.mark.parametrize("task", tasks(False))
def test_the_arm_auto_is_the_preset_for_that_dataset(task: str) -> None:
    arm = tasks(False)[task]["auto"]
    assert arm.env is not None
    try:
        chosen = segue.preset("auto", dataset=arm.dataset, env=arm.env, held_out=0.0)
    except DataError:
        pytest.skip(f"{arm.dataset} is not here; make data records it")
    same = (
        "offline",
        "offline_steps",
        "online",
        "online_steps",
        "replay",
        "warmup_steps",
        "updates_per_step",
        "bridges",
    )
    assert {name: getattr(arm, name) for name in same} == {name: getattr(chosen, name) for name in same}
