"""Environments so small that the best policy is known. Importing this registers them with Gymnasium."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import PendulumEnv

import segue

SMALL: dict[str, Any] = {"hidden_sizes": (8, 8), "batch_size": 16}


class _OneStep(gym.Env):
    """Shows −1 or 1, takes one action, pays, ends."""

    observation_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state = float(self.np_random.choice([-1.0, 1.0]))
        return np.array([self.state], np.float32), {}

    def step(self, action: Any) -> Any:
        return np.array([self.state], np.float32), self.pay(action), True, False, {}


class Aim(_OneStep):
    """Pays 1 for an action of half the state, and less the farther from it."""

    action_space = gym.spaces.Box(-1, 1, (1,))

    def pay(self, action: Any) -> float:
        return 1 - (float(action[0]) - self.state / 2) ** 2


class Pick(_OneStep):
    """Pays 1 for the first of three actions in state −1 and for the last in state 1."""

    action_space = gym.spaces.Discrete(3)

    def pay(self, action: Any) -> float:
        return float(action == 1 + self.state)


class Clock(gym.Env):
    """Shows the step's number and pays 1 per step, whatever is done: the first episode of an environment reaches a
    terminal after three steps, the second is cut after four, and so on in turn."""

    observation_space = gym.spaces.Box(0, 10, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    episode = -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        ends = self.episode % 2 == 0
        done = self.time == (3 if ends else 4)
        return np.array([self.time], np.float32), 1.0, done and ends, done and not ends, {}


class Spot(_OneStep):
    """Shows a grey picture with a bright square on its left or its right; pays for the action of that side."""

    observation_space = gym.spaces.Box(0, 255, (12, 10), np.uint8)

    def __init__(self, discrete: bool = False) -> None:
        self.action_space = gym.spaces.Discrete(2) if discrete else gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        row, column = self.np_random.integers(9), self.np_random.integers(3) + (5 if self.state > 0 else 0)
        self.picture = self.np_random.integers(40, 80, (12, 10)).astype(np.uint8)
        self.picture[row : row + 3, column : column + 2] = 250
        return self.picture, {}

    def step(self, action: Any) -> Any:
        return self.picture, self.pay(action), True, False, {}

    def pay(self, action: Any) -> float:
        discrete = isinstance(self.action_space, gym.spaces.Discrete)
        return 1 - (float(2 * action - 1 if discrete else action[0]) - self.state) ** 2


class Reach(gym.Env):
    """A point in a square of ±1 that is moved by up to 0.15 per step, and a place to take it to: −1 for each step until
    it is within `near` of it, which is `desired_goal`."""

    action_space = gym.spaces.Box(-1, 1, (2,))

    def __init__(self, near: float = 0.1, ends: bool = False) -> None:
        self.near, self.ends = near, ends
        box = gym.spaces.Box(-2, 2, (2,), np.float64)
        # Not in the order of their names, as an environment may have it.
        self.observation_space = gym.spaces.Dict(desired_goal=box, observation=box, achieved_goal=box)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place, self.goal = self.np_random.uniform(-1, 1, (2, 2))
        return self.seen(), {}

    def step(self, action: Any) -> Any:
        self.place = np.clip(self.place + 0.15 * np.clip(np.asarray(action, np.float64), -1, 1), -1, 1)
        reward = float(self.compute_reward(self.place, self.goal, {}))
        return self.seen(), reward, bool(self.compute_terminated(self.place, self.goal, {})), False, {}

    def seen(self) -> Any:
        return {"observation": self.place.copy(), "achieved_goal": self.place.copy(), "desired_goal": self.goal.copy()}

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return -(np.linalg.norm(achieved_goal - desired_goal, axis=-1) > self.near).astype(np.float32)

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return self.ends & (np.linalg.norm(achieved_goal - desired_goal, axis=-1) <= self.near)


class Risk(PendulumEnv):
    """Pendulum that costs 0.5 a step, and reports whether the action was above 0."""

    def step(self, action: Any) -> Any:
        return *super().step(action)[:4], {"cost": 0.5, "pushed": np.bool_(action[0] > 0), "names": ["a", "b"]}


AIM, PICK, CLOCK = "SegueTestAim-v0", "SegueTestPick-v0", "SegueTestClock-v0"
#: Pendulum with episodes of 20 steps, by a name that worker processes understand.
PENDULUM = "toys:SegueTestPendulum-v0"
#: The same with costs in `info`.
RISK = "toys:SegueTestRisk-v0"
#: Of images, with continuous and with discrete actions.
SPOT, SIDE = "toys:SegueTestSpot-v0", "toys:SegueTestSide-v0"
gym.register("SegueTestSpot-v0", Spot, disable_env_checker=True)
gym.register("SegueTestSide-v0", Spot, disable_env_checker=True, kwargs={"discrete": True})
for name, env in ((AIM, Aim), (PICK, Pick), (CLOCK, Clock)):
    gym.register(name, env, disable_env_checker=True)
#: The point with episodes of 25 steps, which reaching the goal does not end.
REACH = "toys:SegueTestReach-v0"
gym.register("SegueTestReach-v0", Reach, disable_env_checker=True, max_episode_steps=25)
gym.register("SegueTestPendulum-v0", PendulumEnv, max_episode_steps=20)
gym.register("SegueTestRisk-v0", Risk, max_episode_steps=20)


class Notes:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.evaluated: dict[int, np.ndarray] = {}
        self.measured: list[tuple[int, dict[str, float]]] = []
        self.events: list[tuple[int, str]] = []

    def progress(self, phase: str, step: int, total: int) -> None: ...

    def note(self, message: str) -> None: ...

    def event(self, phase: str, step: int, message: str) -> None:
        self.events.append((step, message))

    def metrics(self, phase: str, step: int, values: dict[str, float]) -> None:
        self.measured.append((step, values))

    def evaluation(self, phase: str, step: int, returns: np.ndarray, costs: Any = None) -> None:
        assert step not in self.evaluated
        self.evaluated[step] = returns

    def spent(self, phase: str, what: str, seconds: float) -> None: ...

    def clock(self, phase: str, what: str) -> Any:
        import contextlib

        return contextlib.nullcontext()


def log_of(env_id: str, rows: int = 60) -> dict[str, np.ndarray]:
    """Random steps of a one-step environment, as a dict of columns."""
    rng = np.random.default_rng(0)
    env = {AIM: Aim, PICK: Pick}[env_id]()
    states = rng.choice([-1.0, 1.0], rows)
    actions = rng.integers(3, size=rows) if env_id == PICK else rng.uniform(-1, 1, (rows, 1))
    rewards = []
    for env.state, action in zip(states, actions, strict=True):
        rewards.append(env.pay(action))
    return {
        "observations": states[:, None],
        "actions": actions,
        "rewards": np.array(rewards),
        "next_observations": states[:, None],
        "terminals": np.ones(rows),
        "timeouts": np.zeros(rows),
    }


def pendulum_log(rows: int = 60) -> dict[str, np.ndarray]:
    """Noise in Pendulum's shapes, as a dict of columns; episodes of 20 steps."""
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(rows, 3)),
        "actions": rng.uniform(-1, 1, (rows, 1)),
        "rewards": rng.normal(size=rows),
        "terminals": np.zeros(rows),
        "timeouts": np.arange(rows) % 20 == 19,
        "action_low": np.array([-1.0]),
        "action_high": np.array([1.0]),
    }


def pendulum(**changes: Any) -> segue.Recipe:
    """A whole run in a second: a few updates on that dataset, and 40 steps of Pendulum."""
    values: dict[str, Any] = {
        "dataset": pendulum_log(),
        "env": PENDULUM,
        "offline": segue.TD3BC(**SMALL),
        "offline_steps": 4,
        "online": segue.SAC(**SMALL),
        "online_steps": 40,
        "warmup_steps": 10,
        "eval_every": 20,
        "eval_episodes": 2,
    }
    return segue.Recipe(**(values | changes))
