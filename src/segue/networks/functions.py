"""Element-wise arithmetic of the networks, on device and host arrays alike."""

from __future__ import annotations

from typing import Any

from segue.core import Array

#: Range of log σ of the tanh-Gaussian policy.
LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return _xp(x).maximum(x, 0)


def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    return _xp(x).tanh(x)


def elu(x: Array) -> Array:
    """x where positive, exp(x) - 1 elsewhere."""
    xp = _xp(x)
    return xp.where(x > 0, x, xp.expm1(xp.minimum(x, 0)))


def gelu(x: Array) -> Array:
    """Gaussian error linear unit, tanh form."""
    return 0.5 * x * (1 + _xp(x).tanh(0.7978845608 * (x + 0.044715 * x**3)))


ACTIVATIONS = {"relu": relu, "tanh": tanh, "elu": elu, "gelu": gelu}


def layer_norm(x: Array, scale: Array, shift: Array) -> Array:
    """The last axis normalised, then scaled and shifted (Ba et al. 2016)."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred / _xp(x).sqrt(variance + 1e-5) * scale + shift


def squashed_log_std(raw: Array) -> Array:
    """log σ of the tanh-Gaussian policy: the network's output squashed smoothly into [-5, 2]."""
    return LOG_STD_MIN + (LOG_STD_MAX - LOG_STD_MIN) * (0.5 * (_xp(raw).tanh(raw) + 1))


def log_softmax(logits: Array) -> Array:
    """log π(·|s) of every action."""
    shifted = logits - logits.max(-1, keepdims=True)
    xp = _xp(logits)
    return shifted - xp.log(xp.exp(shifted).sum(-1, keepdims=True))


def _xp(x: Array) -> Any:
    return x.__array_namespace__()
