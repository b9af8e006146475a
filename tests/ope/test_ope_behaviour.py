"""The behaviour policy: logged, or estimated and its calibration measured."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mdps import MDP, random_policy, states_of

from segue.data import load
from segue.errors import DataError, RecipeError
from segue.networks import Actor, CategoricalActor
from segue.ope import BehaviourModel, calibration_error, propensities

MODEL = BehaviourModel(steps=800, hidden_sizes=(16,), learning_rate=1e-2)


def test_logged_propensities_are_used_as_they_are() -> None:
    mdp = MDP.random(0)
    log = mdp.log(random_policy(0, mdp), 20, 0)
    known = propensities(log, MODEL, 0)
    assert not known.estimated
    assert known.notes == ()
    np.testing.assert_array_equal(known.log_prob, log.behaviour_log_prob)


def test_a_discrete_policy_is_recovered_and_well_calibrated() -> None:
    mdp = MDP.random(0)
    behaviour = random_policy(0, mdp, floor=0.5)
    log = mdp.log(behaviour, 4000, 0, logged=False)
    known = propensities(log, MODEL, 0)
    exact = behaviour[states_of(log), log.actions]
    assert known.estimated
    np.testing.assert_allclose(np.exp(known.log_prob), exact, atol=0.05)
    assert known.calibration_error < 0.03
    assert len(known.notes) == 1
    assert "no 'behaviour_log_prob': its policy was estimated from 3,200 episodes" in known.notes[0]


def test_a_continuous_policy_is_recovered() -> None:
    rng = np.random.default_rng(0)
    rows = 6000
    state = rng.choice([-1.0, 1.0], rows)
    pre_tanh = 0.5 * state + 0.3 * rng.normal(size=rows)
    log = load(
        {
            "observations": state[:, None],
            "actions": np.tanh(pre_tanh)[:, None],
            "rewards": np.zeros(rows),
            "next_observations": state[:, None],
            "terminals": np.ones(rows),
        }
    )
    known = propensities(log, MODEL, 0)
    z = (pre_tanh - 0.5 * state) / 0.3
    exact = -0.5 * z**2 - np.log(0.3) - 0.5 * np.log(2 * np.pi) - np.log1p(-(np.tanh(pre_tanh) ** 2))
    assert np.abs(known.log_prob - exact).mean() < 0.1
    assert known.calibration_error < 0.05


def test_a_model_that_cannot_be_right_is_warned_about() -> None:
    rng = np.random.default_rng(0)
    rows = 4000
    # Two humps: no Gaussian fits.
    action = np.tanh(rng.choice([-1.0, 1.0], rows) + 0.1 * rng.normal(size=rows))
    log = load(
        {
            "observations": np.zeros((rows, 1)),
            "actions": action[:, None],
            "rewards": np.zeros(rows),
            "next_observations": np.zeros((rows, 1)),
            "terminals": np.ones(rows),
        }
    )
    known = propensities(log, MODEL, 0)
    assert known.calibration_error > 0.2
    assert "every estimate that uses them, are unreliable" in known.notes[1]


def test_one_episode_is_not_enough_to_estimate_from() -> None:
    mdp = MDP.random(0)
    with pytest.raises(DataError, match="expected at least 2 to estimate the behaviour policy"):
        propensities(mdp.log(random_policy(0, mdp), 1, 0, logged=False), MODEL, 0)


def constant(logits: list[float]) -> CategoricalActor:
    """The same probabilities in every state."""
    actor = CategoricalActor.init(jax.random.key(0), 1, len(logits), ())
    head = dataclasses.replace(
        actor.mlp.layers[-1], weight=jnp.zeros((1, len(logits))), bias=jnp.asarray(logits, jnp.float32)
    )
    return jax.tree.map(np.asarray, CategoricalActor(dataclasses.replace(actor.mlp, layers=(head,))))


def test_the_calibration_error_is_the_share_of_probability_in_the_wrong_bin() -> None:
    observation = np.zeros((100, 1), np.float32)
    action = np.repeat([0, 1], [60, 40]).astype(np.int32)
    assert calibration_error(constant([np.log(0.6), np.log(0.4)]), observation, action) == pytest.approx(0, abs=1e-6)
    # 0.9 and 0.1 said, 0.6 and 0.4 seen: 0.3 of the probability is in the wrong place.
    assert calibration_error(constant([np.log(0.9), np.log(0.1)]), observation, action) == pytest.approx(0.3, abs=1e-6)


def test_a_continuous_policy_that_is_too_sure_is_off() -> None:
    actor = jax.tree.map(np.asarray, Actor.init(jax.random.key(0), 1, 1, (4,)))
    observation = np.zeros((2000, 1), np.float32)
    mean, log_std = actor(observation)
    noise = np.random.default_rng(0).normal(size=mean.shape)
    assert calibration_error(actor, observation, np.tanh(mean + np.exp(log_std) * noise)) < 0.05
    assert calibration_error(actor, observation, np.tanh(mean + 3 * np.exp(log_std) * noise)) > 0.2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"steps": 0}, "steps is 0; expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; expected above 0"),
        ({"held_out": 1.0}, "held_out is 1.0; expected above 0 and below 1"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        BehaviourModel(**changes)  # type: ignore[arg-type]
