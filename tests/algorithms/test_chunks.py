"""Action chunks: h-step transitions of whole stretches of an episode, and decisions that are played to their end."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references.nets import q_values

from helpers import fresh_learner, random_learner, same_bits, small
from segue.acting import restart
from segue.bridges import SAMG, CriticRefit, Guard, JumpStart, PolicyExpansion, QFilter
from segue.chunks import sequence_batch
from segue.core import Normaliser, Spaces, Transition
from segue.data import load
from segue.errors import RecipeError, SegueError
from segue.ope.policy import judged
from segue.policy import Policy
from segue.recipe import Recipe
from segue.replay import Replay, append
from segue.training.return_backfill import ReturnBackfill

SPACES = Spaces(1, 1)
GAMMA = 0.9


def steps(lengths, terminal, offset=0.0):
    """Episodes of these lengths; observation, action and reward of step number i are i."""
    number = np.arange(sum(lengths), dtype=np.float32) + offset
    last = np.zeros(len(number), bool)
    last[np.cumsum(lengths) - 1] = True
    following = np.where(last, -1 - number, number + 1)
    ends = np.zeros(len(number), bool)
    ends[np.cumsum(lengths) - 1] = terminal
    wide = number[:, None]
    discount = np.where(ends, 0, GAMMA).astype(np.float32)
    after = np.where(last, -1, np.arange(1, len(number) + 1)).astype(np.int32)
    return Transition(wide, wide, number, following[:, None].astype(np.float32), discount, number, wide, after)


def by_hand(rows, row, length):
    """Reward, discount, next observation and validity of the chunk that begins in this row."""
    reward, discount, valid = 0.0, 1.0, []
    for k in range(length):
        if k and (row + k >= len(rows.reward) or rows.observation[row + k] != rows.next_observation[row + k - 1]):
            break
        reward += discount * rows.reward[row + k]
        discount *= rows.discount[row + k]
        valid.append(1.0)
        if discount == 0:
            break
    end = row + len(valid) - 1
    return reward, discount, rows.next_observation[end], valid + [0.0] * (length - len(valid))


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=5), st.integers(1, 4), st.data())
def test_a_chunk_sums_the_discounted_rewards_of_its_steps_up_to_the_end_of_the_episode(episodes, length, data):
    rows = steps(*map(list, zip(*episodes, strict=True)))
    replay = Replay.create(rows, 0, SPACES)
    chosen = np.array([data.draw(st.integers(0, len(rows.reward) - 1)) for _ in range(5)])
    batch = sequence_batch(replay, jnp.asarray(chosen), replay.gather(jnp.asarray(chosen)), length, True)
    for i, row in enumerate(chosen):
        reward, discount, following, valid = by_hand(rows, row, length)
        assert float(batch.reward[i]) == pytest.approx(reward, rel=1e-5)
        assert float(batch.discount[i]) == pytest.approx(discount, rel=1e-5)
        assert batch.valid[i].tolist() == valid
        assert batch.next_observation[i] == following
        assert batch.action[i].tolist() == [row + k if valid[k] else 0 for k in range(length)]
    target = sequence_batch(replay, jnp.asarray(chosen), replay.gather(jnp.asarray(chosen)), length, False)
    assert same_bits((target.reward, target.discount), (batch.reward, batch.discount))
    assert np.array_equal(target.action[:, 0], chosen), "an n-step target is that of the first action"
    assert target.valid is None


def test_in_the_ring_a_chunk_stays_with_its_episode_and_stops_where_it_was_overwritten():
    """Two episodes in turn, 17 steps each, in a ring of 24: as backfill links them."""
    replay = Replay.create(None, 24, SPACES, sequences=True)
    backfill = ReturnBackfill(("following",), GAMMA, 2)
    for step in range(17):
        rows = np.array([[step], [100 + step]], np.float32)
        unknown = np.full(2, -1, np.int32)
        one = np.ones(2, np.float32)
        batch = Transition(rows, rows, one, np.zeros_like(rows), np.float32(GAMMA) * one, one, rows, unknown)
        backfill.watch(batch, np.array([False, False]))
        replay = backfill.apply(append(replay, batch))
    rows = jnp.arange(24)
    batch = sequence_batch(replay, rows, replay.gather(rows), 3, True)
    first = np.asarray(batch.action)[:, 0]
    assert sorted(first.tolist()) == [*range(5, 17), *range(105, 117)], "the newest 24"
    left = np.minimum(np.where(first < 100, 17, 117) - first, 3)
    assert np.asarray(batch.valid).sum(1).tolist() == left.tolist()
    whole = left == 3
    assert np.array_equal(np.asarray(batch.action)[whole], first[whole, None] + np.arange(3))


def test_observations_say_nothing_of_where_an_episode_ends():
    """All the same, or off by rounding: only the dataset's own episodes count."""
    rng = np.random.default_rng(0)
    dataset = load(
        {
            "observations": np.ones((12, 3)),
            "next_observations": np.ones((12, 3)) + 1e-6 * rng.normal(size=(12, 3)),
            "actions": rng.uniform(-1, 1, (12, 2)),
            "rewards": np.ones(12),
            "terminals": np.zeros(12, bool),
            "timeouts": np.arange(12) % 4 == 3,
        }
    )
    algorithm = small("fql", chunk=2)
    replay = Replay.create(algorithm.transitions(dataset, Normaliser.identity(3)), 0, Spaces(3, 2))
    rows = jnp.arange(12)
    batch = sequence_batch(replay, rows, replay.gather(rows), 2, True)
    assert np.asarray(batch.valid)[:, 1].tolist() == [1, 1, 1, 0] * 3


@pytest.mark.parametrize("name", ["sac", "dqn"])
def test_the_rows_of_an_algorithm_with_n_steps_lead_to_the_return_of_n_steps(name):
    """A reward at the end of each episode of three steps."""
    rows = 300
    rng = np.random.default_rng(0)
    dataset = load(
        {
            "observations": np.tile(np.eye(3), (100, 1)),
            "actions": rng.integers(0, 2, rows) if name == "dqn" else rng.uniform(-1, 1, (rows, 1)),
            "rewards": np.tile([0.0, 0.0, 1.0], 100),
            "terminals": np.arange(rows) % 3 == 2,
            "timeouts": np.zeros(rows, bool),
        }
    )
    algorithm = small(name, n_step=3, discount=0.9)
    replay = Replay.create(algorithm.transitions(dataset, Normaliser.identity(3)), 0, dataset.spaces)
    batch = sequence_batch(replay, jnp.arange(3), replay.gather(jnp.arange(3)), algorithm.sequence_length, False)
    assert np.asarray(batch.reward) == pytest.approx([0.81, 0.9, 1.0])
    assert np.asarray(batch.discount).tolist() == [0, 0, 0]


def test_a_chunk_has_no_n_step_target():
    with pytest.raises(RecipeError, match="1 with action chunks"):
        small("fql", chunk=2, n_step=3)


def test_a_critic_does_not_learn_from_a_chunk_that_its_episode_cuts():
    algorithm = small("fql", chunk=2, activation="relu")
    learner = random_learner(algorithm)
    rng = np.random.default_rng(0)
    batch = Transition(
        *(rng.normal(size=(4, size)).astype(np.float32) for size in (3, 4)),
        np.ones(4, np.float32),
        rng.normal(size=(4, 3)).astype(np.float32),
        np.full(4, 0.5, np.float32),
        np.ones(4, np.float32),
        np.zeros((4, 4), np.float32),
        valid=np.array([[1, 1], [1, 0], [1, 1], [1, 0]], np.float32),
    )
    target = jnp.arange(4.0)
    loss, _ = algorithm.critic_loss(learner.nets.critic, learner.nets, batch, target, jax.random.key(0))
    error = (q_values(learner.nets.critic, batch.observation, batch.action) - target) ** 2
    assert float(loss) == pytest.approx(float((error[:, [0, 2]].sum(1) / 4).sum()), rel=1e-5)


def test_the_actions_of_a_chunk_are_played_one_after_the_other_and_anew_in_a_new_episode():
    algorithm = small("fql", chunk=3)
    policy = Policy(algorithm, random_learner(algorithm))
    rng, carry, played = np.random.default_rng(0), policy.start(2), []
    for step in range(6):
        acted = policy.act(rng.normal(size=(2, 3)).astype(np.float32), carry, rng, explore=False)
        played.append(acted.action)
        chunk = acted.carry[0][1]
        place = [step % 3, step % 3 if step < 2 else (step - 2) % 3]
        for episode in (0, 1):
            assert np.array_equal(acted.action[episode], chunk[episode][place[episode]])
        # The second episode ends in the middle of its first chunk.
        carry = restart(policy, acted.carry, np.array([False, step == 1]))
    assert len({tuple(action[0]) for action in played}) == 6


@pytest.mark.parametrize(
    "bridge",
    [SAMG(), CriticRefit(), PolicyExpansion(), QFilter(rule="average"), JumpStart()],
    ids=lambda bridge: bridge.name,
)
def test_bridges_that_rate_single_actions_are_refused_and_the_others_are_not(bridge):
    algorithm = small("fql", chunk=2)
    given = {
        "dataset": "npz:x.npz",
        "offline": algorithm,
        "offline_steps": 1,
        "online": algorithm,
        "online_steps": 2000,
    }
    Recipe(**given, bridges=(Guard(),))
    with pytest.raises(RecipeError, match=f"bridge {bridge.name}.*(chunk|at once|live data only)"):
        Recipe(**given, bridges=(bridge,))


def test_off_policy_evaluation_refuses_a_policy_that_remembers():
    algorithm = small("fql", chunk=2)
    with pytest.raises(SegueError, match="acts by what it did in earlier steps"):
        judged(Policy(algorithm, fresh_learner(algorithm)), explore=False)


def test_a_policy_that_fits_no_chunk_is_not_given_up_silently():
    given = {"dataset": "npz:x.npz", "offline_steps": 1, "online": small("fql", chunk=2), "online_steps": 2000}
    for offline in (small("td3-bc"), small("fql"), small("fql", chunk=3)):
        with pytest.raises(RecipeError, match="fql decides on 2 actions at once and can take over no policy"):
            Recipe(**given, offline=offline)
