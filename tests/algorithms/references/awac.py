"""Advantage-weighted actor-critic: Nair et al. 2020, arXiv 2006.09359; both published forms of the weights."""

import numpy as np

from references.nets import is_discrete, log_policy, log_prob, normal, outputs, q_values, sample, squared_error

VARIANTS = {
    "exponential": {"weight_limit": 5.0},
    "softmax": {"weighting": "softmax", "temperature": 2.0},
    "squashed": {"distribution": "squashed"},
}
CONSERVATIVE = True
PROBE = {"temperature": 0.1}


def value(critic, actor, s, batch, key):
    """E_{a~π(s)} min_i Q_i(s, a): of one draw, or summed over discrete actions."""
    if is_discrete(batch.action):
        return (np.exp(log_policy(actor, s)) * outputs(critic, s).min(0)).sum(-1)
    a, _ = sample(actor, s, normal(key, batch.action.shape))
    return q_values(critic, s, a).min(0)


def target(h, nets, batch, key):
    """y = r + γ(1 − d) E_{a′~π(s′)} min_i Q̄_i(s′, a′)."""
    return batch.reward + batch.discount * value(nets.target_critic, nets.actor, batch.next_observation, batch, key)


def critic_loss(h, critic, nets, batch, y, key):
    """Σ_i E[(Q_i(s, a) − y)²]."""
    return squared_error(h, nets, batch, y, critic)


def actor_loss(h, actor, nets, batch, key):
    """−w log π(a|s), A = min_i Q_i(s, a) − E_{ã~π(s)} min_i Q_i(s, ã) of the policy before its step.

    w = min(exp(A / λ), limit), or B · softmax over the batch of A / λ.
    """
    s = batch.observation
    advantage = q_values(nets.critic, s, batch.action).min(0) - value(nets.critic, nets.actor, s, batch, key)
    weight = np.exp(advantage / h.temperature)
    weight = len(s) * weight / weight.sum() if h.weighting == "softmax" else np.minimum(weight, h.weight_limit)
    return -weight * log_prob(actor, s, batch.action)
