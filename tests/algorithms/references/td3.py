"""Twin delayed DDPG: Fujimoto et al. 2018, arXiv 1802.09477."""

import numpy as np

from references.nets import deterministic, normal, q_values, squared_error

VARIANTS = {"default": {}, "large-noise": {"target_noise": 0.8, "target_noise_clip": 0.3}}
CONSERVATIVE = False
PROBE: dict[str, object] = {}


def target(h, nets, batch, key):
    """y = r + γ(1 − d) min_i Q̄_i(s′, clip(π̄(s′) + clip(N(0, σ), −c, c), −1, 1))."""
    noise = h.target_noise * normal(key, batch.action.shape)
    noise = np.clip(noise, -h.target_noise_clip, h.target_noise_clip)
    a = np.clip(deterministic(nets.target_actor, batch.next_observation) + noise, -1, 1)
    return batch.reward + batch.discount * q_values(nets.target_critic, batch.next_observation, a).min(0)


def critic_loss(h, critic, nets, batch, y, key):
    """Σ_i E[(Q_i(s, a) − y)²]."""
    return squared_error(h, nets, batch, y, critic)


def actor_loss(h, actor, nets, batch, key):
    """−Q_1(s, π(s))."""
    return -q_values(nets.critic, batch.observation, deterministic(actor, batch.observation))[0]
