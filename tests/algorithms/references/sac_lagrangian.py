"""SAC with a cost critic and a Lagrange multiplier (Ray, Achiam & Amodei 2019), of costs above κ = limit / T."""

import numpy as np

from references import sac
from references.nets import normal, q_values, sample
from references.sac import critic_loss, target
from segue.rng import named

__all__ = ["critic_loss", "target"]

VARIANTS = {"default": {}, "low-limit": {"cost_limit": 0.5, "critic_updates_per_actor_update": 2}}
CONSERVATIVE = False
PROBE = {**sac.PROBE, "cost_horizon": 1, "cost_limit": 0.0, "initial_cost_multiplier": 0.01}


def excess(actor, nets, batch, key):
    """max_i Qc_i(s, ã), ã ~ π(s)."""
    a, _ = sample(actor, batch.observation, normal(named(key, "cost"), batch.action.shape))
    return q_values(nets.cost_critic, batch.observation, a).max(0)


def actor_loss(h, actor, nets, batch, key):
    """(SAC's + λ max_i Qc_i(s, ã)) / (1 + λ)."""
    return constrained(sac.actor_loss(h, actor, nets, batch, named(key, "reward")), actor, nets, batch, key)


def temperature_loss(h, log_temperature, actor, batch, key):
    """SAC's, of the actions of its actor's loss."""
    return sac.temperature_loss(h, log_temperature, actor, batch, named(key, "reward"))


def constrained(loss, actor, nets, batch, key):
    """(ℓ + λ max_i Qc_i(s, ã)) / (1 + λ) of any loss ℓ per sample."""
    multiplier = np.exp(float(nets.cost_multiplier))
    return (loss + multiplier * excess(actor, nets, batch, key)) / (1 + multiplier)


def cost_critic_loss(h, critic, nets, batch, key):
    """Σ_i E[(Qc_i(s, a) − c + limit / T − γ(1 − d) max_j Q̄c_j(s′, a′))²], a′ ~ π(s′)."""
    a, _ = sample(nets.actor, batch.next_observation, normal(key, batch.action.shape))
    then = q_values(nets.target_cost_critic, batch.next_observation, a).max(0)
    y = batch.cost - h.cost_limit / h.cost_horizon + batch.discount * then
    return ((q_values(critic, batch.observation, batch.action) - y) ** 2).mean(1).sum()


def cost_multiplier_loss(h, log_multiplier, nets, batch, key):
    """−λ E[max_i Qc_i(s, ã)]."""
    return -np.exp(log_multiplier) * excess(nets.actor, nets, batch, key).mean()
