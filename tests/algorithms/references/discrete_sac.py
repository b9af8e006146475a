"""Soft actor-critic with discrete actions: Christodoulou 2019, arXiv 1910.07207. Expectations are sums."""

import jax
import numpy as np

from references.nets import log_policy, outputs, squared_error
from segue.rng import named

VARIANTS = {
    "entropy-in-backup": {},
    "plain-backup": {"backup_entropy": False, "target_entropy_scale": 0.98},
    "subset": {"subset_size": 2},
}
CONSERVATIVE = False
PROBE = {"initial_temperature": 0.01}


def target(h, nets, batch, key):
    """y = r + γ(1 − d) Σ_a π(a|s′) (min_{i∈M} Q̄_i(s′, a) − α log π(a|s′)); without the entropy if so asked.

    M holds all critics, or as many as asked for, drawn without replacement.
    """
    s = batch.next_observation
    log_pi = log_policy(nets.actor, s)
    alpha = np.exp(float(nets.temperature)) if h.backup_entropy else 0.0
    q = outputs(nets.target_critic, s)
    if h.subset_size is not None:
        q = q[np.asarray(jax.random.permutation(named(key, "critics"), len(q)))[: h.subset_size]]
    value = np.exp(log_pi) * (q.min(0) - alpha * log_pi)
    return batch.reward + batch.discount * value.sum(-1)


def critic_loss(h, critic, nets, batch, y, key):
    """Σ_i E[(Q_i(s, a) − y)²]."""
    return squared_error(h, nets, batch, y, critic)


def actor_loss(h, actor, nets, batch, key):
    """Σ_a π(a|s) (α log π(a|s) − min_i Q_i(s, a))."""
    log_pi = log_policy(actor, batch.observation)
    q = outputs(nets.critic, batch.observation).min(0)
    return (np.exp(log_pi) * (np.exp(float(nets.temperature)) * log_pi - q)).sum(-1)


def temperature_loss(h, log_temperature, actor, batch, key):
    """E[ Σ_a π(a|s) (−α (log π(a|s) + H̄)) ], H̄ = scale · log |A|."""
    log_pi = log_policy(actor, batch.observation)
    wanted = h.target_entropy_scale * np.log(log_pi.shape[-1])
    return np.mean((np.exp(log_pi) * (-np.exp(log_temperature) * (log_pi + wanted))).sum(-1))
