"""Conservative Q-learning, CQL(H): Kumar et al. 2020, arXiv 2006.04779; Lagrange form of young-geng/CQL."""

import jax
import numpy as np

from references.nets import logsumexp, normal, q_values, sample, squared_error, uniform
from references.sac import actor_loss, target, temperature_loss

__all__ = ["actor_loss", "target", "temperature_loss"]

VARIANTS = {
    "fixed-weight": {},
    "lagrange": {"lagrange_threshold": 0.8, "conservative_weight": 3.0},
    "entropy-in-backup": {"backup_entropy": True},
}
CONSERVATIVE = True
PROBE = {"initial_temperature": 0.01, "conservative_weight": 0.5}


def gaps(h, critic, nets, batch, key):
    """E[ log Σ_a exp(Q_i(s, a) − log μ(a)) − Q_i(s, a_log) ] of each member i, over 3·n actions evaluated at s.

    n uniform ones with density ½^|A|, n of π(s) and n of π(s′) with theirs; a key for each group.
    """
    n, (rows, dims) = h.sampled_actions, batch.action.shape
    keys = jax.random.split(key, 3)
    shape = (n, rows, dims)
    groups = [
        (uniform(keys[0], shape), np.full((n, rows), dims * np.log(0.5))),
        sample(nets.actor, batch.observation, normal(keys[1], shape)),
        sample(nets.actor, batch.next_observation, normal(keys[2], shape)),
    ]
    s = np.broadcast_to(batch.observation, (n, *batch.observation.shape))
    corrected = [q_values(critic, s, a) - log_density for a, log_density in groups]
    soft_maximum = logsumexp(np.concatenate(corrected, axis=1), axis=1)
    return (soft_maximum - q_values(critic, batch.observation, batch.action)).mean(1)


def critic_loss(h, critic, nets, batch, y, key):
    """Σ_i E[(Q_i − y)²] + w · gap_i, or α′ w (gap_i − threshold) with α′ = exp(log α′) in [0, 1e6]."""
    gap = gaps(h, critic, nets, batch, key)
    bellman = squared_error(h, nets, batch, y, critic)
    if h.lagrange_threshold is None:
        return bellman + h.conservative_weight * gap.sum()
    multiplier = np.clip(np.exp(float(nets.multiplier)), 0, 1e6)
    return bellman + (multiplier * h.conservative_weight * (gap - h.lagrange_threshold)).sum()


def multiplier_loss(h, log_multiplier, nets, batch, key):
    """−½ Σ_i α′ w (gap_i − threshold), with the gaps of the critic before its step."""
    gap = gaps(h, nets.critic, nets, batch, key)
    multiplier = np.clip(np.exp(log_multiplier), 0, 1e6)
    return -0.5 * (multiplier * h.conservative_weight * (gap - h.lagrange_threshold)).sum()
