"""A controller for FetchPush written by hand: go above the block, down behind it, and push it to its goal."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from examples.robotics.worlds import DESIRED, GRIPPER, OBJECT
from jaxtyping import Float

from segue.acting import Acted

#: Metres per unit of an action.
STRIDE = 0.05
#: Where the gripper stands behind the block's middle, and how far above it while it goes round.
BEHIND, ABOVE = 0.055, 0.075


@dataclasses.dataclass(frozen=True)
class Pusher:
    """Acts by the observation alone, with Gaussian noise of this standard deviation where it explores."""

    noise: float = 0.3
    gain: float = 1.0
    """How fast it pushes, in strides per stride of distance."""

    def start(self, batch: int) -> None:
        """Nothing is carried."""

    def act(
        self, observation: Float[np.ndarray, "batch observation"], carry: None, source: Any, explore: bool
    ) -> Acted:
        """Displacements of the gripper; the fourth number, of the blocked fingers, is 0."""
        action = np.stack([self._step(row) for row in np.asarray(observation, np.float64)])
        if explore:
            action += self.noise * source.normal(size=action.shape)
        action = np.clip(action, -1, 1).astype(np.float32)
        return Acted(action, lambda: np.full(len(action), np.nan, np.float32), None)

    def _step(self, row: np.ndarray) -> np.ndarray:
        gripper, block, goal = row[GRIPPER], row[OBJECT], row[DESIRED]
        way = goal[:2] - block[:2]
        distance = float(np.linalg.norm(way))
        ahead = way / max(distance, 1e-6)
        reach = gripper[:2] - block[:2]
        along, aside = float(reach @ ahead), reach - (reach @ ahead) * ahead
        low = gripper[2] < block[2] + 0.02
        target = np.empty(3)
        if distance < 0.015:  # there: stay
            target[:] = gripper
        elif along < -0.03 and np.linalg.norm(aside) < 0.02 and gripper[2] < block[2] + 0.045:  # behind it
            if low:
                target[:2] = gripper[:2] + self.gain * distance * ahead - 0.7 * aside
            else:
                target[:2] = block[:2] - BEHIND * ahead
            target[2] = block[2]
        else:
            target[:2] = block[:2] - BEHIND * ahead
            near = np.linalg.norm(gripper[:2] - target[:2]) < 0.015
            target[2] = block[2] if near else block[2] + ABOVE
            if not near and gripper[2] < block[2] + 0.05:  # up first, so as not to take the block along
                target[:2] = gripper[:2]
        return np.append((target - gripper) / STRIDE, 0.0)
