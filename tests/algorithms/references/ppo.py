"""Proximal policy optimisation: Schulman et al. 2017, arXiv 1707.06347; advantages: Schulman et al. 2016, arXiv
1506.02438.

It learns on-policy, so the conformance suite passes it over; `test_ppo.py` is its own.
"""

import numpy as np

from references.nets import forward, gaussian, log_density, logsumexp

VARIANTS = {
    "default": {},
    "entropy": {"entropy_weight": 0.3, "clip": 0.1},
    "pulled": {"kl_weight": 0.7, "entropy_weight": 0.1},
}


def advantage(h, value, rollout, terminal, done, t, e):
    """A_t = Σ_k (γλ)^k δ_{t+k}, δ = r + γ V(s′) − V(s), to the end of the episode or of the rollout (eq. 11, 12)."""
    total, weight = 0.0, 1.0
    while True:
        here, then = (forward(value, s[t, e])[0] for s in (rollout.observation, rollout.next_observation))
        then = 0.0 if terminal[t, e] else then
        total += weight * (rollout.reward[t, e] + h.discount * then - here)
        if done[t, e] or t + 1 == len(done):
            return total
        weight *= h.discount * h.gae_lambda
        t += 1


def lambda_return(h, value, rollout, terminal, done, t, e):
    """(1 − λ) Σ_{n<N} λ^(n−1) G_n + λ^(N−1) G_N, G_n = r_t + … + γ^(n−1) r_{t+n−1} + γ^n V(s_{t+n}), where the episode
    or the rollout ends after N steps (Sutton & Barto 2018, eq. 12.3)."""
    n_step, rewards, n = [], 0.0, 0
    while True:
        rewards += h.discount**n * rollout.reward[t + n, e]
        bootstrap = 0.0 if terminal[t + n, e] else forward(value, rollout.next_observation[t + n, e])[0]
        n_step.append(rewards + h.discount ** (n + 1) * bootstrap)
        if done[t + n, e] or t + n + 1 == len(done):
            break
        n += 1
    head = sum(h.gae_lambda**i * g for i, g in enumerate(n_step[:-1]))
    return (1 - h.gae_lambda) * head + h.gae_lambda**n * n_step[-1]


def value_loss(h, value, nets, batch, key):
    """E[(V(s) − G)²]."""
    return np.mean((forward(value, batch.observation)[:, 0] - batch.return_to_go) ** 2)


def actor_loss(h, actor, nets, batch, key):
    """−min(ρ Â, clip(ρ, 1 − ε, 1 + ε) Â) (eq. 7), − w_H H(π), + w_KL KL(π ‖ π_reference).

    −H is Σ π log π of discrete actions; of continuous ones its gradient is that of ρ log π_held(a|s).
    """
    a = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    ratio = np.exp(log_prob(actor, batch.observation, batch.action) - batch.log_prob)
    clipped = np.where(ratio < 1 - h.clip, 1 - h.clip, np.where(ratio > 1 + h.clip, 1 + h.clip, ratio))
    loss = -np.where(ratio * a < clipped * a, ratio * a, clipped * a)
    if np.issubdtype(batch.action.dtype, np.integer):
        log_pi = log_policy(actor, batch.observation)
        loss = loss + h.entropy_weight * (np.exp(log_pi) * log_pi).sum(-1)
    else:
        loss = loss + h.entropy_weight * ratio * log_prob(nets.actor, batch.observation, batch.action)
    return loss + (h.kl_weight * kl(actor, nets.frozen_actor, batch) if h.kl_weight else 0.0)


def log_policy(actor, s):
    """log π(·|s) of every discrete action."""
    logits = forward(actor.mlp, s)
    return logits - logsumexp(logits, -1)[..., None]


def log_prob(actor, s, a):
    """log π(a|s), of a tanh-Gaussian or of a categorical policy."""
    if np.issubdtype(a.dtype, np.integer):
        return np.array([row[i] for row, i in zip(log_policy(actor, s), a, strict=True)])
    return log_density(np.arctanh(a), *gaussian(actor, s))


def kl(actor, other, batch):
    """Σ p log(p/q), or Σ_d log(σ₂/σ₁) + (σ₁² + (μ₁ − μ₂)²) / 2σ₂² − ½."""
    s = batch.observation
    if np.issubdtype(batch.action.dtype, np.integer):
        p, q = (log_policy(policy, s) for policy in (actor, other))
        return (np.exp(p) * (p - q)).sum(-1)
    (mean, std), (other_mean, other_std) = gaussian(actor, s), gaussian(other, s)
    return (np.log(other_std / std) + (std**2 + (mean - other_mean) ** 2) / (2 * other_std**2) - 0.5).sum(-1)
