"""SAC and TD3 against Stable-Baselines3: its own `train`, one gradient step from the same weights, batch and noise."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from copying import (
    GAMMA,
    HIDDEN,
    MEMBERS,
    SquashedLinear,
    deterministic,
    feed,
    gaussian,
    give,
    measure,
    members,
    tensor,
)

from helpers import SPACES
from segue import rng

sb3 = pytest.importorskip("stable_baselines3", reason="the peers are not installed (make peers)")
torch = pytest.importorskip("torch")


class Spaces(gymnasium.Env):
    """All that a peer asks of an environment before it acts."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (SPACES.observation_size,))
    action_space = gymnasium.spaces.Box(-1, 1, (SPACES.action_size,))


class Peer:
    """A model that trains on one given batch; its optimisers move nothing and keep the gradient."""

    def __init__(self, kind, side, monkeypatch, **options):
        # It casts observations to float32, and keeps its targets to itself.
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
        mse_loss, self.targets = torch.nn.functional.mse_loss, []
        monkeypatch.setattr(
            torch.nn.functional, "mse_loss", lambda q, target: self.targets.append(target) or mse_loss(q, target)
        )
        policy = {"net_arch": HIDDEN, "n_critics": MEMBERS}
        self.model = kind("MlpPolicy", Spaces(), gamma=GAMMA, policy_kwargs=policy, device="cpu", **options)
        self.model.set_logger(sb3.common.logger.Logger(None, []))
        give(self.model.critic, members(side.nets.critic))
        give(self.model.critic_target, members(side.nets.target_critic))
        batch = sb3.common.type_aliases.ReplayBufferSamples(
            tensor(side.batch.observation),
            tensor(side.batch.action),
            tensor(side.batch.next_observation),
            tensor(side.batch.discount == 0).double(),
            tensor(side.batch.reward),
        )
        self.model.replay_buffer.sample = lambda *_, **__: batch
        self.critic_gradient = kept(self.model.critic.optimizer)
        self.actor_gradient = kept(self.model.actor.optimizer)

    def train(self):
        self.model.train(gradient_steps=1)
        return {name.removeprefix("train/"): value for name, value in self.model.logger.name_to_value.items()}


def kept(optimizer):
    """The gradients that the optimiser is called with, from now on; nothing moves."""
    gradient = []
    optimizer.step = lambda: gradient.extend(
        x.grad.clone() for group in optimizer.param_groups for x in group["params"]
    )
    return gradient


def test_sac_agrees_with_stable_baselines3(agree, monkeypatch):
    side = measure("sac")
    peer = Peer(sb3.SAC, side, monkeypatch)
    actor, alpha = peer.model.actor, float(np.exp(side.nets.temperature))
    actor.log_std.__class__ = SquashedLinear
    actor.action_dist.epsilon = 0.0  # it adds 1e-6 inside log(1 − a²); segue's form needs no such guard
    give(actor, gaussian(side.nets.actor.mlp))
    peer.model.log_ent_coef.data = torch.full((1,), np.log(alpha), dtype=torch.float64)
    temperature_gradient = kept(peer.model.ent_coef_optimizer)
    shape = side.batch.action.shape
    unused = feed(monkeypatch, rng.normal(side.actor_key, shape), rng.normal(rng.named(side.next_key, "action"), shape))
    losses = peer.train()
    assert not unused
    agree("target", side.target, peer.targets[0])
    agree("critic loss", side.metrics["critic_loss"], 2 * losses["critic_loss"])  # ½ Σ_i instead of Σ_i
    agree("critic gradient", members(side.gradients["critic"]), [2 * x for x in peer.critic_gradient])
    agree("actor loss", side.metrics["actor_loss"], losses["actor_loss"])
    agree("actor gradient", gaussian(side.gradients["actor"].mlp), peer.actor_gradient)
    # It descends log α · E[…] instead of α · E[…], of which the derivative by log α is the loss itself.
    agree("temperature loss", side.gradients["temperature"], alpha / np.log(alpha) * losses["ent_coef_loss"])
    agree("temperature gradient", side.gradients["temperature"], alpha * temperature_gradient[0])
    agree("Polyak", members(side.moved.target_critic), list(peer.model.critic_target.parameters()))


def test_td3_agrees_with_stable_baselines3(agree, monkeypatch):
    side = measure("td3", target_noise=0.6)  # so much that some of it is clipped
    # The delay counts single updates there, and whole blocks in segue.
    peer = Peer(sb3.TD3, side, monkeypatch, target_policy_noise=0.6, policy_delay=1)
    give(peer.model.actor, deterministic(side.nets.actor.mlp))
    give(peer.model.actor_target, deterministic(side.nets.target_actor.mlp))
    unused = feed(monkeypatch, rng.normal(side.next_key, side.batch.action.shape))
    losses = peer.train()
    assert not unused
    agree("target", side.target, peer.targets[0])
    agree("critic loss", side.metrics["critic_loss"], losses["critic_loss"])
    agree("critic gradient", members(side.gradients["critic"]), peer.critic_gradient)
    agree("actor loss", side.metrics["actor_loss"], losses["actor_loss"])
    agree("actor gradient", deterministic(side.gradients["actor"].mlp), peer.actor_gradient)
    agree("Polyak", members(side.moved.target_critic), list(peer.model.critic_target.parameters()))
    agree("Polyak of the actor", deterministic(side.moved.target_actor.mlp), list(peer.model.actor_target.parameters()))
