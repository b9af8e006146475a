"""The leaderboard's arm `auto` is what `auto` does."""

from __future__ import annotations

import pytest
from studies.leaderboard.__main__ import STORED, tasks
from studies.logs import LOGS

import segue
from segue.errors import DataError


@pytest.mark.parametrize("task", STORED)
def test_the_arm_auto_is_the_preset_for_that_dataset(task: str) -> None:
    log, env_id = LOGS[task]
    arm = tasks(False)[task]["auto"]
    try:
        chosen = segue.preset("auto", dataset=log, env=env_id, held_out=0.0)
    except DataError:
        pytest.skip(f"{log} is not here; make data records it")
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
