"""Logs so small that the right answer is known: an algorithm that misses it is wrong, whatever its losses say.

Observations have one dimension; the states are −1 and 1. Actions are a number in [−1, 1] or one of 0, 1 and 2. γ is
0.6, so that no two answers coincide.
"""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import reference

from helpers import MEMBERS, SUITE
from segue.algorithms import Algorithm
from segue.core import Learner
from segue.data import Columns, Dataset
from segue.policy import Policy
from segue.replay import Replay
from segue.training.update import init_learner, run_updates

ROWS, DISCOUNT, UPDATES = 256, 0.6, 600
RNG = np.random.default_rng(0)
STATE = np.tile([-1.0, 1.0], ROWS // 2)
ACTION = RNG.uniform(-1, 1, ROWS)
END, NEVER = np.ones(ROWS, bool), np.zeros(ROWS, bool)


CHOICE = RNG.integers(0, 3, ROWS)
PAYS = np.where(STATE > 0, 2, 0)  # the discrete action that pays in this state


def log(reward, action=ACTION, next_state=STATE, terminal=END, cut=NEVER):
    columns = Columns(
        observations=STATE[:, None].astype(np.float32),
        actions=action.astype(np.int32) if action.dtype == int else action[:, None].astype(np.float32),
        rewards=reward.astype(np.float32),
        next_observations=next_state[:, None].astype(np.float32),
        terminals=terminal,
        timeouts=cut,
        discrete_actions=3 if action.dtype == int else None,
        cost=np.zeros(ROWS),
    )
    return Dataset.from_columns(columns, "probe")


def logs_that_pay_for_states(action):
    return {
        # An episode of one step that pays its state.
        "one step": log(STATE, action),
        # −1 leads to 1, which pays 1 and ends.
        "two steps": log(STATE > 0, action, next_state=np.ones(ROWS), terminal=STATE > 0),
        # Every step pays 1 and stays where it is; only the clock ends it.
        "time-out": log(np.ones(ROWS), action, terminal=NEVER, cut=END),
    }


SHOWN = 0.6 * STATE + RNG.uniform(-0.1, 0.1, ROWS)
LOGS = {
    "continuous": logs_that_pay_for_states(ACTION)
    | {
        # The state says which action pays.
        "action": log(STATE * ACTION),
        # The dataset shows 0.6 in one state and −0.6 in the other, and pays nothing.
        "shown": log(np.zeros(ROWS), action=SHOWN),
        # Actions in [−1, 0] only, the larger the better; what the dataset does not show pays nothing.
        "trap": log(5 + (ACTION - 1) / 2, action=(ACTION - 1) / 2),
    },
    "discrete": logs_that_pay_for_states(CHOICE)
    | {
        "action": log((CHOICE == PAYS).astype(float), CHOICE),
        "shown": log(np.zeros(ROWS), action=PAYS),
        # Actions 0 and 1 cost 2 and 3, and nobody has tried 2. A critic's fresh outputs are about 0, and that of an
        # action which is never replayed is never corrected: it looks like the cheapest.
        "trap": log(-2.0 - CHOICE % 2, action=CHOICE % 2),
    },
}

OFFLINE = {member: pair for member, pair in MEMBERS.items() if "offline" in SUITE[pair[0]].phases}
LEARNS_VALUES = {member: pair for member, pair in OFFLINE.items() if hasattr(SUITE[pair[0]], "critic_learning_rate")}
IMITATES = {member: pair for member, pair in OFFLINE.items() if member not in LEARNS_VALUES}


#: One of each way to a target and to a policy; what the others compute is compared with their papers in
#: test_exactness.py, and with `-m slow` here.
LEARN = {"td3-bc", "iql-continuous", "awac-discrete", "cql", "dqn", *IMITATES}


def of(members):
    cases = [
        pytest.param(*pair, id=member, marks=() if member in LEARN else pytest.mark.slow)
        for member, pair in members.items()
    ]
    return pytest.mark.parametrize(("name", "kind"), cases, scope="module")


learns_values = of(LEARNS_VALUES)


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})  # here it is running that takes the time
def learn(learner: Learner, replay: Replay, algorithm: Algorithm) -> Learner:
    blocks = UPDATES // algorithm.updates_per_block
    return run_updates(learner, replay, jax.random.key(1), jnp.zeros(()), algorithm, blocks=blocks)[0]


@cache
def learnt(name: str, kind: str, probe: str) -> Policy:
    """The algorithm after some hundreds of updates on this dataset; all datasets share one compilation."""
    fast = {
        "actor_learning_rate": 2e-3,
        "critic_learning_rate": 6e-3,
        "behaviour_learning_rate": 6e-3,
        "behaviour_hidden_sizes": (32, 32),
        "polyak": 0.1,
    }
    fields = SUITE[name].__dataclass_fields__
    shared = {field: value for field, value in fast.items() if field in fields}
    options = {"hidden_sizes": (32, 32), "batch_size": 64, "discount": DISCOUNT, **shared, **reference(name).PROBE}
    algorithm = SUITE[name](**options)
    data = LOGS[kind][probe]
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), data.spaces), data.normaliser())
    replay = Replay.create(algorithm.transitions(data, data.normaliser()), 0, data.spaces)
    return Policy(algorithm, learn(learner, replay, algorithm))


def values(name, kind, probe, state):
    """What every critic thinks of this state under the dataset's actions."""
    data, policy = LOGS[kind][probe], learnt(name, kind, probe)
    rows = data.observations[:, 0] == state
    return policy.nets.critic(policy.normaliser(data.observations[rows]), data.actions[rows])


def action(name, kind, probe, state):
    return learnt(name, kind, probe)(np.array([state], np.float32)).item()


@learns_values
def test_the_value_of_a_last_step_is_its_reward(name, kind):
    assert values(name, kind, "one step", 1) == pytest.approx(1, abs=0.1)
    assert values(name, kind, "one step", -1) == pytest.approx(-1, abs=0.1)


@learns_values
def test_the_value_of_a_step_before_a_reward_is_discounted_once(name, kind):
    assert values(name, kind, "two steps", 1) == pytest.approx(1, abs=0.1)
    assert values(name, kind, "two steps", -1) == pytest.approx(DISCOUNT, abs=0.1)


@learns_values
def test_what_only_time_ended_is_worth_as_if_it_went_on(name, kind):
    assert values(name, kind, "time-out", 1) == pytest.approx(1 / (1 - DISCOUNT), abs=0.2)


@learns_values
def test_the_policy_picks_the_action_that_pays_in_each_state(name, kind):
    here, there = (action(name, kind, "action", state) for state in (1, -1))
    if kind == "discrete":
        assert (here, there) == (2, 0)
    else:
        reach = getattr(reference(name), "REACH", 0.7)
        assert here > reach
        assert there < -reach


@of(IMITATES)
def test_a_policy_without_values_does_in_each_state_what_the_dataset_shows(name, kind):
    here, there = (action(name, kind, "shown", state) for state in (1, -1))
    if kind == "discrete":
        assert (here, there) == (2, 0)
    else:
        assert here == pytest.approx(0.6, abs=0.05)
        assert there == pytest.approx(-0.6, abs=0.05)


@of(OFFLINE)
def test_a_dataset_with_a_trap_lures_exactly_the_algorithms_that_are_not_conservative(name, kind):
    chosen = [action(name, kind, "trap", state) for state in (-1, 1)]
    lured = min(chosen) == 2 if kind == "discrete" else min(chosen) > 0.5
    safe = max(chosen) <= 1 if kind == "discrete" else max(chosen) <= 0
    assert lured != safe
    assert safe == reference(name).CONSERVATIVE
