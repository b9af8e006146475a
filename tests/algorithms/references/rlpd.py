"""RLPD: Ball et al. 2023, arXiv 2302.02948: REDQ's equations with other defaults."""

from references.redq import actor_loss, critic_loss, target, temperature_loss

__all__ = ["actor_loss", "critic_loss", "target", "temperature_loss"]

VARIANTS = {"default": {"critic_layer_norm": "before"}, "antmaze": {"critic_layer_norm": "none", "subset_size": 1}}
CONSERVATIVE = False
PROBE: dict[str, object] = {}
