"""Implicit Q-learning: Kostrikov et al. 2021, arXiv 2110.06169."""

import numpy as np

from references.nets import forward, log_prob, q_values, squared_error

VARIANTS = {
    "default": {},
    "antmaze": {"expectile": 0.9, "inverse_temperature": 10.0, "weight_limit": 20.0},
    "squashed": {"distribution": "squashed"},
    "layer-norm": {"critic_hidden_sizes": (8,), "critic_layer_norm": "before", "actor_layer_norm": "after"},
}
CONSERVATIVE = True
PROBE = {"value_learning_rate": 3e-3, "expectile": 0.9, "inverse_temperature": 10.0}


def value_loss(h, value, nets, batch, key):
    """E[ |τ − 1(u < 0)| u² ], u = min_i Q̄_i(s, a) − V(s)."""
    u = q_values(nets.target_critic, batch.observation, batch.action).min(0) - forward(value, batch.observation)[:, 0]
    return np.mean(np.abs(h.expectile - (u < 0)) * u**2)


def target(h, nets, batch, key):
    """y = r + γ(1 − d) V(s′)."""
    return batch.reward + batch.discount * forward(nets.value, batch.next_observation)[:, 0]


def critic_loss(h, critic, nets, batch, y, key):
    """Σ_i E[(Q_i(s, a) − y)²]."""
    return squared_error(h, nets, batch, y, critic)


def actor_loss(h, actor, nets, batch, key):
    """−min(exp(β (min_i Q̄_i(s, a) − V(s))), limit) log π(a|s)."""
    q = q_values(nets.target_critic, batch.observation, batch.action).min(0)
    advantage = q - forward(nets.value, batch.observation)[:, 0]
    weight = np.minimum(np.exp(h.inverse_temperature * advantage), h.weight_limit)
    return -weight * log_prob(actor, batch.observation, batch.action)
