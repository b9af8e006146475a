"""REDQ: Chen et al. 2021, arXiv 2101.05982."""

import jax
import numpy as np

from references.nets import normal, q_values, sample, squared_error
from references.sac import temperature_loss
from segue.rng import named

__all__ = ["temperature_loss"]

VARIANTS = {"default": {}, "plain-backup": {"backup_entropy": False, "subset_size": 1}}
CONSERVATIVE = False
PROBE = {"initial_temperature": 0.01, "critic_updates_per_actor_update": 1}


def target(h, nets, batch, key):
    """y = r + γ(1 − d) (min_{i∈M} Q̄_i(s′, a′) − α log π(a′|s′)), M drawn without replacement."""
    action_key, subset_key = named(key, "action"), named(key, "critics")
    a, log_pi = sample(nets.actor, batch.next_observation, normal(action_key, batch.action.shape))
    q = q_values(nets.target_critic, batch.next_observation, a)
    members = np.asarray(jax.random.permutation(subset_key, len(q)))[: h.subset_size]
    value = q[members].min(0)
    if h.backup_entropy:
        value = value - np.exp(float(nets.temperature)) * log_pi
    return batch.reward + batch.discount * value


def critic_loss(h, critic, nets, batch, y, key):
    """Σ_i E[(Q_i(s, a) − y)²]."""
    return squared_error(h, nets, batch, y, critic)


def actor_loss(h, actor, nets, batch, key):
    """α log π(ã|s) − mean_i Q_i(s, ã), ã ~ π(s)."""
    a, log_pi = sample(actor, batch.observation, normal(key, batch.action.shape))
    return np.exp(float(nets.temperature)) * log_pi - q_values(nets.critic, batch.observation, a).mean(0)
