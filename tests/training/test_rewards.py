"""Rewards are learnt as scale · r + shift wherever they are learnt from, and shown as they are."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from helpers import for_each
from segue.algorithms import ALGORITHMS, BC, IQL, SAC, CalQL
from segue.core import Normaliser, Spaces
from segue.data import load
from segue.recipe import Recipe
from segue.replay import OnlineOnly, Replay
from segue.runner import job, run
from segue.training import agent
from segue.training.handover import hand_over
from segue.training.online import OnlineSettings, train_online
from segue.training.update import init_learner
from toys import AIM, CLOCK, Notes, log_of

ONE = Spaces(1, 1)
SMALL = {"hidden_sizes": (4,), "batch_size": 8}
SCALED = {"discount": 0.5, "reward_scale": 10.0, "reward_shift": -5.0}


def sparse_log():
    """An episode that gets nothing in three steps until time is up, and one that gets 1 in its last of three."""
    return load(
        {
            "observations": np.arange(6.0)[:, None],
            "actions": np.zeros((6, 1)),
            "rewards": np.array([0.0, 0, 0, 0, 0, 1]),
            "next_observations": np.arange(6.0)[:, None] + 1,
            "terminals": np.array([0, 0, 0, 0, 0, 1]),
            "timeouts": np.array([0, 0, 1, 0, 0, 0]),
            "cost": np.zeros(6),
        }
    )


@for_each("name", ALGORITHMS)
def test_every_algorithm_sees_the_dataset_with_its_own_discount_and_rewards(name):
    dataset = sparse_log()
    batch = ALGORITHMS[name](**SCALED).transitions(dataset, Normaliser.identity(1))
    assert batch.reward.tolist() == [-5, -5, -5, -5, -5, 5]
    assert batch.reward.dtype == np.float32
    assert batch.discount.tolist() == [0.5, 0.5, 0.5, 0.5, 0.5, 0]
    assert batch.return_to_go.tolist() == [-8.75, -7.5, -5, -6.25, -2.5, 5]
    assert dataset.rewards.tolist() == [0, 0, 0, 0, 0, 1], "the dataset itself stays as it is"


def test_without_scale_and_shift_rewards_are_the_datasets_to_the_bit():
    dataset = load(log_of(AIM))
    assert np.array_equal(SAC().transitions(dataset, Normaliser.identity(1)).reward, dataset.rewards)


def test_a_failed_episode_of_the_dataset_is_worth_failing_for_ever():
    batch = CalQL(**SCALED, failure_reward=-5.0).transitions(sparse_log(), Normaliser.identity(1))
    assert batch.return_to_go.tolist() == [-10, -10, -10, -6.25, -2.5, 5], "-5 / (1 - 0.5); a success counts as it is"
    raw = CalQL(**SCALED, failure_reward=0.0).transitions(sparse_log(), Normaliser.identity(1))
    assert raw.return_to_go.tolist() == [-8.75, -7.5, -5, -6.25, -2.5, 5], "the reward as learnt is meant"


def test_without_a_discount_below_one_failure_has_no_value_for_ever():
    batch = CalQL(**(SCALED | {"discount": 1.0}), failure_reward=-5.0).transitions(sparse_log(), Normaliser.identity(1))
    assert batch.return_to_go.tolist() == [-15, -10, -5, -5, 0, 5]


def live(monkeypatch, algorithm):
    """The ring after twelve steps of an environment that pays 1 a step, in episodes of 3, 4, 3, …; and the scores."""
    rings, notes = [], Notes()
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), ONE), Normaliser.identity(1))

    def note(asked):
        rings.append(jax.tree.map(np.asarray, asked.replay.online))
        return asked.learner, {}

    monkeypatch.setattr(agent, "train", note)
    settings = OnlineSettings(
        env_id=CLOCK,
        steps=12,
        warmup_steps=0,
        random_warmup=False,
        updates_per_step=1.0,
        environments=1,
        eval_every=6,
        eval_episodes=1,
        seed=0,
    )
    train_online(algorithm, (), OnlineOnly(), learner, Replay.create(None, 12, ONE), notes, settings)
    return rings[-1], notes


def test_live_transitions_are_scaled_and_evaluations_are_not(monkeypatch):
    ring, notes = live(monkeypatch, SAC(**SMALL, **SCALED))
    assert ring.reward.tolist() == [5] * 12
    assert [(step, returns.tolist()) for step, returns in notes.evaluated.items()] == [(0, [3]), (6, [3]), (12, [3])]


@pytest.mark.parametrize(("failure_reward", "failed"), [(None, False), (-5.0, False), (5.0, True)])
def test_the_returns_of_live_episodes_are_those_of_the_learnt_rewards(monkeypatch, failure_reward, failed):
    """If 5, all that this environment ever gives, is failure, each finished episode is worth 5 / (1 - 0.5)."""
    ring, _ = live(monkeypatch, CalQL(**SMALL, **SCALED, failure_reward=failure_reward))
    three, four = [8.75, 7.5, 5], [9.375, 8.75, 7.5, 5]
    finished = [10] * 10 if failed else [*three, *four, *three]
    assert ring.return_to_go.tolist() == [*finished, -np.inf, -np.inf]


def test_each_phase_of_a_run_learns_the_rewards_of_its_own_algorithm(monkeypatch, tmp_path: Path):
    seen = {}

    def offline_phase(algorithm, learner, replay, *given, **options):
        seen["offline"] = np.asarray(replay.offline.reward)
        yield from ()  # asks for no updates
        return learner

    def online_phase(algorithm, bridges, strategy, learner, replay, *given):
        seen["online"] = np.asarray(replay.offline.reward)
        return learner

    monkeypatch.setattr(job, "train_offline", offline_phase)
    monkeypatch.setattr(job, "train_online", online_phase)
    recipe = Recipe(
        dataset=log_of(AIM),
        env=AIM,
        offline=IQL(**SMALL, reward_shift=-1.0),
        offline_steps=4,
        online=SAC(**SMALL, reward_scale=2.0),
        online_steps=20,
        warmup_steps=10,
        held_out=0.0,
    )
    result = run(recipe, tmp_path / "x", workers=1)
    assert result.status == "complete"
    rewards = log_of(AIM)["rewards"].astype(np.float32)
    assert np.array_equal(seen["offline"], rewards - 1)
    assert np.array_equal(seen["online"], 2 * rewards)
    note = "values: learnt for other returns (reward_scale 1 → 2, reward_shift -1 → 0)"
    assert any(line.startswith(note) for line in result.summary["arms"]["run"]["handover"])


def lines(source, online):
    learner = init_learner(source, source.init(jax.random.key(0), ONE), Normaliser.identity(1))
    return [x for x in hand_over(learner, source, online, ONE, jax.random.key(1))[1].lines if x.startswith("values")]


def test_values_learnt_for_other_returns_are_pointed_out_where_values_are_carried():
    other = SAC(**SMALL, discount=0.9)
    said = "values: learnt for other returns (discount 0.99 → 0.9), so they are off until they have adapted"
    assert lines(SAC(**SMALL), other) == [said]
    assert lines(SAC(**SMALL, discount=0.9), other) == []
    assert lines(BC(**SMALL), other) == [], "nothing was carried that could be off"
