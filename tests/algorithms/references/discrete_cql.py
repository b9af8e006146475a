"""Conservative Q-learning with discrete actions: CQL(H) of Kumar et al. 2020, arXiv 2006.04779, on double DQN."""

from references.dqn import bellman_error, target
from references.nets import logsumexp, outputs, q_values

__all__ = ["target"]

VARIANTS = {"default": {}, "strong": {"conservative_weight": 4.0, "loss": "mse"}}
CONSERVATIVE = True
PROBE = {"conservative_weight": 0.2}


def critic_loss(h, critic, nets, batch, y, key):
    """The Bellman error and α Σ_i E[ log Σ_a exp Q_i(s, a) − Q_i(s, a_dataset) ]."""
    every = logsumexp(outputs(critic, batch.observation), -1)
    gap = (every - q_values(critic, batch.observation, batch.action)).mean(1)
    return bellman_error(h, critic, batch, y) + h.conservative_weight * gap.sum()
