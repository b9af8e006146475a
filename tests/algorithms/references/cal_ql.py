"""Cal-QL: Nakamoto et al. 2023, arXiv 2303.05479."""

from references.cql import actor_loss, conservative_loss, gaps, multiplier_from, target, temperature_loss

__all__ = ["actor_loss", "target", "temperature_loss"]

VARIANTS = {
    "default": {},
    "lagrange": {"lagrange_threshold": 0.8, "max_q_backup": False},
    "plain-values": {"variant": "rho"},
}
CONSERVATIVE = True
PROBE = {"initial_temperature": 0.01, "conservative_weight": 0.5}


def critic_loss(h, critic, nets, batch, y, key):
    """CQL's, with Q(s, a) ← max(Q(s, a), G) for the policy's actions and for no others."""
    return conservative_loss(h, critic, nets, batch, y, gaps(h, critic, nets, batch, key, batch.return_to_go))


def multiplier_loss(h, log_multiplier, nets, batch, key):
    """CQL's, with the calibrated gap."""
    return multiplier_from(h, log_multiplier, gaps(h, nets.critic, nets, batch, key, batch.return_to_go))
