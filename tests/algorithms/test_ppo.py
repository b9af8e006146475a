"""PPO computes what the paper says, learns from its rollout and nothing else, and finds the best policy of toys."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from references import ppo as reference

from helpers import (
    actor_update,
    changed_roles,
    clone,
    finite,
    same_bits,
    with_optimiser,
)
from segue.algorithms import PPO
from segue.bridges import Bridge
from segue.core import Learner, Nets, Normaliser, Spaces, Transition
from segue.networks import Actor
from segue.runner.checkpoint import Checkpoint, load, parameters_sha256, save
from segue.training.on_policy import learn, train_on_policy
from segue.training.online import OnlineSettings
from segue.training.update import descend, init_learner, replace
from toys import AIM, PICK, Notes

KINDS = {"continuous": Spaces(3, 2), "discrete": Spaces(3, 4, discrete=True)}
CASES = [(kind, variant) for kind in KINDS for variant in reference.VARIANTS]
every_case = pytest.mark.parametrize(("kind", "variant"), CASES)
every_kind = pytest.mark.parametrize("kind", KINDS)
STEPS, ENVIRONMENTS = 12, 3


def small(variant: str = "default", **options) -> PPO:
    settings = {"hidden_sizes": (8, 8), "batch_size": 16, "activation": "tanh"}
    return PPO(**{**settings, **reference.VARIANTS[variant], **options})


def ends() -> tuple[np.ndarray, np.ndarray]:
    """(terminal, done): one environment ends and is cut in turn, one is cut in its last step, one never ends."""
    terminal, cut = np.zeros((2, STEPS, ENVIRONMENTS), bool)
    terminal[[2, 8], 0] = cut[5, 0] = cut[-1, 1] = terminal[0, 1] = True
    return terminal, terminal | cut


def random_learner(algorithm: PPO, kind: str, seed: int = 0) -> Learner:
    """Every number is random, and the reference is another policy than the actor."""
    rng = np.random.default_rng(seed)
    nets = algorithm.init(jax.random.key(seed), KINDS[kind])
    nets = jax.tree.map(lambda leaf: leaf + jnp.asarray(0.15 * rng.normal(size=leaf.shape), leaf.dtype), nets)
    return init_learner(algorithm, nets, Normaliser.identity(3))


def _rollout(kind: str) -> Transition:
    """What the policy of `random_learner` might have lived through; an episode's next step starts where one led."""
    rng = np.random.default_rng(0)
    rows = (STEPS, ENVIRONMENTS)
    observation, last = rng.normal(size=(2, *rows, 3)).astype(np.float32)
    actor = jax.tree.map(np.asarray, random_learner(small(), kind).nets.actor)
    action = np.asarray(actor.draw(observation, rng))
    return Transition(
        observation=observation,
        action=action,
        reward=rng.normal(size=rows).astype(np.float32),
        next_observation=np.where(ends()[1][..., None], last, np.concatenate([observation[1:], last[-1:]])),
        discount=np.where(ends()[0], 0, PPO().discount).astype(np.float32),
        return_to_go=np.zeros(rows, np.float32),
        next_action=action,
    )


ROLLOUTS = {kind: _rollout(kind) for kind in KINDS}


def double(tree):
    def widen(leaf):
        array = np.asarray(leaf)
        return jnp.asarray(array.astype(np.float64) if array.dtype == np.float32 else array)

    return jax.tree.map(widen, tree)


def in_numpy(batch: Transition) -> Transition:
    """Float64 columns; whole numbers stay whole."""
    return jax.tree.map(lambda x: np.asarray(x, None if np.asarray(x).dtype.kind == "i" else np.float64), batch)


def flat(batch: Transition) -> Transition:
    return jax.tree.map(lambda column: column.reshape(-1, *column.shape[2:]), batch)


def by_hand(algorithm: PPO, learner: Learner, rollout: Transition) -> Transition:
    """The rollout with the reference's advantages and λ-returns, and log π of the acting policy."""
    given, (terminal, done) = in_numpy(rollout), ends()
    places = list(np.ndindex(done.shape))
    about = (algorithm, learner.nets.value, given, terminal, done)
    advantage = np.array([reference.advantage(*about, *place) for place in places]).reshape(done.shape)
    returns = np.array([reference.lambda_return(*about, *place) for place in places]).reshape(done.shape)
    batch = flat(given._replace(advantage=advantage, return_to_go=returns))
    return batch._replace(log_prob=reference.log_prob(learner.nets.actor, batch.observation, batch.action))


def minibatch(algorithm: PPO, learner: Learner, kind: str) -> Transition:
    """One whose ratios lie below, within and above the clipping range, for advantages of both signs."""
    batch = by_hand(algorithm, learner, ROLLOUTS[kind])
    return batch._replace(log_prob=batch.log_prob + np.random.default_rng(1).uniform(-0.5, 0.5, len(batch.reward)))


def plain_descent(algorithm: PPO) -> PPO:
    """The same, but each network steps by exactly minus its gradient."""
    return with_optimiser(algorithm, optax.sgd(1.0))


def assert_is_derivative(gradient, loss, at, tolerance=1e-5):
    """Compare a gradient, leaf by leaf, with differences of this loss along a random direction."""
    rng = np.random.default_rng(0)
    leaves, structure = jax.tree.flatten(at)
    gradients = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient)]
    largest = max(np.abs(leaf).max() for leaf in gradients)
    assert largest > 1e-3
    for i, (leaf, slope) in enumerate(zip(leaves, gradients, strict=True)):
        direction = rng.normal(size=leaf.shape)
        step = 1e-5 / np.sqrt(direction.size)
        ahead, behind = (
            loss(jax.tree.unflatten(structure, [*leaves[:i], np.asarray(leaf) + d * direction, *leaves[i + 1 :]]))
            for d in (step, -step)
        )
        assert abs((slope * direction).sum() - (ahead - behind) / (2 * step)) < tolerance * largest * np.linalg.norm(
            direction
        )


@pytest.mark.parametrize("gae_lambda", [0.0, 0.9, 1.0])
def test_advantages_and_returns_are_the_papers_sums_whatever_ends_an_episode(gae_lambda):
    """The one as a sum of temporal differences, the other as a mixture of n-step returns: two definitions."""
    algorithm = small(gae_lambda=gae_lambda)
    with jax.enable_x64(True):
        learner, rollout = double((random_learner(algorithm, "continuous"), ROLLOUTS["continuous"]))
        rollout = rollout._replace(discount=jnp.where(ends()[0], 0, algorithm.discount))
        got = flat(algorithm.advantages(rollout, ends()[1], learner.nets.value, gae_lambda))
        expected = by_hand(algorithm, learner, rollout)
    np.testing.assert_allclose(got.advantage, expected.advantage, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got.return_to_go, expected.return_to_go, rtol=1e-9, atol=1e-12)
    assert np.abs(expected.advantage).min() > 1e-3


@every_case
def test_the_policys_loss_equals_the_reference_sample_by_sample(kind, variant):
    algorithm = small(variant)
    learner = random_learner(algorithm, kind)
    batch = minibatch(algorithm, learner, kind)
    expected = reference.actor_loss(algorithm, learner.nets.actor, learner.nets, batch, None)
    single = jax.tree.map(lambda x: jnp.asarray(x, None if x.dtype.kind == "i" else jnp.float32), batch)
    per_sample = jax.jit(lambda nets, batch: algorithm.actor_loss(nets.actor, nets, batch, jax.random.key(0))[0])
    loss = per_sample(learner.nets, single)
    assert loss.dtype == np.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-4)
    with jax.enable_x64(True):
        loss = per_sample(*double((learner.nets, batch)))
    np.testing.assert_allclose(loss, expected, rtol=1e-9, atol=1e-9)


@every_case
def test_the_policy_moves_by_the_derivative_of_its_loss_clipped_or_not(kind, variant):
    algorithm = plain_descent(small(variant))
    with jax.enable_x64(True):
        learner = double(random_learner(algorithm, kind))
        batch = minibatch(algorithm, learner, kind)
        ratio = np.exp(reference.log_prob(learner.nets.actor, batch.observation, batch.action) - batch.log_prob)
        good = batch.advantage > batch.advantage.mean()
        for sign in (good, ~good):
            assert (ratio[sign] < 1 - algorithm.clip).any()
            assert (ratio[sign] > 1 + algorithm.clip).any()
            assert (np.abs(ratio[sign] - 1) < algorithm.clip).any()
        update = jax.jit(lambda given, part: actor_update(algorithm, (), given, part, jax.random.key(0))[0])
        after = update(learner, double(batch))
        assert changed_roles(learner, after) == {"actor"}
        moved = jax.tree.map(lambda a, b: a - b, learner.nets.actor, after.nets.actor)

        def loss(actor):
            return reference.actor_loss(algorithm, actor, learner.nets, batch, None).mean()

        assert_is_derivative(moved, loss, learner.nets.actor)


@every_kind
def test_one_pass_over_a_rollout_steps_both_networks_down_the_references_losses(kind):
    """From the environment's columns to the parameters: advantages, returns and ratios are all made on the way."""
    algorithm = plain_descent(small("pulled", batch_size=STEPS * ENVIRONMENTS, kl_until=1.0))
    with jax.enable_x64(True):
        before, rollout = double((random_learner(algorithm, kind), ROLLOUTS[kind]))
        rollout = rollout._replace(discount=jnp.where(ends()[0], 0, algorithm.discount))
        progress = 0.25
        after, metrics = learn(
            clone(before),
            rollout,
            ends()[1],
            jax.random.key(0),
            jnp.asarray(progress),
            algorithm=algorithm,
            bridges=(),
            epochs=1,
        )
        batch = by_hand(algorithm, before, rollout)
        now = dataclasses.replace(algorithm, kl_weight=algorithm.kl_weight * (1 - progress))
        moved = {
            role: jax.tree.map(lambda a, b: a - b, *(getattr(learner.nets, role) for learner in (before, after)))
            for role in ("actor", "value")
        }
        losses = {
            "value": lambda value: reference.value_loss(now, value, None, batch, None),
            "actor": lambda actor: reference.actor_loss(now, actor, before.nets, batch, None).mean(),
        }
        assert changed_roles(before, after) == set(losses)
        for role, loss in losses.items():
            assert float(metrics[f"{role}_loss"]) == pytest.approx(loss(getattr(before.nets, role)), rel=1e-9)
            assert_is_derivative(moved[role], loss, getattr(before.nets, role))


@every_kind
def test_the_pull_is_the_mean_log_ratio_of_the_two_policies_over_draws_of_the_first(kind):
    """Also past the tanh: KL(π ‖ other) = E_{a~π}[log π(a) − log other(a)]."""
    algorithm = small("pulled")
    nets = random_learner(algorithm, kind, seed=2).nets
    state = jnp.asarray(ROLLOUTS[kind].observation[0, 0])
    states = jnp.broadcast_to(state, (40_000, 3))
    draws = nets.actor.draw(states, jax.random.key(0))
    gaps = np.asarray(nets.actor.log_prob(states, draws) - nets.frozen_actor.log_prob(states, draws))
    kl = float(nets.actor.kl(nets.frozen_actor, state))
    assert kl > 0.01
    assert abs(gaps.mean() - kl) < 4 * gaps.std() / 200


def entropy_bonus(actor, state, actions, weights):
    """Σ_a w_a ℓ(a) where ℓ holds nothing but the entropy term: advantages are equal and the ratio is 1."""
    rows = len(weights)
    states = jnp.broadcast_to(state, (rows, len(state)))
    zeros = jnp.zeros(rows)
    batch = Transition(states, actions, zeros, states, zeros, zeros, actions, log_prob=zeros, advantage=zeros)
    batch = batch._replace(log_prob=jax.lax.stop_gradient(actor.log_prob(states, actions)))
    loss, _ = small(entropy_weight=1.0).actor_loss(actor, Nets(), batch, jax.random.key(0))
    return (jax.lax.stop_gradient(weights) * loss).sum()


@pytest.mark.parametrize("action", range(4))
def test_the_entropy_term_of_discrete_actions_is_the_entropy_whatever_was_done(action):
    with jax.enable_x64(True):
        actor = double(random_learner(small(), "discrete").nets.actor)
        state = jnp.asarray([0.3, -1.0, 0.5])
        done = jnp.asarray([action], jnp.int32)
        got = jax.jit(jax.grad(lambda a: entropy_bonus(a, state, done, jnp.ones(1))))(actor)
        expected = jax.jit(jax.grad(lambda a: (a.probabilities(state) * a(state)).sum()))(actor)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14)
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 0.01


def test_over_all_continuous_actions_the_entropy_term_steps_up_the_entropy():
    """The expectation by Gauss-Hermite quadrature; the entropy's own gradient by reparameterisation."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    with jax.enable_x64(True):
        noise, weights = jnp.asarray(nodes)[:, None], jnp.asarray(weights / weights.sum())
        actor = double(Actor.init(jax.random.key(0), 3, 1, (8,), activation="tanh"))
        actor = jax.tree.map(lambda leaf: leaf + 0.1, actor)
        state = jnp.asarray([0.3, -1.0, 0.5])

        def negative_entropy(a):
            _, log_prob = a.sample_with_log_prob(state, noise)
            return (weights * log_prob).sum()

        got = jax.jit(jax.grad(entropy_bonus))(actor, state, actor.sample(state, noise), weights)
        expected = jax.jit(jax.grad(negative_entropy))(actor)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 0.01


@pytest.mark.parametrize("role", ["actor", "value"])
def test_a_gradient_longer_than_the_limit_is_scaled_down_to_it_and_a_shorter_one_is_kept(role):
    """Seen in Adam's first moment, 0.1 of the gradient after one step."""
    learner = random_learner(small(), "continuous")
    weights = jax.tree.map(jnp.ones_like, getattr(learner.nets, role))

    def moment(scale, limit):
        def loss(net):
            products = jax.tree.map(lambda w, p: (w * p).sum(), weights, net)
            return scale * sum(jax.tree.leaves(products)), {}

        step = next(step for step in small(max_gradient_norm=limit).steps() if step.role == role)
        after, _ = jax.jit(lambda given: descend(step, given, loss))(learner)
        return after.optimisers[role][1][0].mu

    natural = float(optax.global_norm(weights))
    assert float(optax.global_norm(moment(1.0, 0.5))) == pytest.approx(0.1 * 0.5, rel=1e-5)
    assert float(optax.global_norm(moment(0.01, 0.5))) == pytest.approx(0.1 * 0.01 * natural, rel=1e-5)
    assert 0.01 * natural < 0.5 < natural


BATCHED = small("pulled", kl_until=0.5, actor_learning_rate=3e-3)


def learnt(learner, kind="continuous", seed=0, progress=0.0, **options):
    """Two passes over 36 rows in minibatches of 16; the learner given is spared."""
    settings = {"algorithm": BATCHED, "bridges": (), "epochs": 2}
    return learn(
        clone(learner),
        ROLLOUTS[kind],
        ends()[1],
        jax.random.key(seed),
        jnp.asarray(progress, jnp.float32),
        **(settings | options),
    )


@cache
def once(kind):
    before = random_learner(BATCHED, kind)
    return before, *learnt(before, kind)


@every_kind
def test_updates_move_the_actor_and_v_only_and_never_the_reference(kind):
    before, after, metrics = once(kind)
    assert changed_roles(before, after) == {"actor", "value"}
    assert after.step == 4
    assert after.optimisers["actor"][1][0].count == after.optimisers["value"][1][0].count == 4
    assert finite((after, metrics))


def test_the_fit_of_v_moves_v_only():
    before, _, _ = once("continuous")
    after, metrics = learnt(before, train_policy=False)
    assert changed_roles(before, after) == {"value"}
    assert same_bits(after.optimisers["actor"], before.optimisers["actor"])
    assert "actor_loss" not in metrics


def test_v_is_fitted_to_undiminished_returns_and_then_learns_lambda_returns():
    rows = STEPS * ENVIRONMENTS
    algorithm = small(batch_size=rows, gae_lambda=0.5)
    learner = random_learner(algorithm, "continuous")
    losses = []
    for gae_lambda, train_policy in ((1.0, False), (0.5, True)):
        _, metrics = learnt(learner, algorithm=algorithm, epochs=1, train_policy=train_policy)
        h = dataclasses.replace(algorithm, gae_lambda=gae_lambda)
        batch = by_hand(h, learner, ROLLOUTS["continuous"])
        losses.append(reference.value_loss(h, learner.nets.value, None, batch, None))
        assert float(metrics["value_loss"]) == pytest.approx(losses[-1], rel=1e-4)
    assert losses[0] != pytest.approx(losses[1], rel=0.05)


class Watched(PPO):
    """Reports how far a minibatch's ratios are from 1."""

    def actor_loss(self, actor, nets, batch, key):
        loss, aux = super().actor_loss(actor, nets, batch, key)
        return loss, {**aux, "off": jnp.abs(jnp.exp(aux["log_prob"] - batch.log_prob) - 1).max()}


@every_kind
def test_the_ratio_is_one_until_the_policy_moves(kind):
    """With a step size that vanishes in rounding no minibatch sees another policy than the one that acted. To the bit
    for networks this narrow; wide matrix products round differently for a minibatch and for the whole rollout."""
    algorithm = Watched(hidden_sizes=(8, 8), batch_size=16, activation="tanh", actor_learning_rate=1e-30)
    learner = random_learner(algorithm, kind)
    after, metrics = learnt(learner, kind, algorithm=algorithm)
    assert changed_roles(learner, after) == {"value"}
    assert float(metrics["off"]) < 1e-3
    assert float(metrics["ratio_clipped"]) == 0


@every_kind
def test_the_same_seed_gives_the_same_bits_and_another_seed_other_minibatches(kind):
    before, after, metrics = once(kind)
    assert same_bits(learnt(before, kind), (after, metrics))
    assert not same_bits(learnt(before, kind, seed=1)[0].nets, after.nets)


def test_bridges_that_change_nothing_are_bit_identical_to_none():
    before, after, _ = once("continuous")
    bridged, _ = learnt(replace(before, bridges=((), ())), bridges=(Bridge(), Bridge()))
    assert same_bits(bridged.nets, after.nets)
    assert same_bits(bridged.optimisers, after.optimisers)


def test_a_saved_learner_goes_on_where_it_stopped_bit_for_bit(tmp_path):
    _, after, _ = once("continuous")
    digest = save(tmp_path / "checkpoint", Checkpoint(BATCHED, (), KINDS["continuous"], None, after))
    back = load(tmp_path / "checkpoint")
    assert back.algorithm == BATCHED
    assert digest == parameters_sha256(back.learner)
    assert same_bits(back.learner, after)
    assert same_bits(learnt(back.learner, algorithm=back.algorithm), learnt(after))


class Seen(PPO):
    """Notes the rows of each minibatch; only without compilation."""

    rows: ClassVar[list[np.ndarray]] = []

    def value_loss(self, value, nets, batch, key, aux):
        if not isinstance(batch.reward, jax.core.Tracer):
            self.rows.append(np.asarray(batch.reward))
        return super().value_loss(value, nets, batch, key, aux)


@pytest.mark.slow  # one pass is compared with the reference above, and tests/test_rng.py has a key for every shuffle
def test_compiled_updates_equal_uncompiled_ones_and_every_pass_shuffles_the_rows_anew():
    before, after, metrics = once("continuous")
    watched = Seen(**{field.name: getattr(BATCHED, field.name) for field in dataclasses.fields(BATCHED)})
    Seen.rows.clear()
    with jax.disable_jit():
        plain, plain_metrics = learnt(before, algorithm=watched)
    for a, b in zip(jax.tree.leaves(plain.nets), jax.tree.leaves(after.nets), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert {name: float(value) for name, value in plain_metrics.items()} == pytest.approx(
        {name: float(value) for name, value in metrics.items()}, rel=1e-3, abs=1e-4
    )
    rewards = set(ROLLOUTS["continuous"].reward.ravel().tolist())
    passes = [np.concatenate(Seen.rows[:2]).tolist(), np.concatenate(Seen.rows[2:]).tolist()]
    assert len(Seen.rows) == 4
    for one in passes:
        assert len(set(one)) == 32
        assert set(one) <= rewards
    assert passes[0] != passes[1]


def test_the_pull_falls_in_a_line_to_nothing_and_then_the_pretrained_policy_no_longer_counts():
    weights = [float(BATCHED.at(jnp.asarray(p)).kl_weight) for p in (0.0, 0.125, 0.25, 0.5, 0.8, 1.0)]
    assert weights == pytest.approx([0.7, 0.525, 0.35, 0, 0, 0], abs=1e-6)
    before, _, _ = once("continuous")
    other = replace(
        before, nets=before.nets.replace(frozen_actor=random_learner(BATCHED, "continuous", seed=9).nets.actor)
    )
    for progress, alike in ((0.0, False), (0.4, False), (0.5, True), (0.9, True)):
        ends_at = [learnt(learner, progress=progress)[0].nets.actor for learner in (before, other)]
        assert same_bits(*ends_at) == alike


@pytest.mark.parametrize(("env_id", "best"), [(AIM, 0.98), (PICK, 1.0)])
def test_the_best_policy_of_a_one_step_environment_is_found(env_id, best):
    algorithm = PPO(
        hidden_sizes=(16, 16), rollout_steps=256, actor_learning_rate=1e-2, value_learning_rate=1e-2, value_fit_epochs=0
    )
    spaces = Spaces(1, 3, discrete=True) if env_id == PICK else Spaces(1, 1)
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), spaces), Normaliser.identity(1))
    notes = Notes()
    settings = OnlineSettings(
        env_id=env_id,
        steps=4096,
        warmup_steps=0,
        random_warmup=False,
        updates_per_step=1.0,
        environments=16,
        eval_every=4096,
        eval_episodes=20,
        seed=0,
    )
    train_on_policy(algorithm, (), learner, notes, settings)
    assert notes.evaluated[0].mean() < 0.8
    assert notes.evaluated[4096].min() >= best


def test_actions_at_a_bound_leave_the_loss_finite_where_the_policys_mean_lies_far_beyond():
    algorithm, actor = small(), random_learner(small(), "continuous").nets.actor
    head = actor.mlp.layers[-1]
    beyond = eqx.tree_at(lambda actor: actor.mlp.layers[-1].bias, actor, head.bias.at[:2].set(20.0))
    moved = eqx.tree_at(lambda actor: actor.mlp.layers[-1].bias, actor, head.bias.at[:2].set(19.0))
    batch = Transition(*(jnp.zeros((4, 3)) if name.endswith("observation") else None for name in Transition._fields))
    batch = batch._replace(action=jnp.ones((4, 2)), advantage=jnp.arange(4.0))
    batch = batch._replace(log_prob=beyond.log_prob(batch.observation, batch.action))
    assert (moved.log_prob(batch.observation, batch.action) - batch.log_prob).min() > 10

    def loss(actor):
        return algorithm.actor_loss(actor, Nets(), batch, jax.random.key(0))[0].mean()

    value, gradient = eqx.filter_value_and_grad(loss)(moved)
    assert np.isfinite(value)
    assert finite(gradient)
