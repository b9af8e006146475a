"""Conservative Q-learning, CQL(H): Kumar et al. 2020, arXiv 2006.04779; Lagrange form of young-geng/CQL."""

import numpy as np

from references import sac
from references.nets import logsumexp, normal, q_values, sample, squared_error, uniform
from references.sac import actor_loss, temperature_loss
from segue.rng import named

__all__ = ["actor_loss", "temperature_loss"]

VARIANTS = {
    "fixed-weight": {},
    "lagrange": {"lagrange_threshold": 0.8, "conservative_weight": 3.0},
    "entropy-in-backup": {"backup_entropy": True, "max_q_backup": True},
    "plain-values": {"variant": "rho", "max_q_backup": True},
}
CONSERVATIVE = True
PROBE = {"initial_temperature": 0.01, "conservative_weight": 0.2}


def target(h, nets, batch, key):
    """SAC's, or y = r + γ(1 − d) max_k min_i Q̄_i(s′, a′_k), with the entropy of that a′_k if so asked."""
    if not h.max_q_backup:
        return sac.target(h, nets, batch, key)
    shape = (h.sampled_actions, *batch.action.shape)
    a, log_pi = sample(nets.actor, batch.next_observation, normal(named(key, "action"), shape))
    q = q_values(nets.target_critic, np.broadcast_to(batch.next_observation, (*shape[:2], 3)), a).min(0)
    best, rows = q.argmax(0), np.arange(shape[1])
    value = q[best, rows]
    if h.backup_entropy:
        value = value - np.exp(float(nets.temperature)) * log_pi[best, rows]
    return batch.reward + batch.discount * value


def gaps(h, critic, nets, batch, key, floor=-np.inf):
    """E[ log Σ_a exp(Q_i(s, a) − log μ(a)) − Q_i(s, a_dataset) ] of each member i, over 3·n actions evaluated at s.

    n uniform ones with density ½^|A|, n of π(s) and n of π(s′) with theirs; a key for each group. The ρ form has no
    densities and counts Q(s, a_dataset) among the values. `floor` bounds the values of the policy's actions from below.
    """
    n, (rows, dims) = h.sampled_actions, batch.action.shape
    shape = (n, rows, dims)
    s = np.broadcast_to(batch.observation, (n, *batch.observation.shape))
    random = uniform(named(key, "uniform"), shape)
    logged = q_values(critic, batch.observation, batch.action)
    values, densities = [q_values(critic, s, random)], [np.full((n, rows), dims * np.log(0.5))]
    for group, state in (("here", batch.observation), ("next", batch.next_observation)):
        a, log_density = sample(nets.actor, state, normal(named(key, group), shape))
        values.append(np.maximum(q_values(critic, s, a), floor))
        densities.append(log_density)
    if h.variant == "rho":
        inside = [*values, logged[:, None]]
    else:
        inside = [q - log_density for q, log_density in zip(values, densities, strict=True)]
    return (logsumexp(np.concatenate(inside, axis=1), axis=1) - logged).mean(1)


def critic_loss(h, critic, nets, batch, y, key):
    """Σ_i E[(Q_i − y)²] + w · gap_i, or α′ w (gap_i − threshold) with α′ = exp(log α′) in [0, 1e6]."""
    return conservative_loss(h, critic, nets, batch, y, gaps(h, critic, nets, batch, key))


def conservative_loss(h, critic, nets, batch, y, gap):
    """The same from the gaps."""
    bellman = squared_error(h, nets, batch, y, critic)
    if h.lagrange_threshold is None:
        return bellman + h.conservative_weight * gap.sum()
    multiplier = np.clip(np.exp(float(nets.multiplier)), 0, 1e6)
    return bellman + (multiplier * h.conservative_weight * (gap - h.lagrange_threshold)).sum()


def multiplier_loss(h, log_multiplier, nets, batch, key):
    """−½ Σ_i α′ w (gap_i − threshold), with the gaps of the critic before its step."""
    return multiplier_from(h, log_multiplier, gaps(h, nets.critic, nets, batch, key))


def multiplier_from(h, log_multiplier, gap):
    """The same from the gaps."""
    multiplier = np.clip(np.exp(log_multiplier), 0, 1e6)
    return -0.5 * (multiplier * h.conservative_weight * (gap - h.lagrange_threshold)).sum()
