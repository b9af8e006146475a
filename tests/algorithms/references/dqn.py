"""Deep Q-learning: Mnih et al. 2015; the double form of van Hasselt et al. 2016, arXiv 1509.06461.

Of an ensemble the minimum counts; with one member this is the published algorithm.
"""

import numpy as np

from references.nets import of_action, outputs, q_values

VARIANTS = {"huber": {}, "mse": {"loss": "mse"}, "one-member": {"ensemble_size": 1}}
CONSERVATIVE = False
PROBE: dict[str, object] = {}


def double_q(nets, s, allowed=True):
    """Q̄(s, argmax_a Q(s, a)) over the allowed actions; Q and Q̄ are the least of their members."""
    q = np.where(allowed, outputs(nets.critic, s).min(0), -np.inf)
    return of_action(outputs(nets.target_critic, s).min(0), q.argmax(-1))


def target(h, nets, batch, key):
    """y = r + γ(1 − d) Q̄(s′, argmax_a Q(s′, a))."""
    return batch.reward + batch.discount * double_q(nets, batch.next_observation)


def bellman_error(h, critic, batch, y):
    """Σ_i E[ℓ(Q_i(s, a) − y)], ℓ(u) = u²/2 for |u| ≤ 1 and |u| − 1/2 beyond (errors clipped to ±1), or u²."""
    u = q_values(critic, batch.observation, batch.action) - y
    if h.loss == "huber":
        assert 0.1 < np.mean(np.abs(u) > 1) < 0.9  # both branches count
        loss = np.where(np.abs(u) <= 1, u**2 / 2, np.abs(u) - 1 / 2)
    else:
        loss = u**2
    return loss.mean(1).sum()


def critic_loss(h, critic, nets, batch, y, key):
    """The Bellman error alone."""
    return bellman_error(h, critic, batch, y)
