"""Advantage-weighted actor-critic: Nair et al. 2020, arXiv 2006.09359; both published forms of the weights."""

import numpy as np

from references.nets import log_prob, normal, q_values, sample, squared_error

VARIANTS = {
    "exponential": {"weight_limit": 5.0},
    "softmax": {"weighting": "softmax", "temperature": 2.0},
}
CONSERVATIVE = True
PROBE = {"temperature": 0.1}


def target(h, nets, batch, key):
    """y = r + γ(1 − d) min_i Q̄_i(s′, a′), a′ ~ π(s′)."""
    a, _ = sample(nets.actor, batch.next_observation, normal(key, batch.action.shape))
    return batch.reward + batch.discount * q_values(nets.target_critic, batch.next_observation, a).min(0)


def critic_loss(h, critic, nets, batch, y, key):
    """Σ_i E[(Q_i(s, a) − y)²]."""
    return squared_error(h, nets, batch, y, critic)


def actor_loss(h, actor, nets, batch, key):
    """−w log π(a|s), A = min_i Q_i(s, a) − min_i Q_i(s, ã), ã ~ π(s) of the policy before its step.

    w = min(exp(A / λ), limit), or B · softmax over the batch of A / λ.
    """
    s = batch.observation
    drawn, _ = sample(nets.actor, s, normal(key, batch.action.shape))
    advantage = q_values(nets.critic, s, batch.action).min(0) - q_values(nets.critic, s, drawn).min(0)
    weight = np.exp(advantage / h.temperature)
    weight = len(s) * weight / weight.sum() if h.weighting == "softmax" else np.minimum(weight, h.weight_limit)
    return -weight * log_prob(actor, s, batch.action)
