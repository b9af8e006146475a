"""The on-policy loop: rollouts, their ends, and when the policy is judged and when it moves."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import same_bits
from segue.algorithms import PPO, TD3
from segue.core import Learner, Normaliser, Spaces
from segue.replay import OnlineOnly, Replay
from segue.training import agent, collect, on_policy
from segue.training.on_policy import train_on_policy
from segue.training.online import OnlineSettings, train_online
from segue.training.update import init_learner
from toys import AIM, CLOCK, Notes

ONE = Spaces(1, 1)
SMALL = {"hidden_sizes": (4,), "batch_size": 8}


def fresh(algorithm) -> Learner:
    return init_learner(algorithm, algorithm.init(jax.random.key(0), ONE), Normaliser.identity(1))


def settings(**changes) -> OnlineSettings:
    values = {
        "env_id": CLOCK,
        "steps": 40,
        "warmup_steps": 0,
        "random_warmup": False,
        "updates_per_step": 1.0,
        "environments": 1,
        "eval_every": 10,
        "eval_episodes": 2,
        "seed": 0,
    }
    return OnlineSettings(**{**values, **changes})


def rollouts(monkeypatch, algorithm, **changes):
    """What the updates of a run are given, without the updates; and what was evaluated."""
    given, notes = [], Notes()

    def note(learner, rollout, done, key, progress, algorithm, bridges, **options):
        given.append((rollout, done, float(progress), options["train_policy"]))
        return learner, {}

    monkeypatch.setattr(on_policy, "learn", note)
    train_on_policy(algorithm, (), fresh(algorithm), notes, settings(**changes))
    return given, notes


@pytest.mark.parametrize(
    ("steps", "eval_every", "environments"), [(40, 10, 1), (40, 40, 1), (44, 8, 4), (45, 30, 5), (30, 100, 1)]
)
def test_it_evaluates_exactly_where_the_off_policy_loop_does(monkeypatch, steps, eval_every, environments):
    monkeypatch.setattr(agent, "train", lambda asked: (asked.learner, {}))
    plan = {"steps": steps, "eval_every": eval_every, "environments": environments, "warmup_steps": 5}
    _, notes = rollouts(monkeypatch, PPO(**SMALL, rollout_steps=12), **plan)
    other, td3 = Notes(), TD3(**SMALL)
    replay = Replay.create(None, steps, ONE)
    train_online(td3, (), OnlineOnly(), fresh(td3), replay, other, settings(**plan))
    assert list(notes.evaluated) == list(other.evaluated)
    assert list(notes.evaluated) == sorted({0, *range(eval_every, steps, eval_every), steps})
    for returns in notes.evaluated.values():
        assert returns.tolist() == [3, 3], "the first episode of the environment"


@pytest.mark.parametrize(
    ("rollout", "environments", "steps", "lengths"),
    [
        (16, 1, 40, [16, 16, 8]),  # the last rollout is what is left
        (16, 1, 39, [16, 16]),  # and is passed over where it makes no minibatch
        (18, 4, 40, [20, 20]),  # every environment takes as many steps
        (100, 1, 40, [40]),
    ],
)
def test_every_step_of_the_budget_is_in_one_rollout(monkeypatch, rollout, environments, steps, lengths):
    algorithm = PPO(**SMALL, rollout_steps=rollout, value_fit_epochs=0)
    plan = {"environments": environments, "steps": steps, "eval_every": 10 * environments}
    given, notes = rollouts(monkeypatch, algorithm, **plan)
    assert [done.size for _, done, _, _ in given] == lengths
    assert max(notes.evaluated) == steps
    begun = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    assert [progress for _, _, progress, _ in given] == pytest.approx(begun / steps)


def test_a_rollout_is_the_life_of_the_environments_across_its_own_ends(monkeypatch):
    """Episodes of three steps to a terminal and of four steps to a time limit, in rollouts of ten."""
    algorithm = PPO(**SMALL, rollout_steps=20, value_fit_epochs=0, reward_scale=2.0, reward_shift=1.0)
    given, _ = rollouts(monkeypatch, algorithm, environments=2, steps=40)
    first, second = (
        np.concatenate([np.asarray(column) for column in columns])
        for columns in zip(*((rollout.observation[..., 0], done) for rollout, done, _, _ in given), strict=True)
    )
    life = [0, 1, 2, 0, 1, 2, 3] * 3
    assert first.T.tolist() == [life[:20]] * 2
    ended = np.isin(np.arange(20) % 7, (2, 6))
    assert second.T.tolist() == [ended.tolist()] * 2
    for rollout, _, _, _ in given:
        assert (rollout.next_observation == rollout.observation + 1).all()
        assert (rollout.reward == 3).all()
    discounts = np.concatenate([rollout.discount for rollout, _, _, _ in given])[:, 0]
    expected = np.where(np.arange(20) % 7 == 2, 0, algorithm.discount)
    assert discounts == pytest.approx(expected), "0 at terminals only"


def test_both_loops_know_the_range_of_the_observations_that_they_have_seen_and_of_how_many_episodes(monkeypatch):
    monkeypatch.setattr(agent, "train", lambda asked: (asked.learner, {}))
    monkeypatch.setattr(on_policy, "learn", lambda learner, *given, **options: (learner, {}))
    monkeypatch.setattr(collect, "UNREAD", 3)
    plan, ppo, td3 = settings(steps=8, eval_every=2), PPO(**SMALL, rollout_steps=12), TD3(**SMALL)
    for loop in (
        lambda keep: train_on_policy(ppo, (), fresh(ppo), Notes(), plan, keep=keep),
        lambda keep: train_online(
            td3, (), OnlineOnly(), fresh(td3), Replay.create(None, 8, ONE), Notes(), plan, keep=keep
        ),
    ):
        ranges = {}
        loop(lambda step, learner, observed, ranges=ranges: ranges.update({step: observed}))
        assert ranges.pop(0) is None
        # Observations are 0 1 2, 0 1 2 3, …
        assert {step: (*found.low, *found.high, found.episodes) for step, found in ranges.items()} == {
            2: (0, 1, 0),
            4: (0, 2, 1),
            6: (0, 2, 1),
            8: (0, 3, 2),
        }


def test_v_is_fitted_to_the_policy_that_was_handed_over_before_that_moves():
    """Rollouts end at 16, 32, …; the warm-up lasts until 20, so the policy first moves at 32, and V from 16 on."""
    algorithm = PPO(**SMALL, rollout_steps=16, epochs=2, value_fit_epochs=3, actor_learning_rate=1e-2)
    kept, notes = {}, Notes()
    learner = fresh(algorithm)
    plan = settings(env_id=AIM, steps=56, warmup_steps=20, eval_every=8)
    train_on_policy(
        algorithm,
        (),
        learner,
        notes,
        plan,
        keep=lambda step, now, observed: kept.update({step: jax.tree.map(jnp.copy, now.nets)}),
    )
    moved: dict[str, list[int]] = {"actor": [], "value": []}
    for before, step in itertools.pairwise(sorted(kept)):
        for role, steps in moved.items():
            if not same_bits(getattr(kept[before], role), getattr(kept[step], role)):
                steps.append(step)
    assert moved == {"actor": [32, 48, 56], "value": [16, 32, 48, 56]}
    assert [(step, "actor_loss" in values) for step, values in notes.measured if "value_loss" in values] == [
        (16, False),
        (32, False),
        (32, True),
        (48, True),
        (56, True),
    ]


def test_without_fit_or_warm_up_the_first_rollout_already_teaches_the_policy(monkeypatch):
    given, _ = rollouts(monkeypatch, PPO(**SMALL, rollout_steps=16, value_fit_epochs=0))
    assert [train_policy for *_, train_policy in given] == [True, True, True]
    given, _ = rollouts(monkeypatch, PPO(**SMALL, rollout_steps=16, value_fit_epochs=1))
    assert [train_policy for *_, train_policy in given] == [False, True, True, True]


def test_the_same_seed_lives_the_same_life_and_another_seed_another():
    def final(seed):
        algorithm = PPO(**SMALL, rollout_steps=16, epochs=2, value_fit_epochs=3, actor_learning_rate=1e-2)
        return train_on_policy(algorithm, (), fresh(algorithm), Notes(), settings(env_id=AIM, steps=32, seed=seed))

    assert same_bits(final(0), final(0))
    assert not same_bits(final(0).nets, final(1).nets)
