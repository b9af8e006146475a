"""The types everything else speaks: transitions, spaces, networks by role, and the learner (one pytree)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

#: Both worlds: device arrays inside an update, host arrays while acting. Network code runs on either.
Array = jax.Array | np.ndarray
Key = jax.Array
Metrics = dict[str, jax.Array]


class Transition(NamedTuple):
    """One transition; a batch is the same type with a leading axis on every field.

    `discount` is γ where the next value is bootstrapped and 0 at a *true terminal*. A time-out or the end of a
    truncated log bootstraps, so its discount is γ. `return_to_go` is the discounted sum of the rewards that
    followed in the same episode; it is -inf where it is not known (a lower bound that never binds). `next_action`
    is the action taken in the next observation; it is NaN where none is known (the end of a cut episode).
    """

    observation: Float[Array, "*batch observation"]
    action: Float[Array, "*batch action"] | Int[Array, "*batch"]
    reward: Float[Array, "*batch"]
    next_observation: Float[Array, "*batch observation"]
    discount: Float[Array, "*batch"]
    return_to_go: Float[Array, "*batch"]
    next_action: Float[Array, "*batch action"] | Int[Array, "*batch"]
    log_prob: Float[Array, "*batch"] | None = None
    """On-policy batches only: log π(a|s) of the policy that acted."""
    advantage: Float[Array, "*batch"] | None = None
    """On-policy batches only: the estimate of Q(s, a) − V(s); `return_to_go` is then the λ-return."""


@dataclasses.dataclass(frozen=True)
class Spaces:
    """What an algorithm needs to know of an environment: flat observations, and actions in [-1, 1] or 0..n-1."""

    observation_size: int
    """Length of the flattened observation."""
    action_size: int
    """Dimensions of a continuous action, or the number of discrete ones."""
    discrete: bool = False
    """Whether actions are integers."""

    def describe(self) -> str:
        """Words for an error message."""
        kind = "discrete actions" if self.discrete else "action dimensions"
        return f"{self.observation_size} observation dimensions and {self.action_size} {kind}"


class Normaliser(eqx.Module):
    """Affine map of observations fixed by the log, carried into the online phase and the saved policy."""

    mean: Float[Array, " observation"]
    std: Float[Array, " observation"]

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch observation"]:
        """(observation - mean) / std."""
        return (observation - self.mean) / self.std

    @classmethod
    def identity(cls, size: int) -> Normaliser:
        """The map that changes nothing, for a run without normalisation."""
        return cls(np.zeros(size, np.float32), np.ones(size, np.float32))


class Nets(eqx.Module):
    """Everything an algorithm learns, by role; a role that an algorithm does not use is None.

    Handover copies roles by name, so two algorithms that mean the same thing must use the same name for it.
    """

    actor: Any = None
    """Policy network; a deterministic algorithm uses the mean of the same Gaussian head."""
    critic: Any = None
    """Ensemble of Q functions with a leading member axis."""
    value: Any = None
    """State value V(s), `[batch, 1]` from its network."""
    temperature: Any = None
    """log α of the entropy term: scalar."""
    multiplier: Any = None
    """log of a Lagrange multiplier (CQL's α′): scalar."""
    behaviour: Any = None
    """Generative model of the log's actions."""
    perturbation: Any = None
    """BCQ's small correction of generated actions."""
    target_actor: Any = None
    """Polyak copy of the actor; outside every optimiser."""
    target_critic: Any = None
    """Polyak copy of the critic; outside every optimiser."""
    target_perturbation: Any = None
    """Polyak copy of the perturbation; outside every optimiser."""
    reference: Any = None
    """The actor that was handed over, frozen; outside every optimiser."""

    def roles(self) -> dict[str, Any]:
        """The roles that are present, by name, in declaration order."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: net for name, net in named.items() if net is not None}

    def replace(self, **roles: Any) -> Nets:
        """A copy with these roles exchanged."""
        return dataclasses.replace(self, **roles)


TARGETS = ("target_actor", "target_critic", "target_perturbation")
"""Roles that follow another by Polyak averaging and are never given to an optimiser."""

COPIES = {**{target: target.removeprefix("target_") for target in TARGETS}, "reference": "actor"}
"""Roles that start as a copy of another, and that other."""


def same_shape(a: Any, b: Any) -> bool:
    """Whether two networks (or their structures) are built alike, so that one can take the other's place."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (a, b)]
    return structures[0] == structures[1] and all(
        x.shape == y.shape for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


class Learner(eqx.Module):
    """The whole state of learning as one pytree: saving, rolling back and swapping are "take it, put it"."""

    nets: Nets
    optimisers: dict[str, Any]
    """Optax state per trained role."""
    bridges: tuple[Any, ...]
    """State per bridge, in the order of the recipe."""
    step: Int[Array, ""]
    """Critic updates done in this phase (policy updates, for an algorithm without a critic)."""
    normaliser: Normaliser
    sampler: Any = ()
    """State of the replay strategy, such as priorities; it is not part of a saved policy."""
