"""NewPart: Author et al. YEAR, arXiv NUMBER. Written from the paper, not from segue's code."""

import numpy as np

from references.nets import deterministic, q_values
from references.td3 import critic_loss, target

__all__ = ["critic_loss", "target"]

VARIANTS = {"default": {}, "light": {"cloning_weight": 0.2}}
CONSERVATIVE = True
PROBE: dict[str, object] = {}


def actor_loss(h, actor, nets, batch, key):
    """w mean_d (π(s) − a)² − Q_1(s, π(s)) / E|Q_1(s, π(s))|, the scale held constant: it is that of `nets.actor`."""
    s = batch.observation
    scale = np.abs(q_values(nets.critic, s, deterministic(nets.actor, s))[0]).mean()
    a = deterministic(actor, s)
    return h.cloning_weight * ((a - batch.action) ** 2).mean(-1) - q_values(nets.critic, s, a)[0] / scale
