"""Goals: where they are in a flat observation, what reaching them pays, and environments without any are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import segue
from segue.envs import Environment, make
from segue.envs.goals import Goals
from segue.errors import RecipeError, SegueError
from segue.runner.start import check_fit, dataset_of
from toys import PENDULUM, REACH, SMALL, Reach


class OneByOne(Reach):
    """As people write it who do not think of several rows."""

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return 0.0 if np.linalg.norm(achieved_goal - desired_goal) <= self.near else -1.0

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return bool(self.ends and np.linalg.norm(achieved_goal - desired_goal) <= self.near)


class Corner(gym.Env):
    """Goals that are numbers of corners; nothing says what ends an episode."""

    action_space = gym.spaces.Discrete(3)
    observation_space = gym.spaces.Dict(achieved_goal=gym.spaces.Discrete(3), desired_goal=gym.spaces.Discrete(3))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.goal = int(self.np_random.integers(3))
        return {"achieved_goal": 0, "desired_goal": self.goal}, {}

    def step(self, action: Any) -> Any:
        corner = int(action)
        reward = self.compute_reward(corner, self.goal, {})
        return {"achieved_goal": corner, "desired_goal": self.goal}, reward, False, False, {}

    def compute_reward(self, achieved_goal: int, desired_goal: int, info: Any) -> float:
        return float(achieved_goal == desired_goal)


class NoReward(Reach):
    compute_reward = None  # type: ignore[assignment]


class Unwritten(Reach):
    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        raise NotImplementedError


class Endless(Reach):
    """As of a base class that leaves the end to others."""

    def step(self, action: Any) -> Any:
        self.place = np.zeros(2)
        return self.seen(), self.compute_reward(self.place, self.goal, {}), False, False, {}

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        raise NotImplementedError


class AskingInfo(Reach):
    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return info["reward"]

    def step(self, action: Any) -> Any:
        return self.seen(), 0.0, False, False, {"reward": 0.0}


class PaysOtherwise(Reach):
    def step(self, action: Any) -> Any:
        seen, reward, *rest = super().step(action)
        return seen, 2 * reward, *rest


class OddGoals(Reach):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gym.spaces.Dict(
            achieved_goal=gym.spaces.Box(-2, 2, (2,)), desired_goal=gym.spaces.Box(-2, 2, (3,))
        )


def test_goals_are_found_in_the_flat_observation():
    env, goals = make(Environment.of(Reach)), Goals(Environment.of(Reach))
    flat, _ = env.reset(seed=3)
    raw = env.unwrapped
    assert flat[goals.achieved].tolist() == pytest.approx(raw.place.tolist())
    assert flat[goals.desired].tolist() == pytest.approx(raw.goal.tolist())


@pytest.mark.parametrize("ends", [False, True])
def test_functions_of_one_row_compute_what_those_of_several_do(ends):
    several, single = (Goals(Environment.of(cls).changed(kwargs(ends))) for cls in (Reach, OneByOne))
    assert several.at_once == {"compute_reward": True, "compute_terminated": True}
    assert not single.at_once["compute_reward"]
    source = np.random.default_rng(0)
    achieved, desired = source.uniform(-0.1, 0.1, (2, 30, 2)).astype(np.float32)
    near = np.linalg.norm(achieved.astype(np.float64) - desired, axis=1) <= 0.1
    assert 0 < near.sum() < 30
    for goals in (several, single):
        np.testing.assert_array_equal(goals.rewards(achieved, desired), np.where(near, 0.0, -1.0))
        np.testing.assert_array_equal(goals.ends(achieved, desired), near & ends)


def kwargs(ends: bool) -> Environment:
    return Environment("", {"ends": ends}, None, ())


def test_discrete_goals_are_given_as_the_environment_has_them():
    goals = Goals(Environment.of(Corner))
    one_hot = np.eye(3, dtype=np.float32)
    assert goals.rewards(one_hot, one_hot[[0, 2, 2]]).tolist() == [1.0, 0.0, 1.0]
    assert goals.ends(one_hot, one_hot) is None


def test_what_is_left_to_others_ends_nothing():
    goals = Goals(Environment.of(Endless))
    assert goals.ends(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)) is None


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (NoReward, "has no compute_reward"),
        (Unwritten, "cannot be stepped: NotImplementedError"),
        (AskingInfo, "KeyError: 'reward'; hindsight calls it with an empty info"),
        (PaysOtherwise, "compute_reward gives -1 where step paid -2"),
        (OddGoals, "achieved_goal is a Box of 2 numbers, desired_goal a Box of 3 numbers"),
        (PENDULUM, "expects a Dict with achieved_goal"),
    ],
)
def test_what_hindsight_cannot_work_with_is_refused_before_anything_starts(env, words, tmp_path):
    recipe = segue.Recipe(env=env, online=segue.TD3(**SMALL), online_steps=50, warmup_steps=10, hindsight=4)
    with pytest.raises(RecipeError) as refused:
        segue.run(recipe, out=tmp_path / "run")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_reward_that_is_not_finite_is_an_error():
    goals = Goals(Environment.of(Reach))
    goals.env.unwrapped.compute_reward = lambda achieved, desired, info: np.full(len(achieved), np.nan)
    with pytest.raises(SegueError, match="compute_reward gives nan"):
        goals.rewards(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hindsight": -1}, "hindsight is -1"),
        ({"online": segue.PPO()}, "hindsight has no use: ppo"),
        ({"online": segue.FQL(chunk=5)}, "learns from 5 steps at once; set chunk to 1"),
        (
            {"online": None, "online_steps": 0, "dataset": "npz:x.npz", "offline": "bc", "offline_steps": 5},
            "online phase",
        ),
        ({"dataset_hindsight": -1}, "dataset_hindsight is -1"),
        ({"dataset_hindsight": 4}, "the recipe names none"),
        (
            {
                "hindsight": 0,
                "dataset_hindsight": 4,
                "dataset": "npz:x.npz",
                "offline": segue.FQL(chunk=5),
                "offline_steps": 5,
            },
            "dataset_hindsight gives each step a goal of its own",
        ),
    ],
)
def test_recipes_that_hindsight_does_not_fit_are_refused(changes, words):
    values: dict[str, Any] = {"env": Reach, "online": "td3", "online_steps": 5000, "hindsight": 4}
    with pytest.raises(RecipeError) as refused:
        segue.Recipe(**(values | changes))
    assert words in str(refused.value)


def test_a_dataset_whose_goals_hardly_vary_is_refused_with_the_way_out(tmp_path):
    source = np.random.default_rng(0)
    observations = source.uniform(-1, 1, (60, 6)).astype(np.float32)
    observations[:, :2] = 0.5  # the desired goal comes first
    dataset = {
        "observations": observations,
        "actions": source.uniform(-1, 1, (60, 2)),
        "rewards": -np.ones(60),
        "terminals": np.zeros(60),
        "timeouts": np.arange(60) % 20 == 19,
        "action_low": -np.ones(2),
        "action_high": np.ones(2),
    }
    recipe = segue.Recipe(
        dataset=dataset, env=REACH, online=segue.TD3(**SMALL), online_steps=50, warmup_steps=10, hindsight=1
    )
    with pytest.raises(RecipeError, match=r"hardly vary.*give --no-normalise-observations"):
        segue.run(recipe, out=tmp_path / "run")
    raw = dataclasses.replace(recipe, normalise_observations=False)
    check_fit(raw, dataset_of(raw), raw.environment)


def test_a_dataset_whose_rewards_are_not_those_of_its_goals_is_refused_with_the_row(tmp_path):
    observations = np.random.default_rng(0).uniform(-1, 1, (60, 6)).astype(np.float32)
    dataset = {
        "observations": observations,
        "actions": np.zeros((60, 2)),
        "rewards": np.where(np.arange(60) < 7, -1.0, 1.0),
        "terminals": np.zeros(60),
        "timeouts": np.arange(60) % 20 == 19,
        "action_low": -np.ones(2),
        "action_high": np.ones(2),
    }
    recipe = segue.Recipe(
        dataset=dataset, env=REACH, offline="td3-bc", offline_steps=5, dataset_hindsight=2, held_out=0.0
    )
    with pytest.raises(RecipeError, match=r"row 7 has the reward 1, compute_reward of environment .* gives -1"):
        segue.run(recipe, out=tmp_path / "run")
    nowhere = dataclasses.replace(recipe, env="none")
    with pytest.raises(RecipeError, match="there is none: give --env"):
        check_fit(nowhere, dataset_of(nowhere), None)
