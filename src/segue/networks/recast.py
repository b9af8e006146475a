"""A policy carried from one distribution of continuous actions to another, at the handover."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real

from segue import rng
from segue.core import same_shape
from segue.networks.actor import Actor
from segue.networks.functions import LOG_STD_MAX, LOG_STD_MIN
from segue.networks.gaussian_actor import GaussianActor
from segue.networks.linear import Linear

#: Draws per state by which σ is fitted.
DRAWS = 16
#: Halvings of the range of log σ: far below the rounding of float32.
HALVINGS = 30

ContinuousActor = Actor | GaussianActor


def compatible(source: Any, like: Any) -> bool:
    """Whether both are continuous actors with the same network of the mean, arrays or only their shapes."""
    if not isinstance(source, ContinuousActor) or not isinstance(like, ContinuousActor):
        return False
    # The head differs by the outputs for σ; without it the networks must be built alike, activation included.
    trunks = [dataclasses.replace(actor.mlp, layers=actor.mlp.layers[:-1]) for actor in (source, like)]
    return _size(source) == _size(like) and same_shape(*trunks)


def recast(
    source: ContinuousActor, like: ContinuousActor, observation: Real[np.ndarray, "rows observation"]
) -> ContinuousActor:
    """The policy of one actor in the distribution of another, which is `compatible`.

    The network of the mean is carried over. σ is fitted by dimension: over these states, the actions of both policies
    have the same root-mean-square distance from their modes.

    Args:
        source: the policy.
        like: an actor of the distribution wanted.
        observation: normalised states.
    """
    size = _size(source)
    log_std = _fitted_log_std(jax.tree.map(np.asarray, source), like, np.asarray(observation, np.float32))
    mlp = jax.tree.map(jnp.copy, source.mlp)
    *hidden, head = mlp.layers
    weight, bias = head.weight[:, :size], head.bias[:size]
    low, high = _range(like)
    share = np.clip((log_std - low) / (high - low), 1e-3, 1 - 1e-3)
    if isinstance(like, Actor):
        weight = jnp.concatenate([weight, jnp.zeros_like(weight)], axis=1)
        bias = jnp.concatenate([bias, jnp.asarray(np.arctanh(2 * share - 1), bias.dtype)])
    mlp = dataclasses.replace(mlp, layers=(*hidden, Linear(weight, bias)))
    if isinstance(like, Actor):
        return Actor(mlp)
    raw = np.log(share / (1 - share)) if like.smooth else log_std
    return GaussianActor(mlp, jnp.asarray(raw, jnp.float32), like.bounds, like.smooth)


def _size(actor: ContinuousActor) -> int:
    """Action dimensions."""
    outputs = actor.mlp.layers[-1].weight.shape[-1]
    return outputs // 2 if isinstance(actor, Actor) else outputs


def _range(actor: ContinuousActor) -> tuple[float, float]:
    """Of log σ."""
    return (LOG_STD_MIN, LOG_STD_MAX) if isinstance(actor, Actor) else actor.bounds


def _fitted_log_std(
    source: ContinuousActor, like: ContinuousActor, observation: Float[np.ndarray, "rows observation"]
) -> Float[np.ndarray, " action"]:
    mode = np.asarray(source.mode(observation))
    size = mode.shape[-1]
    noise = np.asarray(rng.normal(rng.generator(0, "recast"), (DRAWS, *mode.shape)))
    goal = ((source.sample(observation, noise) - mode) ** 2).mean((0, 1))
    mean = np.asarray(source.mlp(observation))[..., :size]
    low, high = _range(like)
    lower, upper = np.full(size, low), np.full(size, high)
    for _ in range(HALVINGS):
        middle = (lower + upper) / 2
        spread = np.exp(middle).astype(np.float32) * noise
        drawn = np.tanh(mean + spread) if isinstance(like, Actor) else (mode + spread).clip(-1, 1)
        short = ((drawn - mode) ** 2).mean((0, 1)) < goal
        lower, upper = np.where(short, middle, lower), np.where(short, upper, middle)
    return np.asarray((lower + upper) / 2)
