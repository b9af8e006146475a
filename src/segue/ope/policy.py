"""The judged policy as estimators see it: what it does in given states, and how likely it does what was logged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt64
from scipy import special

from segue import random
from segue.algorithms.dqn import DQN
from segue.bridges import Bridge
from segue.errors import SegueError
from segue.networks import Actor, CategoricalActor, GaussianActor, pick
from segue.policy import Policy
from segue.types import Spaces

#: Rows per call of a policy.
CHUNK = 10_000
#: States on which it is tried out how a policy acts.
TRIED = 64


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
        SegueError: for a policy whose actions a bridge chooses.
    """
    for bridge in policy.bridges:
        if type(bridge).act is not Bridge.act:
            raise SegueError(
                f"the bridge {bridge.name} has a say in the policy's actions, so they are not those of one policy; "
                "off-policy evaluation judges a policy alone: name a checkpoint of a run without that bridge"
            )
    target = _discrete(policy, spaces, explore) if spaces.discrete else _continuous(policy, explore)
    return dataclasses.replace(target, seen=policy.seen)


def _discrete(policy: Policy, spaces: Spaces, explore: bool) -> DiscretePolicy:
    actor, algorithm, count = policy.nets.actor, policy.algorithm, spaces.action_size

    def certain(observation: Float[np.ndarray, "rows observation"]) -> Float[np.ndarray, "rows actions"]:
        return np.eye(count)[policy(observation)]

    if not explore:
        return DiscretePolicy(certain)
    if isinstance(actor, CategoricalActor):
        return DiscretePolicy(lambda observation: np.asarray(actor.probabilities(_seen(policy, observation))))
    assert isinstance(algorithm, DQN)  # the one kind of discrete algorithm without an actor: ε-greedy
    epsilon = algorithm.initial_epsilon
    return DiscretePolicy(lambda observation: (1 - epsilon) * certain(observation) + epsilon / count)


def _continuous(policy: Policy, explore: bool) -> ContinuousPolicy:
    actor = policy.nets.actor

    def draw(
        observation: Float[np.ndarray, "rows observation"], source: np.random.Generator
    ) -> Float[np.ndarray, "rows action"]:
        return policy(observation, source, explore)

    def density(
        observation: Float[np.ndarray, "rows observation"], action: Float[np.ndarray, "rows action"]
    ) -> Float[np.ndarray, " rows"]:
        if isinstance(actor, GaussianActor):
            return _clipped_log_prob(actor, _seen(policy, observation), action)
        return np.asarray(actor.log_prob(_seen(policy, observation), action))

    tried = random.generator(0, "judged").normal(size=(TRIED, len(policy.normaliser.mean))).astype(np.float32)
    first, second = (draw(tried, np.random.default_rng(seed)) for seed in (0, 1))
    # Drawing from the actor is known by what it does with the same noise; other kinds of exploration have no density.
    drawn = isinstance(actor, Actor | GaussianActor) and np.array_equal(
        first, actor.draw(_seen(policy, tried), np.random.default_rng(0))
    )
    return ContinuousPolicy(draw, density if drawn else None, deterministic=np.array_equal(first, second))


def _clipped_log_prob(
    actor: GaussianActor, observation: Float[np.ndarray, "rows observation"], action: Float[np.ndarray, "rows action"]
) -> Float[np.ndarray, " rows"]:
    """log π(a|s) of what a clipped Gaussian executes: a density inside the bounds, the probability of a bound at it."""
    mean, log_std = actor.mode(observation).astype(np.float64), np.asarray(actor.log_std, np.float64)
    std = np.exp(log_std)
    inside = -0.5 * ((action - mean) / std) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    above, below = special.log_ndtr((mean - 1) / std), special.log_ndtr((-1 - mean) / std)
    return np.asarray(np.where(action >= 1, above, np.where(action <= -1, below, inside)).sum(-1))


def _seen(policy: Policy, observation: Float[np.ndarray, "rows observation"]) -> Float[np.ndarray, "rows observation"]:
    return np.asarray(policy.normaliser(np.asarray(observation, np.float32)), np.float32)


def in_chunks(function: Callable[[np.ndarray], Any], rows: np.ndarray) -> np.ndarray:
    """A function of rows (or of row numbers), called with some of them at a time."""
    return np.concatenate([np.asarray(function(rows[i : i + CHUNK])) for i in range(0, len(rows), CHUNK)])
