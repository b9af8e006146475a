"""SAC-N: An et al. 2021, arXiv 2110.01548: SAC's equations, the minimum over N members."""

from references.sac import actor_loss, critic_loss, target, temperature_loss

__all__ = ["actor_loss", "critic_loss", "target", "temperature_loss"]

VARIANTS = {"default": {}, "five": {"ensemble_size": 5}}
CONSERVATIVE = False  # on a dataset this small, a few members agree outside of it
PROBE = {"initial_temperature": 0.01}
