"""Ask and tell: a learner without environments, whose transitions may come in parts and late."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import same_bits
from segue.algorithms import FQL, SAC, CalQL, SACLagrangian
from segue.chunks import sequence_batch
from segue.core import Normaliser, Spaces, Transition
from segue.errors import SegueError
from segue.replay import OnlineOnly, Replay
from segue.training.agent import Agent, AgentSettings
from segue.training.update import init_learner
from toys import Notes

SPACES = Spaces(1, 1)
STILL = np.zeros(1, np.float32)


def agent(algorithm=None, slots=1, **changes):
    """One that learns from a problem of one step: the state is −1 or 1, and the reward is their agreement."""
    algorithm = algorithm or SAC(
        hidden_sizes=(16, 16), batch_size=32, actor_learning_rate=3e-3, initial_temperature=0.01
    )
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), SPACES), Normaliser.identity(1))
    settings = {"steps": 600, "warmup_steps": 50, "updates_per_step": 1.0, "seed": 0, "slots": slots}
    replay = Replay.create(None, 600, SPACES)
    return Agent(algorithm, (), OnlineOnly(), learner, replay, Notes(), AgentSettings(**{**settings, **changes}))


def live(agent, steps, delay):
    """Act in one state after the other; each reward is known so many steps later."""
    source, due = np.random.default_rng(0), []
    for step in range(steps):
        state = np.array([source.choice([-1.0, 1.0])], np.float32)
        action = agent.policy(state[None], source, explore=True)[0]
        due.append((agent.begin(0, state, action), 1 - float((action[0] - 0.8 * state[0]) ** 2)))
        if len(due) > delay:
            agent.complete(due[0][0], due.pop(0)[1], STILL, terminated=True)
        if step % 25 == 24:
            agent.take_in()
            agent.learn()
    return agent


@pytest.mark.parametrize("delay", [0, 40])
def test_it_learns_from_rewards_that_come_at_once_or_late(delay):
    learnt = live(agent(), 600, delay)
    assert learnt.step == 600 - delay
    assert learnt.waiting() == delay
    action = learnt.policy(np.array([[-1.0], [1.0]], np.float32))[:, 0]
    assert action == pytest.approx([-0.8, 0.8], abs=0.25)


def test_a_transition_is_sampled_only_when_it_is_complete_and_those_before_it_are():
    one = agent(slots=2)
    first, second = one.begin(0, STILL, STILL), one.begin(0, STILL, STILL)
    other = one.begin(1, STILL, STILL)
    one.complete(second, 2.0, STILL, truncated=True)
    one.complete(other, 3.0, STILL)
    one.take_in()
    assert int(one.replay.online_size) == 1
    assert float(one.replay.online.reward[0]) == 3.0
    one.complete(first, 1.0, STILL)
    one.take_in()
    assert np.asarray(one.replay.online.reward)[:3].tolist() == [3.0, 1.0, 2.0]
    assert one.waiting() == 0


def test_completing_twice_or_after_the_episode_was_abandoned_is_an_error_and_changes_nothing():
    one = agent(slots=2)
    begun, lost = one.begin(0, STILL, STILL), one.begin(1, STILL, STILL)
    one.complete(begun, 1.0, STILL, terminated=True)
    one.abandon([1])
    for again in (begun, lost):
        with pytest.raises(SegueError, match="complete already, or its episode was abandoned"):
            one.complete(again, 5.0, STILL)
    assert one.step == 1


def test_the_return_of_each_step_is_that_of_its_own_episode_also_where_episodes_mix():
    algorithm = CalQL(hidden_sizes=(8,), batch_size=8, discount=0.5)
    one = agent(algorithm, slots=2)
    a, b = [one.begin(0, STILL, STILL) for _ in range(2)], [one.begin(1, STILL, STILL) for _ in range(2)]
    for begun, reward, over in ((a[0], 1.0, False), (b[0], 10.0, False), (b[1], 20.0, True), (a[1], 2.0, True)):
        one.complete(begun, reward, STILL, terminated=over)
    one.take_in()
    assert np.asarray(one.replay.online.return_to_go)[:4].tolist() == [2.0, 20.0, 20.0, 2.0]


def test_told_in_parts_or_whole_is_the_same():
    parts, whole = agent(), agent()
    state, action = np.float32([0.5]), np.float32([0.25])
    parts.complete(parts.begin(0, state, action), 2.0, STILL, terminated=True)
    batch = jax.tree.map(lambda column: column[None], (state, action, STILL))
    told = Transition(batch[0], batch[1], np.float32([2]), batch[2], np.float32([0]), np.float32([-np.inf]), batch[1])
    whole.tell(told._replace(next_action=np.full_like(batch[1], np.nan)), np.float32([2]), np.array([True]))
    for one in (parts, whole):
        one.take_in()
    assert same_bits(parts.replay, whole.replay)
    assert parts.reviews.position() == whole.reviews.position()


def test_late_transitions_of_several_episodes_make_whole_chunks():
    algorithm = FQL(hidden_sizes=(8,), batch_size=8, chunk=2)
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), SPACES), Normaliser.identity(1))
    settings = AgentSettings(steps=100, warmup_steps=0, updates_per_step=1.0, seed=0, slots=2)
    replay = Replay.create(None, 100, SPACES, sequences=True)
    one = Agent(algorithm, (), OnlineOnly(), learner, replay, Notes(), settings)
    begun = [(slot, one.begin(slot, STILL, STILL)) for _ in range(10) for slot in (0, 1)]
    for slot in (1, 0):
        for place, row in begun:
            if place == slot:
                one.complete(row, 1.0, STILL)
    one.take_in()
    batch = sequence_batch(one.replay, jnp.arange(20), one.replay.gather(jnp.arange(20)), 2, True)
    assert np.asarray(batch.valid)[:, 1].sum() == 18, "all but the last of each episode"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda one: one.begin(0, STILL, np.float32([7])), "the action is .*expected 1 numbers in"),
        (lambda one: one.begin(0, STILL, np.zeros(2)), "the action is .*expected 1 numbers in"),
        (lambda one: one.begin(0, np.float32([np.nan]), STILL), "the observation is .*expected 1 finite numbers"),
        (lambda one: one.complete(one.begin(0, STILL, STILL), np.nan, STILL), "the reward is nan"),
        (lambda one: one.complete(one.begin(0, STILL, STILL), 0.0, np.zeros(3, np.float32)), "the observation is"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_where_it_is_told(what, said):
    one = agent()
    with pytest.raises(SegueError, match=said):
        what(one)
    one.take_in()
    assert one.step == 0


@pytest.mark.parametrize("cost", [None, np.nan, np.inf])
def test_an_algorithm_that_learns_from_costs_is_told_each_cost(cost):
    one = agent(SACLagrangian(hidden_sizes=(8,), batch_size=16, cost_limit=1.0, cost_horizon=8))
    begun = one.begin(0, STILL, STILL)
    with pytest.raises(SegueError, match=f"the cost is {cost}; sac-lagrangian learns from costs: expected a finite"):
        one.complete(begun, 1.0, STILL, cost=cost)
    one.complete(begun, 1.0, STILL, cost=0.5)
    assert one.waiting() == 0


def test_updates_come_in_dispatches_of_one_size():
    one = agent(dispatch=4, warmup_steps=0)
    for _ in range(9):
        one.complete(one.begin(0, STILL, STILL), 1.0, STILL)
    one.take_in()
    for done in (4, 8, 8):
        one.learn()
        one.take_in()
        assert int(one.learner.step) == done


@pytest.mark.slow
def test_updates_whose_metrics_nobody_has_seen_are_not_followed_by_others():
    """Or a divergence in the first of them would go unseen."""
    one = agent(warmup_steps=0)
    for _ in range(2):
        one.complete(one.begin(0, STILL, STILL), 1.0, STILL)
        one.take_in()
    one.learn()
    dispatched = one.pending
    one.owed += 5
    one.learn()
    assert one.pending is dispatched
    one.take_in()
    one.learn()
    one.take_in()
    assert int(one.learner.step) == 7


def test_the_example_of_the_page_runs():
    page = (Path(__file__).parents[2] / "docs/ask-and-tell.md").read_text()
    names: dict[str, object] = {}
    exec(page.partition("```python")[2].partition("```")[0], names)
    assert names["agent"].step == 180
    assert int(names["learner"].step) > 0
