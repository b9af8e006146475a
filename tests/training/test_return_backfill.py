"""Columns that become known later are filled in where they belong."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from helpers import SPACES
from segue.core import Transition
from segue.replay import Replay, append
from segue.training.return_backfill import ReturnBackfill


def step(reward: list[float], action: float) -> Transition:
    count = len(reward)
    wide = np.zeros((count, SPACES.observation_size), np.float32)
    actions = np.full((count, SPACES.action_size), action, np.float32)
    return Transition(
        observation=wide,
        action=actions,
        reward=np.asarray(reward, np.float32),
        next_observation=wide,
        discount=np.full(count, 0.5, np.float32),
        return_to_go=np.full(count, -np.inf, np.float32),
        next_action=np.full_like(actions, np.nan),
    )


def play(columns: tuple[str, ...], capacity: int, chunk: int = 2) -> Replay:
    """Two environments, six steps: the first ends at steps 2 and 5, the second at step 3 and then goes on."""
    replay = Replay.create(None, capacity, SPACES)
    backfill = ReturnBackfill(columns, 0.5, 2)
    ends = {2: [True, False], 3: [False, True], 5: [True, False]}
    for start in range(0, 6, chunk):
        for t in range(start, start + chunk):
            batch = step([1.0, 10.0], action=t / 10)
            backfill.watch(batch, np.array(ends.get(t, [False, False])))
            replay = append(replay, batch)
        replay = backfill.apply(replay)
    return replay


@pytest.mark.parametrize("chunk", [1, 2, 3, 6])
def test_the_return_of_each_step_is_known_when_its_episode_ends(chunk):
    returns = np.asarray(play(("return_to_go",), 12, chunk).online.return_to_go).reshape(6, 2)
    np.testing.assert_allclose(returns[:, 0], [1.75, 1.5, 1.0, 1.75, 1.5, 1.0])
    np.testing.assert_allclose(returns[:4, 1], [18.75, 17.5, 15.0, 10.0])
    assert np.isneginf(returns[4:, 1]).all(), "that episode goes on"


@pytest.mark.parametrize("chunk", [1, 2, 3, 6])
def test_the_next_action_is_that_of_the_next_step_of_the_same_episode(chunk):
    following = np.asarray(play(("next_action",), 12, chunk).online.next_action)[:, 0].reshape(6, 2)
    np.testing.assert_allclose(following[:, 0], [0.1, 0.2, np.nan, 0.4, 0.5, np.nan])
    np.testing.assert_allclose(following[:, 1], [0.1, 0.2, 0.3, np.nan, 0.5, np.nan])


def test_what_the_ring_has_dropped_is_passed_over():
    returns = np.asarray(play(("return_to_go",), 4, chunk=6).online.return_to_go)
    assert sorted(returns[np.isfinite(returns)].tolist()) == [1.0, 1.5]


def test_nothing_is_filled_in_for_algorithms_that_do_not_ask():
    replay = play((), 12)
    assert bool(jnp.isneginf(replay.online.return_to_go).all())
    assert bool(jnp.isnan(replay.online.next_action).all())
