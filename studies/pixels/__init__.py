"""CartPole from pixels; importing this makes its environment known to Gymnasium."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv
from jaxtyping import Float, UInt8

#: Height and width of a frame, and frames in an observation: two show how fast everything moves.
SIZE, FRAMES = 32, 2
#: Of an environment, also in another process.
ENV = "studies.pixels:PixelCartPole-v0"


def draw(states: Float[np.ndarray, "rows 4"]) -> UInt8[np.ndarray, "rows height width"]:
    """Frames of CartPole states: the cart is a bar at the bottom, the pole a line with its angle doubled."""
    position, angle = states[:, 0, None, None], states[:, 2, None, None]
    height, column = np.arange(SIZE)[::-1, None], np.arange(SIZE)
    centre = (position / 2.4 + 1) / 2 * (SIZE - 1)
    off = np.abs(column - centre - np.tan(2 * angle) * height)
    width = np.where(height < 2, 3.0, 1.0)
    return (255 * np.clip(width + 0.5 - off, 0, 1)).astype(np.uint8)


class PixelCartPole(gym.ObservationWrapper):
    """CartPole that shows a grey frame instead of its state."""

    def __init__(self) -> None:
        super().__init__(CartPoleEnv())
        self.observation_space = gym.spaces.Box(0, 255, (SIZE, SIZE), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return draw(observation[None])[0]


def make() -> gym.Env:
    """Observations are the last two frames, [frames, height, width]."""
    return gym.wrappers.FrameStackObservation(PixelCartPole(), FRAMES)


gym.register("PixelCartPole-v0", f"{__name__}:make", max_episode_steps=500)
