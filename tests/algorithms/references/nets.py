"""Forward passes and densities in float64 NumPy, from raw weights."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

#: (W, b, LayerNorm's scale and shift or None) of a layer
Layer = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]
ACTIVATIONS = {"relu": lambda x: np.where(x > 0, x, 0.0), "tanh": np.tanh}


def layers(mlp: Any, member: int | None = None) -> list[Layer]:
    """Every layer of a network, or of one member of an ensemble of networks."""

    def own(leaf: Any, dimensions: int) -> np.ndarray:
        array = np.asarray(leaf, np.float64)
        return array if member is None else array[member].reshape(array.shape[-dimensions:])

    norms = [(own(norm.scale, 1), own(norm.shift, 1)) for norm in mlp.norms] or [None] * (len(mlp.layers) - 1)
    pairs = zip(mlp.layers, [*norms, None], strict=True)
    return [(own(layer.weight, 2), own(layer.bias, 1), norm) for layer, norm in pairs]


def forward(mlp: Any, x: np.ndarray, member: int | None = None) -> np.ndarray:
    """W_n σ(… σ(LN(W_1 x + b_1)) …) + b_n, or with LN(σ(W x + b)) in each hidden layer.

    LN(x) = scale · (x − mean) / √(variance + 1e-5) + shift, over the units of the layer; the identity if there is none.
    """
    *hidden, (w, b, _) = layers(mlp, member)
    for w_i, b_i, norm in hidden:
        x = x @ w_i + b_i
        if mlp.norm_after:
            x = ACTIVATIONS[mlp.activation](x)
        if norm is not None:
            scale, shift = norm
            x = scale * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) + shift
        if not mlp.norm_after:
            x = ACTIVATIONS[mlp.activation](x)
    return x @ w + b


def outputs(ensemble: Any, x: np.ndarray) -> np.ndarray:
    """What each member makes of x, one after the other: [members, …, outputs]."""
    count = len(ensemble.members.layers[0].weight)
    return np.stack([forward(ensemble.members, x, member) for member in range(count)])


def is_discrete(a: np.ndarray) -> bool:
    """Whether these actions are numbers 0…n−1 instead of vectors."""
    return np.issubdtype(a.dtype, np.integer)


def of_action(values: np.ndarray, a: np.ndarray) -> np.ndarray:
    """values[…, i, a_i]: from a number per action, that of the given one."""
    return values[..., np.arange(len(a)), a]


def q_values(critic: Any, s: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Q_i(s, a): [members, …]; a vector is an input, a number chooses an output."""
    if is_discrete(a):
        return of_action(outputs(critic, s), a)
    return outputs(critic, np.concatenate([s, a], -1))[..., 0]


def log_policy(actor: Any, s: np.ndarray) -> np.ndarray:
    """log π(·|s) of every discrete action: the logits' logarithmic softmax."""
    logits = forward(actor.mlp, s)
    return logits - logsumexp(logits, -1)[..., None]


def gaussian(actor: Any, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation before the tanh; log σ = −5 + 3.5 (tanh(x) + 1), so that it lies in [−5, 2]."""
    mean, raw = np.split(forward(actor.mlp, s), 2, axis=-1)
    return mean, np.exp(-5 + 3.5 * (np.tanh(raw) + 1))


def clipped_gaussian(actor: Any, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean tanh(network) and σ, by dimension: log σ = clip(p, low, high), or low + (high − low) / (1 + exp(−p))."""
    low, high = actor.bounds
    p = np.asarray(actor.raw_log_std, np.float64)
    log_std = low + (high - low) / (1 + np.exp(-p)) if actor.smooth else np.clip(p, low, high)
    return np.tanh(forward(actor.mlp, s)), np.exp(log_std)


def is_clipped(actor: Any) -> bool:
    """Whether the policy is a Gaussian that is clipped, instead of squashed."""
    return hasattr(actor, "raw_log_std")


def deterministic(actor: Any, s: np.ndarray) -> np.ndarray:
    """π(s) = tanh(mean)."""
    return np.tanh(gaussian(actor, s)[0])


def log_density(u: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """log π(tanh u) = Σ_d log N(u_d; mean_d, std_d) − log(1 − tanh² u_d), where 1 − tanh² = 1 / cosh²."""
    normal = -((u - mean) ** 2) / (2 * std**2) - np.log(std) - np.log(2 * np.pi) / 2
    return (normal + 2 * (np.logaddexp(u, -u) - np.log(2))).sum(-1)


def sample(actor: Any, s: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a = tanh(mean + std · noise) and log π(a|s); of a clipped Gaussian, clip(mean + std · noise) and no density."""
    if is_clipped(actor):
        mean, std = clipped_gaussian(actor, s)
        return np.clip(mean + std * noise, -1, 1), np.full(s.shape[:-1], np.nan)
    mean, std = gaussian(actor, s)
    u = mean + std * noise
    return np.tanh(u), log_density(u, mean, std)


def log_prob(actor: Any, s: np.ndarray, a: np.ndarray) -> np.ndarray:
    """log π(a|s) of a given action; for a squashed Gaussian a vector is clipped to ±(1 − 1e-5)."""
    if is_discrete(a):
        return of_action(log_policy(actor, s), a)
    if is_clipped(actor):
        mean, std = clipped_gaussian(actor, s)
        return (-((a - mean) ** 2) / (2 * std**2) - np.log(std) - np.log(2 * np.pi) / 2).sum(-1)
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
    """∇_a Q_i(s, a) by hand, without LayerNorm: [members, …, action]."""
    derivative = {"relu": lambda x: (x > 0).astype(float), "tanh": lambda x: 1 - np.tanh(x) ** 2}[
        critic.members.activation
    ]
    activation = ACTIVATIONS[critic.members.activation]
    result = []
    for member in range(len(critic.members.layers[0].weight)):
        *hidden, (head, _, _) = layers(critic.members, member)
        h, slopes = np.concatenate([s, a], -1), []
        for w, b, norm in hidden:
            assert norm is None
            x = h @ w + b
            slopes.append(derivative(x))
            h = activation(x)
        g = np.broadcast_to(head[:, 0], h.shape)
        for (w, _, _), slope in zip(reversed(hidden), reversed(slopes), strict=True):
            g = (g * slope) @ w.T
        result.append(g[..., s.shape[-1] :])
    return np.stack(result)
