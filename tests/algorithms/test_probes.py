"""Logs so small that the right answer is known: an algorithm that misses it is wrong, whatever its losses say.

Observations and actions have one dimension; the states are −1 and 1. γ is 0.6, so that no two answers coincide.
"""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import reference

from segue.algorithms import ALGORITHMS
from segue.data import load
from segue.policy import Policy
from segue.replay import Replay
from segue.training.update import init_learner, run_updates

ROWS, DISCOUNT = 256, 0.6
RNG = np.random.default_rng(0)
STATE = np.tile([-1.0, 1.0], ROWS // 2)
ACTION = RNG.uniform(-1, 1, ROWS)
END, NEVER = np.ones(ROWS, bool), np.zeros(ROWS, bool)


def log(reward, action=ACTION, next_state=STATE, terminal=END, cut=NEVER):
    columns = {
        "observations": STATE[:, None],
        "actions": action[:, None],
        "rewards": reward,
        "next_observations": next_state[:, None],
        "terminals": terminal,
        "timeouts": cut,
    }
    return load({name: column.astype(np.float32) for name, column in columns.items()})


SHOWN = 0.6 * STATE + RNG.uniform(-0.1, 0.1, ROWS)
LOGS = {
    # An episode of one step that pays its state.
    "one step": log(STATE),
    # −1 leads to 1, which pays 1 and ends.
    "two steps": log(STATE > 0, next_state=np.ones(ROWS), terminal=STATE > 0),
    # Every step pays 1 and stays where it is; only the clock ends it.
    "time-out": log(np.ones(ROWS), terminal=NEVER, cut=END),
    # The state says which action pays.
    "action": log(STATE * ACTION),
    # The log shows 0.6 in one state and −0.6 in the other, and pays nothing.
    "shown": log(np.zeros(ROWS), action=SHOWN),
    # Actions in [−1, 0] only, the larger the better; what the log does not show pays nothing.
    "trap": log(5 + (ACTION - 1) / 2, action=(ACTION - 1) / 2),
}

OFFLINE = [name for name, cls in ALGORITHMS.items() if "offline" in cls.phases]
LEARNS_VALUES = [name for name in OFFLINE if hasattr(ALGORITHMS[name], "critic_learning_rate")]
learns_values = pytest.mark.parametrize("name", LEARNS_VALUES)


@cache
def learnt(name: str, probe: str) -> Policy:
    """The algorithm after some hundreds of updates on this log; all logs share one compilation."""
    fast = {"actor_learning_rate": 1e-3, "critic_learning_rate": 3e-3, "polyak": 0.05}
    fields = ALGORITHMS[name].__dataclass_fields__
    algorithm = ALGORITHMS[name](
        hidden_sizes=(32, 32),
        batch_size=64,
        discount=DISCOUNT,
        **{field: value for field, value in fast.items() if field in fields},
        **reference(name).PROBE,
    )
    data = LOGS[probe]
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), data.spaces), data.normaliser())
    replay = Replay.create(data.transitions(DISCOUNT, data.normaliser()), 0, data.spaces)
    for _ in range(1200 // (50 * max(algorithm.critic_updates, 1))):
        learner, _ = run_updates(
            learner,
            replay,
            jax.random.key(1),
            jnp.zeros(()),
            algorithm=algorithm,
            bridges=(),
            strategy=None,
            spaces=data.spaces,
            blocks=50,
        )
    return Policy(algorithm, learner)


def values(name, probe, state):
    """What every critic thinks of this state under the log's actions."""
    data, policy = LOGS[probe], learnt(name, probe)
    rows = data.observations[:, 0] == state
    return policy.nets.critic(policy.normaliser(data.observations[rows]), data.actions[rows])


def action(name, probe, state):
    return float(learnt(name, probe)(np.array([state], np.float32))[0])


@learns_values
def test_the_value_of_a_last_step_is_its_reward(name):
    assert values(name, "one step", 1) == pytest.approx(1, abs=0.1)
    assert values(name, "one step", -1) == pytest.approx(-1, abs=0.1)


@learns_values
def test_the_value_of_a_step_before_a_reward_is_discounted_once(name):
    assert values(name, "two steps", 1) == pytest.approx(1, abs=0.1)
    assert values(name, "two steps", -1) == pytest.approx(DISCOUNT, abs=0.1)


@learns_values
def test_what_only_time_ended_is_worth_as_if_it_went_on(name):
    assert values(name, "time-out", 1) == pytest.approx(1 / (1 - DISCOUNT), abs=0.2)


@learns_values
def test_the_policy_picks_the_action_that_pays_in_each_state(name):
    assert action(name, "action", 1) > 0.7
    assert action(name, "action", -1) < -0.7


@pytest.mark.parametrize("name", sorted(set(OFFLINE) - set(LEARNS_VALUES)))
def test_a_policy_without_values_does_in_each_state_what_the_log_shows(name):
    assert action(name, "shown", 1) == pytest.approx(0.6, abs=0.05)
    assert action(name, "shown", -1) == pytest.approx(-0.6, abs=0.05)


@pytest.mark.parametrize("name", OFFLINE)
def test_a_log_with_a_trap_lures_exactly_the_algorithms_that_are_not_conservative(name):
    chosen = [action(name, "trap", state) for state in (-1, 1)]
    if reference(name).CONSERVATIVE:
        assert max(chosen) <= 0
    else:
        assert min(chosen) > 0.5
