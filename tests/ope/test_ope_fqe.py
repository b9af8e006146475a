"""Fitted Q evaluation against exactly solved MDPs, with critics that can represent Q exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from mdps import MDP, random_policy, states_of, tabular
from scipy import special

from segue.data import load
from segue.errors import Diverged, RecipeError
from segue.ope import FQE, ContinuousPolicy, fit
from segue.ope.limits import Limits

TABULAR = FQE(hidden_sizes=(), steps=2500, learning_rate=0.02, polyak=0.05, members=4)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_it_finds_the_exact_q_of_a_tabular_mdp(seed: int) -> None:
    mdp = MDP.random(seed)
    target = random_policy(seed + 100, mdp)
    log = mdp.log(random_policy(seed, mdp, floor=0.5), 4000, seed)
    fitted = fit(TABULAR, tabular(target), log, mdp.discount, seed)
    assert abs(fitted.estimate - mdp.value(target)) < 4 * fitted.standard_error
    assert fitted.standard_error < 0.03 * mdp.value(target), "or the comparison says nothing"
    q, state = mdp.q(target), states_of(log)
    assert np.abs(fitted.q - q[state, log.actions])[fitted.q != 0].max() < 0.1
    assert np.abs(fitted.v - (target * q).sum(1)[state])[fitted.v != 0].max() < 0.1
    # The critics were fitted to rewards divided by their scale; the exact values show that it was undone.
    assert fitted.drift < fitted.standard_error


def test_a_row_is_valued_only_by_critics_that_did_not_see_its_episode() -> None:
    # Two episodes whose rewards are 10 and −10 in states of their own: who saw one knows its reward, who did not, not.
    log = load(
        {
            "observations": np.eye(2),
            "actions": np.array([0, 0]),
            "rewards": np.array([10.0, -10.0]),
            "terminals": np.ones(2),
            "discrete_actions": 1,
            "next_observations": np.eye(2),
        }
    )
    fitted = fit(TABULAR, tabular(np.ones((2, 1))), log, 0.9, 0)
    assert (np.abs(fitted.q - log.rewards) > 1).all()
    np.testing.assert_allclose(fitted.q, fitted.v, atol=1e-5)


@pytest.mark.parametrize("deterministic", [pytest.param(True, marks=pytest.mark.slow), False])
def test_continuous_actions_by_draws_of_the_policy(deterministic: bool) -> None:
    # States come and go whatever is done; the reward is linear in the action, so a linear critic is exact.
    mdp = MDP.random(7, actions=1)
    discrete = mdp.log(np.ones((4, 1)), 3000, 0)
    rng = np.random.default_rng(0)
    action = rng.uniform(-1, 1, (len(discrete), 1)).astype(np.float32)
    slope = 0.5
    log = load(
        {
            "observations": discrete.observations,
            "actions": action,
            "rewards": discrete.rewards + slope * action[:, 0],
            "next_observations": discrete.next_observations,
            "terminals": discrete.terminals,
            "timeouts": np.zeros(len(discrete)),
        }
    )
    mean = np.array([0.8, -0.2, 0.4, -0.6])

    def draw(observation: np.ndarray, source: np.random.Generator) -> np.ndarray:
        centre = observation @ mean[:, None]
        return centre if deterministic else centre + source.uniform(-0.2, 0.2, centre.shape)

    policy = ContinuousPolicy(draw, deterministic=deterministic)
    fitted = fit(TABULAR, policy, log, mdp.discount, 3)
    onward = mdp.discount * (1 - mdp.ending[:, 0, None]) * mdp.transition[:, 0]
    exact = mdp.start @ np.linalg.solve(np.eye(4) - onward, mdp.reward[:, 0] + slope * mean)
    assert abs(fitted.estimate - exact) < 4 * fitted.standard_error
    assert fitted.standard_error < 0.05 * abs(exact)


def test_a_cut_bootstraps_and_a_terminal_does_not() -> None:
    def log(terminal: bool) -> object:
        return load(
            {
                "observations": np.ones((40, 1)),
                "actions": np.zeros(40, int),
                "rewards": np.ones(40),
                "next_observations": np.ones((40, 1)),
                "terminals": np.full(40, terminal),
                "timeouts": np.full(40, not terminal),
                "discrete_actions": 1,
            }
        )

    policy = tabular(np.ones((1, 1)))
    ended, cut = (fit(TABULAR, policy, log(terminal), 0.8, 0) for terminal in (True, False))
    assert ended.estimate == pytest.approx(1, abs=0.01)
    assert cut.estimate == pytest.approx(1 / (1 - 0.8), rel=0.02)
    # The dataset goes on with the judged policy, and here that is the dataset's: no difference.
    assert cut.behaviour_values.mean() == pytest.approx(1 / (1 - 0.8), rel=0.02)
    assert ended.behaviour_values.mean() == pytest.approx(1, abs=1e-9)


def test_the_bound_is_students() -> None:
    mdp = MDP.random(0)
    fitted = fit(
        FQE(hidden_sizes=(), steps=50, members=3),
        tabular(random_policy(1, mdp)),
        mdp.log(random_policy(0, mdp), 50, 0),
        0.9,
        0,
    )
    fitted = dataclasses.replace(fitted, limits=Limits(-np.inf, np.inf))
    bounds = fitted.bounds(0.9)
    t = special.stdtrit(2, 0.9)
    assert bounds.value_lower == pytest.approx(fitted.values.mean() - t * fitted.values.std(ddof=1))
    difference = fitted.values - fitted.behaviour_values
    assert bounds.difference_upper == pytest.approx(difference.mean() + t * difference.std(ddof=1))


def test_the_same_seed_gives_the_same_numbers_and_another_one_others() -> None:
    mdp = MDP.random(0)
    log, policy = mdp.log(random_policy(0, mdp), 50, 0), tabular(random_policy(1, mdp))
    small = FQE(hidden_sizes=(8,), steps=30, members=2)
    first, again, other = (fit(small, policy, log, 0.9, seed) for seed in (0, 0, 1))
    assert first.values.tolist() == again.values.tolist()
    assert first.values.tolist() != other.values.tolist()


def test_a_critic_that_explodes_says_so() -> None:
    mdp = MDP.random(0)
    log, policy = mdp.log(random_policy(0, mdp), 50, 0), tabular(random_policy(1, mdp))
    with pytest.raises(Diverged, match="not finite; lower the learning rate"):
        fit(FQE(hidden_sizes=(8,), steps=300, learning_rate=1e30, members=2), policy, log, 0.9, 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"steps": 0}, "steps is 0; expected at least 1"),
        ({"members": 1}, "members is 1; expected at least 2"),
        ({"polyak": 0.0}, "polyak is 0.0; expected above 0"),
        ({"hidden_sizes": (0,)}, "expected positive widths"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; expected above 0"),
        ({"draws": 0}, "draws is 0; expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        FQE(**changes)  # type: ignore[arg-type]


def test_values_that_are_moved_into_the_range_still_average_to_v() -> None:
    # What dr and wdr rest on: with π = b, V(s) − Q(s, a) is 0 on average over the actions that b takes.
    mdp = MDP.random(1, ending=1.0)
    behaviour = random_policy(1, mdp, floor=0.5)
    wild = FQE(hidden_sizes=(), steps=4, learning_rate=3.0, polyak=1.0, members=4)
    fitted = fit(wild, tabular(behaviour), mdp.log(behaviour, 4000, 0), 0.9, 0)
    assert fitted.outside > 0.1, "or nothing was moved"
    known = fitted.q != 0
    difference = (fitted.v - fitted.q)[known]
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(known.sum())
