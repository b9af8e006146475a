"""Environments with everything that an export must get right, and policies exported for them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import onnxruntime

from helpers import random_learner, small
from segue.algorithms import ALGORITHMS, Algorithm
from segue.bridges import Bridge
from segue.deployment import ExportedPolicy, load_policy
from segue.deployment.export import export_policy
from segue.deployment.kinds import Proposals, put_together, take_apart
from segue.envs import environment_spaces
from segue.runner.checkpoint import Checkpoint, save
from segue.training.update import replace
from segue.types import Learner, Normaliser

sys.path.insert(0, str(Path(__file__).parents[1] / "bridges"))
from seams import attach


class Crane(gym.Env):
    """A dictionary of observations, and actions in float64 bounds of which 0.1 is no float32."""

    observation_space = gym.spaces.Dict({"swing": gym.spaces.Box(-9, 9, (1,)), "gear": gym.spaces.Discrete(2, start=3)})
    action_space = gym.spaces.Box(np.array([-2.0, 0.0]), np.array([0.1, 3.0]), dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(np.asarray(action, np.float64))
        self.time += 1
        return self.observation_space.sample(), float(np.sum(action)), self.time == 3, False, {}


class Switch(gym.Env):
    """Four actions, counted from 1."""

    observation_space = gym.spaces.Box(-9, 9, (3,))
    action_space = gym.spaces.Discrete(4, start=1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.np_random.normal(size=3).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        return self.np_random.normal(size=3).astype(np.float32), float(action), True, False, {}


ENVS = {"continuous": "SegueTestCrane-v0", "discrete": "SegueTestSwitch-v0"}
for name, env in ((ENVS["continuous"], Crane), (ENVS["discrete"], Switch)):
    gym.register(name, env, disable_env_checker=True)

#: (algorithm, kind of actions) by a name for the pair: every one there is.
POLICIES = {f"{name}-{kind}": (name, kind) for name, cls in ALGORITHMS.items() for kind in cls.actions}


@dataclasses.dataclass(frozen=True)
class Made:
    """One policy, as it was trained and as it was exported."""

    checkpoint: Checkpoint
    directory: Path
    exported: ExportedPolicy
    notes: tuple[str, ...]

    def original(self, observation: np.ndarray, *arguments: Any, **options: Any) -> np.ndarray:
        """As Segue acts on the host; where float32 overflows on the way, what comes of it is what counts."""
        with np.errstate(over="ignore"):
            return self.checkpoint.policy()(observation, *arguments, **options)

    def on_device(self, observation: np.ndarray) -> np.ndarray:
        """As JAX computes it; the generator is where a policy without its own randomness starts from."""
        learner = self.checkpoint.learner
        nets = jax.tree.map(jax.numpy.asarray, learner.nets)
        x = jax.numpy.asarray(learner.normaliser(observation))
        return np.asarray(
            self.checkpoint.algorithm.action_distribution(nets, x, False).sample(np.random.default_rng(0))
        )

    def onnx(self, observation: np.ndarray) -> np.ndarray:
        """As ONNX Runtime computes it, in the environment's units."""
        session = onnxruntime.InferenceSession(self.directory / "policy.onnx", providers=["CPUExecutionProvider"])
        return session.run(["action"], {"observation": observation})[0]

    def units(self, action: np.ndarray) -> np.ndarray:
        """An action in [-1, 1] (or counted from 0) as the environment has it."""
        actions: Any = self.exported.actions
        return action * actions.half_range + actions.centre if hasattr(actions, "low") else action + actions.start

    def settled(self, observation: np.ndarray) -> np.ndarray:
        """Where float32 settles the action: in float64, weights moved by a few roundings lead to the same one."""
        rng = np.random.default_rng(0)
        plain, tensors = take_apart(self.exported.kind)
        x = (observation.astype(np.float64) - self.exported.mean) / self.exported.std
        drawn = []
        for _ in range(8):
            moved = {name: w * (1 + 2.0**-21 * rng.choice([-1.0, 1.0], w.shape)) for name, w in tensors.items()}
            drawn.append(put_together(plain, moved).greedy(x))
        settled = np.ptp(np.stack(drawn), axis=0).reshape(len(observation), -1).max(1) < 5e-6
        if isinstance(self.exported.kind, Proposals):
            # Moved weights move all candidates alike; roundings do not, so those of nearly the best value may win.
            action, value = put_together(plain, dict(tensors)).candidates(x, self.exported.kind.codes)  # type: ignore[union-attr]
            best = value.argmax(0)[None]
            near = value.max(0) - value < 1e-5 * (1 + np.abs(value))
            far = np.abs(action - np.take_along_axis(action, best[..., None], 0)).max(-1) > 5e-6
            settled &= ~(near & far).any(0)
        return settled


def make(
    where: Path,
    algorithm: Algorithm | str,
    kind: str,
    bridges: tuple[Bridge, ...] = (),
    learner: Learner | None = None,
    env: str | None = None,
) -> Made:
    """A policy of random weights and normalisation, saved and exported."""
    if isinstance(algorithm, str):
        algorithm = small(algorithm, **({"rollout_steps": 16} if algorithm == "ppo" else {}))
    if learner is None:
        rng = np.random.default_rng(3)
        normaliser = Normaliser(
            rng.normal(size=3).astype(np.float32), rng.uniform(0.5, 2, 3).astype(np.float32)
        )  # of an observation of three numbers
        learner = replace(random_learner(algorithm, kind=kind), normaliser=normaliser)
        learner = attach(bridges, algorithm, kind, learner)
    env_id = env or ENVS[kind]
    seen = np.array([3, 5, 5], np.uint64)
    checkpoint = Checkpoint(algorithm, bridges, environment_spaces(env_id), env_id, learner, seen)
    save(where / "final", checkpoint)
    export = export_policy(where / "final", where / "exported")
    return Made(checkpoint, where / "exported", load_policy(where / "exported"), export.notes)
