"""The Q-filter: what it keeps, what it weighs, and that filtering everything is no accident."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handovers import attach, log
from hypothesis import example, given
from hypothesis import strategies as st

from helpers import (
    KINDS,
    MEMBERS,
    actor_update,
    critic_update,
    few,
    finite,
    policy_role,
    random_learner,
    same_bits,
    small,
    transitions,
)
from segue.bridges import BRIDGES, Bridge, QFilter
from segue.bridges.base import weighted_mean
from segue.core import Learner, Nets
from segue.errors import RecipeError
from segue.rng import named

BATCHES = {kind: jax.tree.map(jnp.asarray, transitions(kind=kind)) for kind in KINDS}
BATCH = BATCHES["continuous"]
KEY = jax.random.key(0)


def weights(bridge: QFilter, q: Any) -> np.ndarray:
    """The weights it gives to samples that the ensemble rates so; q is [members, batch]."""
    q = np.atleast_2d(np.asarray(q, np.float32))
    batch = transitions(q.shape[1])
    weight, aux = bridge.actor_weight((), Nets(critic=lambda s, a: jnp.asarray(q)), batch, KEY)
    assert weight.shape == (q.shape[1],)
    assert np.array_equal(aux["q_filter_kept"], np.asarray(weight) == 1)
    return np.asarray(weight)


def batches(samples: st.SearchStrategy) -> st.SearchStrategy:
    """Batches of a few sizes, since each size is compiled."""
    return st.sampled_from([1, 2, 3, 16, 41]).flatmap(lambda size: st.lists(samples, min_size=size, max_size=size))


def with_bridges(learner: Learner, *states: Any) -> Learner:
    return Learner(learner.nets, learner.optimisers, states, learner.step, learner.normaliser)


def test_a_quarter_of_the_samples_is_filtered_at_the_25th_percentile():
    q = np.random.default_rng(0).permutation(100)
    kept = weights(QFilter(percentile=25), q)
    assert kept.sum() == 75
    assert q[kept == 0].max() < q[kept == 1].min()


@few
@example(q=[3, 3, 3], quarters=1)  # interpolating between equal values once filtered them all
@given(
    q=batches(st.integers(-3, 3)),
    quarters=st.integers(0, 400),
)
def test_at_least_the_promised_share_is_kept_whatever_the_ties(q, quarters):
    """Of n samples, ⌈p (n − 1)⌉ lie below the percentile p."""
    kept = weights(QFilter(percentile=quarters / 4), q)
    assert kept.sum() >= 1
    assert kept.sum() >= len(q) - math.ceil(quarters * (len(q) - 1) / 400)
    q = np.array(q)
    if 0 in kept:
        assert q[kept == 0].max() < q[kept == 1].min()


def test_equal_values_are_all_kept():
    assert (weights(QFilter(percentile=99), np.full(10, 0.3)) == 1).all()


def test_the_ends_of_the_percentile_keep_everything_and_the_best():
    q = np.random.default_rng(0).permutation(20)
    assert (weights(QFilter(percentile=0), q) == 1).all()
    assert np.array_equal(weights(QFilter(percentile=100), q), q == 19)


def test_the_least_optimistic_member_decides():
    q = [[0, 9, 5, 7], [9, 1, 6, 7]]
    assert np.array_equal(weights(QFilter(rule="fixed", threshold=5.0), q), [0, 0, 1, 1])


def test_a_fixed_threshold_replaces_the_percentile_and_keeps_what_reaches_it():
    q = [-2, -1, 0, 1]
    assert np.array_equal(weights(QFilter(rule="fixed", threshold=-1.0, percentile=100), q), [0, 1, 1, 1])
    assert np.array_equal(weights(QFilter(rule="fixed"), q), [0, 0, 1, 1])


def test_filtered_samples_weigh_the_low_weight():
    kept = weights(QFilter(percentile=50, low_weight=0.25), np.arange(10))
    assert np.array_equal(kept, [0.25] * 5 + [1] * 5)


class Rated(NamedTuple):
    """min_i Q_i(s, a), V(s) where there is one, and min_i Q_i(s, π(s)), from the nets themselves."""

    q: np.ndarray
    v: np.ndarray | None
    own: np.ndarray


def rated(nets: Nets, observation: np.ndarray, action: np.ndarray) -> Rated:
    value = None if "value" not in nets else np.asarray(nets.value(observation))[:, 0]
    q, own = (np.asarray(nets.critic(observation, a)).min(0) for a in (action, nets.actor.mode(observation)))
    return Rated(q, value, own)


@pytest.mark.parametrize(("name", "kind"), [("iql", "continuous"), ("sac", "continuous"), ("discrete-sac", "discrete")])
@pytest.mark.parametrize("rule", ["percentile", "fixed"])
def test_the_advantage_is_over_v_or_without_one_over_the_policys_action(name, kind, rule):
    learner, batch = random_learner(small(name), seed=3, kind=kind), BATCHES[kind]
    of = rated(learner.nets, batch.observation, batch.action)
    advantage = of.q - (of.own if of.v is None else of.v)
    assert (of.v is None) == (name != "iql")
    limit = np.sort(advantage)[9]
    options = {"rule": rule, "percentile": 60.0, "threshold": float(limit), "low_weight": 0.25}
    weight, aux = QFilter(on="advantage", **options).actor_weight((), learner.nets, batch, KEY)
    assert np.array_equal(weight, np.where(advantage >= limit, 1, 0.25))
    assert np.array_equal(aux["q_filter_kept"], advantage >= limit)
    by_q, _ = QFilter(on="q", **options).actor_weight((), learner.nets, batch, KEY)
    assert not np.array_equal(by_q, weight)


def test_a_fixed_advantage_of_0_is_the_filter_of_nair_et_al():
    """1[Q(s, a) > Q(s, π(s))]."""
    nets = random_learner(small("sac"), seed=3).nets
    of = rated(nets, BATCH.observation, BATCH.action)
    weight, _ = QFilter(on="advantage", rule="fixed").actor_weight((), nets, BATCH, KEY)
    assert np.array_equal(weight, of.q > of.own)
    assert 0 < np.sum(weight) < 16


@pytest.mark.parametrize("on", ["q", "advantage"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_average_rule_keeps_what_beats_the_dataset_under_todays_critic(on, kind):
    bridge, algorithm = QFilter(on=on, rule="average", low_weight=0.5), small("iql")
    learner = attach((bridge,), algorithm, kind)
    (state,), data = learner.bridges, log(kind)
    rows = [row.tobytes() for row in data.observations]
    drawn = [rows.index(row.tobytes()) for row in np.asarray(state[0])]
    assert np.array_equal(state[1], data.actions[drawn])
    assert len(set(drawn)) > 50  # of 64
    for seed in (0, 1):  # as the critic moves, so does the average
        nets = random_learner(algorithm, seed, kind).nets
        sample, here = (rated(nets, *pair) for pair in (state, (BATCHES[kind].observation, BATCHES[kind].action)))
        threshold = (sample.q - (sample.v if on == "advantage" else 0)).mean()
        kept = here.q - (here.v if on == "advantage" else 0) >= threshold
        weight, _ = bridge.actor_weight(state, nets, BATCHES[kind], KEY)
        assert np.array_equal(weight, np.where(kept, 1, 0.5))
        assert 0 < kept.sum() < 16


def test_only_the_average_rule_wants_a_dataset():
    assert [QFilter(rule=rule).wants_dataset() for rule in ("percentile", "fixed", "average")] == [False, False, True]


def test_a_filter_reads_the_critic_at_the_datasets_own_actions():
    learner = random_learner(small("sac"))
    q = np.asarray(learner.nets.critic(BATCH.observation, BATCH.action).min(0))
    kept, _ = QFilter(percentile=25).actor_weight((), learner.nets, BATCH, KEY)
    assert np.array_equal(kept, q >= np.percentile(q, 25))
    assert 0 < np.sum(kept) < len(q)


@few
@given(batches(st.tuples(st.floats(-5, 5, width=32), st.sampled_from([0.0, 0.25, 1.0]))))
def test_the_loss_is_the_weighted_mean(pairs):
    loss, weight = np.array(pairs, np.float32).T
    expected = (weight * loss).sum() / weight.sum() if weight.sum() else 0.0
    assert float(weighted_mean(jnp.asarray(loss), jnp.asarray(weight))) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_no_weight_at_all_is_a_loss_of_zero_with_a_gradient_of_zero():
    loss, gradient = jax.value_and_grad(lambda x: weighted_mean(x**2, jnp.zeros(4)))(jnp.arange(4.0))
    assert loss == 0
    assert np.array_equal(gradient, np.zeros(4))


@pytest.mark.parametrize(
    ("loss", "weight"), [((4,), (4, 1)), ((4, 1), (4,)), ((4, 1), (4, 1)), ((4,), (3,)), ((4,), ()), ((), ())]
)
def test_shapes_that_would_broadcast_are_refused(loss, weight):
    with pytest.raises(ValueError, match="same shape"):
        weighted_mean(jnp.ones(loss), jnp.ones(weight))


WITH_A_POLICY = {member: pair for member, pair in MEMBERS.items() if small(pair[0]).policy_step}


@pytest.mark.parametrize(("name", "kind"), WITH_A_POLICY.values(), ids=WITH_A_POLICY)
def test_any_policy_loss_is_filtered_to_the_mean_over_the_kept_samples(name, kind):
    """Also a cloning one, with another algorithm's critic in its nets."""
    algorithm, batch = small(name), jax.tree.map(jnp.asarray, transitions(kind=kind))
    learner = random_learner(algorithm, kind=kind)
    other = random_learner(small("awac"), kind=kind)
    nets = learner.nets.replace(critic=other.nets.critic)
    learner = Learner(nets, learner.optimisers, ((),), learner.step, learner.normaliser)
    bridge = QFilter(percentile=40)
    after, metrics = actor_update(algorithm, (bridge,), learner, batch, KEY)
    weight, _ = bridge.actor_weight((), nets, batch, KEY)
    policy = nets.roles()[policy_role(algorithm)]
    per_sample, _ = algorithm.actor_loss(policy, nets, batch, named(KEY, policy_role(algorithm), "loss"))
    per_sample = np.asarray(per_sample)
    expected = per_sample[np.asarray(weight) == 1].mean()
    assert float(metrics["actor_loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["q_filter_kept"]) == np.mean(weight)
    assert expected != pytest.approx(per_sample.mean(), rel=1e-3)
    assert not same_bits(after.nets.roles()[policy_role(algorithm)], policy)


def test_filtering_every_sample_leaves_the_actor_alone_and_nothing_is_nan():
    algorithm = small("sac")
    learner = with_bridges(random_learner(algorithm), ())
    after, metrics = actor_update(algorithm, (QFilter(rule="fixed", threshold=1e9),), learner, BATCH, KEY)
    assert metrics["actor_loss"] == 0
    assert metrics["q_filter_kept"] == 0
    assert same_bits(after.nets.actor, learner.nets.actor)
    assert finite((after, metrics))


def test_filters_multiply():
    """Two filters leave what both keep."""
    algorithm = small("td3")
    learner = with_bridges(random_learner(algorithm), (), ())
    q = np.asarray(learner.nets.critic(BATCH.observation, BATCH.action).min(0))
    low = QFilter(rule="fixed", threshold=float(np.sort(q)[3]))
    high = QFilter(rule="fixed", threshold=float(np.sort(q)[12]), low_weight=0.5)
    _, metrics = actor_update(algorithm, (low, high), learner, BATCH, KEY)
    weight = (q >= np.sort(q)[3]) * np.where(q >= np.sort(q)[12], 1, 0.5)
    loss, _ = algorithm.actor_loss(learner.nets.actor, learner.nets, BATCH, KEY)
    assert float(metrics["actor_loss"]) == pytest.approx(float((weight * loss).sum() / weight.sum()), rel=1e-5)
    assert weight.sum() == 4 + 0.5 * 9


def test_the_filter_does_not_touch_the_critic():
    algorithm = small("sac")
    learner = random_learner(algorithm)
    plain, _ = critic_update(algorithm, (), learner, BATCH, KEY)
    filtered, _ = critic_update(algorithm, (QFilter(),), with_bridges(learner, ()), BATCH, KEY)
    assert same_bits(plain.nets, filtered.nets)
    assert not same_bits(plain.nets, learner.nets)


class Shifted(Bridge):
    """Adds 1 to what is bootstrapped, 2 to the policy loss, and counts its updates."""

    def bootstrap(self, state, algorithm, nets, batch, next_value, value_key, key):
        return next_value + 1, {"bootstrapped": next_value}

    def actor_penalty(self, state, actor, nets, batch, loss, key):
        return jnp.asarray(2.0), {"shift": jnp.asarray(2.0)}

    def update(self, state, algorithm, nets, batch, aux, key):
        return state + 1, {"seen": aux["shift"]}


def test_hooks_act_where_they_say_and_compose():
    algorithm = small("td3")
    plain = random_learner(algorithm)
    learner = with_bridges(plain, jnp.asarray(0), jnp.asarray(10))
    bridges = (Shifted(), Shifted())
    _, before = critic_update(algorithm, (), plain, BATCH, KEY)
    _, after = critic_update(algorithm, bridges, learner, BATCH, KEY)
    shift = float(after["target_q"] - before["target_q"])
    assert shift == pytest.approx(2 * float(BATCH.discount.mean()), rel=1e-4)
    assert "bootstrapped" in after
    _, before = actor_update(algorithm, (), plain, BATCH, KEY)
    moved, after = actor_update(algorithm, bridges, learner, BATCH, KEY)
    assert float(after["actor_loss"] - before["actor_loss"]) == pytest.approx(4, rel=1e-5)
    assert [int(state) for state in moved.bridges] == [1, 11]
    assert float(after["seen"]) == 2


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("percentile", -0.1, "between 0 and 100"),
        ("percentile", 100.1, "between 0 and 100"),
        ("percentile", float("nan"), "a finite number"),
        ("low_weight", -0.1, "between 0 and 1"),
        ("low_weight", 1.1, "between 0 and 1"),
        ("threshold", float("nan"), "a finite number"),
    ],
)
def test_a_hyper_parameter_out_of_range_names_the_range(field, value, expected):
    with pytest.raises(RecipeError, match=f"q-filter: {field} is {value!r}; expected {expected}$"):
        QFilter(**{field: value})


def test_the_filter_is_registered_and_says_what_it_needs():
    assert BRIDGES["q-filter"] is QFilter
    assert QFilter.needs == ("critic", "actor")
