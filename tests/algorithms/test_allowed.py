"""Discrete policies act within allowed actions, ranked as without them; what cannot is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers import few, fresh_learner, random_learner, small
from segue.bridges import PolicyExpansion
from segue.errors import SegueError
from segue.policy import Policy

ACTIONS, ROWS = 4, 6
masks = arrays.arrays(bool, (ROWS, ACTIONS)).filter(lambda mask: mask.any(-1).all())
OBSERVATIONS = np.random.default_rng(0).normal(size=(ROWS, 3), scale=3).astype(np.float32)


def policy(name: str, kind: str = "discrete", **options: Any) -> Policy:
    algorithm = small(name, **options)
    return Policy(algorithm, random_learner(algorithm, kind=kind))


@few
@given(masks, st.sampled_from([0.0, 0.3, 0.9]))
def test_discrete_bcq_takes_the_best_that_it_trusts_or_else_what_the_dataset_does_most(
    mask: np.ndarray, threshold: float
) -> None:
    """The filter of eq. 14 stays as it is; only where it leaves nothing is the likeliest allowed action taken."""
    own = policy("discrete-bcq", threshold=threshold)
    q, log_prob = own.nets.critic.all(OBSERVATIONS).min(0), own.nets.behaviour(OBSERVATIONS)
    trusted = np.exp(log_prob - log_prob.max(-1, keepdims=True)) > threshold
    best = np.where(trusted & mask, q, -np.inf).argmax(-1)
    likeliest = np.where(mask, log_prob, -np.inf).argmax(-1)
    expected = np.where((trusted & mask).any(-1), best, likeliest)
    acted = own.act(OBSERVATIONS, own.start(ROWS), np.random.default_rng(0), False, mask)
    assert acted.action.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["dqn", "discrete-bcq", "discrete-sac", "iql"])
@pytest.mark.parametrize("explore", [False, True])
def test_the_probability_that_is_told_is_that_of_the_draws_among_the_allowed(name: str, explore: bool) -> None:
    own, draws = policy(name), 4000
    mask = np.array([True, False, True, True])
    batch, source = np.repeat(OBSERVATIONS[:1], draws, axis=0), np.random.default_rng(0)
    acted = own.act(batch, own.start(draws), source, explore, np.tile(mask, (draws, 1)))
    often = np.bincount(acted.action, minlength=ACTIONS) / draws
    told = np.zeros(ACTIONS)
    told[acted.action] = np.exp(acted.log_prob())
    assert often[1] == 0
    np.testing.assert_allclose(told, often, atol=4 * 0.5 / np.sqrt(draws))


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (np.eye(ROWS, ACTIONS, dtype=bool), r"row 4 of allowed allows no action; expected at least one"),
        (np.ones((ROWS, ACTIONS + 1), bool), r"allowed has shape \(6, 5\) .*; expected shape \(6, 4\)"),
        (np.ones(ACTIONS, bool), r"allowed has shape \(4,\)"),
        (np.ones((ROWS, ACTIONS)), "type float64; expected shape .* type bool"),
    ],
)
def test_what_does_not_say_which_actions_are_allowed_is_refused(allowed: np.ndarray, expected: str) -> None:
    own = policy("dqn")
    with pytest.raises(SegueError, match=expected):
        own.act(OBSERVATIONS, own.start(ROWS), np.random.default_rng(0), False, allowed)


def test_a_policy_that_cannot_keep_to_allowed_actions_says_why() -> None:
    learner = fresh_learner(small("iql"), kind="discrete")
    expanded = type(learner)(**{**vars(learner), "bridges": (learner.nets.actor,)})
    cases = {
        "the bridge policy-expansion has a say": Policy(small("iql"), expanded, (PolicyExpansion(),)),
        "earlier steps": policy("fql", "continuous", chunk=3),
        "sac has no probabilities of discrete actions": policy("sac", "continuous"),
    }
    for expected, own in cases.items():
        with pytest.raises(SegueError, match=expected):
            own.act(OBSERVATIONS, own.start(ROWS), np.random.default_rng(0), False, np.ones((ROWS, ACTIONS), bool))
