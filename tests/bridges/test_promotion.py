"""Promotion: who acts in an episode, which policy counts, and how rarely a policy that is no better is promoted."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handovers import KEY, handover, log

from helpers import random_learner, small
from segue.bridges import Promotion, Report
from segue.bridges.base import acting_nets
from segue.bridges.promotion import CANDIDATE, FEWEST, INCUMBENT, LEARNER, NOBODY, RECENT, State
from segue.core import Learner, Nets, Spaces
from segue.evidence import ranking_evidence
from segue.policy import Policy
from segue.replay import OnlineOnly
from segue.runner.checkpoint import Checkpoint
from segue.training.update import replace

BRIDGE = Promotion()
LEARNT = random_learner(small("td3"))


def named(name: int) -> Learner:
    """A learner that is known by one number."""
    return dataclasses.replace(LEARNT, nets=Nets(actor=jnp.asarray(float(name))))


def after(*episodes: tuple[int, float], bridge: Promotion = BRIDGE, state: State | None = None) -> tuple[State, list]:
    """The state after one review per episode (who acted, what it earned), and all events."""
    state = bridge.state(named(0).nets) if state is None else state
    events = []
    for i, (arm, value) in enumerate(episodes):
        state = state._replace(average=named(i).nets)
        arms, one = np.array([arm]), np.array([value])
        review = bridge.review(state, Report(i, one, np.ones(1, bool), np.zeros(0), named(i), arms))
        state, events = review.state, [*events, *filter(None, [review.event])]
    return state, events


KNOWN = tuple((INCUMBENT, value) for value in (10.0, 11.0, 12.0, 13.0, 14.0))


def test_a_candidate_whose_first_three_episodes_are_the_best_is_promoted():
    beginning = (*KNOWN, (LEARNER, 11.0), (LEARNER, 13.0))
    state, _ = after(*beginning, *[(CANDIDATE, 20.0)] * 2)
    assert int(state.promotions) == 0
    assert float(state.candidate.actor) == 6, "the average as it was when an episode of the learner was better"
    state, events = after(*beginning, (CANDIDATE, 20.0), (CANDIDATE, 30.0), (CANDIDATE, 25.0))
    assert int(state.promotions) == 1
    assert float(state.incumbent.actor) == 6
    assert float(state.evidence) == 0
    buffers = [leaf.unsafe_buffer_pointer() for net in state[:3] for leaf in jax.tree.leaves(net)]
    assert len(set(buffers)) == 3, "the next dispatch takes over the buffers of each"
    assert [value for value in state.earned.tolist() if value == value] == [20.0, 30.0, 25.0]
    assert events == [
        "candidate 1 promoted at step 9: 25 on average of 3 episodes, where the incumbent earned 12",
    ]


def test_a_candidate_whose_first_episode_is_below_most_of_the_incumbent_s_is_dropped():
    state, events = after(*KNOWN, (LEARNER, 15.0), (CANDIDATE, 11.5))
    assert events == ["candidate 1 dropped at step 6: 11.5 on average of 1 episode, where the incumbent earned 12"]
    assert float(state.evidence) == 0
    assert float(state.incumbent.actor) == 0
    state, _ = after((CANDIDATE, 99.0), (LEARNER, 15.0), state=state)
    assert int(state.candidates) == 2, "the episodes of a candidate that was dropped say nothing"


def test_why_a_candidate_is_dropped_is_said_where_its_average_does_not_say_it():
    _, events = after(*KNOWN, (LEARNER, 15.0), (CANDIDATE, 50.0), (CANDIDATE, 9.0))
    assert events == [
        "candidate 1 dropped at step 7: 29.5 on average of 2 episodes, where the incumbent earned 12; the test goes "
        "by ranks, and 1 of these earned less than the incumbent's median"
    ]
    strict = dataclasses.replace(BRIDGE, alpha=1e-9)
    _, events = after(*KNOWN, (LEARNER, 15.0), *[(CANDIDATE, 12.5), (CANDIDATE, 13.5)] * 10, bridge=strict)
    assert events == [
        "candidate 1 dropped at step 25: 13 on average of 20 episodes, where the incumbent earned 12; 20 episodes did "
        "not prove it better"
    ]


def test_a_candidate_that_ranks_higher_and_earns_less_is_dropped_as_soon_as_the_ranks_are_clear():
    rare = [(INCUMBENT, value) for value in (10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 900.0)]
    state, events = after(*rare, (LEARNER, 20.0), *[(CANDIDATE, 20.0)] * 20)
    assert events == [
        "candidate 1 dropped at step 14: 20 on average of 4 episodes, where the incumbent earned 102.6; 4 of these "
        "earned more than the incumbent's median, but not more on average"
    ]
    assert int(state.promotions) == 0
    assert float(state.incumbent.actor) == 0


def test_later_candidates_need_more_evidence_and_promotions_lower_it():
    assert BRIDGE.threshold(1, 0) == pytest.approx(20)
    assert BRIDGE.threshold(4, 0) == pytest.approx(200)
    assert BRIDGE.threshold(4, 1) == pytest.approx(100)
    shares = [1 / BRIDGE.threshold(k, 0) for k in range(1, 1000)]
    assert sum(shares) <= BRIDGE.alpha


def test_a_learner_that_equals_an_incumbent_at_its_best_gives_a_candidate():
    state, _ = after(*[(INCUMBENT, 1.0)] * 5, (LEARNER, 1.0))
    assert int(state.candidates) == 1


def test_good_ranks_do_not_outweigh_a_lower_mean():
    episodes = [(CANDIDATE, 15.0)] * 2 + [(CANDIDATE, -1000.0)] + [(CANDIDATE, 15.0)] * 12
    state, events = after(*KNOWN, (LEARNER, 15.0), *episodes)
    assert int(state.promotions) == 0
    assert not any("promoted" in event for event in events)


def test_the_evidence_is_the_likelihood_ratio_of_the_ranking():
    """Against all rankings of the same returns: by the alternative they have probabilities, which sum to 1."""
    values, total = np.arange(6.0), 0.0
    for chosen in itertools.combinations(range(6), 2):
        tried, earned = values[list(chosen)], np.delete(values, list(chosen))
        total += ranking_evidence(earned, tried) / math.comb(6, 2)
    assert total == pytest.approx(1)
    # The best of one of each is the candidate's with odds of 8 to 1.
    assert ranking_evidence(np.array([0.0]), np.array([1.0])) == pytest.approx(2 * 8 / 9)
    assert ranking_evidence(np.array([1.0]), np.array([0.0])) == pytest.approx(2 * 1 / 9)


def test_equal_returns_count_as_the_mean_over_their_orders() -> None:
    """An order of them is a jitter too small to change the others."""
    earned, tried = np.array([0.0, 1.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0])
    orders = itertools.permutations(1e-3 * np.arange(7))
    mean = np.mean([ranking_evidence(earned + jitter[:4], tried + jitter[4:]) for jitter in map(np.array, orders)])
    assert ranking_evidence(earned, tried) == pytest.approx(mean)
    assert ranking_evidence(np.ones(3), np.ones(4)) == pytest.approx(1.0), "equal is not better"


def test_nothing_is_tried_before_the_incumbent_is_known():
    state, events = after(*KNOWN[:4], (LEARNER, 99.0))
    assert float(state.evidence) == 0
    assert events == []


def test_episodes_that_two_policies_share_or_of_unknown_policies_do_not_count():
    bridge, state = BRIDGE, BRIDGE.state(named(0).nets)
    returns, learner = np.full(6, 10.0), named(1)
    shared = Report(1, returns, np.zeros(6, bool), np.zeros(0), learner, np.zeros(6, np.int64))
    untold = Report(1, returns, np.ones(6, bool), np.zeros(0), learner)
    nobody = Report(1, returns, np.ones(6, bool), np.zeros(0), learner, np.full(6, NOBODY))
    for report in (shared, untold, nobody):
        assert np.isnan(bridge.review(state, report).state.earned).all()


def test_what_learner_and_candidate_earned_in_whole_episodes_is_recorded():
    arms, returns = np.array([LEARNER, LEARNER, CANDIDATE, INCUMBENT]), np.array([1.0, 3.0, 9.0, 5.0])
    whole = np.array([True, True, True, False])
    report = Report(1, returns, whole, np.zeros(0), named(1), arms)
    metrics = BRIDGE.review(BRIDGE.state(named(0).nets), report).metrics
    assert (metrics["learner_return"], metrics["candidate_return"]) == (2.0, 9.0)
    shared = BRIDGE.review(BRIDGE.state(named(0).nets), dataclasses.replace(report, whole=~whole)).metrics
    assert not {"learner_return", "candidate_return"} & set(shared), "an episode of two policies shows neither"


def on_trial(bridge: Promotion, returns: np.ndarray, costs: np.ndarray | None) -> Any:
    """What the bridge makes of a candidate's episodes, beside an incumbent that earned 0 in five."""
    state = bridge.state(named(0).nets)._replace(evidence=np.ones((), np.float32), candidates=np.ones((), np.int32))
    state = state._replace(earned=np.append(np.full(RECENT - FEWEST, np.nan), np.zeros(FEWEST)))
    arms = np.full(len(returns), CANDIDATE)
    report = Report(1, returns, np.ones(len(returns), bool), np.zeros(0), named(1), arms, costs)
    return bridge.review(state, report)


def test_with_a_limit_on_cost_a_better_candidate_is_promoted_only_if_it_keeps_it():
    bridge = BRIDGE.with_cost_limit(1.0)
    assert bridge.wants_cost()
    assert not BRIDGE.wants_cost()
    better = np.linspace(1, 2, RECENT)
    for costs, promoted in ((np.full(RECENT, 0.9), 1), (np.full(RECENT, 1.1), 0), (np.arange(RECENT) % 2 * 1.9, 0)):
        review = on_trial(bridge, better, costs)
        assert int(review.state.promotions) == promoted, "the upper bound of the mean counts, not the mean"
        assert ("may be above cost_limit 1" in review.event) == (not promoted)
    assert int(on_trial(BRIDGE, better, np.full(RECENT, 9.0)).state.promotions) == 1


@pytest.mark.parametrize("draw", ["normal", "standard_cauchy"])
def test_a_candidate_that_is_no_better_is_promoted_with_at_most_the_stated_probability(draw):
    """The same distribution for both; the incumbent's episodes are fresh in each of 400 repetitions."""
    source, promoted = np.random.default_rng(0), 0
    fresh, learner = BRIDGE.state(named(0).nets), named(1)
    for _ in range(400):
        values = getattr(source, draw)(size=FEWEST + RECENT)
        state = fresh._replace(evidence=np.ones((), np.float32), candidates=np.ones((), np.int32))
        state = state._replace(earned=np.append(np.full(RECENT - FEWEST, np.nan), values[:FEWEST]))
        returns, arms = values[FEWEST:], np.full(RECENT, CANDIDATE)
        report = Report(1, returns, np.ones(RECENT, bool), np.zeros(0), learner, arms)
        promoted += int(BRIDGE.review(state, report).state.promotions)
    assert promoted / 400 <= BRIDGE.alpha


@pytest.mark.parametrize(("name", "kind"), [("sac", "continuous"), ("td3", "continuous"), ("dqn", "discrete")])
def test_the_incumbent_acts_unless_exploring_and_then_who_was_drawn_for_the_episode(name, kind):
    algorithm = small(name)
    learner, incumbent, candidate = (random_learner(algorithm, seed, kind) for seed in range(3))
    state = BRIDGE.state(acting_nets(incumbent.nets))
    state = state._replace(candidate=acting_nets(candidate.nets), evidence=jnp.ones(()), earned=jnp.zeros(RECENT))
    together = Policy(algorithm, replace(learner, bridges=(state,)), (BRIDGE,))
    observation = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    own, _ = together.start(3)
    arms = np.array([INCUMBENT, LEARNER, CANDIDATE])

    def acts(explore: bool) -> Any:
        return together.act(observation, (own, (arms,)), np.random.default_rng(5), explore)

    greedy = [Policy(algorithm, who)(observation) for who in (incumbent, learner, candidate)]
    assert np.array_equal(acts(False).action, greedy[INCUMBENT])
    exploring = acts(True)
    assert np.array_equal(exploring.carry[1][0], arms)
    assert exploring.action.dtype == greedy[INCUMBENT].dtype
    for arm in (INCUMBENT, CANDIDATE):
        assert np.array_equal(exploring.action[arm], greedy[arm][arm]), "what is tried is what would be deployed"
    own = Policy(algorithm, learner)(observation, np.random.default_rng(5), explore=True)
    assert np.array_equal(exploring.action[LEARNER], own[LEARNER])


@pytest.mark.parametrize(
    ("known", "value", "expected"), [(FEWEST - 1, 0, INCUMBENT), (FEWEST, 0, LEARNER), (FEWEST, 1, CANDIDATE)]
)
def test_who_acts_in_a_new_episode(known, value, expected):
    algorithm, learner = small("td3"), random_learner(small("td3"))
    earned = np.append(np.full(RECENT - known, np.nan), np.zeros(known))
    for share in (1.0, 0.25):
        bridge = Promotion(share=share)
        state = bridge.state(acting_nets(learner.nets))._replace(earned=earned, evidence=np.float32(value))
        policy = Policy(algorithm, replace(learner, bridges=(state,)), (bridge,))
        acted = policy.act(np.zeros((400, 3), np.float32), policy.start(400), np.random.default_rng(0), True)
        arms = acted.carry[1][0]
        assert set(arms.tolist()) <= {INCUMBENT, expected}
        if expected != INCUMBENT:
            assert (arms == expected).mean() == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("name", ["sac", "td3", "discrete-sac"])
def test_the_first_incumbent_may_be_a_clone_of_the_best_episodes_and_the_learner_stays_what_it_is(name):
    """The best quarter of the episodes acts in one way, the others in another."""
    algorithm, kind = small(name), "discrete" if name == "discrete-sac" else "continuous"
    learner, made = random_learner(algorithm, kind=kind), log(kind)
    best = np.repeat(np.arange(8) % 4 == 1, 8)
    shown = 1 if kind == "discrete" else 0.5
    actions = np.where(best.reshape(-1, *[1] * (made.actions.ndim - 1)), shown, 0 * made.actions).astype(
        made.actions.dtype
    )
    dataset = dataclasses.replace(made, actions=actions, rewards=best.astype(np.float32))
    bridge = Promotion(clone_steps=1_500, clone_share=0.25)
    after, state = bridge.attach(learner, handover(algorithm, kind, dataset), KEY)
    held = Policy(algorithm, replace(after, bridges=(state,)), (bridge,))
    assert held(dataset.observations[best]) == pytest.approx(actions[best], abs=0.1)
    assert after is learner
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, state.average, acting_nets(learner.nets))))
    assert jax.tree.structure(state) == jax.tree.structure(bridge.skeleton(algorithm, dataset.spaces))
    assert "a clone of the best 25% of the episodes learnt from (last imitation loss" in bridge.describe(state)[0]
    assert float(state.clone_loss) < 0.05


def test_beside_a_clone_the_first_candidate_is_what_was_handed_over():
    algorithm = small("sac")
    learner = random_learner(algorithm)
    bridge = Promotion(clone_steps=1)
    _, state = bridge.attach(learner, handover(algorithm, "continuous", log("continuous")), KEY)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, state.candidate, acting_nets(learner.nets))))
    kept, events = after(*KNOWN, bridge=bridge, state=state)
    assert (float(kept.evidence), int(kept.candidates), events) == (1, 1, []), "the clone's episodes decide nothing"
    won, events = after(*KNOWN, *[(CANDIDATE, 20.0)] * 3, bridge=bridge, state=state)
    (told,) = events
    assert told.startswith("candidate 1 (what was handed over) promoted at step 7: 20 on average of 3 episodes")
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, won.incumbent, state.candidate)))
    _, events = after(*KNOWN, (CANDIDATE, 9.0), bridge=bridge, state=state)
    assert events == [
        "candidate 1 (what was handed over) dropped at step 5: 9 on average of 1 episode, where the incumbent earned 12"
    ]


def test_what_acts_by_its_critic_alone_is_not_cloned():
    assert "clone_steps 0" in str(Promotion(clone_steps=1).refusal(small("dqn"), OnlineOnly(), ()))
    assert Promotion().refusal(small("dqn"), OnlineOnly(), ()) is None


def test_what_is_deployed_is_the_incumbent_alone_exploring_or_not():
    algorithm = small("sac")
    learner, incumbent = random_learner(algorithm, 0), random_learner(algorithm, 1)
    state = BRIDGE.state(acting_nets(incumbent.nets))
    held = Checkpoint(algorithm, (BRIDGE,), Spaces(3, 1), None, replace(learner, bridges=(state,)))
    observation = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    for explore in (False, True):
        source = np.random.default_rng(5)
        alone = Policy(algorithm, incumbent)(observation, np.random.default_rng(5), explore)
        assert np.array_equal(held.policy()(observation, source, explore), alone)


def test_candidates_are_made_of_the_average_of_the_policies():
    bridge, state = Promotion(average=0.25), BRIDGE.state(Nets(actor=jnp.asarray(0.0)))
    for now in (4.0, 8.0):
        nets = Nets(actor=jnp.asarray(now), temperature=jnp.asarray(1.0))
        state, _ = bridge.update(state, small("sac"), nets, None, {}, jax.random.key(0))
    assert float(state.average.actor) == 0.75 * (0.25 * 4) + 0.25 * 8


def test_the_state_has_the_structure_that_a_checkpoint_is_read_with():
    algorithm = small("sac")
    learner = random_learner(algorithm)
    spaces = Spaces(3, 1)
    built = jax.tree.structure(BRIDGE.state(acting_nets(algorithm.init(jax.random.key(0), spaces))))
    assert built == jax.tree.structure(BRIDGE.skeleton(algorithm, spaces))
    assert built == jax.tree.structure(BRIDGE.state(acting_nets(learner.nets)))
