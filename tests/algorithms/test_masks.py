"""Actions that are not allowed are never taken, and no value is learnt through them; without masks nothing changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import segue
from helpers import MEMBERS, few, random_learner, same_bits, small, transitions
from segue.algorithms.ppo import PPO
from segue.core import Spaces
from segue.data import Columns, Dataset, npz
from segue.envs import Episodes
from segue.envs.masks import KEY, gives_masks, mask_of
from segue.envs.process import Remote
from segue.envs.record import as_columns, record
from segue.errors import RecipeError, SegueError
from segue.evaluation import roll_out
from segue.ope import DiscretePolicy, evaluate_offline
from segue.policy import Policy
from segue.training.update import init_learner, take_all
from toys import SMALL

ACTIONS = 4
DISCRETE = sorted({name for name, kind in MEMBERS.values() if kind == "discrete"})
every_discrete = pytest.mark.parametrize("name", DISCRETE)


class Doors(gym.Env):
    """Three steps; a door (action) pays its number, and each step another one of them is shut."""

    observation_space = gym.spaces.Box(0, ACTIONS, (1,))
    action_space = gym.spaces.Discrete(ACTIONS)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time, self.shut = 0, int(self.np_random.integers(ACTIONS))
        return self.seen(), self.info()

    def step(self, action: Any) -> Any:
        assert action != self.shut, "a door that is shut"
        self.time, self.shut = self.time + 1, (self.shut + 1) % ACTIONS
        return self.seen(), float(action), self.time == 3, False, self.info()

    def seen(self) -> Any:
        return np.array([self.shut], np.float32)

    def info(self) -> Any:
        return {"action_mask": (np.arange(ACTIONS) != self.shut).astype(np.int8), "cost": 1.0}


DOORS = "test_masks:SegueTestDoors-v0"
gym.register("SegueTestDoors-v0", Doors, disable_env_checker=True)


def masked(batch: Any, seed: int) -> Any:
    source, rows = np.random.default_rng(seed), np.arange(len(batch.reward))
    masks = source.random((2, len(rows), ACTIONS)) < 0.5
    masks[0, rows, batch.action] = True
    masks[1, rows, source.integers(ACTIONS, size=len(rows))] = True
    return batch._replace(allowed=masks[0], next_allowed=masks[1])


def updated(name: str, batch: Any) -> Any:
    algorithm = small(name)
    learner = random_learner(algorithm, kind="discrete")
    return take_all(algorithm.steps(), algorithm, (), learner, jax.tree.map(jnp.asarray, batch), jax.random.key(0), {})


@every_discrete
def test_masks_that_allow_all_change_nothing_and_others_keep_it_finite(name: str) -> None:
    batch = transitions(kind="discrete")
    every = np.ones((len(batch.reward), ACTIONS), bool)
    plain, all_allowed = updated(name, batch)[0], updated(name, batch._replace(allowed=every, next_allowed=every))[0]
    for a, b in zip(jax.tree.leaves(plain.nets), jax.tree.leaves(all_allowed.nets), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    some, reported = updated(name, masked(batch, 0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((some.nets, reported)))
    assert not same_bits(some.nets, plain.nets)


@pytest.mark.parametrize("name", ["dqn", "discrete-bcq", "discrete-sac", "awac"])
@few
@given(seed=st.integers(0, 1000))
def test_the_value_of_the_next_state_is_that_of_its_allowed_actions(name: str, seed: int) -> None:
    """What a forbidden action is worth has no effect: its network's outputs are moved by a lot."""
    algorithm = small(name)
    nets, batch = random_learner(algorithm, kind="discrete").nets, masked(transitions(kind="discrete"), seed)
    only = np.zeros(ACTIONS, bool)
    only[seed % ACTIONS] = True
    batch = batch._replace(next_allowed=np.tile(only, (len(batch.reward), 1)))
    value = algorithm.next_value(nets, batch, jax.random.key(0))
    expected = nets.target_critic.all(batch.next_observation).min(0)[:, seed % ACTIONS]
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def log(seed: int = 0) -> Dataset:
    return Dataset.from_columns(as_columns(record(None, DOORS, 300, explore=True, seed=seed, part=0), DOORS), "doors")


def test_a_recorded_dataset_knows_what_was_allowed_and_how_probable_the_action_was() -> None:
    data = log()
    assert data.allowed_actions is not None
    assert (data.allowed_actions.sum(1) == ACTIONS - 1).all()
    assert data.behaviour_log_prob == pytest.approx(np.full(len(data), -np.log(ACTIONS - 1)))
    following = data.next_allowed_actions()
    inside = np.flatnonzero(data.next_rows() >= 0)
    assert (following[inside] == data.allowed_actions[inside + 1]).all()
    assert data.episodes(np.array([1])).allowed_actions.shape == (3, ACTIONS)


def test_files_keep_the_masks_and_say_what_contradicts_them(tmp_path: Path) -> None:
    data = log()
    npz.write(tmp_path / "x.npz", data.columns())
    back = segue.load(tmp_path / "x.npz")
    assert (back.allowed_actions == data.allowed_actions).all()
    assert back.fingerprint() == data.fingerprint()
    wrong = data.allowed_actions.copy()
    wrong[5] = np.arange(ACTIONS) != data.actions[5]
    columns = {**vars(data.columns())}
    for masks, message in (
        (wrong, f"forbids the action {data.actions[5]} at row 5"),
        (np.ones((len(data), 2)), r"expected 0 or 1 for each of the 4 actions"),
    ):
        with pytest.raises(SegueError, match=message):
            Dataset.from_columns(Columns(**{**columns, "allowed_actions": masks}), "doors")


@pytest.mark.parametrize(
    "online", ["dqn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("discrete-sac", "ppo"))]
)
def test_no_run_ever_opens_a_door_that_is_shut(online: str, tmp_path: Path) -> None:
    """Pretraining, random and trained exploration, evaluation: the environment would raise."""
    extra = {"rollout_steps": 32} if online == "ppo" else {}
    recipe = segue.Recipe(
        dataset=log(),
        env=DOORS,
        offline=segue.DiscreteBCQ(**SMALL) if online == "dqn" else segue.BC(**SMALL),
        offline_steps=20,
        online={"dqn": segue.DQN, "discrete-sac": segue.DiscreteSAC, "ppo": PPO}[online](**SMALL, **extra),
        online_steps=60,
        warmup_steps=10,
        eval_every=30,
        eval_episodes=3,
        bad_steps=0.0,
    )
    result = segue.run(recipe, tmp_path / "x", workers=1)
    assert result.policy() is not None


@pytest.mark.slow
def test_environments_in_processes_and_in_this_one_show_the_same_masks() -> None:
    found = []
    for apart in (None, Remote):
        episodes = Episodes(DOORS, 2, 0, "training", apart=apart, cost_key="cost")
        try:
            shown = [episodes.allowed.copy()]
            for _ in range(4):
                episodes.step(episodes.allowed.argmax(1).astype(np.int32))
                shown.append(episodes.allowed.copy())
            assert (episodes.cost == 1).all()
        finally:
            episodes.close()
        found.append(np.stack(shown))
    assert (found[0] == found[1]).all()


def test_off_policy_evaluation_judges_what_the_policy_does_among_the_allowed() -> None:
    """A policy that prefers the highest open door, judged from random ones: its weights are those of open doors."""
    data = log()
    target = DiscretePolicy(
        lambda observation: np.tile([0.1, 0.2, 0.3, 0.4], (len(observation), 1)),
        among=lambda observation, allowed: (
            np.where(allowed, [0.1, 0.2, 0.3, 0.4], 0)
            / np.where(allowed, [0.1, 0.2, 0.3, 0.4], 0).sum(1, keepdims=True)
        ),
    )
    chances = target.chances(data.observations, data.allowed_actions)
    assert (chances[~data.allowed_actions] == 0).all()
    result = evaluate_offline(target, data, methods=["pdis"], discount=1.0, fresh=True)
    exact = np.mean([(chances[row : row + 3] * np.arange(ACTIONS)).sum() for row in data.episode_starts])
    assert result["pdis"].value == pytest.approx(exact, rel=0.2)


def test_evaluation_acts_among_the_allowed() -> None:
    algorithm = segue.DQN(**SMALL)
    data = log()
    learner_nets = algorithm.init(jax.random.key(0), data.spaces)
    policy = Policy(algorithm, init_learner(algorithm, learner_nets, data.normaliser()))
    assert len(roll_out(policy, DOORS, 5, 0).returns) == 5


@pytest.mark.parametrize(
    "mask", [None, [1, 1], [[1, 1, 1, 1]], [0, 0, 0, 0], [1, 2, 0, 0], [0.5, 1, 0, 0], [np.nan, 1, 0, 0]]
)
def test_a_mask_that_is_none_is_an_error_that_says_what_is_expected(mask: Any) -> None:
    info = {} if mask is None else {KEY: mask}
    with pytest.raises(
        RecipeError, match=r"environment 'Doors-v0': info\['.*'\] is .*; expected 4 numbers, 1 for each"
    ):
        mask_of(info, Spaces(1, ACTIONS, discrete=True), "Doors-v0")


@pytest.mark.parametrize("info", [{}, {KEY: [0, 0, 0, 0]}])
def test_at_the_end_of_an_episode_no_action_need_be_allowed(info: dict[str, Any]) -> None:
    assert mask_of(info, Spaces(1, ACTIONS, discrete=True), "Doors-v0", over=True).all()


def test_an_environment_whose_reset_fails_is_taken_for_one_without_masks() -> None:
    class Stuck(Doors):
        def reset(self, **options: Any) -> Any:
            raise ConnectionError("no route to the door")

    gym.register("SegueTestStuckDoors-v0", Stuck, disable_env_checker=True)
    assert not gives_masks("SegueTestStuckDoors-v0")
