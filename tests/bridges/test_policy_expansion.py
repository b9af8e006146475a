"""Policy expansion: which of two policies acts, with which probability, and what is fresh and what is frozen."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from handovers import attach, handover

from helpers import (
    KINDS,
    actor_update,
    clone,
    random_learner,
    same_bits,
    small,
    transitions,
)
from segue.acting import Acted
from segue.bridges import JumpStart, PolicyExpansion
from segue.core import Nets
from segue.errors import RecipeError
from segue.policy import Policy
from segue.training.update import init_learner, replace

MEMBERS = [("sac", "continuous"), ("td3", "continuous"), ("iql", "continuous"), ("awac", "discrete")]
every_member = pytest.mark.parametrize(("name", "kind"), MEMBERS)
DRAWS = 20_000


def chosen(bridge: PolicyExpansion, q: np.ndarray, explore: bool, kind: str = "continuous") -> float:
    """How often the online action is taken where Q_i(offline), Q_i(online) are the columns of q, [members, 2]."""
    shape = (DRAWS,) if kind == "discrete" else (DRAWS, 2)
    dtype = np.int32 if kind == "discrete" else np.float32
    offline, online = np.zeros(shape, dtype), np.ones(shape, dtype)

    class Frozen:
        @staticmethod
        def mode(observation):
            return offline

    def critic(observation, action):
        second = (action if action.ndim == 1 else action[:, 0]).astype(bool)
        return np.where(second, q[:, 1:], q[:, :1]).astype(np.float32)

    taken = bridge.act(
        Frozen(),
        small("sac"),
        Nets(critic=critic),
        np.zeros((DRAWS, 3), np.float32),
        Acted(online, lambda: np.zeros(DRAWS), ()),
        (),
        np.random.default_rng(0),
        explore,
    ).action
    assert taken.shape == shape
    assert taken.dtype == dtype
    if kind == "continuous":
        assert np.array_equal(taken[:, 0], taken[:, 1])
    return float(taken.mean())


def softmax(beta: float, q: np.ndarray) -> float:
    """The probability of the second action by softmax(β · min_i Q_i), in float64."""
    logits = beta * q.min(0)
    weights = np.exp(logits - logits.max())
    return float(weights[1] / weights.sum())


Q = np.array([[1.0, 1.3], [1.1, 1.05], [2.0, 9.0]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.0, 1.0, 10.0])
def test_exploring_draws_from_the_softmax_of_the_least_optimistic_q(kind, beta):
    expected = softmax(beta, Q)
    assert chosen(PolicyExpansion(inverse_temperature=beta), Q, True, kind) == pytest.approx(expected, abs=0.018)
    worse = chosen(PolicyExpansion(inverse_temperature=beta), Q[:, ::-1], True, kind)
    assert worse == pytest.approx(1 - expected, abs=0.018)


@pytest.mark.parametrize("gap", [-1e6, 1e6])
def test_a_gap_too_large_for_the_exponential_is_a_certain_choice(gap):
    q = np.array([[0.0, gap]])
    assert chosen(PolicyExpansion(), q, True) == (gap > 0)


@pytest.mark.parametrize("greedy", [0.0, 0.9, 1.0])
def test_not_exploring_takes_the_better_action_with_the_greedy_share_and_draws_otherwise(greedy):
    bridge = PolicyExpansion(inverse_temperature=10.0, greedy=greedy)
    p = softmax(10.0, Q)
    assert 0.5 < p < 0.7
    assert chosen(bridge, Q, False) == pytest.approx(greedy + (1 - greedy) * p, abs=0.018)
    assert chosen(bridge, Q[:, ::-1], False) == pytest.approx((1 - greedy) * (1 - p), abs=0.018)


@every_member
@pytest.mark.parametrize("explore", [False, True])
def test_every_action_is_one_of_the_two_policies(name, kind, explore):
    algorithm, bridge = small(name), PolicyExpansion(inverse_temperature=1.0, greedy=0.5)
    learner, offline = random_learner(algorithm, 0, kind), random_learner(algorithm, 1, kind)
    policy = Policy(algorithm, replace(learner, bridges=(offline.nets.actor,)), (bridge,))
    observation = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    action = policy(observation, np.random.default_rng(1), explore)
    own = Policy(algorithm, learner)(observation, np.random.default_rng(1), explore)
    frozen = Policy(algorithm, offline)(observation)
    from_own, from_frozen = ((a == action).reshape(200, -1).all(1) for a in (own, frozen))
    assert (from_own | from_frozen).all()
    assert (from_own & ~from_frozen).any()
    assert (from_frozen & ~from_own).any()
    if kind == "continuous":
        assert policy(observation[0], np.random.default_rng(1), explore).shape == (2,)


@every_member
def test_the_offline_policy_is_frozen_and_the_online_one_fresh_with_optimiser_and_target(name, kind):
    algorithm, bridge = small(name), PolicyExpansion()
    given = random_learner(algorithm, kind=kind)
    given = replace(given, optimisers=jax.tree.map(lambda leaf: leaf + 1, given.optimisers))
    learner, state = bridge.attach(given, handover(algorithm, kind), jax.random.key(3))
    fresh = algorithm.init(jax.random.key(3), KINDS[kind]).actor
    assert same_bits(state, given.nets.actor)
    assert same_bits(learner.nets.actor, fresh)
    untouched = init_learner(algorithm, learner.nets, given.normaliser).optimisers["actor"]
    assert same_bits(learner.optimisers["actor"], untouched)
    if "target_actor" in given.nets:
        assert same_bits(learner.nets.target_actor, fresh)
    others = {role for role in learner.nets.roles() if role not in ("actor", "target_actor")}
    assert others == {role for role in given.nets.roles() if role not in ("actor", "target_actor")}
    for role in others:
        assert same_bits(getattr(learner.nets, role), getattr(given.nets, role))
    for role in learner.optimisers.keys() - {"actor"}:
        assert same_bits(learner.optimisers[role], given.optimisers[role])
    leaves = jax.tree.leaves((learner.nets, learner.optimisers, state))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    shapes = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(bridge.skeleton(algorithm, KINDS[kind]))]
    assert shapes == [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]


def test_updates_move_the_online_policy_and_leave_the_offline_one():
    algorithm, bridge = small("sac"), PolicyExpansion()
    learner = attach((bridge,), algorithm)
    before = clone(learner)
    batch = jax.tree.map(jax.numpy.asarray, transitions())
    after, _ = actor_update(algorithm, (bridge,), learner, batch, jax.random.key(0))
    assert same_bits(after.bridges, before.bridges)
    assert not same_bits(after.nets.actor, before.nets.actor)


def test_with_a_jump_start_the_guide_is_the_offline_policy_and_acts_first():
    """Whatever the order of the recipe: the guide is copied before the actor is exchanged."""
    algorithm = small("td3")
    given = random_learner(algorithm)
    bridges = (PolicyExpansion(inverse_temperature=0.0), JumpStart(longest=10))
    learner = attach(bridges, algorithm, learner=clone(given))
    assert same_bits(learner.bridges[1].guide.actor, given.nets.actor)
    assert not same_bits(learner.nets.actor, given.nets.actor)
    observation = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    policy = Policy(algorithm, learner, bridges)
    own, (pex, _) = policy.start(50)
    action = policy.act(observation, (own, (pex, np.arange(50))), np.random.default_rng(0), False).action
    frozen = Policy(algorithm, given)(observation)
    assert np.array_equal(action[:10], frozen[:10])
    assert 0 < (action[10:] == frozen[10:]).all(1).sum() < 40


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("inverse_temperature", -1.0, "at least 0"),
        ("greedy", -0.1, "between 0 and 1"),
        ("greedy", 1.1, "between 0 and 1"),
    ],
)
def test_a_hyper_parameter_out_of_range_names_the_range(field, value, expected):
    with pytest.raises(RecipeError, match=f"policy-expansion: {field} is {value!r}; expected {expected}$"):
        PolicyExpansion(**{field: value})
