"""Updates are a function of learner, data and key: bit for bit, however they are cut, compiled, saved or bridged."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from measured import CASES, algorithm_of
from references import reference

from helpers import (
    LOG,
    SPACES,
    changed_roles,
    finite,
    fresh_learner,
    random_learner,
    same_bits,
    small,
    transitions,
    updated,
)
from segue.algorithms import ALGORITHMS
from segue.bridges import Bridge
from segue.policy import Policy
from segue.runner.checkpoint import Checkpoint, load, parameters_sha256, save
from segue.training.update import actor_update, critic_update
from segue.types import Learner

every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)
every_case = pytest.mark.parametrize("case", CASES)


@cache
def five_blocks(name: str) -> Learner:
    return updated(small(name), fresh_learner(small(name)))[0]


@every_algorithm
def test_updates_move_every_role_and_count_the_critics_and_the_actors_steps(name):
    learner = fresh_learner(small(name))
    after = five_blocks(name)
    assert changed_roles(learner, after) == set(learner.nets.roles())
    assert after.step == 5 * max(small(name).critic_updates, 1)
    assert after.optimisers["actor"][0].count == 5
    if "critic" in after.optimisers:
        assert after.optimisers["critic"][0].count == after.step
    assert finite(after)


@every_case
def test_a_fresh_learner_has_the_types_of_an_updated_one_so_that_updates_compile_once(case):
    leaves = jax.tree_util.tree_leaves_with_path(fresh_learner(algorithm_of(case)))
    assert [jax.tree_util.keystr(path) for path, leaf in leaves if leaf.weak_type] == []


@every_algorithm
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(name):
    algorithm = small(name)
    assert same_bits(updated(algorithm, fresh_learner(algorithm))[0], five_blocks(name))
    other_updates, _ = updated(algorithm, fresh_learner(algorithm), seed=1)
    assert not same_bits(other_updates.nets.actor, five_blocks(name).nets.actor)
    assert not same_bits(fresh_learner(algorithm, seed=1).nets, fresh_learner(algorithm).nets)


@every_algorithm
def test_ten_blocks_are_five_and_five(name):
    algorithm = small(name)
    at_once, _ = updated(algorithm, fresh_learner(algorithm), blocks=10)
    in_two, _ = updated(algorithm, five_blocks(name))
    assert same_bits(at_once, in_two)


@every_algorithm
def test_one_dispatch_equals_a_plain_loop_of_uncompiled_updates(name):
    """n critic updates, each on a batch of its own, then the actor on the last one; keys from the learner's step."""
    algorithm = small(name)
    compiled, metrics = updated(algorithm, random_learner(algorithm))
    learner, losses = random_learner(algorithm), []

    def draw(key):
        rows = jax.random.randint(key, (algorithm.batch_size,), 0, LOG.offline_size)
        return jax.tree.map(lambda column: column[rows], LOG.offline)

    for _ in range(5):
        key = jax.random.fold_in(jax.random.key(0), learner.step)
        critic_key, actor_key, sample_key = jax.random.split(key, 3)
        batch = draw(sample_key)
        for step_key in jax.random.split(critic_key, algorithm.critic_updates):
            sample_key, update_key = jax.random.split(step_key)
            batch = draw(sample_key)
            learner, _ = critic_update(algorithm, (), learner, batch, update_key)
        learner, reported = actor_update(algorithm, (), learner, batch, actor_key, SPACES.action_size)
        losses.append(reported["actor_loss"])
        step = learner.step + max(algorithm.critic_updates, 1)
        learner = Learner(learner.nets, learner.optimisers, (), step, learner.normaliser)
    assert learner.step == compiled.step
    assert float(metrics["actor_loss"]) == pytest.approx(float(np.mean(losses)), rel=1e-4)
    for a, b in zip(jax.tree.leaves(compiled.nets), jax.tree.leaves(learner.nets), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def bare_update(h, learner, batch, critic_key, actor_key):
    """A critic and an actor update as one would write them if there were no bridges."""
    nets, states, optimisers = learner.nets, dict(learner.optimisers), h.optimisers()

    def step(role, loss):
        nonlocal nets
        parameters = nets.roles()[role]
        gradient, aux = jax.grad(loss, has_aux=True)(parameters)
        move, states[role] = optimisers[role].update(gradient, states[role], parameters)
        nets = nets.replace(**{role: optax.apply_updates(parameters, move)})
        return aux

    def follow(target):
        nonlocal nets
        online, old = nets.roles()[target.removeprefix("target_")], nets.roles()[target]
        mix = lambda new, old: h.polyak * new + (1.0 - h.polyak) * old  # noqa: E731
        nets = nets.replace(**{target: jax.tree.map(mix, online, old)})

    if "critic" in optimisers:
        target_key, penalty_key = jax.random.split(critic_key)
        if "value" in optimisers:
            first, value_key = nets, jax.random.fold_in(critic_key, 0)
            step("value", lambda value: h.value_loss(value, first, batch, value_key))
        before = nets
        y = batch.reward + batch.discount * h.next_value(before, batch, jax.random.split(target_key, 1)[0])

        def critic_loss(critic):
            q = critic(batch.observation, batch.action)
            penalty, aux = h.critic_penalty(critic, before, batch, q, penalty_key)
            return ((q - y) ** 2).mean(1).sum() + penalty, aux

        aux = step("critic", critic_loss)
        if "multiplier" in optimisers:
            step("multiplier", lambda value: (h.multiplier_loss(value, aux), None))
        if not h.polyak_with_actor:
            follow("target_critic")

    def actor_loss(actor):
        loss, aux = h.actor_loss(actor, nets, batch, jax.random.split(actor_key, 1)[0])
        return loss.mean(), aux

    aux = step("actor", actor_loss)
    if "temperature" in optimisers:
        step("temperature", lambda value: (h.temperature_loss(value, aux, SPACES.action_size), None))
    for target in ("target_actor", "target_critic"):
        if target in nets.roles() and (target == "target_actor" or h.polyak_with_actor):
            follow(target)
    return nets, states


def shared_update(h, bridges, learner, batch, critic_key, actor_key):
    learner = Learner(learner.nets, learner.optimisers, ((),) * len(bridges), learner.step, learner.normaliser)
    if "critic" in learner.optimisers:
        learner, _ = critic_update(h, bridges, learner, batch, critic_key)
    learner, _ = actor_update(h, bridges, learner, batch, actor_key, SPACES.action_size)
    return learner.nets, learner.optimisers


@every_case
def test_no_bridges_and_bridges_that_change_nothing_are_bit_identical_to_an_update_without_bridges(case):
    algorithm = algorithm_of(case)
    learner, batch = random_learner(algorithm), jax.tree.map(jnp.asarray, transitions())
    keys = jax.random.split(jax.random.key(1))
    bare = bare_update(algorithm, learner, batch, *keys)
    assert not same_bits(bare[0], learner.nets)
    assert same_bits(shared_update(algorithm, (), learner, batch, *keys), bare)
    assert same_bits(shared_update(algorithm, (Bridge(), Bridge()), learner, batch, *keys), bare)


@every_algorithm
def test_a_saved_learner_goes_on_where_it_stopped_bit_for_bit(name, tmp_path):
    algorithm = small(name)
    digest = save(tmp_path / "checkpoint", Checkpoint(algorithm, (), SPACES, None, five_blocks(name)))
    back = load(tmp_path / "checkpoint")
    assert back.algorithm == algorithm
    assert digest == parameters_sha256(back.learner) == parameters_sha256(five_blocks(name))
    assert same_bits(back.learner, five_blocks(name))
    assert same_bits(updated(back.algorithm, back.learner)[0], updated(algorithm, five_blocks(name))[0])


@every_case
def test_every_variant_is_saved_whole(case, tmp_path):
    algorithm = algorithm_of(case)
    learner = random_learner(algorithm)
    save(tmp_path / "checkpoint", Checkpoint(algorithm, (), SPACES, None, learner))
    back = load(tmp_path / "checkpoint")
    assert back.algorithm == algorithm
    assert same_bits(back.learner, learner)


@every_case
@pytest.mark.parametrize("rows", [(), (1,), (50,)])
def test_acting_on_the_host_equals_acting_on_the_device(case, rows):
    algorithm = algorithm_of(case)
    learner = random_learner(algorithm)
    observation = np.random.default_rng(0).normal(size=(*rows, 3)).astype(np.float32)
    host = Policy(algorithm, learner)(observation)
    device = algorithm.act(learner.nets, jnp.asarray(observation), jax.random.key(0), explore=False)
    assert isinstance(host, np.ndarray)
    assert host.dtype == np.float32
    assert host.shape == (*rows, 2)
    assert np.abs(host).max() > 0.01
    np.testing.assert_allclose(host, device, atol=1e-6)


@every_case
def test_exploration_stays_in_bounds_and_only_it_is_random(case):
    algorithm = algorithm_of(case)
    policy = Policy(algorithm, random_learner(algorithm))
    observation = np.full((200, 3), 0.5, np.float32)
    explored = policy(observation, np.random.default_rng(0), explore=True)
    assert np.abs(explored).max() <= 1
    again = policy(observation, np.random.default_rng(0), explore=True)
    assert np.array_equal(explored, again)
    decided = policy(observation, np.random.default_rng(1))
    assert len(np.unique(decided, axis=0)) == 1
    if "online" in algorithm.phases:
        assert len(np.unique(explored, axis=0)) == 200


def test_a_policy_does_not_change_when_its_learner_is_updated():
    """The host copy must not alias buffers that the next update overwrites."""
    algorithm = small("td3")
    learner = fresh_learner(algorithm)
    policy = Policy(algorithm, learner)
    observation = transitions().observation
    before = policy(observation)
    after, _ = updated(algorithm, learner, spare=False)
    assert not np.array_equal(Policy(algorithm, after)(observation), before)
    assert np.array_equal(policy(observation), before)


def test_an_algorithm_without_a_reference_fails_the_suite():
    with pytest.raises(pytest.fail.Exception, match="not_there"):
        reference("not-there")


def test_the_cases_cover_every_registered_algorithm():
    assert {name for name, _ in CASES.values()} == set(ALGORITHMS)
