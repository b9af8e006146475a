"""Environments in the shape the learners expect."""

from __future__ import annotations

import gymnasium as gym
import jax
import numpy as np
import pytest

from helpers import small
from segue.acting import Acted, Stateless
from segue.core import Normaliser, Spaces
from segue.data.dataset import Dataset
from segue.envs import Episodes, environment_spaces, make, spaces_of
from segue.envs.record import as_columns, record
from segue.errors import RecipeError
from segue.evaluation import evaluate
from segue.ope.policy import judged
from segue.policy import Policy
from segue.training.update import init_learner

#: Where flattening puts `time`: Dict spaces are sorted by key.
TIME = 2


class Counter(gym.Env):
    """Observes a dict, takes actions in [0, 10], ends in a terminal after 3 steps or is cut after 5."""

    def __init__(self, terminal_at: int = 3) -> None:
        self.observation_space = gym.spaces.Dict(
            {"time": gym.spaces.Box(0, 100, (1,)), "noise": gym.spaces.Box(-9, 9, (2,))}
        )
        self.action_space = gym.spaces.Box(0.0, 10.0, (1,))
        self.terminal_at = terminal_at

    def observe(self) -> dict[str, np.ndarray]:
        return {"time": np.array([self.time], np.float32), "noise": self.noise.copy()}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.time, self.noise = 0, self.np_random.normal(size=2).astype(np.float32)
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple:
        assert 0 <= action[0] <= 10
        self.time += 1
        return self.observe(), float(action[0]), self.time >= self.terminal_at, False, {}


@pytest.fixture(autouse=True)
def registered() -> object:
    gym.register("Counter-v0", Counter, max_episode_steps=5)
    gym.register("LongCounter-v0", Counter, max_episode_steps=5, kwargs={"terminal_at": 99})
    gym.register("Endless-v0", Counter, kwargs={"terminal_at": 10**9})
    yield
    for name in ("Counter-v0", "LongCounter-v0", "Endless-v0"):
        del gym.registry[name]


def test_dictionary_observations_are_flattened_and_actions_rescaled() -> None:
    assert spaces_of(make("Counter-v0")) == Spaces(3, 1)
    episodes = Episodes("Counter-v0", 2, seed=0, role="test")
    _, reward, _, _ = episodes.step(np.array([[-1.0], [1.0]], np.float32))
    assert reward.tolist() == [0.0, 10.0]


def test_the_last_observation_of_an_episode_is_its_own_and_not_the_next_ones_first() -> None:
    episodes = Episodes("Counter-v0", 1, seed=0, role="test")
    action = np.zeros((1, 1), np.float32)
    times = [float(episodes.step(action)[0][0, TIME]) for _ in range(3)]
    assert times == [1.0, 2.0, 3.0]
    assert float(episodes.observation[0, TIME]) == 0.0


def test_terminals_and_time_outs_are_told_apart() -> None:
    for name, expected in (("Counter-v0", (True, False)), ("LongCounter-v0", (False, True))):
        episodes = Episodes(name, 1, seed=0, role="test")
        ends = [episodes.step(np.zeros((1, 1), np.float32))[2:] for _ in range(5)]
        ended = next((bool(a[0]), bool(b[0])) for a, b in ends if a[0] or b[0])
        assert ended == expected


def test_every_episode_starts_from_a_seed_of_its_own_that_depends_on_nothing_else() -> None:
    def starts(count: int, environments: int) -> list[np.ndarray]:
        episodes = Episodes("Counter-v0", environments, seed=7, role="test")
        found = [episodes.observation[0]]
        for _ in range(3 * count):
            episodes.step(np.zeros((environments, 1), np.float32))
            if episodes.episode[0] == len(found):
                found.append(episodes.observation[0])
        return found

    one, two = starts(3, 1), starts(3, 4)
    np.testing.assert_array_equal(one, two)
    assert len({tuple(start) for start in one}) == len(one)


def test_evaluation_adds_up_whole_episodes_and_gives_every_policy_the_same_starts() -> None:
    def ones(observation: np.ndarray, source: object, explore: bool) -> np.ndarray:
        return np.ones((len(observation), 1), np.float32)

    policy = Stateless(ones)

    assert evaluate(policy, "Counter-v0", 4, seed=0).tolist() == [30.0] * 4
    assert evaluate(policy, "LongCounter-v0", 2, seed=0).tolist() == [50.0] * 2


def test_an_evaluation_episode_that_never_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.evaluation.rollout.MAX_EPISODE_STEPS", 50)
    with pytest.raises(RecipeError, match="had ended after 50 steps, and it has no time limit"):
        evaluate(Stateless(lambda *given: np.zeros((1, 1), np.float32)), "Endless-v0", 1, seed=0)


def test_recording_keeps_what_the_environment_gave_in_its_own_spaces() -> None:
    episodes = record(None, "Counter-v0", 7, explore=True, seed=0, part=0)
    assert [len(episode.rewards) for episode in episodes] == [3, 3, 1]
    assert [episode.terminal for episode in episodes] == [True, True, False]
    assert set(episodes[0].observations) == {"time", "noise"}
    assert episodes[0].observations["time"][:, 0].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(episodes[0].actions[:, 0], episodes[0].rewards, rtol=1e-6)
    assert max(episode.actions.max() for episode in episodes) > 1


def test_recording_starts_the_policy_anew_with_each_episode() -> None:
    told = []

    class Counting:
        def start(self, batch: int) -> np.ndarray:
            return np.zeros(batch, np.int64)

        def act(self, observation: np.ndarray, carry: np.ndarray, source: object, explore: bool) -> Acted:
            told.extend(carry.tolist())
            return Acted(np.zeros((1, 1), np.float32), lambda: np.zeros(1), carry + 1)

    record(Counting(), "Counter-v0", 7, explore=True, seed=0, part=0)
    assert told == [0, 1, 2, 0, 1, 2, 0]


def test_an_unknown_environment_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'Hopper-v"):
        make("Hoper-v5")


@pytest.mark.parametrize("name", ["sac", "iql", "td3"])
def test_a_recording_has_the_propensities_of_the_policy_that_acted(name: str) -> None:
    """Those that off-policy evaluation finds for the logged actions: the policy against itself has weights of 1."""
    spaces = environment_spaces("Pendulum-v1")
    algorithm = small(name, exploration_noise=0.3) if name == "td3" else small(name)
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), spaces), Normaliser.identity(3))
    policy = Policy(algorithm, learner)
    recorded = [record(policy, "Pendulum-v1", 60, explore=True, seed=0, part=0)]
    recorded.append(record(None, "Pendulum-v1", 20, explore=True, seed=0, part=1))
    dataset = Dataset.from_columns(as_columns([*recorded[0], *recorded[1]], "Pendulum-v1"), "made")
    expected = judged(policy, explore=True).log_prob(dataset.observations, dataset.actions)
    np.testing.assert_allclose(dataset.behaviour_log_prob[:60], expected[:60], atol=1e-3)
    np.testing.assert_allclose(dataset.behaviour_log_prob[60:], -np.log(2), atol=1e-5)


def test_without_a_known_probability_of_every_action_no_propensity_is_written() -> None:
    """Here that of a certain action, which has no density."""
    spaces = environment_spaces("Pendulum-v1")
    algorithm = small("sac")
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), spaces), Normaliser.identity(3))
    episodes = record(Policy(algorithm, learner), "Pendulum-v1", 5, explore=False, seed=0, part=0)
    assert as_columns(episodes, "Pendulum-v1").behaviour_log_prob is None
