"""The shared update beyond any one algorithm: batches from any replay, critic-only updates, metrics, divergence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import (
    LOG,
    SMALL,
    SPACES,
    actor_update,
    changed_roles,
    clone,
    fresh_learner,
    same_bits,
    small,
    transitions,
)
from segue.algorithms.base import Follow
from segue.bridges import Bridge
from segue.errors import Diverged, SegueError
from segue.replay import REPLAYS, Mixed, Replay, append
from segue.training.recorder import fetch
from segue.training.update import replace, run_updates

BC_NLL = small("bc", loss="nll")


def run(algorithm, learner, replay=LOG, **options):
    settings = {"bridges": (), "strategy": None, "blocks": 2, "progress": 0.0} | options
    progress = jnp.asarray(settings.pop("progress"), jnp.float32)
    return run_updates(clone(learner), replay, jax.random.key(0), progress, algorithm=algorithm, **settings)


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_without_the_actor_only_the_critic_and_its_target_move(name):
    algorithm = small(name)
    learner = fresh_learner(algorithm)
    after, metrics = run(algorithm, learner, train_policy=False)
    assert changed_roles(learner, after) == {"critic", "target_critic"}
    assert after.step == 2 * algorithm.updates_per_block
    assert "critic_loss" in metrics
    assert "actor_loss" not in metrics


@pytest.mark.parametrize("strategy", [cls() for cls in REPLAYS.values()], ids=lambda s: s.name)
def test_every_replay_strategy_feeds_the_update(strategy):
    """Traced, not run: what it draws is tested where it lives."""
    replay = Replay.create(LOG.offline if strategy.needs_dataset else None, 32, SPACES, costs=True)
    learner = fresh_learner(BC_NLL)
    learner = replace(learner, sampler=strategy.init(replay, SPACES, jax.random.key(1)))
    after, metrics = jax.eval_shape(lambda given: run(BC_NLL, given, replay, strategy=strategy), learner)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, learner)
    assert metrics["actor_loss"].shape == ()


def test_the_strategy_decides_what_the_update_sees():
    """The dataset's actions are 0.9 and the live ones −0.9; the mean squared error to 0 says nothing, the policy
    does."""
    log, live = (transitions(20)._replace(action=np.full((20, 2), a, np.float32)) for a in (0.9, -0.9))
    replay = append(Replay.create(log, 20, SPACES, costs=True), live)
    algorithm = small("bc", actor_learning_rate=1e-2)
    observation = jnp.asarray(log.observation)
    for fraction, sign in ((0.0, -1), (1.0, 1)):
        strategy = Mixed(offline_fraction=fraction)
        after, _ = run(algorithm, fresh_learner(algorithm), replay, strategy=strategy, blocks=200)
        assert np.allclose(after.nets.actor.mode(observation), sign * 0.9, atol=0.1)


def test_metrics_are_means_over_the_blocks_and_norms_those_of_the_last():
    _, both = run(BC_NLL, fresh_learner(BC_NLL), blocks=2)
    after, first = run(BC_NLL, fresh_learner(BC_NLL), blocks=1)
    _, second = run(BC_NLL, after, blocks=1)
    for name, value in both.items():
        mean = (float(first[name]) + float(second[name])) / 2
        expected = float(second[name]) if name.endswith("_norm") else mean
        assert float(value) == pytest.approx(expected, rel=1e-5), name


def test_the_given_learner_is_donated_to_the_updates():
    learner = fresh_learner(BC_NLL)
    before = clone(learner)
    run_updates(
        learner,
        LOG,
        jax.random.key(0),
        jnp.zeros(()),
        algorithm=BC_NLL,
        bridges=(),
        strategy=None,
        blocks=2,
    )
    assert learner.nets.actor.mlp.layers[0].weight.is_deleted()
    assert same_bits(LOG.offline, jax.tree.map(jnp.asarray, transitions(64, seed=1)))
    assert not before.nets.actor.mlp.layers[0].weight.is_deleted()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_metric_that_is_not_finite_stops_the_run_and_says_where(value):
    with pytest.raises(Diverged, match=rf"offline phase, step 300: critic_loss is {value}"):
        fetch("offline", 300, {"actor_loss": jnp.asarray(1.0), "critic_loss": jnp.asarray(value)})


def test_finite_metrics_are_numbers_by_name():
    assert fetch("online", 1, {"b": jnp.asarray(2.0), "a": jnp.asarray(1.5)}) == {"a": 1.5, "b": 2.0}


def test_a_batch_with_nan_is_seen_in_the_metrics():
    batch = jax.tree.map(jnp.asarray, transitions()._replace(action=np.full((16, 2), np.nan, np.float32)))
    algorithm = small("bc")
    _, metrics = actor_update(algorithm, (), fresh_learner(algorithm), batch, jax.random.key(0))
    with pytest.raises(Diverged, match="actor_loss is nan"):
        fetch("offline", 1, metrics)


def test_a_loss_that_is_not_per_sample_is_refused_and_so_are_steps_that_could_not_be_kept_to():
    class Scalar(type(BC_NLL)):
        def actor_loss(self, actor, nets, batch, key):
            loss, aux = super().actor_loss(actor, nets, batch, key)
            return loss.mean(), aux

    class Odd(type(small("td3"))):
        def steps(self):
            critic, actor, *targets = super().steps()
            return critic, actor, *(Follow(target.target, target.rate, every=3) for target in targets)

    scalar, odd = Scalar(**SMALL), Odd(**SMALL)
    with pytest.raises(SegueError, match=r"the loss of the actor has shape \(\); expected one number per sample"):
        run(scalar, fresh_learner(scalar))
    with pytest.raises(SegueError, match=r"td3: steps every \[2, 3\] updates; expected 1 and one other number"):
        fresh_learner(odd)


def test_a_whole_number_for_a_hyper_parameter_is_the_same_program_as_a_fraction():
    whole, fraction = small("td3-bc", alpha=3), small("td3-bc", alpha=3.0)
    assert jax.tree.structure(whole) == jax.tree.structure(fraction)
    assert whole == fraction


class Slower(Bridge):
    """Takes a quarter of the policy's steps."""

    name = "slower"

    def actor_rate(self, state):
        return jnp.float32(0.25)


def test_a_bridge_may_shorten_the_policys_step():
    algorithm, batch = small("td3"), jax.tree.map(jnp.asarray, transitions())
    learner = fresh_learner(algorithm)
    slow = replace(learner, bridges=((), ()))
    (plain, _), (slower, _) = (
        actor_update(algorithm, bridges, start, batch, jax.random.key(1))
        for bridges, start in (((), learner), ((Slower(), Slower()), slow))
    )
    leaves = (jax.tree.leaves(tree.nets.actor) for tree in (learner, plain, slower))
    for before, whole, short in zip(*leaves, strict=True):
        np.testing.assert_allclose(short - before, (whole - before) / 16, atol=1e-7)
    assert changed_roles(learner, slower) == changed_roles(learner, plain)
