"""Earned freedom: what widens and narrows ε, which policy the next bound is measured from, and how rarely luck does."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handovers import KEY, attach
from hypothesis import given
from hypothesis import strategies as st

from helpers import KINDS, actor_update, few, for_each, random_learner, same_bits, small, transitions
from segue.bridges import EarnedFreedom, Report
from segue.bridges.earned_freedom import FEWEST, MOST, NEAR, State
from segue.errors import RecipeError
from segue.evidence import ranking_evidence
from segue.training.update import replace

BRIDGE = EarnedFreedom(distance="squared", epsilon=0.01, factor=4.0)
LEARNT = random_learner(small("td3"))
#: What the policy that was handed over earned in twenty episodes.
REFERENCE = np.arange(100.0, 120.0)


def fresh(bridge: EarnedFreedom = BRIDGE) -> State:
    """The state at the handover, of a policy that is known by the number 0; its average has become 7 since."""
    state = bridge.state(jnp.asarray(0.0), jnp.asarray(1.0))
    return state._replace(average=jnp.asarray(7.0))


def after(*returns: float, bridge: EarnedFreedom = BRIDGE, state: State | None = None) -> tuple[Any, list[str]]:
    """The last review of one per episode, and all events."""
    state, review, events = fresh(bridge) if state is None else state, None, []
    for step, one in enumerate(returns):
        review = bridge.review(state, Report(step, np.array([one]), np.ones(1, bool), REFERENCE, LEARNT))
        state, events = review.state, [*events, *filter(None, [review.event])]
    return review, events


def known(column: Any) -> list[float]:
    return [value for value in np.asarray(column).tolist() if value == value]


BETTER = (130.0, 131.0, 132.0, 133.0, 134.0)


def test_episodes_that_are_better_widen_the_bound_around_the_average_of_the_policies_that_earned_them():
    review, events = after(*BETTER)
    assert float(review.state.epsilon) == pytest.approx(0.04)
    assert float(review.state.anchor) == 7
    assert known(review.state.earned) == [], (
        "those that won were chosen for being high, so nothing is compared with them"
    )
    assert known(review.state.tried) == []
    assert events == [
        "widened to 0.04 at step 4: 132 on average of 5 episodes, where the reference earned 109.5",
    ]
    buffers = [leaf.unsafe_buffer_pointer() for leaf in (review.state.anchor, review.state.average)]
    assert len(set(buffers)) == 2, "the next dispatch takes over the buffers of each"


def test_fewer_episodes_widen_nothing_however_good():
    review, events = after(*[1e6] * (FEWEST - 1))
    assert float(review.state.epsilon) == pytest.approx(0.01)
    assert events == []


def test_good_ranks_do_not_outweigh_a_lower_mean():
    """Fifteen of twenty episodes earned nothing before, and now each earns 1; but the other five earned 100."""
    seldom = np.repeat([0.0, 100.0], [15, 5])
    assert ranking_evidence(seldom, np.ones(10)) > 20
    report = Report(1, np.ones(10), np.ones(10, bool), seldom, LEARNT)
    assert int(BRIDGE.review(fresh(), report).state.widened) == 0


def test_two_episodes_below_all_of_the_anchors_narrow_the_bound_around_the_same_anchor():
    review, events = after(20.0)
    assert events == []
    review, events = after(20.0, 30.0)
    assert float(review.state.epsilon) == pytest.approx(0.0025)
    assert float(review.state.anchor) == 0
    assert known(review.state.earned) == REFERENCE.tolist()
    assert events == [
        "narrowed to 0.0025 at step 1: 25 on average of 2 episodes, where the reference earned 109.5",
    ]


def test_after_a_widening_the_next_episodes_of_the_learner_are_the_reference_and_no_trial():
    widened, _ = after(*BETTER)
    collected, events = after(*REFERENCE[:-1], state=widened.state)
    assert events == []
    assert known(collected.state.tried) == []
    both = Report(1, np.array([REFERENCE[-1], 20.0]), np.ones(2, bool), np.zeros(20), LEARNT)
    begun = BRIDGE.review(collected.state, both).state
    assert known(begun.earned) == REFERENCE.tolist(), "not what the policy that was handed over earned"
    assert known(begun.tried) == [20]
    review, events = after(30.0, state=begun)
    assert float(review.state.epsilon) == pytest.approx(0.01)
    assert events == ["narrowed to 0.01 at step 0: 25 on average of 2 episodes, where the reference earned 109.5"]
    assert float(review.state.anchor) == 7


def test_without_a_reference_the_first_episodes_of_the_learner_are_it():
    """A Python agent may have none."""
    state = fresh()
    for count, one in enumerate([*REFERENCE, 20.0, 30.0]):
        assert int(state.narrowed) == 0
        assert known(state.earned) == REFERENCE[:count].tolist()
        state = BRIDGE.review(state, Report(1, np.array([one]), np.ones(1, bool), np.zeros(0), LEARNT)).state
    assert int(state.narrowed) == 1


def test_episodes_count_only_while_the_policy_is_near_the_bound():
    for away, expected in ((NEAR * 0.0099, [20.0]), (NEAR * 0.0101, [])):
        state = fresh()._replace(away=jnp.asarray(away, jnp.float32))
        review, _ = after(20.0, state=state)
        assert known(review.state.tried) == expected


def test_a_narrowing_waits_until_the_policy_has_come_back_to_the_last_one():
    state = fresh()._replace(away=jnp.asarray(0.01, jnp.float32))
    review, events = after(*[20.0] * 30, state=state)
    assert len(events) == 1
    review, events = after(20.0, 20.0, state=review.state._replace(away=jnp.asarray(0.0025, jnp.float32)))
    assert events == ["narrowed to 0.000625 at step 1: 20 on average of 2 episodes, where the reference earned 109.5"]


def test_the_bound_is_never_less_than_two_narrowings_below_the_one_at_the_handover():
    review, events = after(*[20.0] * 8)
    assert float(review.state.epsilon) == pytest.approx(0.01 / 16)
    assert int(review.state.narrowed) == 2
    assert events[2:] == [
        f"worse, but the bound is at its smallest, 0.000625 at step {step}: 20 on average of 2 episodes, "
        "where the reference earned 109.5"
        for step in (5, 7)
    ]


def test_the_state_knows_how_far_the_last_batch_was():
    algorithm, batch = small("td3"), jax.tree.map(jnp.asarray, transitions())
    learner = attach((BRIDGE,), algorithm)
    state = learner.bridges[0]._replace(anchor=random_learner(algorithm, 1).nets.actor)
    learner, metrics = actor_update(algorithm, (BRIDGE,), replace(learner, bridges=(state,)), batch, KEY)
    assert float(metrics["constraint"]) > 0
    assert float(learner.bridges[0].away) == pytest.approx(float(metrics["constraint"]))


@pytest.mark.parametrize(
    ("name", "options", "distance", "epsilon"),
    [
        ("sac", {}, "kl", 0.05),
        ("td3", {}, "squared", 0.01),
        ("sac", {"distance": "squared"}, "squared", 0.01),
        ("sac", {"epsilon": 0.2}, "kl", 0.2),
    ],
)
def test_the_distance_and_the_bound_suit_the_policy_where_none_is_given(name, options, distance, epsilon):
    bridge, algorithm = EarnedFreedom(**options), small(name)
    learner = attach((bridge,), algorithm)
    (state,) = learner.bridges
    assert bridge.describe(state)[0] == f"earned-freedom: the distance is {distance}, and ε starts at {epsilon:g}"
    assert jax.tree.structure(bridge.skeleton(algorithm, KINDS["continuous"])) == jax.tree.structure(state)
    batch, other = jax.tree.map(jnp.asarray, transitions()), random_learner(algorithm, 1).nets.actor
    explicit = EarnedFreedom(distance=distance, epsilon=epsilon)
    expected = float(explicit.deviation(learner.nets.actor, other, batch))
    state, loss = state._replace(anchor=other), jnp.zeros(len(batch.reward))
    _, aux = bridge.actor_penalty(state, learner.nets.actor, learner.nets, batch, loss, KEY)
    assert float(aux["constraint"]) == pytest.approx(expected)


def test_episodes_that_began_before_a_decision_say_nothing_of_what_followed():
    review, _ = after(*BETTER)
    assert review.renewed
    shared = Report(9, np.zeros(10), np.zeros(10, bool), REFERENCE, LEARNT)
    assert known(BRIDGE.review(review.state, shared).state.tried) == []


def test_after_a_decision_the_other_episodes_of_the_report_are_left_out():
    together = Report(1, np.array([20.0, 30.0, 40.0, 50.0]), np.ones(4, bool), REFERENCE, LEARNT)
    review = BRIDGE.review(fresh(), together)
    assert int(review.state.narrowed) == 1
    assert known(review.state.tried) == []


def test_a_trial_that_shows_nothing_ends_and_its_episodes_are_forgotten():
    review, events = after(*[float(np.median(REFERENCE))] * MOST)
    assert events == []
    assert len(known(review.state.tried)) < MOST
    assert float(review.state.epsilon) == pytest.approx(0.01)


def test_a_policy_that_is_neither_better_nor_worse_seldom_widens_the_bound():
    """Or narrows it: α allows 15 of 300 trials, though each may be decided after any episode."""
    rng, widened, narrowed = np.random.default_rng(0), 0, 0
    for _ in range(300):
        reference, state = rng.normal(size=20), fresh()
        while True:
            report = Report(1, rng.normal(size=1), np.ones(1, bool), reference, LEARNT)
            state = BRIDGE.review(state, report).state
            if not known(state.tried):
                break
        widened, narrowed = widened + int(state.widened), narrowed + int(state.narrowed)
    assert 0 < widened <= 15
    assert 0 < narrowed <= 15


def test_after_a_lucky_widening_the_next_trial_of_the_same_policy_is_seldom_narrowed():
    """The five that won were the best of many: compared with them, the same policy would nearly always look worse."""
    rng, narrowed, trials = np.random.default_rng(0), 0, 300
    for _ in range(trials):
        reference, state = rng.normal(size=20), fresh()
        lucky = reference.max() + rng.exponential(size=FEWEST)
        for returns in (lucky, rng.normal(size=MOST)):
            state = BRIDGE.review(state, Report(1, returns, np.ones(len(returns), bool), reference, LEARNT)).state
        assert int(state.widened) == 1
        while True:
            report = Report(1, rng.normal(size=1), np.ones(1, bool), reference, LEARNT)
            state = BRIDGE.review(state, report).state
            if not known(state.tried):
                break
        narrowed += int(state.narrowed)
    assert 0 < narrowed <= 15


@few
@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=6),
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_a_worse_return_never_adds_evidence_so_a_learner_that_changes_earns_nothing_by_it(earned, tried, place):
    """Why the promise holds for a policy that moves, as long as none of its episodes is likely to be better."""
    lower = list(tried)
    lower[place % len(lower)] -= 3
    old, one, other = np.array(earned, float), np.array(tried, float), np.array(lower, float)
    assert ranking_evidence(old, other) <= ranking_evidence(old, one) * (1 + 1e-9)
    assert ranking_evidence(other, old) >= ranking_evidence(one, old) * (1 - 1e-9)


def test_the_price_rises_when_the_bound_is_narrowed_and_falls_when_it_is_widened():
    algorithm, batch = small("td3"), jax.tree.map(jnp.asarray, transitions())
    prices = {}
    for epsilon in (1e-9, 1e6):
        learner = attach((BRIDGE,), algorithm)
        state = learner.bridges[0]._replace(
            epsilon=jnp.asarray(epsilon, jnp.float32), anchor=random_learner(algorithm, 1).nets.actor
        )
        before = float(state.log_multiplier)
        learner, metrics = actor_update(algorithm, (BRIDGE,), replace(learner, bridges=(state,)), batch, KEY)
        prices[epsilon] = float(learner.bridges[0].log_multiplier) - before
        assert (float(metrics["constraint_violation"]) > 0) == (epsilon < 1)
    assert prices[1e-9] > 0 > prices[1e6]


def test_the_average_follows_the_policy_and_the_anchor_stays():
    algorithm, batch = small("td3"), jax.tree.map(jnp.asarray, transitions())
    bridge = EarnedFreedom(polyak=0.25)
    before = attach((bridge,), algorithm)
    state = before.bridges[0]
    assert same_bits(state.anchor, before.nets.actor)
    learner = before
    for _ in range(2):
        old = learner.bridges[0].average
        learner, _ = actor_update(algorithm, (bridge,), learner, batch, KEY)
        trees = (learner.bridges[0].average, learner.nets.actor, old)
        for average, policy, last in zip(*map(jax.tree.leaves, trees), strict=True):
            np.testing.assert_allclose(average, 0.25 * np.asarray(policy) + 0.75 * np.asarray(last), atol=1e-6)
    assert same_bits(learner.bridges[0].anchor, state.anchor)
    assert not same_bits(learner.nets.actor, before.nets.actor)


@for_each("field", ["factor", "alpha"])
def test_a_hyper_parameter_out_of_range_names_the_range(field):
    expected = {"factor": "above 1", "alpha": "between 0 and 1, both excluded"}[field]
    with pytest.raises(RecipeError) as error:
        EarnedFreedom(**{field: 1.0})
    assert str(error.value) == f"earned-freedom: {field} is 1.0; expected {expected}"
