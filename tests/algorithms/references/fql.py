"""Flow Q-learning: Park et al. 2025, arXiv 2502.02538."""

import jax
import numpy as np

from references.nets import forward, normal, q_values, squared_error
from segue.rng import named

VARIANTS = {
    "default": {"activation": "relu"},
    "plain-q": {"activation": "relu", "normalise_q": False, "target_value": "min", "bc_weight": 3.0, "flow_steps": 3},
    "layer-norm": {"activation": "relu", "critic_layer_norm": "after", "actor_layer_norm": "before"},
}
CONSERVATIVE = True
PROBE = {"behaviour_learning_rate": 3e-3, "bc_weight": 0.6}
REACH = 0.3  # one draw of a policy that is held near a dataset of all actions


def one_step(actor, s, z):
    """μ(s, z), as the network gives it."""
    return forward(actor.mlp, np.concatenate([s, z], -1))


def velocity(behaviour, s, x, t):
    """v(s, x, t)."""
    return forward(behaviour.mlp, np.concatenate([s, x, t], -1))


def flow(behaviour, s, z, steps):
    """x_1 of dx/dt = v(s, x, t) from x_0 = z by Euler's method, clipped."""
    x = z
    for i in range(steps):
        x = x + velocity(behaviour, s, x, np.full((len(z), 1), i / steps)) / steps
    return np.clip(x, -1, 1)


def target(h, nets, batch, key):
    """y = r + γ(1 − d) mean_i Q̄_i(s′, clip(μ(s′, z))), or the minimum."""
    s = batch.next_observation
    q = q_values(nets.target_critic, s, np.clip(one_step(nets.actor, s, normal(key, batch.action.shape)), -1, 1))
    return batch.reward + batch.discount * (q.mean(0) if h.target_value == "mean" else q.min(0))


def critic_loss(h, critic, nets, batch, y, key):
    """Σ_i E[(Q_i(s, a) − y)²]."""
    return squared_error(h, nets, batch, y, critic)


def behaviour_loss(h, behaviour, nets, batch, key):
    """E ‖v(s, (1 − t) x_0 + t a, t) − (a − x_0)‖², a mean also over dimensions."""
    a, noise = batch.action, normal(named(key, "noise"), batch.action.shape)
    t = np.asarray(jax.random.uniform(named(key, "time"), (len(a), 1)), np.float64)
    return np.mean((velocity(behaviour, batch.observation, (1 - t) * noise + t * a, t) - (a - noise)) ** 2)


def actor_loss(h, actor, nets, batch, key):
    """α mean_d (μ(s, z) − flow(s, z))² − mean_i Q_i(s, clip(μ(s, z))) / E|mean_i Q_i|, or without the division."""
    s, z = batch.observation, normal(key, batch.action.shape)
    a = one_step(actor, s, z)
    # What the loss is divided by, and the flow, are constants: at the actor that acts, which may be another one.
    size = np.abs(q_values(nets.critic, s, np.clip(one_step(nets.actor, s, z), -1, 1)).mean(0)).mean()
    q = q_values(nets.critic, s, np.clip(a, -1, 1)).mean(0) / (size if h.normalise_q else 1.0)
    return h.bc_weight * ((a - flow(nets.behaviour, s, z, h.flow_steps)) ** 2).mean(-1) - q
