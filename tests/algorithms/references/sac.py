"""Soft actor-critic: Haarnoja et al. 2018, arXiv 1812.05905."""

import numpy as np

from references.nets import normal, q_values, sample, squared_error
from segue.rng import named

VARIANTS = {
    "entropy-in-backup": {},
    "plain-backup": {"backup_entropy": False, "target_entropy_scale": 0.5},
}
CONSERVATIVE = False
PROBE = {"initial_temperature": 0.01}


def target(h, nets, batch, key):
    """y = r + γ(1 − d) (min_i Q̄_i(s′, a′) − α log π(a′|s′)), a′ ~ π(s′); without the entropy if so asked."""
    a, log_pi = sample(nets.actor, batch.next_observation, normal(named(key, "action"), batch.action.shape))
    value = q_values(nets.target_critic, batch.next_observation, a).min(0)
    if h.backup_entropy:
        value = value - np.exp(float(nets.temperature)) * log_pi
    return batch.reward + batch.discount * value


def critic_loss(h, critic, nets, batch, y, key):
    """Σ_i E[(Q_i(s, a) − y)²]."""
    return squared_error(h, nets, batch, y, critic)


def actor_loss(h, actor, nets, batch, key):
    """α log π(ã|s) − min_i Q_i(s, ã), ã ~ π(s)."""
    a, log_pi = sample(actor, batch.observation, normal(key, batch.action.shape))
    return np.exp(float(nets.temperature)) * log_pi - q_values(nets.critic, batch.observation, a).min(0)


def temperature_loss(h, log_temperature, actor, batch, key):
    """E[−α (log π(ã|s) + H̄)], H̄ = −scale · |A|."""
    _, log_pi = sample(actor, batch.observation, normal(key, batch.action.shape))
    return np.mean(-np.exp(log_temperature) * (log_pi - h.target_entropy_scale * batch.action.shape[-1]))
