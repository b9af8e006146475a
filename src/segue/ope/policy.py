"""The judged policy as estimators see it: what it does in given states, and how likely it does what was logged."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from segue.deployment.policy import ExportedPolicy
from segue.errors import SegueError
from segue.networks.distributions import Kind, kind_of, pick
from segue.plugins import import_module
from segue.policy import Policy

#: Rows per call of a policy.
CHUNK = 10_000
#: How far probabilities may sum from 1.
ROUNDING = 1e-3
#: `module:function`.
FUNCTION = re.compile(r"[\w.]+:\w+")


class NoDensity(SegueError):
    """The judged policy gives no probability to logged actions, so no importance weight exists."""


@dataclasses.dataclass(frozen=True)
class DiscretePolicy:
    """π(a|s) over actions 0…n−1, also of a deterministic policy."""

    probabilities: Callable[[Float[np.ndarray, "rows observation"]], Float[np.ndarray, "rows actions"]]
    """π(·|s) for raw observations."""
    seen: UInt64[np.ndarray, " episodes"] | None = dataclasses.field(default=None, compare=False, repr=False)
    """Fingerprints of the episodes that it has learnt from (`Dataset.episode_fingerprints`); None if unknown."""
    among: (
        Callable[
            [Float[np.ndarray, "rows observation"], Bool[np.ndarray, "rows actions"]],
            Float[np.ndarray, "rows actions"],
        ]
        | None
    ) = None
    """The same where only some actions can be taken, as the dataset says; None: `probabilities` knows that itself."""

    def chances(
        self, observation: Float[np.ndarray, "rows observation"], allowed: Bool[np.ndarray, "rows actions"] | None
    ) -> Float[np.ndarray, "rows actions"]:
        """π(·|s), among the allowed actions where the dataset says which they are."""
        among = self.among
        if allowed is None or among is None:
            return in_chunks(self.probabilities, observation)
        return in_chunks(lambda row: among(observation[row], allowed[row]), np.arange(len(observation)))

    def log_prob(
        self,
        observation: Float[np.ndarray, "rows observation"],
        action: Int[np.ndarray, " rows"],
        allowed: Bool[np.ndarray, "rows actions"] | None = None,
    ) -> Float[np.ndarray, " rows"]:
        """log π(a|s), −inf where it never does that."""
        chance = np.asarray(pick(self.chances(observation, allowed).astype(np.float64), action))
        return np.log(chance, out=np.full(len(chance), -np.inf), where=chance > 0)

    def checked(self, actions: int) -> DiscretePolicy:
        """The same policy, whose probabilities are checked whenever they are asked for.

        Raises:
            SegueError: when called, if they are not one distribution over this many actions per row.
        """

        def probabilities(observation: Float[np.ndarray, "rows observation"]) -> Float[np.ndarray, "rows actions"]:
            found = np.asarray(self.probabilities(observation))
            expected = (len(observation), actions)
            if found.shape != expected:
                raise SegueError(
                    f"the policy's probabilities have shape {found.shape}; expected {expected}: a row per observation, "
                    "a column per action"
                )
            wrong = ~((found >= 0).all(1) & (np.abs(found.sum(1) - 1) <= ROUNDING))
            if wrong.any():
                row = int(np.argmax(wrong))
                raise SegueError(
                    f"the policy's probabilities for observation {observation[row].tolist()} are at least "
                    f"{found[row].min():g} and sum to {found[row].sum():g} ({int(wrong.sum()):,} such rows); expected "
                    "at least 0, and a sum of 1"
                )
            return found

        return dataclasses.replace(self, probabilities=probabilities)


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
        self,
        observation: Float[np.ndarray, "rows observation"],
        action: Float[np.ndarray, "rows action"],
        allowed: Bool[np.ndarray, "rows actions"] | None = None,
    ) -> Float[np.ndarray, " rows"]:
        """log π(a|s); `allowed` is for discrete actions only.

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


def judged(policy: Policy | ExportedPolicy, explore: bool) -> Judged:
    """A Segue policy, exported or not, as it acts: without exploration, or while collecting data.

    Raises:
        SegueError: for a policy whose actions depend on more than the state: on what it did before, or on a bridge.
    """
    if policy.dependence is not None:
        raise SegueError(
            f"{policy.dependence}; off-policy evaluation judges policies that act by the observation alone"
        )
    if isinstance(policy, ExportedPolicy):
        kind = policy.kind(explore)
    else:
        kind = kind_of(policy.distribution(np.asarray(policy.normaliser.mean)[None], explore))
    return _discrete(policy, explore) if kind == "discrete" else _continuous(policy, explore, kind)


def from_function(name: str) -> DiscretePolicy:
    """The policy of a `module:function`, which gets raw observations and returns π(·|s), one row for each.

    Raises:
        SegueError: if there is no such function.
    """
    module, _, function = name.partition(":")
    import_module(module, f"policy {name!r}: ")
    probabilities = getattr(sys.modules[module], function, None)
    if not callable(probabilities):
        raise SegueError(f"policy {name!r}: module {module!r} has no function {function!r}")
    return DiscretePolicy(probabilities)


def _discrete(policy: Policy | ExportedPolicy, explore: bool) -> DiscretePolicy:
    def probabilities(observation: Float[np.ndarray, "rows observation"]) -> Float[np.ndarray, "rows actions"]:
        if isinstance(policy, ExportedPolicy):
            return np.exp(policy.log_probs(observation, explore=explore))
        chosen: Any = policy.distribution(np.asarray(observation, np.float32), explore)
        return np.exp(np.asarray(chosen.log_probs))

    def among(
        observation: Float[np.ndarray, "rows observation"], allowed: Bool[np.ndarray, "rows actions"]
    ) -> Float[np.ndarray, "rows actions"]:
        if isinstance(policy, ExportedPolicy):
            return np.exp(policy.log_probs(observation, explore=explore, allowed=allowed))
        chosen: Any = policy.distribution(np.asarray(observation, np.float32), explore)
        return np.exp(np.asarray(chosen.among(allowed).log_probs))

    return DiscretePolicy(probabilities, policy.seen, among)


def _continuous(policy: Policy | ExportedPolicy, explore: bool, kind: Kind) -> ContinuousPolicy:
    def draw(
        observation: Float[np.ndarray, "rows observation"], source: np.random.Generator
    ) -> Float[np.ndarray, "rows action"]:
        return np.asarray(policy.act(observation, policy.start(len(observation)), source, explore).action)

    def density(
        observation: Float[np.ndarray, "rows observation"], action: Float[np.ndarray, "rows action"]
    ) -> Float[np.ndarray, " rows"]:
        if isinstance(policy, ExportedPolicy):
            return policy.log_prob(observation, action, explore=explore)
        return np.asarray(policy.distribution(np.asarray(observation, np.float32), explore).log_prob(action))

    return ContinuousPolicy(draw, density if kind == "density" else None, kind == "certain", policy.seen)


def in_chunks(function: Callable[[np.ndarray], Any], rows: np.ndarray) -> np.ndarray:
    """A function of rows (or of row numbers), called with some of them at a time."""
    return np.concatenate([np.asarray(function(rows[i : i + CHUNK])) for i in range(0, len(rows), CHUNK)])
