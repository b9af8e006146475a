"""Learning that diverges stops with a sentence, and leaves the last good policy behind."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import segue
from helpers import finite
from segue.recipe import Recipe
from segue.runner import load_checkpoint, run
from toys import AIM, log_of

SMALL = {"hidden_sizes": (8, 8), "batch_size": 16}
STATES = np.array([[-1.0], [1.0]], np.float32)


def recipe(**changes) -> Recipe:
    values = {
        "dataset": log_of(AIM),
        "env": AIM,
        "offline": segue.BC(**SMALL),
        "offline_steps": 40,
        "online": segue.TD3(**SMALL),
        "online_steps": 80,
        "warmup_steps": 30,
        "eval_every": 20,
        "eval_episodes": 2,
    }
    return Recipe(**(values | changes))


def error_of(result) -> str:
    assert result.status == "failed"
    return result.summary["arms"]["run"]["seeds"]["0"]["error"]


@pytest.mark.parametrize(
    ("broken", "judged"),
    [
        (segue.SAC(**SMALL, critic_learning_rate=1e30), ["0", "20"]),
        (segue.PPO(**SMALL, rollout_steps=20, epochs=1, actor_learning_rate=1e30), ["0", "20"]),
    ],
    ids=["sac", "ppo"],
)
def test_the_message_names_phase_step_quantity_and_the_kept_policy_which_acts(tmp_path: Path, broken, judged):
    """Updates start at step 40."""
    error = error_of(run(recipe(online=broken), tmp_path / "x", workers=1))
    kept = tmp_path / "x/checkpoints/run/seed-0/latest"
    message = r"online phase, step 40: (\w+) is (nan|-?inf)\. Learning has diverged; .*kept in (.*)"
    assert (found := re.fullmatch(message, error)) is not None, error
    assert Path(found[3]) == kept
    saved = load_checkpoint(kept)
    assert finite(saved.learner)
    assert np.abs(saved.policy()(STATES)).max() <= 1
    evaluations = (tmp_path / "x/records/run/seed-0/evaluations.jsonl").read_text()
    assert re.findall(r'"step": (\d+)', evaluations) == judged
    assert "NaN" not in evaluations, "what has diverged is not judged"


def test_rewards_too_large_for_the_loss_stop_the_offline_phase_and_its_own_checkpoint_is_none(tmp_path: Path):
    log = log_of(AIM)
    log["rewards"] = log["rewards"] + 1e30
    error = error_of(run(recipe(dataset=log, offline=segue.TD3BC(**SMALL)), tmp_path / "x", workers=1))
    assert re.match(r"offline phase, step 20: critic_loss is (nan|inf)\. Learning has diverged", error)
    assert "kept" not in error
    assert not list((tmp_path / "x").glob("checkpoints/*/*/*"))


def test_an_offline_phase_that_diverges_late_keeps_the_policy_of_its_last_evaluation(tmp_path: Path, monkeypatch):
    from segue.errors import Diverged
    from segue.training import offline

    def fetch(phase, step, metrics):
        if step == 40:
            raise Diverged("offline phase, step 40: bc_loss is nan")
        return {}

    monkeypatch.setattr(offline, "fetch", fetch)
    error = error_of(run(recipe(), tmp_path / "x", workers=1))
    kept = tmp_path / "x/checkpoints/offline-bc/seed-0/latest"
    assert error.endswith(f"The last evaluated policy is kept in {kept}")
    assert load_checkpoint(kept).learner.step == 20


def test_nothing_but_the_final_checkpoints_is_left_of_a_run_that_went_well(tmp_path: Path):
    there = []
    latest = tmp_path / "x/checkpoints"

    def look(job, event):
        if event["event"] == "evaluation" and event["step"]:
            there.append(event["phase"])
            assert all(path.name == "latest" for path in (latest / job.records.parent.name / "seed-0").glob("*"))

    result = run(recipe(), tmp_path / "x", workers=1, on_event=look)
    assert result.status == "complete"
    assert set(there) == {"offline", "online"}
    assert {path.name for path in latest.glob("*/*/*")} == {"final"}
