"""Distributions that policies draw actions from, in given states; on device and host arrays alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from segue import rng
from segue.core import Array
from segue.networks.functions import log_softmax

#: Actions of a dataset are pulled this far inside (-1, 1) before atanh; float32 tanh saturates beyond it.
ACTION_MARGIN = 1e-5

#: What is known of a distribution: the probability of every discrete action; the density of continuous actions; the one
#: continuous action that is certain; or draws alone.
Kind = Literal["discrete", "density", "certain", "draws"]


@runtime_checkable
class Distribution(Protocol):
    """π(·|s) of a batch of states."""

    def sample(self, source: rng.Source) -> Array:
        """An action per state."""

    def log_prob(self, action: Array) -> Float[Array, "*batch"]:
        """log π(a|s) of given actions; NaN where it is not known or does not exist."""


@runtime_checkable
class Discrete(Distribution, Protocol):
    """π(·|s) over actions 0…n−1."""

    @property
    def log_probs(self) -> Float[Array, "*batch actions"]:
        """log π(·|s) of every action."""

    def among(self, allowed: Bool[Array, "*batch actions"]) -> Self:
        """The same policy where only these actions can be taken; at least one in each state."""


@dataclasses.dataclass(frozen=True)
class Deterministic:
    """One certain continuous action per state."""

    action: Float[Array, "*batch action"]

    def sample(self, source: rng.Source) -> Float[Array, "*batch action"]:
        """That action."""
        return self.action

    def log_prob(self, action: Float[Array, "*batch action"]) -> Float[Array, "*batch"]:
        """NaN: a certain continuous action has no density."""
        return action.__array_namespace__().full(self.action.shape[:-1], np.nan, np.float32)


@dataclasses.dataclass(frozen=True)
class SquashedGaussian:
    """tanh(u), u ~ N(mean, σ²) per dimension."""

    mean: Float[Array, "*batch action"]
    """Of u."""
    log_std: Float[Array, "*batch action"]
    """log σ of u."""

    def sample(self, source: rng.Source) -> Float[Array, "*batch action"]:
        """tanh(mean + σ · noise)."""
        xp = self.mean.__array_namespace__()
        return xp.tanh(self.mean + xp.exp(self.log_std) * rng.normal(source, self.mean.shape))

    def log_prob(self, action: Float[Array, "*batch action"]) -> Float[Array, "*batch"]:
        """The density; values at the bounds are pulled inside by ACTION_MARGIN."""
        xp = self.mean.__array_namespace__()
        inside = xp.clip(action, -1 + ACTION_MARGIN, 1 - ACTION_MARGIN)
        z = (xp.arctanh(inside) - self.mean) * xp.exp(-self.log_std)
        log_prob = -0.5 * z**2 - self.log_std - 0.5 * math.log(2 * math.pi) - xp.log1p(-(inside**2))
        return log_prob.sum(-1)


@dataclasses.dataclass(frozen=True)
class ClippedGaussian:
    """clip(u, ±1), u ~ N(mean, σ²) per dimension: a density inside the bounds and a probability at each bound."""

    mean: Float[Array, "*batch action"]
    """Of u, inside the bounds."""
    std: Float[Array, " #action"]
    """σ of u."""

    def sample(self, source: rng.Source) -> Float[Array, "*batch action"]:
        """clip(mean + σ · noise)."""
        return (self.mean + self.std * rng.normal(source, self.mean.shape)).clip(-1, 1)

    def log_prob(self, action: Float[Array, "*batch action"]) -> Float[Array, "*batch"]:
        """Per dimension the density inside the bounds, or the probability of the bound; on the host in float64."""
        xp = action.__array_namespace__()
        if xp is np:
            from scipy.special import log_ndtr
        else:
            from jax.scipy.special import log_ndtr
        mean, std = (xp.asarray(part, np.float64 if xp is np else np.float32) for part in (self.mean, self.std))
        inside = -0.5 * ((action - mean) / std) ** 2 - xp.log(std) - 0.5 * math.log(2 * math.pi)
        above, below = log_ndtr((mean - 1) / std), log_ndtr((-1 - mean) / std)
        return xp.asarray(xp.where(action >= 1, above, xp.where(action <= -1, below, inside)).sum(-1))


@dataclasses.dataclass(frozen=True)
class Categorical:
    """Actions 0…n−1."""

    log_probs: Float[Array, "*batch actions"]
    """log π(·|s) of every action."""

    def sample(self, source: rng.Source) -> Int[Array, "*batch"]:
        """By the Gumbel-max trick."""
        return best(self.log_probs + rng.gumbel(source, self.log_probs.shape))

    def log_prob(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """log π(a|s)."""
        return pick(self.log_probs, action)

    def among(self, allowed: Bool[Array, "*batch actions"]) -> Self:
        """Renormalised over the allowed actions."""
        return dataclasses.replace(self, log_probs=log_softmax(_only(allowed, self.log_probs)))


@dataclasses.dataclass(frozen=True)
class Greedy:
    """The action of 0…n−1 with the highest score."""

    scores: Float[Array, "*batch actions"]
    """What ranks the actions; −∞ for one that cannot be taken."""

    @property
    def log_probs(self) -> Float[Array, "*batch actions"]:
        """0 for the action, −∞ for all others."""
        xp = self.scores.__array_namespace__()
        chosen = _marked(best(self.scores), self.scores)
        return xp.where(chosen, np.float32(0), np.float32(-np.inf))

    def sample(self, source: rng.Source) -> Int[Array, "*batch"]:
        """That action."""
        return best(self.scores)

    def log_prob(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """0 or −∞."""
        xp = self.scores.__array_namespace__()
        return xp.where(action == best(self.scores), np.float32(0), np.float32(-np.inf))

    def among(self, allowed: Bool[Array, "*batch actions"]) -> Self:
        """The best of the allowed actions."""
        return dataclasses.replace(self, scores=_only(allowed, self.scores))


@dataclasses.dataclass(frozen=True)
class EpsilonGreedy:
    """The action of 0…n−1 with the highest score, or with probability ε any that can be taken."""

    scores: Float[Array, "*batch actions"]
    """What ranks the actions; −∞ for one that cannot be taken."""
    epsilon: float | Array
    """ε."""

    @property
    def log_probs(self) -> Float[Array, "*batch actions"]:
        """log π(·|s) of every action."""
        xp = self.scores.__array_namespace__()
        possible = self.scores != -np.inf
        share = self.epsilon / possible.sum(-1, keepdims=True)
        chance = (1 - self.epsilon) * _marked(best(self.scores), self.scores) + share * possible
        with np.errstate(divide="ignore"):  # ε = 0, or not allowed
            return xp.log(chance.astype(np.float32))

    def sample(self, source: rng.Source) -> Int[Array, "*batch"]:
        """By the Gumbel-max trick."""
        return Categorical(self.log_probs).sample(source)

    def log_prob(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """log π(a|s)."""
        return pick(self.log_probs, action)

    def among(self, allowed: Bool[Array, "*batch actions"]) -> Self:
        """The best of the allowed actions, or with probability ε any of them."""
        return dataclasses.replace(self, scores=_only(allowed, self.scores))


@dataclasses.dataclass(frozen=True)
class Implicit:
    """A way to draw actions whose probabilities are not known."""

    draw: Callable[[rng.Source], Float[Array, "*batch action"]]

    def sample(self, source: rng.Source) -> Float[Array, "*batch action"]:
        """A draw."""
        return self.draw(source)

    def log_prob(self, action: Float[Array, "*batch action"]) -> Float[Array, "*batch"]:
        """NaN."""
        return action.__array_namespace__().full(action.shape[:-1], np.nan, np.float32)


def kind_of(distribution: Distribution) -> Kind:
    """What is known of it."""
    match distribution:
        case SquashedGaussian() | ClippedGaussian():
            return "density"
        case Deterministic():
            return "certain"
        case Discrete():
            return "discrete"
        case _:
            return "draws"


def best(values: Float[Array, "*batch actions"]) -> Int[Array, "*batch"]:
    """The action of the largest number; an array also for a single observation, where NumPy's argmax is a scalar."""
    return values.__array_namespace__().asarray(values.argmax(-1), np.int32)


def pick(values: Float[Array, "*batch actions"], action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """values[…, a]: one action's number from those of all."""
    xp = values.__array_namespace__()
    return xp.take_along_axis(values, action[..., None], axis=-1)[..., 0]


#: What stands for −∞ where a loss is differentiated: finite, so that 0 times it is 0.
FORBIDDEN = -1e9


def within(allowed: Bool[Array, "*states actions"] | None, values: Float[Array, "*batch actions"]) -> Array:
    """The values, so low where an action is not allowed that no maximum and no softmax takes it; None allows all."""
    return values if allowed is None else values.__array_namespace__().where(allowed, values, FORBIDDEN)


def _only(allowed: Bool[Array, "*batch actions"], values: Float[Array, "*batch actions"]) -> Array:
    return values.__array_namespace__().where(allowed, values, -np.inf)


def _marked(action: Int[Array, "*batch"], values: Float[Array, "*batch actions"]) -> Bool[Array, "*batch actions"]:
    """True at one action."""
    return action[..., None] == values.__array_namespace__().arange(values.shape[-1], dtype=np.int32)
