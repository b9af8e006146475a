"""A policy to act with: an algorithm's nets as host arrays, the dataset's normalisation, and what bridges do to
actions."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Real, UInt64

from segue import rng
from segue.acting import Acted, Carry, require_allowed
from segue.algorithms.base import Algorithm
from segue.bridges.base import Bridge
from segue.core import Array, Learner
from segue.errors import SegueError
from segue.networks.distributions import Discrete, Distribution
from segue.seen import NOTHING_SEEN


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
        # Its numbers may have come from a schedule on the device, where acting would go on to compute.
        self.algorithm, self.bridges, self.seen = jax.tree.map(float, algorithm), bridges, seen
        self.nets, self.states, self.normaliser = host.nets, host.bridges, host.normaliser

    def __repr__(self) -> str:
        size = self.normaliser.mean.size
        action = self(np.zeros(size, np.float32))
        parts = " + ".join(part.name for part in (self.algorithm, *self.bridges))
        plain = not self.normaliser.mean.any() and (self.normaliser.std == 1).all()
        how = "not normalised" if plain else "normalised by the dataset"
        gives = "integers" if action.dtype.kind in "iu" else "numbers in [-1, 1]"
        return f"Policy({parts}; observations {(size,)}, {how}; actions {action.shape}, {gives})"

    def start(self, batch: int) -> Carry:
        """What is carried into the first step of so many episodes."""
        return self.algorithm.start(self.nets, batch), tuple(bridge.start(batch) for bridge in self.bridges)

    @property
    def dependence(self) -> str | None:
        """Why its actions depend on more than the observation; None if they do not."""
        for bridge in self.bridges:
            if type(bridge).act is not Bridge.act:
                return (
                    f"the bridge {bridge.name} has a say in the policy's actions, so they are not those of one policy"
                )
        if jax.tree.leaves(self.algorithm.start(self.nets, 1)):
            return f"a policy of {self.algorithm.name} as it is configured acts by what it did in earlier steps"
        return None

    def distribution(self, observation: Float[Array, "*batch observation"], explore: bool) -> Distribution:
        """π(·|s) for raw observations, on arrays of any kind.

        Raises:
            SegueError: if its actions depend on more than the observation.
        """
        if self.dependence is not None:
            raise SegueError(f"{self.dependence}; expected a policy that acts by the observation alone")
        return self.algorithm.action_distribution(self.nets, self.normaliser(observation), explore)

    def act(
        self,
        observation: Real[np.ndarray, "batch observation"],
        carry: Carry,
        source: rng.Source,
        explore: bool,
        allowed: Bool[np.ndarray, "batch actions"] | None = None,
    ) -> Acted:
        """One step of episodes that run side by side, on the host.

        Args:
            observation: as the environment gives it, flattened.
            carry: of the step before, or `start`'s.
            source: of randomness.
            explore: whether to act as while collecting data.
            allowed: which discrete actions can be taken; by default all.

        Raises:
            SegueError: if `allowed` is given for a policy of continuous actions, or one whose actions depend on more
                than the observation; or if it allows no action in some row.
        """
        acted = self.decide(np.asarray(observation, np.float32), carry, source, explore, allowed)
        return acted._replace(action=np.asarray(acted.action))

    def decide(
        self,
        observation: Float[Array, "batch observation"],
        carry: Carry,
        source: rng.Source,
        explore: bool,
        allowed: Bool[Array, "batch actions"] | None = None,
    ) -> Acted:
        """The same on arrays of any kind: an export traces it."""
        if allowed is not None:
            whole = self.distribution(observation, explore)
            if not isinstance(whole, Discrete):
                raise SegueError(f"{self.algorithm.name} has no probabilities of discrete actions: leave allowed out")
            if not isinstance(allowed, jax.Array):  # what is traced has no values yet
                allowed = require_allowed(allowed, whole.log_probs.shape)
            chosen = whole.among(allowed)
            action = chosen.sample(source)
            return Acted(action, lambda: chosen.log_prob(action), carry)
        own, others = carry
        normalised = self.normaliser(observation)
        acted = self.algorithm.act(self.nets, normalised, own, source, explore)
        own, carries = acted.carry, []
        for bridge, state, other in zip(self.bridges, self.states, others, strict=True):
            acted = bridge.act(state, self.algorithm, self.nets, normalised, acted, other, source, explore)
            carries.append(acted.carry)
        return Acted(acted.action, acted.log_prob, (own, tuple(carries)))

    def __call__(
        self,
        observation: Real[np.ndarray, "*batch observation"],
        source: np.random.Generator | None = None,
        explore: bool = False,
    ) -> np.ndarray:
        """Actions in [-1, 1] (or integers) for raw observations, as in the first step of an episode.

        For whole episodes use `start` and `act`: a policy may remember what it did before.

        Raises:
            SegueError: if the last axis is not a flattened observation.
        """
        rows = np.asarray(observation, np.float32)
        if rows.shape[-1:] != self.normaliser.mean.shape:
            size = self.normaliser.mean.size
            raise SegueError(
                f"an array of shape {rows.shape}; expected observations of {size} numbers in the last axis"
            )
        batch = rows.reshape(-1, rows.shape[-1])
        source = source if source is not None else np.random.default_rng(0)
        action = np.asarray(self.act(batch, self.start(len(batch)), source, explore).action)
        return action.reshape((*rows.shape[:-1], *action.shape[1:]))
