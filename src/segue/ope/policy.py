"""The judged policy as estimators see it: what it does in given states, and how likely it does what was logged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, UInt64

from segue.bridges import Bridge
from segue.core import Spaces
from segue.errors import SegueError
from segue.networks.distributions import (
    Categorical,
    ClippedGaussian,
    Deterministic,
    Distribution,
    SquashedGaussian,
    pick,
)
from segue.policy import Policy

#: Rows per call of a policy.
CHUNK = 10_000


class NoDensity(SegueError):
    """The judged policy gives no probability to logged actions, so no importance weight exists."""


@dataclasses.dataclass(frozen=True)
class DiscretePolicy:
    """π(a|s) over actions 0…n−1, also of a deterministic policy."""

    probabilities: Callable[[Float[np.ndarray, "rows observation"]], Float[np.ndarray, "rows actions"]]
    """π(·|s) for raw observations."""
    seen: UInt64[np.ndarray, " episodes"] | None = dataclasses.field(default=None, compare=False, repr=False)
    """Fingerprints of the episodes that it has learnt from (`Dataset.episode_fingerprints`); None if unknown."""

    def log_prob(
        self, observation: Float[np.ndarray, "rows observation"], action: Int[np.ndarray, " rows"]
    ) -> Float[np.ndarray, " rows"]:
        """log π(a|s), −inf where it never does that."""
        chance = np.asarray(pick(in_chunks(self.probabilities, observation).astype(np.float64), action))
        return np.log(chance, out=np.full(len(chance), -np.inf), where=chance > 0)


@dataclasses.dataclass(frozen=True)
class ContinuousPolicy:
    """A policy over actions in [-1, 1]^A, by draws and, where it has one, by its density."""

    draw: Callable[[Float[np.ndarray, "rows observation"], np.random.Generator], Float[np.ndarray, "rows action"]]
    """Actions for raw observations."""
    density: (
        Callable[[Float[np.ndarray, "rows observation"], Float[np.ndarray, "rows action"]], Float[np.ndarray, " rows"]]
        | None
    ) = None
    """log π(a|s) for raw observations; None if the policy has no density."""
    deterministic: bool = False
    """Whether all draws in a state are the same."""
    seen: UInt64[np.ndarray, " episodes"] | None = dataclasses.field(default=None, compare=False, repr=False)
    """Fingerprints of the episodes that it has learnt from (`Dataset.episode_fingerprints`); None if unknown."""

    def log_prob(
        self, observation: Float[np.ndarray, "rows observation"], action: Float[np.ndarray, "rows action"]
    ) -> Float[np.ndarray, " rows"]:
        """log π(a|s).

        Raises:
            NoDensity: if there is none.
        """
        if self.density is None:
            kind = "is deterministic" if self.deterministic else "draws its actions from no density that is known"
            raise NoDensity(
                f"the policy {kind}, so the probability of a logged continuous action is 0 or unknown and importance "
                "weights do not exist; use fqe, or judge the policy as it explores (explore=True, --explore) if it "
                "draws from its actor"
            )
        density = self.density
        return in_chunks(lambda row: density(observation[row], action[row]), np.arange(len(action))).astype(np.float64)


Judged = DiscretePolicy | ContinuousPolicy


def judged(policy: Policy, spaces: Spaces, explore: bool) -> Judged:
    """A Segue policy as it acts: without exploration, or while collecting data.

    Raises:
        SegueError: for a policy whose actions depend on more than the state: on what it did before, or on a bridge.
    """
    for bridge in policy.bridges:
        if type(bridge).act is not Bridge.act:
            raise SegueError(
                f"the bridge {bridge.name} has a say in the policy's actions, so they are not those of one policy; "
                "off-policy evaluation judges a policy alone: name a checkpoint of a run without that bridge"
            )
    if jax.tree.leaves(policy.algorithm.start(policy.nets, 1)):
        raise SegueError(
            f"a policy of {policy.algorithm.name} as it is configured acts by what it did in earlier steps; off-policy "
            "evaluation judges policies that act by the observation alone"
        )
    target = _discrete(policy, spaces, explore) if spaces.discrete else _continuous(policy, explore)
    return dataclasses.replace(target, seen=policy.seen)


def _discrete(policy: Policy, spaces: Spaces, explore: bool) -> DiscretePolicy:
    def probabilities(observation: Float[np.ndarray, "rows observation"]) -> Float[np.ndarray, "rows actions"]:
        chosen = _distribution(policy, observation, explore)
        if isinstance(chosen, Categorical):
            return np.exp(np.asarray(chosen.log_probs))
        return np.eye(spaces.action_size)[chosen.sample(np.random.default_rng(0))]

    return DiscretePolicy(probabilities)


def _continuous(policy: Policy, explore: bool) -> ContinuousPolicy:
    def draw(
        observation: Float[np.ndarray, "rows observation"], source: np.random.Generator
    ) -> Float[np.ndarray, "rows action"]:
        return policy(observation, source, explore)

    def density(
        observation: Float[np.ndarray, "rows observation"], action: Float[np.ndarray, "rows action"]
    ) -> Float[np.ndarray, " rows"]:
        return np.asarray(_distribution(policy, observation, explore).log_prob(action))

    tried = _distribution(policy, np.asarray(policy.normaliser.mean)[None], explore)
    known = isinstance(tried, SquashedGaussian | ClippedGaussian)
    return ContinuousPolicy(draw, density if known else None, deterministic=isinstance(tried, Deterministic))


def _distribution(policy: Policy, observation: Float[np.ndarray, "rows observation"], explore: bool) -> Distribution:
    return policy.algorithm.action_distribution(policy.nets, _seen(policy, observation), explore)


def _seen(policy: Policy, observation: Float[np.ndarray, "rows observation"]) -> Float[np.ndarray, "rows observation"]:
    return np.asarray(policy.normaliser(np.asarray(observation, np.float32)), np.float32)


def in_chunks(function: Callable[[np.ndarray], Any], rows: np.ndarray) -> np.ndarray:
    """A function of rows (or of row numbers), called with some of them at a time."""
    return np.concatenate([np.asarray(function(rows[i : i + CHUNK])) for i in range(0, len(rows), CHUNK)])
