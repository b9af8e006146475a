"""The advice for a dataset follows from the dataset."""

from __future__ import annotations

import json

import numpy as np
import pytest

import segue
from segue.advice import advise, best_episodes, diversity
from segue.cli.main import main
from segue.data import load
from segue.presets import best_share
from segue.recipe import Recipe


def made(actions: np.ndarray, observations: np.ndarray, **columns: np.ndarray):
    ends = np.zeros(len(actions), bool)
    ends[49::50] = True
    arrays = {"observations": observations, "actions": actions, "rewards": observations[:, 0].copy(), "timeouts": ends}
    return load({**arrays, "terminals": np.zeros(len(actions), bool), **columns})


def test_actions_that_follow_from_the_state_are_narrow_and_random_ones_wide():
    source = np.random.default_rng(0)
    observations = source.uniform(-1, 1, (4000, 2)).astype(np.float32)
    decided = np.tanh(observations[:, :1])
    drawn = source.uniform(-1, 1, (4000, 1)).astype(np.float32)
    assert diversity(made(decided, observations)) < 0.1
    assert diversity(made(drawn, observations)) > 0.9


def test_what_is_too_little_to_compare_is_not_compared():
    observations = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    assert diversity(made(np.tanh(observations[:, :1]), observations)) is None


def test_the_best_episodes_are_those_that_auto_clones():
    dataset = load("segue:hopper-mixed")
    (promotion,) = segue.preset("auto", dataset="segue:hopper-mixed", held_out=0.0).bridges
    cloned = dataset.best_episodes(promotion.clone_share)
    assert sorted(cloned.episode_returns.tolist(), reverse=True) == pytest.approx(
        sorted(best_episodes(dataset).tolist(), reverse=True)
    )


@pytest.mark.parametrize("alive", [False, True])
def test_where_the_best_episodes_begin_at_the_goal_or_are_no_better_all_are_cloned(alive):
    """One episode in ten begins at the goal and stays, others get there for their last steps; or all earn the same."""
    observations = np.random.default_rng(0).uniform(-1, 1, (5000, 2)).astype(np.float32)
    step, episode = np.arange(5000) % 50, np.arange(5000) // 50
    rewards = np.ones(5000) if alive else ((episode % 10 == 0) | (step > 40)).astype(float)
    dataset = made(np.tanh(observations[:, :1]), observations, rewards=rewards)
    assert best_share(dataset, len(dataset.episode_starts)) == 1.0
    told = any("begin with the highest reward" in finding.text for finding in advise(dataset, trial=False).outlook)
    assert told == (not alive)


def test_all_that_earn_most_are_cloned():
    observations = np.random.default_rng(0).uniform(-1, 1, (5000, 2)).astype(np.float32)
    step, episode = np.arange(5000) % 50, np.arange(5000) // 50
    dataset = made(np.tanh(observations[:, :1]), observations, rewards=((episode % 4 > 0) & (step == 48)).astype(float))
    assert best_share(dataset, len(dataset.episode_starts)) == 0.75


def test_where_rewards_are_sparse_the_outlook_is_that_of_values_and_not_of_a_clone():
    observations = np.random.default_rng(0).uniform(-1, 1, (5000, 2)).astype(np.float32)
    step, episode = np.arange(5000) % 50, np.arange(5000) // 50
    rewards = ((episode % 10 == 0) & (step > 20)).astype(float)
    dataset = made(np.tanh(observations[:, :1]), observations, rewards=rewards)
    advice = advise(dataset, trial=False)
    texts = [finding.text for finding in advice.outlook]
    assert any("rewards are sparse" in text for text in texts)
    assert not any("cloning" in text for text in texts)
    assert advice.recipe.offline.name == "iql"
    noise = 2 * dataset.episode_returns.std(ddof=1) / np.sqrt(10)  # the best episodes all earn the same
    assert any("by the spread of all episodes" in f.text and f"±{noise:.3g}" in f.text for f in advice.findings)


def test_the_advice_for_a_dataset_with_an_environment_is_auto_and_says_what_it_rests_on():
    advice = advise("segue:hopper-mixed", trial=False)
    assert advice.recipe == segue.preset("auto", dataset="segue:hopper-mixed", seeds=3)
    assert advice.command == "segue run --dataset segue:hopper-mixed --seeds 3 --out runs/first"
    earned = best_episodes(load("segue:hopper-mixed")).mean()
    assert any(f"{earned:,.4g}" in finding.text for finding in advice.outlook)
    assert all(finding.basis.startswith(("this dataset", "docs/", "studies/")) for finding in advice.outlook)


def test_without_an_environment_it_says_that_the_recipe_ends_at_the_handover():
    advice = advise("segue:hopper-mixed", trial=False, env="none")
    assert advice.recipe.online is None
    assert any("give --env" in finding.text for finding in advice.outlook)


def test_the_environment_of_another_task_is_refused(capsys):
    assert main(["advise", "segue:hopper-mixed", "--env", "Walker2d-v5", "--no-trial"]) == 2
    assert "Walker2d-v5" in capsys.readouterr().err


def test_what_is_wrong_with_a_dataset_stands_among_the_findings():
    observations = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    advice = advise(made(np.tanh(observations[:, :1]), observations), trial=False)
    assert any(finding.text.startswith("problem: a short dataset") for finding in advice.findings)


@pytest.mark.slow
def test_a_trial_times_both_phases(capsys, monkeypatch):
    """Of a recipe with environment: one that ends at the handover has the offline half only."""
    monkeypatch.setattr("segue.advice.TRIAL_UPDATES", 40)
    monkeypatch.setattr("segue.advice.TRIAL_STEPS", 256)
    assert main(["advise", "segue:cartpole-mixed", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cost"]["offline_minutes"] > 0
    assert told["cost"]["online_minutes"] > 0
    assert Recipe.from_dict(told["recipe"]).offline.name == "discrete-cql"


def test_a_dataset_that_is_not_there_is_one_line(capsys):
    assert main(["advise", "no-such.npz"]) == 2
    assert "no-such.npz" in capsys.readouterr().err
