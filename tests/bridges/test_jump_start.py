"""Jump start: who acts at which step of an episode, and when the horizon shrinks."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handovers import handover, log
from hypothesis import given
from hypothesis import strategies as st

from helpers import few, random_learner, same_bits, small
from segue.bridges import CriticRefit, Guard, JumpStart, PolicyExpansion, Report
from segue.core import Normaliser
from segue.envs import environment_spaces
from segue.envs.record import record
from segue.errors import RecipeError
from segue.policy import Policy
from segue.training.update import init_learner, replace

ACTORS = [("sac", "continuous"), ("td3", "continuous"), ("awac", "discrete"), ("dqn", "discrete")]
REFERENCE = np.array([90.0, 110.0])
LEARNT = random_learner(small("sac"))


def state_at(bridge: JumpStart, horizon: int, longest: int | None = None):
    state = bridge.state(LEARNT.nets, longest or horizon)
    return state._replace(horizon=jnp.asarray(horizon, jnp.int32))


def report(*returns: float, step: int = 7, reference=REFERENCE) -> Report:
    return Report(step, np.array(returns, float), np.ones(len(returns), bool), reference, LEARNT)


def horizons(bridge: JumpStart, longest: int, returns: list[float], reference=REFERENCE) -> list[int]:
    """The horizon after each return, reviewed one by one."""
    state, seen = state_at(bridge, longest), []
    for x in returns:
        state = bridge.review(state, report(x, reference=reference)).state
        seen.append(int(state.horizon))
    return seen


@pytest.mark.parametrize(("name", "kind"), ACTORS)
@pytest.mark.parametrize("explore", [False, True])
def test_the_guide_acts_before_the_horizon_and_the_learner_after_it(name, kind, explore):
    """Six environments at different times of their episodes."""
    algorithm, bridge = small(name), JumpStart(longest=10)
    learner, guide = random_learner(algorithm, 0, kind), random_learner(algorithm, 1, kind)
    state = bridge.state(guide.nets, 10)
    rng = np.random.default_rng(0)
    observation = rng.normal(size=(6, 3)).astype(np.float32)
    time = np.array([0, 9, 10, 11, 3, 500])
    together = Policy(algorithm, replace(learner, bridges=(state,)), (bridge,))
    own, _ = together.start(6)
    acted = together.act(observation, (own, (time,)), np.random.default_rng(5), explore)
    action = acted.action
    assert np.array_equal(acted.carry[1][0], time + 1)
    own = Policy(algorithm, learner)(observation, np.random.default_rng(5), explore)
    guides = Policy(algorithm, guide)(observation, explore=False)
    guided = time < 10
    assert np.array_equal(action[guided], guides[guided])
    assert np.array_equal(action[~guided], own[~guided])
    assert action.dtype == own.dtype
    if kind == "continuous":
        assert not np.isclose(own, guides).any()


def test_a_recording_of_the_policy_has_the_guide_in_it():
    algorithm, bridge, spaces = small("td3"), JumpStart(longest=2), environment_spaces("Pendulum-v1")
    learner, guide = (
        init_learner(algorithm, algorithm.init(jax.random.key(seed), spaces), Normaliser.identity(3)) for seed in (0, 1)
    )
    together = Policy(algorithm, replace(learner, bridges=(bridge.state(guide.nets, 2),)), (bridge,))
    policies = together, Policy(algorithm, guide), Policy(algorithm, learner)
    both, guides, own = (
        record(policy, "Pendulum-v1", 3, explore=False, seed=0, part=0)[0].actions for policy in policies
    )
    assert np.array_equal(both[:2], guides[:2])
    assert both[0] != own[0]
    assert both[2] != guides[2]


def test_the_guide_is_what_was_handed_over_in_buffers_of_its_own():
    algorithm, bridge = small("td3"), JumpStart(longest=4)
    learner = random_learner(algorithm)
    after, state = bridge.attach(learner, handover(algorithm), jax.random.key(0))
    assert same_bits(after.nets, learner.nets)
    assert same_bits(state.guide.actor, learner.nets.actor)
    assert set(state.guide.roles()) == {"actor", "critic"}
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state.guide, learner.nets))]
    assert len(pointers) == len(set(pointers))


def test_by_default_it_acts_as_long_as_the_datasets_better_half_lasts():
    """Episodes of 4, 6, 10 and 44 steps that earn 1, 2, 3 and 4: the better half lasts 27 steps on average."""
    whole = log()
    starts = np.array([0, 4, 10, 20])
    rewards = np.zeros(64, np.float32)
    rewards[starts] = [1, 2, 3, 4]
    made = dataclasses.replace(whole, rewards=rewards, terminals=np.zeros(64, bool), episode_starts=starts)
    algorithm = small("sac")
    _, state = JumpStart().attach(random_learner(algorithm), handover(algorithm, dataset=made), jax.random.key(0))
    assert int(state.horizon) == int(state.longest) == 27
    _, state = JumpStart(longest=5).attach(random_learner(algorithm), handover(algorithm), jax.random.key(0))
    assert int(state.horizon) == 5
    assert JumpStart().describe(state) == ("jump-start: the offline policy acts for the first 5 steps of each episode",)


def test_the_curriculum_shrinks_when_a_whole_window_is_within_the_tolerance_of_the_best():
    """The reference's mean is 100, so the first bar is 90; a window of 100 after one of 120 is below 108."""
    bridge = JumpStart(stages=4, window=2, tolerance=0.1)
    returns = [89, 90, 91, 89, 121, 119, 100, 100, 108, 108]
    expected = [40, 40, 40, 30, 30, 20, 20, 20, 20, 10]
    assert horizons(bridge, 40, returns) == expected


def test_a_return_on_the_bar_is_enough_and_one_below_it_is_not():
    bridge = JumpStart(stages=2, window=2, tolerance=0.1)
    assert horizons(bridge, 10, [90, 90])[-1] == 5
    assert horizons(bridge, 10, [90, 89.9])[-1] == 10


def test_a_share_of_a_negative_return_may_be_lost_as_well():
    """The reference is −100: the bar is −110."""
    bridge = JumpStart(stages=2, window=2, tolerance=0.1)
    assert horizons(bridge, 10, [-109.0, -110.0], -REFERENCE)[-1] == 5
    assert horizons(bridge, 10, [-111.0, -110.0], -REFERENCE)[-1] == 10


@few
@given(
    st.lists(st.floats(50, 150, width=32), min_size=4, max_size=4),
    st.sampled_from([0.5, 0.9, 0.99]),
    st.sampled_from([0.0, 0.1]),
)
def test_the_conservative_rule_shrinks_exactly_when_its_lower_bound_reaches_the_bar(returns, confidence, tolerance):
    """mean − t · s/√n ≥ (1 − tolerance) · 100, t from a table of Student's t with three degrees of freedom."""
    z = {0.5: 0.0, 0.9: 1.6377443536962104, 0.99: 4.540702858568124}[confidence]
    bridge = JumpStart(rule="conservative", stages=1, window=4, confidence=confidence, tolerance=tolerance)
    bound = np.mean(returns) - z * np.std(returns, ddof=1) / 2
    bar = (1 - tolerance) * 100
    if abs(bound - bar) > 1e-3:
        assert horizons(bridge, 8, returns)[-1] == (0 if bound >= bar else 8)


def test_the_conservative_rule_does_not_ask_for_ever_more():
    """After a window of 200, one of 100 is still as good as what was handed over; the curriculum asks for 180."""
    returns = [200.0] * 2 + [100.0] * 2
    assert horizons(JumpStart(rule="conservative", stages=4, window=2), 8, returns)[-1] == 4
    assert horizons(JumpStart(rule="curriculum", stages=4, window=2), 8, returns)[-1] == 6


@pytest.mark.parametrize(("longest", "stages"), [(1, 10), (3, 10), (10, 10), (25, 10), (7, 3), (1000, 1)])
def test_the_horizon_reaches_zero_in_at_most_so_many_stages_and_stays_there(longest, stages):
    seen = horizons(JumpStart(stages=stages, window=2), longest, [100.0] * (2 * stages + 4))
    step = math.ceil(longest / stages)
    assert seen[2 * stages - 1] == 0
    assert seen == [max(longest - step * ((n + 1) // 2), 0) for n in range(len(seen))]


def test_after_each_decision_the_window_is_filled_anew():
    bridge = JumpStart(stages=4, window=3)
    shrunk = bridge.review(state_at(bridge, 8), report(100, 100, 100))
    assert int(shrunk.state.horizon) == 6
    assert np.isnan(shrunk.state.recent).all()
    waiting = bridge.review(shrunk.state, report(100, 100))
    assert int(waiting.state.horizon) == 6
    assert np.array_equal(waiting.state.recent, [np.nan, 100, 100], equal_nan=True)


def test_of_many_returns_at_once_the_latest_window_decides_and_one_stage_is_taken():
    bridge = JumpStart(stages=4, window=2)
    good_last = bridge.review(state_at(bridge, 8), report(0, 0, 0, 0, 100, 100))
    bad_last = bridge.review(state_at(bridge, 8), report(100, 100, 100, 100, 0, 0))
    assert (int(good_last.state.horizon), int(bad_last.state.horizon)) == (6, 8)


def test_a_shrinking_horizon_is_an_event_and_a_metric():
    bridge = JumpStart(stages=4, window=2)
    review = bridge.review(state_at(bridge, 8), report(100.25, 100.25, step=1234))
    assert review.verdict == "go on"
    assert review.event == "the guide's horizon shrinks to 6 (mean return 100.2 at step 1234)"
    assert review.metrics == {"jump_start_horizon": 8}
    after = bridge.review(review.state, report())
    assert after.event is None
    assert after.metrics == {"jump_start_horizon": 6}
    assert after.state is review.state


def test_episodes_that_mix_two_horizons_do_not_count():
    bridge = JumpStart(stages=4, window=2)
    shrunk = bridge.review(state_at(bridge, 8), report(100, 100))
    assert shrunk.renewed
    mixed = dataclasses.replace(report(0, 100), whole=np.array([False, True]))
    waiting = bridge.review(shrunk.state, mixed)
    assert not waiting.renewed
    assert np.array_equal(waiting.state.recent, [np.nan, 100], equal_nan=True)


def test_a_horizon_that_a_lucky_window_holds_says_so_once():
    bridge, events = JumpStart(stages=4, window=2), []
    state = bridge.review(state_at(bridge, 8), report(200, 200)).state
    for _ in range(24):
        review = bridge.review(state, report(100, 100, step=9))
        state, events = review.state, [*events, review.event]
    assert [event for event in events if event] == [
        "the guide's horizon has stayed at 6 for 10 windows of 2 episodes: 100 is not within 10% of 200 at step 9"
    ]
    assert events[9]


@pytest.mark.parametrize("confidence", [0.9, pytest.param(0.8, marks=pytest.mark.slow)])
def test_the_conservative_rule_errs_no_more_often_than_its_confidence_says(confidence):
    """Returns that are on average exactly at the bar let the horizon shrink in at most that share of 200 windows."""
    bridge = JumpStart(rule="conservative", stages=1, window=5, confidence=confidence, tolerance=0.0)
    rng = np.random.default_rng(0)
    state = state_at(bridge, 8)
    shrunk = [int(bridge.review(state, report(*rng.normal(100, 30, 5))).state.horizon) == 0 for _ in range(200)]
    assert abs(np.mean(shrunk) - (1 - confidence)) < 3 * math.sqrt(confidence * (1 - confidence) / 200)


def test_a_review_changes_numbers_only_so_that_updates_are_compiled_once():
    bridge, learner = JumpStart(window=2), random_learner(small("sac"))
    _, state = bridge.attach(learner, handover(small("sac")), jax.random.key(0))

    def kinds(tree):
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
        return jax.tree.structure(tree), [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in leaves]

    assert kinds(bridge.review(state, report(100)).state) == kinds(state)
    assert kinds(bridge.review(state, report(100, 100)).state) == kinds(state)


def test_the_critic_is_refitted_before_the_guide_is_copied_and_that_before_the_policy_is_exchanged():
    order = [bridge.attach_order for bridge in (CriticRefit, JumpStart, PolicyExpansion, Guard)]
    assert order == sorted(set(order))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("stages", 0, "at least 1"),
        ("longest", 0, "at least 1"),
        ("window", 1, "at least 2"),
        ("tolerance", 1.0, "at least 0 and below 1"),
        ("confidence", 0.4, "at least 0.5 and below 1"),
        ("confidence", 1.0, "at least 0.5 and below 1"),
    ],
)
def test_a_hyper_parameter_out_of_range_names_the_range(field, value, expected):
    with pytest.raises(RecipeError, match=f"jump-start: {field} is {value!r}; expected {expected}$"):
        JumpStart(**{field: value})
