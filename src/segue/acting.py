"""How policies act: one contract for the loops, evaluation, recording, off-policy evaluation and export.

    carry = policy.start(batch)
    acted = policy.act(observation, carry, source, explore)      # action, log-probability, next carry

The carry is what a policy remembers within an episode (a clock, the rest of a chunk of actions, a recurrent state): a
pytree of arrays whose first axis counts the episodes that run side by side. `restart` renews it where an episode ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from segue.errors import SegueError

if TYPE_CHECKING:  # an exported policy acts where JAX is not installed
    from jaxtyping import Bool, Float, Int

    from segue import rng
    from segue.core import Array

    Action = Float[Array, "*batch action"] | Int[Array, "*batch"]
Carry = Any


class Acted(NamedTuple):
    """What a policy did in one step."""

    action: Action
    """In [-1, 1], or integers from 0."""
    log_prob: Callable[[], Float[Array, " batch"]]
    """Gives log b(a|s) of these actions: a density over [-1, 1] (a probability at a bound that actions are clipped to),
    or a probability; NaN where it is not known. A function, because most steps need no probability."""
    carry: Carry
    """For the next step."""


@runtime_checkable
class ActingPolicy(Protocol):
    """Anything that acts: `segue.Policy`, an exported policy, or `Stateless` around a function."""

    def start(self, batch: int) -> Carry:
        """What is carried into the first step of so many episodes."""

    def act(
        self, observation: Float[np.ndarray, "batch observation"], carry: Carry, source: rng.Source, explore: bool
    ) -> Acted:
        """Actions for raw, flattened observations."""


def act(
    policy: ActingPolicy,
    observation: Float[np.ndarray, "batch observation"],
    carry: Carry,
    source: rng.Source,
    explore: bool,
    allowed: Bool[np.ndarray, "batch actions"] | None,
) -> Acted:
    """`policy.act`; where not all actions can be taken, among the allowed ones."""
    if allowed is None:
        return policy.act(observation, carry, source, explore)
    masked: Any = policy
    return masked.act(observation, carry, source, explore, allowed)


def restart(policy: ActingPolicy, carry: Carry, ended: Bool[np.ndarray, " batch"]) -> Carry:
    """The carry with a fresh start where an episode has ended."""

    import jax

    def renewed(new: np.ndarray, old: np.ndarray) -> np.ndarray:
        return np.where(ended.reshape(-1, *[1] * (np.ndim(old) - 1)), new, old)

    return jax.tree.map(renewed, policy.start(len(ended)), carry)


def require_allowed(allowed: Any, shape: tuple[int, ...]) -> Bool[np.ndarray, "batch actions"]:
    """What actions can be taken, as an array of truth values.

    Raises:
        SegueError: if it has another shape or other values, or a row allows no action.
    """
    mask = np.asarray(allowed)
    if mask.dtype != bool or mask.shape != shape:
        raise SegueError(
            f"allowed has shape {mask.shape} and type {mask.dtype}; expected shape {shape} and type bool: whether each "
            "action can be taken"
        )
    if not mask.any(-1).all():
        raise SegueError(f"row {int(mask.any(-1).argmin())} of allowed allows no action; expected at least one")
    return mask


def unknown(action: Action, batch: tuple[int, ...]) -> Callable[[], Float[Array, " batch"]]:
    """The log-probability of actions whose distribution is not known."""
    return lambda: action.__array_namespace__().full(batch, np.nan, np.float32)


@dataclasses.dataclass(frozen=True)
class Stateless:
    """A function of observation, source and `explore` as a policy."""

    function: Callable[[np.ndarray, Any, bool], np.ndarray]
    """Maps [batch, observation], a source of randomness and whether to explore to actions."""

    def start(self, batch: int) -> Carry:
        """Nothing."""
        return ()

    def act(
        self, observation: Float[np.ndarray, "batch observation"], carry: Carry, source: rng.Source, explore: bool
    ) -> Acted:
        """What the function says."""
        action = self.function(observation, source, explore)
        return Acted(action, unknown(action, (len(observation),)), carry)
