"""Environments with everything that an export must get right, and policies exported for them."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnxruntime

from helpers import random_learner, small
from segue.algorithms import ALGORITHMS, Algorithm
from segue.bridges import Bridge
from segue.core import Learner, Normaliser
from segue.deployment import ExportedPolicy, load_policy
from segue.deployment.export import export_policy
from segue.deployment.policy import EXPLORING, GREEDY, Model
from segue.envs import Environment, environment_spaces
from segue.rng import Tape
from segue.runner.checkpoint import Checkpoint, save
from segue.training.update import replace

sys.path.insert(0, str(Path(__file__).parents[1] / "bridges"))
from handovers import attach


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

    def noise(self, explore: bool, batch: int, seed: int) -> list[np.ndarray]:
        """What a generator of this seed draws for the exported policy."""
        model = Model((self.directory / (EXPLORING if explore else GREEDY)).read_bytes())
        return list(model.draw(batch, np.random.default_rng(seed)).values())

    def original(self, observation: np.ndarray, *, explore: bool = False, seed: int = 0) -> np.ndarray:
        """As Segue acts on the host in a first step, in [-1, 1]; on the exported policy's noise of this seed."""
        tape = Tape(self.noise(explore, len(observation), seed))
        policy = self.checkpoint.policy()
        with np.errstate(over="ignore"):
            return policy.act(observation, policy.start(len(observation)), tape, explore).action

    def onnx(self, observation: np.ndarray, *, explore: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
        """As ONNX Runtime computes a first step, by its documentation alone."""
        session = onnxruntime.InferenceSession(self.directory / ("exploring.onnx" if explore else "policy.onnx"))
        draw, starts = np.random.default_rng(seed), json.loads((self.directory / "policy.json").read_text())["carry"]
        inputs = {"observation": observation}
        for value in session.get_inputs():
            kind, _, number = value.name.rpartition("_")
            shape = [len(observation) if size == "batch" else size for size in value.shape]
            match kind:
                case "carry":
                    start = np.array([starts[int(number)]["start"]], starts[int(number)]["dtype"])
                    inputs[value.name] = np.repeat(start, len(observation), axis=0)
                case "normal":
                    inputs[value.name] = draw.standard_normal(shape, np.float32)
                case "uniform":
                    inputs[value.name] = draw.random(shape, np.float32)
                case "gumbel":
                    inputs[value.name] = draw.gumbel(size=shape).astype(np.float32)
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))

    def units(self, action: np.ndarray) -> np.ndarray:
        """An action in [-1, 1] (or counted from 0) as the environment has it."""
        actions: Any = self.exported.actions
        return action * actions.half_range + actions.centre if hasattr(actions, "low") else action + actions.start


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
    checkpoint = Checkpoint(algorithm, bridges, environment_spaces(env_id), Environment(env_id), learner, seen)
    save(where / "final", checkpoint)
    export = export_policy(where / "final", where / "exported")
    return Made(checkpoint, where / "exported", load_policy(where / "exported"), export.notes)
