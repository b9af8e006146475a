"""The offline algorithms against d3rlpy: its own losses and backward passes from the same weights, batch and noise."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from copying import (
    DISCRETE,
    GAMMA,
    HIDDEN,
    MEMBERS,
    SquashedLinear,
    deterministic,
    feed,
    gaussian,
    give,
    gradients,
    layers,
    measure,
    members,
    rows_first,
    tensor,
)

from segue import rng
from segue.networks.vae import LATENT_CLIP

d3rlpy = pytest.importorskip("d3rlpy", reason="the peers are not installed (make peers)")
torch = pytest.importorskip("torch")


class Peer:
    """An algorithm of d3rlpy; its optimisers move nothing and keep the gradient they are called with."""

    def __init__(self, config, side, monkeypatch, critics=MEMBERS, **options):
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # of masks
        encoder = d3rlpy.models.VectorEncoderFactory(hidden_units=HIDDEN)
        encoders = {field: encoder for field in config.__dataclass_fields__ if field.endswith("encoder_factory")}
        algorithm = config(gamma=GAMMA, n_critics=critics, **encoders, **options).create(device=False)
        observation, action = side.batch.observation, side.batch.action
        algorithm.create_impl(observation.shape[1:], DISCRETE.action_size if action.ndim == 1 else action.shape[1])
        self.impl = algorithm.impl
        self.nets = self.impl.modules
        give(self.nets.q_funcs, members(side.nets.critic))
        give(self.nets.targ_q_funcs, members(side.nets.target_critic))
        self.batch = d3rlpy.TorchMiniBatch(
            observations=tensor(observation),
            actions=tensor(action),
            rewards=tensor(side.batch.reward),
            next_observations=tensor(side.batch.next_observation),
            next_actions=tensor(side.batch.next_action),
            returns_to_go=tensor(side.batch.return_to_go),
            terminals=tensor(side.batch.discount == 0).double(),
            intervals=torch.ones(len(observation), 1, dtype=torch.float64),
            device="cpu",
        )
        self.stepped = {}

        def keep(wrapper):
            self.stepped[wrapper] = [x.grad.clone() for group in wrapper.optim.param_groups for x in group["params"]]

        monkeypatch.setattr(d3rlpy.optimizers.OptimizerWrapper, "step", keep)

    def target(self):
        """r + γ V(s′), of which d3rlpy computes the second part apart."""
        value = self.impl.compute_target(self.batch)
        return self.batch.rewards + GAMMA * (1 - self.batch.terminals) * value

    def polyak(self):
        self.impl.update_critic_target()
        return list(self.nets.targ_q_funcs.parameters())


def check_critic(agree, side, peer):
    """Target, critic loss and its gradient; returns d3rlpy's losses."""
    agree("target", side.target[:, None], peer.target())
    losses = peer.impl.compute_critic_grad(peer.batch)
    total = getattr(losses, "q_loss", losses.critic_loss)  # IQL adds the value's loss for its one optimiser
    agree("critic loss", side.metrics["critic_loss"], total)
    agree("critic gradient", members(side.gradients["critic"]), gradients(peer.nets.q_funcs))
    return losses


def check_actor(agree, side, peer, parted, factor=1.0):
    """Actor loss and its gradient, the peer's times a factor; returns d3rlpy's losses."""
    losses = peer.impl.compute_actor_grad(peer.batch)
    agree("actor loss", side.metrics["actor_loss"], factor * losses.actor_loss)
    gradient = [factor * x for x in gradients(peer.nets.policy)]
    agree("actor gradient", parted(side.gradients["actor"]), gradient)
    return losses


@pytest.mark.parametrize(
    ("name", "config", "ours", "theirs"),
    [
        ("td3", "TD3Config", {}, {}),
        ("td3-bc", "TD3PlusBCConfig", {"alpha": 0.4}, {"alpha": 0.4}),
        ("rebrac", "ReBRACConfig", {"actor_bc_weight": 0.3, "critic_bc_weight": 0.2},
         {"actor_beta": 0.3, "critic_beta": 0.2}),
    ],
    ids=["td3", "td3-bc", "rebrac"],
)  # fmt: skip
def test_deterministic_policies_agree_with_d3rlpy(name, config, ours, theirs, agree, monkeypatch):
    side = measure(name, target_noise=0.6, **ours)  # so much that some of it is clipped
    peer = Peer(getattr(d3rlpy.algos, config), side, monkeypatch, target_smoothing_sigma=0.6, **theirs)
    give(peer.nets.policy, deterministic(side.nets.actor.mlp))
    give(peer.nets.targ_policy, deterministic(side.nets.target_actor.mlp))
    noise = rng.normal(side.next_key, side.batch.action.shape)
    unused = feed(monkeypatch, noise, noise)
    check_critic(agree, side, peer)
    check_actor(agree, side, peer, lambda actor: deterministic(actor.mlp))
    assert not unused
    agree("Polyak", members(side.moved.target_critic), peer.polyak())


def stochastic(side, config, monkeypatch, **options):
    """A peer with SAC's networks."""
    peer = Peer(config, side, monkeypatch, **options)
    peer.nets.policy._logstd.__class__ = SquashedLinear
    give(peer.nets.policy, gaussian(side.nets.actor.mlp))
    if "temperature" in side.nets:
        give(peer.nets.log_temp, [np.array(side.nets.temperature)[None, None]])
    return peer


def check_temperature(agree, side, losses):
    agree("temperature loss", side.gradients["temperature"], losses.temp_loss)  # its derivative by log α is itself


def test_sac_agrees_with_d3rlpy(agree, monkeypatch):
    side = measure("sac")
    peer = stochastic(side, d3rlpy.algos.SACConfig, monkeypatch)
    shape = side.batch.action.shape
    noise = rng.normal(rng.named(side.next_key, "action"), shape)
    unused = feed(monkeypatch, noise, noise, rng.normal(side.actor_key, shape))
    check_critic(agree, side, peer)
    check_temperature(agree, side, check_actor(agree, side, peer, lambda actor: gaussian(actor.mlp)))
    assert not unused
    agree("Polyak", members(side.moved.target_critic), peer.polyak())


@pytest.mark.parametrize("threshold", [None, 0.8], ids=["fixed", "lagrange"])
@pytest.mark.parametrize("backup", ["entropy", "max-q"])
@pytest.mark.parametrize(("name", "config"), [("cql", "CQLConfig"), ("cal-ql", "CalQLConfig")], ids=["cql", "cal-ql"])
def test_conservative_critics_agree_with_d3rlpy(name, config, backup, threshold, agree, monkeypatch):
    shared, size, rows = {"conservative_weight": 3.0, "max_q_backup": backup == "max-q"}, 4, (16, 2)
    side = measure(
        name, sampled_actions=size, lagrange_threshold=threshold, backup_entropy=backup == "entropy", **shared
    )
    peer = stochastic(
        side,
        getattr(d3rlpy.algos, config),
        monkeypatch,
        n_action_samples=size,
        soft_q_backup=backup == "entropy",
        alpha_threshold=threshold or 0.0,
        alpha_learning_rate=1e-4 if threshold else 0.0,
        **shared,
    )
    if threshold:
        give(peer.nets.log_alpha, [np.array(side.nets.multiplier)[None, None]])
    shape = (size, *rows)
    then = rng.normal(rng.named(side.next_key, "action"), rows if backup == "entropy" else shape)
    penalty = [rng.normal(rng.named(side.penalty_key, of), shape) for of in ("here", "next")]
    uniform = rows_first(rng.uniform(rng.named(side.penalty_key, "uniform"), shape, -1.0, 1.0))
    unused = feed(monkeypatch, then, then, *penalty, uniform, rng.normal(side.actor_key, rows))
    check_critic(agree, side, peer)
    if (
        threshold
    ):  # minus the mean over critics; segue's −½ Σ_i is the same for two. Its derivative by log α′ is itself.
        loss = MEMBERS / 2 * peer.stepped[peer.nets.alpha_optim][0]
        agree("multiplier loss", side.gradients["multiplier"], loss)
    check_temperature(agree, side, check_actor(agree, side, peer, lambda actor: gaussian(actor.mlp)))
    assert not unused


def test_the_plain_backup_of_cql_is_the_one_of_d3rlpy_without_noise(agree, monkeypatch):
    # d3rlpy bootstraps from the policy's mode; segue, as the authors, from a draw of it.
    monkeypatch.setattr(rng, "normal", lambda key, shape: jax.numpy.zeros(shape))
    side = measure("cql")
    agree("target", side.target[:, None], stochastic(side, d3rlpy.algos.CQLConfig, monkeypatch).target())


def imitator(side, config, monkeypatch, **options):
    """A peer that weighs the likelihood of the dataset's actions, and what turns the gradient by segue's log σ into one
    by the peer's.
    """
    peer, actor = Peer(config, side, monkeypatch, **options), side.nets.actor
    # Its log σ is low + (high − low) sigmoid(p), as AWAC's here; IQL's is p here, clipped to the same range.
    low, high = actor.bounds
    raw = np.asarray(actor.raw_log_std)
    share = (raw - low) / (high - low)
    p = raw if actor.smooth else np.log(share / (1 - share))
    slope = 1.0 if actor.smooth else (high - low) * share * (1 - share)
    give(peer.nets.policy, [p[None], *layers(actor.mlp)])
    return peer, lambda gradient: [slope * np.asarray(gradient.raw_log_std)[None], *layers(gradient.mlp)]


def test_iql_agrees_with_d3rlpy(agree, monkeypatch):
    side = measure("iql", expectile=0.8, inverse_temperature=0.5, weight_limit=1.2)
    options = {"expectile": 0.8, "weight_temp": 0.5, "max_weight": 1.2}  # some weights are at the limit
    peer, parted = imitator(side, d3rlpy.algos.IQLConfig, monkeypatch, **options)
    give(peer.nets.value_func, layers(side.nets.value))
    losses = check_critic(agree, side, peer)
    agree("value loss", side.metrics["value_loss"], losses.v_loss)
    agree("value gradient", layers(side.gradients["value"]), gradients(peer.nets.value_func))
    check_actor(agree, side, peer, parted)
    agree("Polyak", members(side.moved.target_critic), peer.polyak())


def test_awac_agrees_with_d3rlpy(agree, monkeypatch):
    side = measure("awac", weighting="softmax", temperature=0.7)
    peer, parted = imitator(side, d3rlpy.algos.AWACConfig, monkeypatch, lam=0.7)
    # It inherits SAC's target: with a temperature stuck at 1, where the paper has no entropy term, and with a′ drawn
    # from a squashed Gaussian, another distribution than the one that it learns.
    sac = d3rlpy.algos.qlearning.torch.sac_impl
    monkeypatch.setattr(sac, "build_squashed_gaussian_distribution", d3rlpy.models.torch.build_gaussian_distribution)
    give(peer.nets.log_temp, [np.full((1, 1), -np.inf)])
    shape = side.batch.action.shape
    noise = rng.normal(side.next_key, shape)
    unused = feed(monkeypatch, noise, noise, rng.normal(side.actor_key, shape)[None])
    check_critic(agree, side, peer)
    factor = 1 / len(side.batch.reward)  # of a sum over the batch
    check_actor(agree, side, peer, parted, factor)
    assert not unused


def test_bcq_agrees_with_d3rlpy(agree, monkeypatch):
    side = measure("bcq", behaviour_hidden_sizes=(8, 8), target_samples=4)
    latent = side.nets.behaviour.latent_size
    peer = Peer(d3rlpy.algos.BCQConfig, side, monkeypatch, n_action_samples=4)
    # Its decoder's flag is inverted: with_squash=True, the default, leaves the tanh out.
    call = torch.nn.Module.__call__
    monkeypatch.setattr(type(peer.nets.vae_decoder), "__call__", lambda net, x, latent: call(net, x, latent, False))
    give(peer.nets.policy, layers(side.nets.perturbation))
    give(peer.nets.targ_policy, layers(side.nets.target_perturbation))
    give(peer.nets.vae_encoder, gaussian(side.nets.behaviour.encoder))
    give(peer.nets.vae_decoder, layers(side.nets.behaviour.decoder))
    rows = len(side.batch.reward)
    noise = rows_first(rng.normal(side.next_key, (4, rows, latent)))
    assert np.abs(noise).max() > LATENT_CLIP
    mine = rng.normal(side.actor_key, (rows, latent))
    unused = feed(monkeypatch, noise, noise, mine, rng.normal(side.behaviour_key, (rows, latent)))
    check_critic(agree, side, peer)
    losses = peer.impl.compute_actor_grad(peer.batch)
    agree("actor loss", side.metrics["actor_loss"], losses.actor_loss)
    agree("actor gradient", layers(side.gradients["perturbation"]), gradients(peer.nets.policy))
    agree("behaviour loss", side.metrics["behaviour_loss"], peer.impl.compute_imitator_grad(peer.batch)["loss"])
    ours = side.gradients["behaviour"]
    agree("encoder gradient", gaussian(ours.encoder), gradients(peer.nets.vae_encoder))
    agree("decoder gradient", layers(ours.decoder), gradients(peer.nets.vae_decoder))
    assert not unused


@pytest.mark.parametrize(
    ("name", "config", "ours", "theirs"),
    [
        ("dqn", "DoubleDQNConfig", {}, {}),
        ("discrete-cql", "DiscreteCQLConfig", {"conservative_weight": 0.7}, {"alpha": 0.7}),
        ("discrete-bcq", "DiscreteBCQConfig", {"logit_penalty": 0.2}, {"beta": 0.2, "share_encoder": False}),
    ],
    ids=["dqn", "discrete-cql", "discrete-bcq"],
)  # fmt: skip
def test_discrete_critics_agree_with_d3rlpy(name, config, ours, theirs, agree, monkeypatch):
    # One critic: of several, d3rlpy chooses actions by the mean and judges them by the minimum.
    side = measure(name, DISCRETE, ensemble_size=1, **ours)
    peer = Peer(getattr(d3rlpy.algos, config), side, monkeypatch, critics=1, **theirs)
    imitates = name == "discrete-bcq"
    if imitates:
        net = peer.nets.imitator
        give(net, layers(side.nets.behaviour.mlp))
        # It penalises log-probabilities; segue, as the authors, the logits that the network gives.
        net.forward = lambda x: SimpleNamespace(logits=net._fc(net._encoder(x)))
    agree("target", side.target[:, None], peer.target())
    losses = peer.impl.compute_grad(peer.batch)
    agree("critic loss", side.metrics["critic_loss"], losses.loss - (losses.imitator_loss if imitates else 0))
    agree("critic gradient", members(side.gradients["critic"]), gradients(peer.nets.q_funcs))
    if imitates:
        agree("behaviour loss", side.metrics["behaviour_loss"], losses.imitator_loss)
        agree("behaviour gradient", layers(side.gradients["behaviour"].mlp), gradients(peer.nets.imitator))


def test_discrete_sac_agrees_with_d3rlpy(agree, monkeypatch):
    # Its target entropy is 0.98 log |A|, and its Bellman error Huber's, as for every discrete critic.
    side = measure("discrete-sac", DISCRETE, target_entropy_scale=0.98)
    module = d3rlpy.models.torch.q_functions.mean_q_function
    monkeypatch.setattr(module, "compute_huber_loss", lambda q, target: (q - target) ** 2)
    peer = Peer(d3rlpy.algos.DiscreteSACConfig, side, monkeypatch)
    give(peer.nets.policy, layers(side.nets.actor.mlp))
    give(peer.nets.log_temp, [np.array(side.nets.temperature)[None, None]])
    agree("target", side.target[:, None], peer.target())
    agree("critic loss", side.metrics["critic_loss"], peer.impl.compute_critic_grad(peer.batch)["loss"])
    agree("critic gradient", members(side.gradients["critic"]), gradients(peer.nets.q_funcs))
    losses = peer.impl.compute_actor_grad(peer.batch)
    agree("actor loss", side.metrics["actor_loss"], losses["loss"])
    agree("actor gradient", layers(side.gradients["actor"].mlp), gradients(peer.nets.policy))
    agree("temperature loss", side.gradients["temperature"], losses["temp_loss"])
