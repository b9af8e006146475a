"""SAC updates of stable-baselines3 or SBX: `sb_updates sb3|sbx UPDATES`, all of a turn in one call of `train`."""

from __future__ import annotations

import sys

import gymnasium as gym
import numpy as np
from stable_baselines3.common.logger import Logger

from benchmarks.gate import Gate
from benchmarks.shapes import ACTION, BATCH, OBSERVATION, columns


class Shapes(gym.Env):
    """An environment that is only its spaces."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (ACTION,), np.float32)


def main() -> None:
    gate = Gate()
    library, updates = sys.argv[1], int(sys.argv[2])
    if library == "sbx":
        from sbx import SAC
    else:
        from stable_baselines3 import SAC
    model = SAC("MlpPolicy", Shapes(), batch_size=BATCH, buffer_size=100_000, seed=0, device="cpu")
    data = columns(100_000)
    buffer = model.replay_buffer
    buffer.observations[:, 0], buffer.next_observations[:, 0] = data["observations"], data["next_observations"]
    buffer.actions[:, 0], buffer.rewards[:, 0] = data["actions"], data["rewards"]
    buffer.full = True
    model.set_logger(Logger(None, []))

    def turn() -> float:
        model.train(gradient_steps=updates, batch_size=BATCH)
        return updates

    gate.forever(turn)


if __name__ == "__main__":
    main()
