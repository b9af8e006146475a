"""Environments that raise, hang, or give what is no number: the episode is given up, training goes on."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest

import segue
from segue.acting import Stateless
from segue.envs import Episodes, Patience
from segue.envs.watch import WATCH
from segue.errors import RecipeError, SegueError
from segue.evaluation import roll_out
from segue.recipe import Recipe, read_recipes
from segue.runner import checkpointer, compare, run
from segue.training.collect import Collector

SMALL: dict[str, Any] = {"hidden_sizes": (8, 8), "batch_size": 16}
#: Of all steps of all environments of this process, those that go wrong; reset by each test.
STEPS = {"taken": 0, "every": 0, "how": ""}


class Flaky(gym.Env):
    """Shows how long the episode lasts and pays as much; every so many steps it does what STEPS says."""

    observation_space = gym.spaces.Box(0, 20, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        STEPS["taken"] += 1
        seen, reward = np.array([self.time], np.float32), float(self.time)
        if STEPS["every"] and STEPS["taken"] % STEPS["every"] == 0:
            seen, reward = self.misbehave(seen, reward)
        return seen, reward, False, self.time == 10, {}

    def misbehave(self, seen: Any, reward: Any) -> Any:
        how = STEPS["how"]
        if how == "raises":
            raise ConnectionError("the robot is gone")
        if how == "hangs":
            while True:
                time.sleep(0.01)
        wrong = {
            "NaN observation": (np.array([np.nan], np.float32), reward),
            "infinite reward": (seen, np.inf),
            "no reward": (seen, None),
            "out of range": (np.array([1e9], np.float32), reward),
            "wrong shape": (np.zeros(3, np.float32), reward),
            "a scalar for a vector": (np.float32(1), reward),
            "words": ("left of the door", reward),
        }
        return wrong[how]


FLAKY = "SegueTestFlaky-v0"
gym.register(FLAKY, Flaky, disable_env_checker=True)
WAYS = {
    "raises": "ConnectionError: the robot is gone",
    "hangs": "did not come back for 0.2 seconds",
    "NaN observation": r"observation\[0\] is nan",
    "infinite reward": "reward is inf",
    "no reward": "the reward is None",
    "out of range": r"observation\[0\] is 1e\+09, far outside its declared bounds",
    "wrong shape": r"the observation has shape \(3,\); expected \(1,\)",
    "a scalar for a vector": r"the observation has shape \(\)",
    "words": "ValueError",
}


@pytest.fixture(autouse=True)
def well() -> Any:
    STEPS.update(taken=0, every=0, how="")
    yield
    STEPS.update(taken=0, every=0, how="")


def misbehaving(how: str, every: int) -> None:
    STEPS.update(taken=0, every=every, how=how)


@pytest.mark.parametrize("how", WAYS)
def test_a_bad_step_is_lost_and_said_and_the_next_episode_has_begun(how: str):
    said: list[str] = []
    episodes = Episodes(FLAKY, 2, 0, "test", Patience(step_timeout=0.2), said.append)
    misbehaving(how, every=5)  # the third step of the first environment
    for _ in range(2):
        episodes.step(np.zeros((2, 1), np.float32))
    assert not episodes.any_lost
    following, reward, terminated, truncated = episodes.step(np.zeros((2, 1), np.float32))
    assert episodes.lost.tolist() == [True, False]
    assert following[1] == reward[1] == 3
    assert not terminated.any()
    assert not truncated.any()
    assert episodes.observation.tolist() == [[0], [3]]
    assert episodes.episode.tolist() == [1, 0]
    assert episodes.time.tolist() == [0, 3]
    assert (episodes.steps, episodes.bad) == (6, 1)
    (line,) = said
    assert re.search(WAYS[how], line)
    assert "step 3 of episode 0" in line
    assert "quarantined (1 of 6 steps so far)" in line
    episodes.close()


def test_an_environment_that_is_slow_but_comes_back_is_left_alone():
    episodes = Episodes(FLAKY, 1, 0, "test", Patience(step_timeout=30.0))
    WATCH._interrupt(0, None)  # the signal of a call that has come back meanwhile
    episodes.step(np.zeros((1, 1), np.float32))
    assert episodes.bad == 0
    episodes.close()


def test_more_bad_steps_than_are_put_up_with_stop_the_run_with_the_reason():
    misbehaving("raises", every=20)
    episodes = Episodes(FLAKY, 1, 0, "test", Patience(bad_steps=0.02))
    for _ in range(219):
        episodes.step(np.zeros((1, 1), np.float32))
    assert episodes.bad == 10
    with pytest.raises(SegueError, match=r"the robot is gone\. 11 of 220 steps were bad, more than the share of 0.02"):
        episodes.step(np.zeros((1, 1), np.float32))
    episodes.close()


def test_fewer_are_put_up_with_for_ever_and_said_ever_more_rarely():
    misbehaving("raises", every=100)
    said: list[str] = []
    episodes = Episodes(FLAKY, 1, 0, "test", Patience(bad_steps=0.02), said.append)
    for _ in range(4000):
        episodes.step(np.zeros((1, 1), np.float32))
    assert episodes.bad == 40
    assert len(said) == 12, "the first ten, then the 16th and the 32nd"
    episodes.close()


def test_an_environment_that_cannot_be_built_again_says_so(monkeypatch):
    episodes = Episodes(FLAKY, 1, 0, "test")
    misbehaving("raises", every=1)

    def gone(env_id: str) -> None:
        raise ConnectionError("no route to the robot")

    monkeypatch.setattr("segue.envs.episodes.make", gone)
    with pytest.raises(SegueError, match=r"cannot be built anew.*no route to the robot"):
        episodes.step(np.zeros((1, 1), np.float32))


def test_in_place_of_a_quarantined_evaluation_episode_another_one_is_done():
    def still(observation: np.ndarray, source: Any, explore: bool) -> np.ndarray:
        return np.zeros((len(observation), 1), np.float32)

    misbehaving("NaN observation", every=17)
    said: list[str] = []
    rollouts = roll_out(Stateless(still), FLAKY, 3, seed=0, tell=said.append)
    assert said
    assert [len(rewards) for rewards in rollouts.rewards] == [10, 10, 10]
    assert rollouts.returns.tolist() == [55.0] * 3


def test_an_episode_that_does_not_end_is_cut_and_said(monkeypatch):
    monkeypatch.setattr("segue.envs.episodes.MAX_EPISODE_STEPS", 1024)
    said: list[str] = []
    episodes = Episodes("SegueTestEndless-v0", 1, 0, "test", tell=said.append)
    cut = [bool(episodes.step(np.zeros((1, 1), np.float32))[3][0]) for _ in range(1030)]
    assert [step for step, truncated in enumerate(cut, 1) if truncated] == [1024]
    assert "does not end; cut after 1,024 steps" in said[0]
    episodes.close()


class Endless(Flaky):
    """It has no end."""

    def step(self, action: Any) -> Any:
        return np.ones(1, np.float32), 0.0, False, False, {}


gym.register("SegueTestEndless-v0", Endless, disable_env_checker=True)


def recipe(online: Any, **changes: Any) -> Recipe:
    values = {
        "env": FLAKY,
        "online": online,
        "online_steps": 240,
        "warmup_steps": 20,
        "eval_every": 120,
        "eval_episodes": 1,
        "environments": 2,
        "bad_steps": 0.1,
        "step_timeout": 0.5,
    }
    return Recipe(**(values | changes))


ALGORITHMS = [segue.IQL(**SMALL), segue.PPO(**SMALL, rollout_steps=48, epochs=1)]


@pytest.mark.parametrize(
    ("online", "how"),
    [
        pytest.param(algorithm, how, id=f"{algorithm.name}-{how}", marks=() if how in quick else pytest.mark.slow)
        for algorithm, quick in zip(ALGORITHMS, (("raises",), ("NaN observation",)), strict=True)
        for how in ("raises", "NaN observation", "hangs")
    ],
)
def test_training_goes_on_with_transitions_of_whole_steps_only(tmp_path: Path, monkeypatch, online: Any, how: str):
    batches = []
    step = Collector.step

    def watched(*given: Any, **options: Any) -> Any:
        collected = step(*given, **options)
        batches.append(collected)
        return collected

    monkeypatch.setattr(Collector, "step", watched)
    misbehaving(how, every=41)
    result = run(recipe(online, online_steps=120 if how == "hangs" else 240), tmp_path / "x", workers=1)
    seed = result.summary["arms"]["run"]["seeds"]["0"]
    assert result.status == "complete", seed["error"]
    assert any("quarantined" in event["message"] for event in seed["events"])
    assert any(collected.broken is not None for collected in batches)
    for batch, reward, _, broken, *_ in batches:
        before, after = (batch.observation[:, 0], batch.next_observation[:, 0])
        assert (after - before == 1).all(), "a step of the environment, never the jump from one episode to the next"
        assert np.array_equal(reward, after)
        if broken is not None:
            assert (before[broken] == 0).all()


def test_a_run_in_which_the_environment_misbehaves_goes_on_after_a_kill_to_the_same_numbers(
    tmp_path: Path, monkeypatch
):
    """Misbehaviour that is a function of the episode is repeated like everything else."""
    from segue.rng import environment_seed

    real = Flaky.reset

    def reset(self: Any, *, seed: int | None = None, options: Any = None) -> Any:
        self.cursed = seed is not None and seed % 5 == 0
        return real(self, seed=seed, options=options)

    def step(self: Any, action: Any) -> Any:
        self.time += 1
        if self.cursed and self.time == 7:
            raise ConnectionError("this episode is cursed")
        return np.array([self.time], np.float32), float(self.time), False, self.time == 10, {}

    monkeypatch.setattr(Flaky, "reset", reset)
    monkeypatch.setattr(Flaky, "step", step)
    assert any(environment_seed(0, "training", env, n) % 5 == 0 for env in range(2) for n in range(12))
    segue.run(recipe(segue.IQL(**SMALL)), tmp_path / "whole", workers=1)

    class Killed(BaseException):
        pass

    save, saved = checkpointer.JobCheckpointer.save, [0]

    def fatal(self: Any, position: Any) -> None:
        save(self, position)
        saved[0] += 1
        if saved[0] % 2 == 0:
            raise Killed

    monkeypatch.setattr(checkpointer.JobCheckpointer, "save", fatal)
    for _ in range(20):
        try:
            if (tmp_path / "x").exists():
                compare(read_recipes(tmp_path / "x"), tmp_path / "x", workers=1, checkpoint_every=0)
            else:
                segue.run(recipe(segue.IQL(**SMALL)), tmp_path / "x", workers=1, checkpoint_every=0)
            break
        except Killed:
            continue
    summaries = [read(tmp_path / name) for name in ("whole", "x")]
    assert saved[0] > 3
    assert summaries[0]["events"]
    assert summaries[0] == summaries[1]


def read(directory: Path) -> dict[str, Any]:
    import json

    seed = json.loads((directory / "summary.json").read_text())["arms"]["run"]["seeds"]["0"]
    return {name: seed[name] for name in ("events", "parameters_sha256", "online_evaluations", "status")}


def test_what_is_put_up_with_is_checked_when_the_recipe_is_built():
    with pytest.raises(RecipeError, match=r"bad_steps is 2\.0; expected between 0 and 1"):
        recipe(segue.SAC(), bad_steps=2)
    with pytest.raises(RecipeError, match=r"step_timeout is 0\.0; expected above 0"):
        recipe(segue.SAC(), step_timeout=0)


class Unsteady(gym.Env):
    """Shows how many steps all of its kind have taken; a reset whose number is in RESETS goes wrong."""

    observation_space = gym.spaces.Box(0, 1000, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    resets: int = 0
    closed: int = 0
    wrong: ClassVar[dict[int, Any]] = {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        Unsteady.resets += 1
        how = Unsteady.wrong.get(Unsteady.resets, 0.0)
        if isinstance(how, BaseException):
            raise how
        self.time = 0
        return np.array([how], np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        STEPS["taken"] += 1
        if STEPS["how"] == "raises":
            raise ConnectionError("the robot is gone")
        seen = STEPS["taken"] if STEPS["how"] == "another" else self.time
        return np.array([seen], np.float32), 0.0, STEPS["how"] == "ends", False, {}

    def close(self) -> None:
        Unsteady.closed += 1


gym.register("SegueTestUnsteady-v0", Unsteady, disable_env_checker=True)


def unsteady(count: int = 2, wrong: Any = ()) -> tuple[Episodes, list[str]]:
    """So many of them, whose resets go wrong as said, and what is told."""
    Unsteady.resets, Unsteady.closed, Unsteady.wrong = 0, 0, dict(wrong)
    said: list[str] = []
    return Episodes("SegueTestUnsteady-v0", count, 0, "test", tell=said.append), said


@pytest.mark.parametrize(
    ("how", "words"),
    [(ConnectionError("no route"), "reset: ConnectionError: no route"), (np.nan, r"reset: observation[0] is nan")],
)
def test_a_reset_that_goes_wrong_is_done_again_in_a_new_environment(how: Any, words: str):
    episodes, said = unsteady(wrong={2: how})
    assert len(said) == 1
    assert words in said[0]
    assert episodes.episode.tolist() == [0, 1]
    assert episodes.observation.tolist() == [[0.0], [0.0]]
    episodes.close()


def test_an_interrupted_beginning_leaves_no_environment_open():
    with pytest.raises(KeyboardInterrupt):
        unsteady(count=3, wrong={2: KeyboardInterrupt()})
    assert Unsteady.closed == 3


@pytest.mark.parametrize("how", ["another", "raises", "ends"])
def test_an_episode_that_is_not_repeated_after_an_interruption_is_given_up_and_said(how: str):
    episodes, _ = unsteady()
    for _ in range(4):
        episodes.step(np.zeros((2, 1), np.float32))
    place = episodes.position()
    episodes.close()
    again, said = unsteady()
    STEPS["how"] = how
    again.restore(place)
    assert again.lost.tolist() == [True, True]
    assert again.episode.tolist() == [1, 1]
    assert again.time.tolist() == [0, 0]
    assert len(said) == 2
    assert "environment 0 did not repeat its episode from the same seed and actions: it starts another" in said[0]
    again.close()
    STEPS["how"] = ""
    same, said = unsteady()
    same.restore(place)
    assert (same.lost.tolist(), same.time.tolist(), said) == ([False, False], [4, 4], [])
    same.close()
