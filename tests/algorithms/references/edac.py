"""EDAC: An et al. 2021, arXiv 2110.01548, eq. 4."""

import numpy as np

from references.nets import action_gradients, squared_error
from references.sac import actor_loss, target, temperature_loss

__all__ = ["actor_loss", "target", "temperature_loss"]

VARIANTS = {"default": {}, "strong": {"diversity_weight": 7.0, "ensemble_size": 4}}
CONSERVATIVE = False  # as SAC-N
PROBE = {"initial_temperature": 0.01}


def critic_loss(h, critic, nets, batch, y, key):
    """Σ_i E[(Q_i − y)²] + η / (N − 1) · E[ Σ_{i ≠ j} cos(∇_a Q_i, ∇_a Q_j) ] at the dataset's actions."""
    g = action_gradients(critic, batch.observation, batch.action)
    g = g / (np.sqrt((g**2).sum(-1, keepdims=True)) + 1e-10)
    n = len(g)
    pairs = sum((g[i] * g[j]).sum(-1).mean() for i in range(n) for j in range(n) if i != j)
    return squared_error(h, nets, batch, y, critic) + h.diversity_weight / (n - 1) * pairs
