"""The types everything else speaks: transitions, spaces, networks by role, and the learner (one pytree)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Real

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
    following: Int[Array, "*batch"] | None = None
    """For targets of several steps only: where the next step of the episode is stored, as a row of the dataset or the
    number of a live transition; −1 where there is none (yet)."""
    cost: Float[Array, "*batch"] | None = None
    """The cost of the step, a safety signal; only for an algorithm that learns from costs."""
    allowed: Bool[Array, "*batch actions"] | None = None
    """Which discrete actions could be taken; None where all can."""
    next_allowed: Bool[Array, "*batch actions"] | None = None
    """The same of the next observation; all of them after a terminal, and where it is not known."""
    log_prob: Float[Array, "*batch"] | None = None
    """On-policy batches only: log π(a|s) of the policy that acted."""
    advantage: Float[Array, "*batch"] | None = None
    """On-policy batches only: the estimate of Q(s, a) − V(s); `return_to_go` is then the λ-return."""
    valid: Float[Array, "*batch chunk"] | None = None
    """Batches of action chunks only (segue.chunks): which steps of the chunk lie within the episode."""


@dataclasses.dataclass(frozen=True)
class Spaces:
    """What an algorithm needs to know of an environment: flat observations, and actions in [-1, 1] or 0..n-1."""

    observation_size: int
    """Length of the flattened observation."""
    action_size: int
    """Dimensions of a continuous action, or the number of discrete ones."""
    discrete: bool = False
    """Whether actions are integers."""
    image: tuple[int, ...] | None = None
    """Shape of the observation before it was flattened, if it is an image: its numbers are uint8 wherever they are
    stored."""

    def describe(self) -> str:
        """Words for an error message."""
        kind = "discrete actions" if self.discrete else "action dimensions"
        size = self.observation_size
        seen = f"{size} observation dimensions" if self.image is None else f"images of {'×'.join(map(str, self.image))}"
        return f"{seen} and {self.action_size} {kind}"


def is_image(shape: tuple[int, ...] | None, dtype: Any) -> bool:
    """Whether observations of this shape and type are images: uint8 of two or three axes, or a stack of such frames."""
    return shape is not None and dtype == np.uint8 and 2 <= len(shape) <= 4


def as_numbers(column: Array) -> Array:
    """Stored images as networks take them, float32; any other column as it is."""
    return column.astype(np.float32) if column.dtype == np.uint8 else column


class Normaliser(eqx.Module):
    """Affine map of observations fixed by the dataset, carried into the online phase and the saved policy."""

    mean: Float[Array, " observation"]
    std: Float[Array, " observation"]

    def __call__(self, observation: Real[Array, "*batch observation"]) -> Real[Array, "*batch observation"]:
        """(observation - mean) / std; stored images stay uint8, since their encoder scales them."""
        if observation.dtype == np.uint8:
            return observation
        return (observation - self.mean) / self.std

    @classmethod
    def identity(cls, size: int) -> Normaliser:
        """The map that changes nothing, for a run without normalisation."""
        return cls(np.zeros(size, np.float32), np.ones(size, np.float32))


@jax.tree_util.register_pytree_with_keys_class
class Nets:
    """Everything an algorithm learns, by role: a pytree with an attribute per role.

    A role is a name that algorithms share where they mean the same thing, because a handover copies roles by name:

        actor        policy network
        critic       ensemble of Q functions with a leading member axis
        value        state value V(s), `[batch, 1]` from its network
        behaviour    model of the dataset's actions
        temperature  log α of the entropy term: scalar
        cost_critic  ensemble like the critic, of costs
        multiplier   log of a Lagrange multiplier (CQL's α′): scalar

    `target_ROLE` follows a role by Polyak averaging, `frozen_ROLE` is what it was at the handover; neither has an
    optimiser. An algorithm may have any other role.
    """

    def __init__(self, **roles: Any) -> None:
        self._roles = {name: roles[name] for name in sorted(roles) if roles[name] is not None}

    def __getattr__(self, role: str) -> Any:
        if role.startswith("_") or role not in self._roles:
            raise AttributeError(f"there is no role {role!r}; there is {', '.join(vars(self).get('_roles', ()))}")
        return self._roles[role]

    def __contains__(self, role: str) -> bool:
        return role in self._roles

    def get(self, role: str) -> Any:
        """The network of this role, or None."""
        return self._roles.get(role)

    def roles(self) -> dict[str, Any]:
        """The networks by name."""
        return dict(self._roles)

    def replace(self, **roles: Any) -> Nets:
        """A copy with these roles exchanged; None takes a role out."""
        return Nets(**{**self._roles, **roles})

    def tree_flatten_with_keys(self) -> tuple[list[Any], tuple[str, ...]]:
        """For JAX."""
        return [(jax.tree_util.GetAttrKey(role), net) for role, net in self._roles.items()], tuple(self._roles)

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], nets: Any) -> Nets:
        """For JAX."""
        new = object.__new__(cls)
        new._roles = dict(zip(names, nets, strict=True))
        return new


TARGET, FROZEN = "target_", "frozen_"


def origin(role: str) -> str | None:
    """The role that a target or frozen copy was made of; None for a role of its own."""
    for prefix in (TARGET, FROZEN):
        if role.startswith(prefix):
            return role.removeprefix(prefix)
    return None


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
