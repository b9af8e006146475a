"""Distributions that policies draw actions from, in given states; on device and host arrays alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from segue import rng
from segue.core import Array

#: Actions of a dataset are pulled this far inside (-1, 1) before atanh; float32 tanh saturates beyond it.
ACTION_MARGIN = 1e-5


@runtime_checkable
class Distribution(Protocol):
    """π(·|s) of a batch of states."""

    def sample(self, source: rng.Source) -> Array:
        """An action per state."""

    def log_prob(self, action: Array) -> Float[Array, "*batch"]:
        """log π(a|s) of given actions; NaN where it is not known or does not exist."""


@dataclasses.dataclass(frozen=True)
class Deterministic:
    """One certain action per state."""

    action: Float[Array, "*batch action"] | Int[Array, "*batch"]

    def sample(self, source: rng.Source) -> Float[Array, "*batch action"] | Int[Array, "*batch"]:
        """That action."""
        return self.action

    def log_prob(self, action: Array) -> Float[Array, "*batch"]:
        """0 or −∞ for discrete actions; a certain continuous action has no density: NaN."""
        xp = action.__array_namespace__()
        if np.issubdtype(self.action.dtype, np.integer):
            return xp.where(action == self.action, np.float32(0), np.float32(-np.inf))
        return xp.full(self.action.shape[:-1], np.nan, np.float32)


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

    @classmethod
    def epsilon_greedy(cls, greedy: Int[Array, "*batch"], epsilon: float | Array, count: int) -> Categorical:
        """The greedy action, or with probability ε any of `count` at random."""
        xp = greedy.__array_namespace__()
        chosen = greedy[..., None] == xp.arange(count, dtype=np.int32)
        chance = (1 - epsilon) * chosen + epsilon / count
        with np.errstate(divide="ignore"):  # ε = 0
            return cls(xp.log(chance.astype(np.float32)))

    def sample(self, source: rng.Source) -> Int[Array, "*batch"]:
        """By the Gumbel-max trick."""
        return best(self.log_probs + rng.gumbel(source, self.log_probs.shape))

    def log_prob(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """log π(a|s)."""
        return pick(self.log_probs, action)


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


def best(values: Float[Array, "*batch actions"]) -> Int[Array, "*batch"]:
    """The action of the largest number; an array also for a single observation, where NumPy's argmax is a scalar."""
    return values.__array_namespace__().asarray(values.argmax(-1), np.int32)


def pick(values: Float[Array, "*batch actions"], action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """values[…, a]: one action's number from those of all."""
    xp = values.__array_namespace__()
    return xp.take_along_axis(values, action[..., None], axis=-1)[..., 0]
