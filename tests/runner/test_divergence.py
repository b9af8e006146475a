"""Learning that diverges stops with a sentence, and leaves the last good policy behind."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import segue
from helpers import finite, fresh_learner, same_bits
from segue.errors import Diverged
from segue.recipe import Recipe
from segue.runner import load_checkpoint, run
from segue.training.bridge_reviews import BridgeReviews
from segue.training.recovery import Recovery
from segue.training.update import replace
from toys import AIM, Notes, log_of

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


def error_of(given: Recipe, out: Path) -> str:
    with pytest.raises(segue.RunFailed) as failed:
        run(given, out, workers=1)
    return failed.value.result.summary["arms"]["run"]["seeds"]["0"]["error"]


@pytest.mark.parametrize(
    ("broken", "judged"),
    [
        (segue.SAC(**SMALL, critic_learning_rate=1e30), ["0", "20", "40"]),
        pytest.param(
            segue.PPO(**SMALL, rollout_steps=20, epochs=1, actor_learning_rate=1e30),
            ["0", "20", "40"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["sac", "ppo"],
)
def test_the_message_names_phase_step_quantity_and_the_kept_policy_which_acts(tmp_path: Path, broken, judged):
    """Updates start at step 40; what is judged there is the learner of step 20, gone back to."""
    error = error_of(recipe(online=broken), tmp_path / "x")
    kept = tmp_path / "x/checkpoints/run/seed-0/latest"
    message = (
        r"online phase, step 40: (\w+) is (nan|-?inf), and again at step 60 after going back to the learner of step "
        r"20 \(last finite metrics: .*\)\. Learning has diverged; .*kept in (.*)"
    )
    assert (found := re.fullmatch(message, error)) is not None, error
    assert Path(found[3]) == kept
    saved = load_checkpoint(kept)
    assert finite(saved.learner)
    assert np.abs(saved.policy()(STATES)).max() <= 1
    evaluations = (tmp_path / "x/records/run/seed-0/evaluations.jsonl").read_text()
    assert re.findall(r'"step": (\d+)', evaluations) == judged
    assert "NaN" not in evaluations, "what has diverged is not judged"


@pytest.mark.slow
def test_rewards_too_large_for_the_loss_stop_the_offline_phase(tmp_path: Path):
    log = log_of(AIM)
    log["rewards"] = log["rewards"] + 1e30
    error = error_of(recipe(dataset=log, offline=segue.TD3BC(**SMALL)), tmp_path / "x")
    assert re.match(r"offline phase, step 20: critic_loss is (nan|inf), and again at step 40 after .* step 0 ", error)
    assert not list((tmp_path / "x").glob("checkpoints/*/*/final"))


def diverging_at(*steps: int):
    """What fetches metrics, with a loss that is not finite at these steps."""
    from segue.training import recovery

    fetch = recovery.fetch

    def fetched(phase, step, metrics):
        if step in steps:
            raise Diverged(f"{phase} phase, step {step}: bc_loss is nan. Learning has diverged; try something")
        return fetch(phase, step, metrics)

    return fetched


@pytest.mark.slow
def test_an_offline_phase_that_diverges_late_keeps_the_policy_of_its_last_evaluation(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("segue.training.recovery.fetch", diverging_at(40, 60))
    error = error_of(recipe(offline_steps=80), tmp_path / "x")
    kept = tmp_path / "x/checkpoints/offline-bc/seed-0/latest"
    assert error.endswith(f"The last evaluated policy is kept in {kept}")
    assert load_checkpoint(kept).learner.step == 40


@pytest.mark.parametrize(
    "online", [segue.SAC(**SMALL), segue.PPO(**SMALL, rollout_steps=20, epochs=1)], ids=["sac", "ppo"]
)
def test_a_single_divergence_is_gone_back_from_and_said_and_the_run_goes_on(tmp_path: Path, monkeypatch, online):
    monkeypatch.setattr("segue.training.recovery.fetch", diverging_at(60))
    result = run(recipe(online=online), tmp_path / "x", workers=1)
    assert result.status == "complete"
    seed = result.summary["arms"]["run"]["seeds"]["0"]
    (event,) = seed["events"]
    assert event["message"].startswith(
        "online phase, step 60: bc_loss is nan; went back to the learner of step 40, and on"
    )
    assert [evaluation["step"] for evaluation in seed["online_evaluations"]] == [0, 20, 40, 60, 80]


def test_the_learner_gone_back_to_is_the_one_of_the_last_evaluation_but_its_batches_are_new_ones():
    algorithm = segue.SAC(**SMALL)
    learner, other = (fresh_learner(algorithm, seed) for seed in (0, 1))
    notes = Notes()
    recovery = Recovery("online", notes, other)
    recovery.mark(learner, 20)
    later = replace(other, step=jnp.asarray(7))
    back, good = recovery.fetch(later, 30, {"critic_loss": jnp.asarray(np.nan)})
    assert not good
    assert same_bits(back.nets, learner.nets)
    assert back.step == 7
    recovery.mark(back, 35)
    message = r"step 30: critic_loss is nan, and again at step 40 after going back to the learner of step 20 \(last"
    with pytest.raises(Diverged, match=message):
        recovery.fetch(back, 40, {"critic_loss": jnp.asarray(np.inf)})


def test_a_learner_whose_optimiser_is_lost_is_not_one_to_go_back_to():
    algorithm = segue.SAC(**SMALL)
    learner = fresh_learner(algorithm)
    recovery = Recovery("online", Notes(), learner)
    lost = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), learner.optimisers)
    recovery.mark(replace(learner, optimisers=lost), 20)
    assert recovery.good_at == 0
    assert finite(recovery.good.optimisers)


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


def test_without_an_environment_too_it_goes_back_to_the_last_interval_not_to_the_beginning(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("segue.training.recovery.fetch", diverging_at(60))
    given = recipe(env=None, online=None, online_steps=0, replay=None, warmup_steps=0, offline_steps=80)
    result = run(given, tmp_path / "x", workers=1)
    assert result.status == "complete"
    (event,) = result.summary["arms"]["run"]["seeds"]["0"]["events"]
    assert "went back to the learner of step 40" in event["message"]


def test_what_a_lost_ppo_policy_earned_is_not_held_for_or_against_the_one_gone_back_to(tmp_path: Path, monkeypatch):
    steps = []
    review = BridgeReviews.review
    monkeypatch.setattr(
        BridgeReviews, "review", lambda self, learner, step: steps.append(step) or review(self, learner, step)
    )
    monkeypatch.setattr("segue.training.recovery.fetch", diverging_at(60))
    online = segue.PPO(**SMALL, rollout_steps=20, epochs=1)
    assert run(recipe(online=online), tmp_path / "x", workers=1).status == "complete"
    assert 60 not in steps
    assert {40, 80} <= set(steps)
