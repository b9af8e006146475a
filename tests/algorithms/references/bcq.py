"""Batch-constrained Q-learning: Fujimoto et al. 2019, arXiv 1812.02900; means instead of sums as in their code."""

import numpy as np

from references.nets import forward, normal, q_values, squared_error

VARIANTS = {
    "default": {},
    "wide": {"perturbation_size": 0.5, "minimum_weight": 0.3, "target_samples": 3, "kl_weight": 2.0},
    "layer-norm": {"critic_layer_norm": "before", "actor_layer_norm": "after", "critic_hidden_sizes": (8,)},
}
CONSERVATIVE = True
PROBE = {"perturbation_size": 0.3}
REACH = 0.4  # codes within ±1/2 stand for the middle of the dataset's actions


def decoded(behaviour, s, z):
    """The generative model's action for a latent code."""
    return np.tanh(forward(behaviour.decoder, np.concatenate([s, z], -1)))


def proposed(h, behaviour, perturbation, s, z):
    """clip(a + Φ tanh ξ(s, a), −1, 1), a decoded from z clipped to ±1/2."""
    a = decoded(behaviour, s, np.clip(z, -0.5, 0.5))
    return np.clip(a + h.perturbation_size * np.tanh(forward(perturbation, np.concatenate([s, a], -1))), -1, 1)


def behaviour_loss(h, behaviour, nets, batch, key):
    """E[ mean_d (â − a)² + w · mean_l KL(N(μ_l, σ_l) ‖ N(0, 1)) ], â decoded from μ + σ · noise, log σ in [−4, 15]."""
    encoded = forward(behaviour.encoder, np.concatenate([batch.observation, batch.action], -1))
    mean, log_std = np.split(encoded, 2, axis=-1)
    std = np.exp(np.clip(log_std, -4, 15))
    a = decoded(behaviour, batch.observation, mean + std * normal(key, mean.shape))
    kl = (mean**2 + std**2 - 1) / 2 - np.log(std)
    return np.mean(((a - batch.action) ** 2).mean(-1) + h.kl_weight * kl.mean(-1))


def target(h, nets, batch, key):
    """y = r + γ(1 − d) max_k [ λ min_i Q̄_i(s′, a_k) + (1 − λ) max_i Q̄_i(s′, a_k) ].

    The a_k are proposed with ξ̄ for codes z ~ N(0, 1) of two numbers per action dimension.
    """
    count, (rows, dims) = h.target_samples, batch.action.shape
    s = np.broadcast_to(batch.next_observation, (count, *batch.next_observation.shape))
    a = proposed(h, nets.behaviour, nets.target_perturbation, s, normal(key, (count, rows, 2 * dims)))
    q = q_values(nets.target_critic, s, a)
    mixed = h.minimum_weight * q.min(0) + (1 - h.minimum_weight) * q.max(0)
    return batch.reward + batch.discount * mixed.max(0)


def critic_loss(h, critic, nets, batch, y, key):
    """Σ_i E[(Q_i(s, a) − y)²]."""
    return squared_error(h, nets, batch, y, critic)


def actor_loss(h, perturbation, nets, batch, key):
    """−Q_1(s, a), a proposed for s with ξ and one code z ~ N(0, 1)."""
    s, (rows, dims) = batch.observation, batch.action.shape
    a = proposed(h, nets.behaviour, perturbation, s, normal(key, (rows, 2 * dims)))
    return -q_values(nets.critic, s, a)[0]
