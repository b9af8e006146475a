"""A run that is killed, wherever that happens, ends as if it had not been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue.recipe import Recipe, read_recipes
from segue.runner import compare, keeper
from toys import PICK, log_of

SMALL: dict[str, Any] = {"hidden_sizes": (8, 8), "batch_size": 16}


class Killed(BaseException):
    """The process ends here: nothing that follows is reached, but for what Python tidies up."""


def pendulum_log(rows: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(rows, 3)),
        "actions": rng.uniform(-1, 1, (rows, 1)),
        "rewards": rng.normal(size=rows),
        "terminals": np.zeros(rows),
        "timeouts": np.arange(rows) % 20 == 19,
        "action_low": np.array([-1.0]),
        "action_high": np.array([1.0]),
    }


def pendulum(**changes: Any) -> Recipe:
    values = {
        "dataset": pendulum_log(),
        "env": "Pendulum-v1",
        "offline": segue.TD3BC(**SMALL),
        "offline_steps": 150,
        "online": segue.SAC(**SMALL),
        "online_steps": 320,
        "warmup_steps": 30,
        "eval_every": 80,
        "eval_episodes": 1,
    }
    return Recipe(**(values | changes))


GUARDED = (segue.Guard(), segue.JumpStart(stages=2, window=2, longest=50))
RECIPES = {
    "replay-of-a-log": pendulum(),
    "bridges-with-states": pendulum(bridges=GUARDED, environments=2),
    "a-ring-that-runs-over": pendulum(
        online=segue.IQL(**SMALL), replay=segue.Balanced(capacity=100, hidden_sizes=(8,)), offline=segue.IQL(**SMALL)
    ),
    "from-scratch": pendulum(dataset=None, offline=None, offline_steps=0, online=segue.TD3(**SMALL)),
    "on-policy": pendulum(
        dataset=log_of(PICK),
        env=PICK,
        offline=segue.BC(**SMALL),
        online=segue.PPO(**SMALL, rollout_steps=48, epochs=2),
        environments=2,
    ),
}


def essence(directory: Path) -> tuple[Any, ...]:
    """Everything a run says, but for times."""
    summary = json.loads((directory / "summary.json").read_text())
    kept = ("parameters_sha256", "offline_evaluations", "online_evaluations", "final_score", "events", "status")
    seeds = {name: {k: seed[k] for k in kept} for name, seed in summary["arms"]["run"]["seeds"].items()}
    handover = summary["arms"]["run"]["handover"]
    return seeds, handover, (directory / "metrics.csv").read_text()


def killed_at_saves(monkeypatch: pytest.MonkeyPatch, before: bool, every: int) -> list[int]:
    """Every so many saves the process ends, just before the save or just after; counts the ends."""
    saved, ends = [0], [0]
    save = keeper.JobKeeper.save

    def fatal(self: Any, position: Any) -> None:
        saved[0] += 1
        if before and saved[0] % every == 0:
            ends[0] += 1
            raise Killed
        save(self, position)
        if not before and saved[0] % every == 0:
            ends[0] += 1
            raise Killed

    monkeypatch.setattr(keeper.JobKeeper, "save", fatal)
    return ends


def until_done(directory: Path) -> None:
    for _ in range(100):
        try:
            result = compare(read_recipes(directory), directory, workers=1, checkpoint_every=0)
        except Killed:
            continue
        assert result.status == "complete"
        return
    raise AssertionError("it never ends")


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_killed_again_and_again_ends_to_the_bit_as_if_it_had_not_been(tmp_path: Path, monkeypatch, name):
    whole = segue.run(RECIPES[name], tmp_path / "whole", workers=1, checkpoint_every=10**9)
    assert whole.status == "complete", whole.summary["arms"]["run"]["seeds"]["0"]["error"]
    with monkeypatch.context() as patch:
        ends = killed_at_saves(patch, before=False, every=2)
        with pytest.raises(Killed):
            segue.run(read_recipes(tmp_path / "whole")["run"], tmp_path / "x", workers=1, checkpoint_every=0)
        until_done(tmp_path / "x")
    assert ends[0] >= 3
    assert essence(tmp_path / "x") == essence(tmp_path / "whole")


def test_what_came_in_after_the_last_save_is_collected_again_not_twice(tmp_path: Path, monkeypatch):
    name = "bridges-with-states"
    segue.run(RECIPES[name], tmp_path / "whole", workers=1)
    with monkeypatch.context() as patch:
        ends = killed_at_saves(patch, before=True, every=3)
        with pytest.raises(Killed):
            segue.run(read_recipes(tmp_path / "whole")["run"], tmp_path / "x", workers=1, checkpoint_every=0)
        until_done(tmp_path / "x")
    assert ends[0] >= 3
    assert essence(tmp_path / "x") == essence(tmp_path / "whole")
