"""CQL with a cost critic and a Lagrange multiplier, as SAC has them."""

from references import cql, sac
from references.cql import critic_loss, multiplier_loss, target
from references.sac_lagrangian import constrained, cost_critic_loss, cost_multiplier_loss, temperature_loss
from segue.rng import named

__all__ = ["cost_critic_loss", "cost_multiplier_loss", "critic_loss", "multiplier_loss", "target", "temperature_loss"]

VARIANTS = {"default": {}, "two-multipliers": {"lagrange_threshold": 0.8, "cost_limit": 1.0}}
CONSERVATIVE = True
PROBE = {**cql.PROBE, "cost_horizon": 1, "cost_limit": 0.0, "initial_cost_multiplier": 0.01}


def actor_loss(h, actor, nets, batch, key):
    """(SAC's + λ max_i Qc_i(s, ã)) / (1 + λ)."""
    return constrained(sac.actor_loss(h, actor, nets, batch, named(key, "reward")), actor, nets, batch, key)
