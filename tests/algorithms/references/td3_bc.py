"""TD3+BC: Fujimoto & Gu 2021, arXiv 2106.06860."""

import numpy as np

from references.nets import deterministic, q_values
from references.td3 import critic_loss, target

__all__ = ["critic_loss", "target"]

VARIANTS = {"default": {}, "small-alpha": {"alpha": 0.4}}
CONSERVATIVE = True
PROBE: dict[str, object] = {}


def actor_loss(h, actor, nets, batch, key):
    """−λ Q_1(s, π(s)) + mean_d (π(s) − a)², λ = α / E|Q_1(s, π(s))| held constant: it is that of `nets.actor`."""
    s = batch.observation
    scale = h.alpha / np.abs(q_values(nets.critic, s, deterministic(nets.actor, s))[0]).mean()
    a = deterministic(actor, s)
    return -scale * q_values(nets.critic, s, a)[0] + ((a - batch.action) ** 2).mean(-1)
