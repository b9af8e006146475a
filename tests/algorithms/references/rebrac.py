"""ReBRAC: Tarasov et al. 2023, arXiv 2305.09836."""

import numpy as np

from references.nets import deterministic, normal, q_values, squared_error

VARIANTS = {
    "default": {"critic_layer_norm": "after"},
    "strong": {"critic_layer_norm": "none", "actor_bc_weight": 0.7, "critic_bc_weight": 0.4},
}
CONSERVATIVE = True
PROBE = {"actor_bc_weight": 0.4, "critic_bc_weight": 0.1}


def target(h, nets, batch, key):
    """y = r + γ(1 − d) (min_i Q̄_i(s′, ã′) − β2 Σ_d (ã′ − a′)²), the last term only where the dataset knows a′."""
    noise = np.clip(h.target_noise * normal(key, batch.action.shape), -h.target_noise_clip, h.target_noise_clip)
    a = np.clip(deterministic(nets.target_actor, batch.next_observation) + noise, -1, 1)
    distance = np.nan_to_num(((a - np.asarray(batch.next_action, np.float64)) ** 2).sum(-1), nan=0.0)
    value = q_values(nets.target_critic, batch.next_observation, a).min(0) - h.critic_bc_weight * distance
    return batch.reward + batch.discount * value


def critic_loss(h, critic, nets, batch, y, key):
    """Σ_i E[(Q_i(s, a) − y)²]."""
    return squared_error(h, nets, batch, y, critic)


def actor_loss(h, actor, nets, batch, key):
    """β1 Σ_d (π(s) − a)² − min_i Q_i(s, π(s)) / E|min_i Q_i(s, π(s))|, the mean held constant at `nets.actor`."""
    s = batch.observation
    scale = np.abs(q_values(nets.critic, s, deterministic(nets.actor, s)).min(0)).mean()
    a = deterministic(actor, s)
    return h.actor_bc_weight * ((a - batch.action) ** 2).sum(-1) - q_values(nets.critic, s, a).min(0) / scale
