"""A policy to act with: an algorithm's nets as host arrays, the log's normalisation, and what bridges do to actions."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, UInt64

from segue.algorithms.base import Algorithm
from segue.bridges.base import Bridge
from segue.seen import NOTHING_SEEN
from segue.types import Learner


class Policy:
    """Maps raw observations to actions on the host, without touching the device.

    Args:
        algorithm: says how its nets act.
        learner: its state now; the arrays are copied to the host, so later updates do not change this policy.
        bridges: the bridges whose states the learner holds.
        seen: fingerprints of the episodes that it has learnt from (`Dataset.episode_fingerprints`). Off-policy
            evaluation does not judge the policy on these.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        learner: Learner,
        bridges: tuple[Bridge, ...] = (),
        seen: UInt64[np.ndarray, " episodes"] = NOTHING_SEEN,
    ) -> None:
        # A copy, not a view: on the CPU backend a view would alias buffers that the next update overwrites.
        host: Any = jax.tree.map(np.array, Learner(learner.nets, {}, learner.bridges, learner.step, learner.normaliser))
        self.algorithm, self.bridges, self.seen = algorithm, bridges, seen
        self.nets, self.states, self.normaliser = host.nets, host.bridges, host.normaliser

    def __call__(
        self,
        observation: Float[np.ndarray, "*batch observation"],
        source: np.random.Generator | None = None,
        explore: bool = False,
        time: Int[np.ndarray, "*batch"] | None = None,
    ) -> np.ndarray:
        """Actions in [-1, 1] (or integers) for raw observations.

        Args:
            observation: as the environment gives it, flattened.
            source: of randomness; needed only to explore.
            explore: whether to act as while collecting data.
            time: steps since the start of each episode, for bridges that act by it; by default long into it.
        """
        source = source if source is not None else np.random.default_rng(0)
        if time is None:
            time = np.full(np.shape(observation)[:-1], np.iinfo(np.int32).max)
        normalised = self.normaliser(np.asarray(observation, np.float32))
        action = self.algorithm.act(self.nets, normalised, source, explore)
        for bridge, state in zip(self.bridges, self.states, strict=True):
            action = bridge.act(state, self.algorithm, self.nets, normalised, action, time, source, explore)
        return np.asarray(action)
