"""Discrete batch-constrained Q-learning: Fujimoto et al. 2019, arXiv 1910.01708; the logits' penalty of their code."""

import numpy as np

from references.dqn import critic_loss, double_q
from references.nets import forward, log_policy, log_prob

__all__ = ["critic_loss"]

VARIANTS = {
    "default": {},
    "narrow": {"threshold": 0.8, "logit_penalty": 0.5},
    "unconstrained": {"threshold": 0.0, "loss": "mse"},
}
CONSERVATIVE = True
PROBE: dict[str, object] = {}


def behaviour_loss(h, behaviour, nets, batch, key):
    """E[−log G(a|s)] + penalty · E[logit²], the mean over states and actions."""
    likelihood = log_prob(behaviour, batch.observation, batch.action).mean()
    return -likelihood + h.logit_penalty * np.mean(forward(behaviour.mlp, batch.observation) ** 2)


def target(h, nets, batch, key):
    """y = r + γ(1 − d) Q̄(s′, a′), a′ the best by Q of the actions with G(a|s′) / max_a G(a|s′) > τ."""
    g = np.exp(log_policy(nets.behaviour, batch.next_observation))
    allowed = g / g.max(-1, keepdims=True) > h.threshold
    return batch.reward + batch.discount * double_q(nets, batch.next_observation, allowed)
