"""Forward passes and densities in float64 NumPy, from raw weights."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

Weights = list[tuple[np.ndarray, np.ndarray]]
ACTIVATIONS = {"relu": lambda x: np.where(x > 0, x, 0.0), "tanh": np.tanh}


def weights(mlp: Any) -> Weights:
    """(W, b) of every layer."""
    return [(np.asarray(layer.weight, np.float64), np.asarray(layer.bias, np.float64)) for layer in mlp.layers]


def forward(mlp: Any, x: np.ndarray) -> np.ndarray:
    """W_n σ(… σ(W_1 x + b_1) …) + b_n for one network."""
    *hidden, (w, b) = weights(mlp)
    for w_i, b_i in hidden:
        x = ACTIVATIONS[mlp.activation](x @ w_i + b_i)
    return x @ w + b


def q_values(critic: Any, s: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Q_i(s, a), one member after the other: [members, …]."""
    x = np.concatenate([s, a], -1)
    activation = ACTIVATIONS[critic.members.activation]
    *hidden, head = weights(critic.members)
    result = []
    for i in range(len(head[0])):
        h = x
        for w, b in hidden:
            h = activation(h @ w[i] + b[i].reshape(-1))
        result.append((h @ head[0][i] + head[1][i].reshape(-1))[..., 0])
    return np.stack(result)


def gaussian(actor: Any, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation before the tanh; log σ = −5 + 3.5 (tanh(x) + 1), so that it lies in [−5, 2]."""
    mean, raw = np.split(forward(actor.mlp, s), 2, axis=-1)
    return mean, np.exp(-5 + 3.5 * (np.tanh(raw) + 1))


def deterministic(actor: Any, s: np.ndarray) -> np.ndarray:
    """π(s) = tanh(mean)."""
    return np.tanh(gaussian(actor, s)[0])


def log_density(u: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """log π(tanh u) = Σ_d log N(u_d; mean_d, std_d) − log(1 − tanh² u_d), where 1 − tanh² = 1 / cosh²."""
    normal = -((u - mean) ** 2) / (2 * std**2) - np.log(std) - np.log(2 * np.pi) / 2
    return (normal + 2 * (np.logaddexp(u, -u) - np.log(2))).sum(-1)


def sample(actor: Any, s: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a = tanh(mean + std · noise) and log π(a|s)."""
    mean, std = gaussian(actor, s)
    u = mean + std * noise
    return np.tanh(u), log_density(u, mean, std)


def log_prob(actor: Any, s: np.ndarray, a: np.ndarray) -> np.ndarray:
    """log π(a|s) of a given action, which is clipped to ±(1 − 1e-5)."""
    a = np.clip(a, -(1 - 1e-5), 1 - 1e-5)
    return log_density(np.log((1 + a) / (1 - a)) / 2, *gaussian(actor, s))


def logsumexp(x: np.ndarray, axis: int) -> np.ndarray:
    """log Σ exp x."""
    top = x.max(axis, keepdims=True)
    return np.log(np.exp(x - top).sum(axis)) + top.squeeze(axis)


def normal(key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """The standard normal numbers of this key."""
    return np.asarray(jax.random.normal(key, shape), np.float64)


def uniform(key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """The uniform numbers in [−1, 1) of this key."""
    return np.asarray(jax.random.uniform(key, shape, minval=-1.0, maxval=1.0), np.float64)


def squared_error(h: Any, nets: Any, batch: Any, target: np.ndarray, critic: Any) -> float:
    """Σ_i E[(Q_i(s, a) − y)²]."""
    return sum(np.mean((q - target) ** 2) for q in q_values(critic, batch.observation, batch.action))


def action_gradients(critic: Any, s: np.ndarray, a: np.ndarray) -> np.ndarray:
    """∇_a Q_i(s, a) by hand: [members, …, action]."""
    layers = weights(critic.members)
    derivative = {"relu": lambda x: (x > 0).astype(float), "tanh": lambda x: 1 - np.tanh(x) ** 2}[
        critic.members.activation
    ]
    activation = ACTIVATIONS[critic.members.activation]
    result = []
    for i in range(len(layers[0][0])):
        h, slopes = np.concatenate([s, a], -1), []
        for w, b in layers[:-1]:
            x = h @ w[i] + b[i].reshape(-1)
            slopes.append(derivative(x))
            h = activation(x)
        g = np.broadcast_to(layers[-1][0][i][:, 0], h.shape)
        for (w, _), slope in zip(reversed(layers[:-1]), reversed(slopes), strict=True):
            g = (g * slope) @ w[i].T
        result.append(g[..., s.shape[-1] :])
    return np.stack(result)
