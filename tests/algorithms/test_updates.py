"""Updates are a function of learner, data and key: bit for bit, however they are cut, compiled, saved or bridged."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from measured import CASES, OF_CRITIC_UPDATE, algorithm_of, batch_of, every_case, learner_of, mostly_defaults, spaces_of
from references import reference

from helpers import (
    KINDS,
    LOGS,
    MEMBERS,
    changed_roles,
    clone,
    finite,
    fresh_learner,
    random_learner,
    same_bits,
    small,
    transitions,
    updated,
)
from segue import random
from segue.algorithms import ALGORITHMS
from segue.bridges import Bridge
from segue.policy import Policy
from segue.random import named
from segue.runner.checkpoint import Checkpoint, load, parameters_sha256, save
from segue.training.update import actor_update, critic_update, run_updates
from segue.types import TARGETS, Learner

every_algorithm = pytest.mark.parametrize(("name", "kind"), MEMBERS.values(), ids=MEMBERS, scope="module")


@cache
def five_blocks(name: str, kind: str) -> Learner:
    return updated(small(name), fresh_learner(small(name), kind=kind), kind=kind)[0]


@every_algorithm
def test_updates_move_every_role_and_count_the_steps_of_each(name, kind):
    algorithm = small(name)
    learner = fresh_learner(algorithm, kind=kind)
    after = five_blocks(name, kind)
    assert changed_roles(learner, after) == set(learner.nets.roles())
    assert after.step == 5 * max(algorithm.critic_updates, 1)
    for role, state in after.optimisers.items():
        assert state[0].count == (after.step if role in OF_CRITIC_UPDATE else 5)
    assert finite(after)


@every_case
def test_a_fresh_learner_has_the_types_of_an_updated_one_so_that_updates_compile_once(case):
    leaves = jax.tree_util.tree_leaves_with_path(fresh_learner(algorithm_of(case), kind=CASES[case][2]))
    assert [jax.tree_util.keystr(path) for path, leaf in leaves if leaf.weak_type] == []


@every_algorithm
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(name, kind):
    algorithm = small(name)
    fresh, once = fresh_learner(algorithm, kind=kind), five_blocks(name, kind)
    assert same_bits(updated(algorithm, fresh, kind=kind)[0], once)
    other_updates, _ = updated(algorithm, fresh, seed=1, kind=kind)
    # A policy that is still nearly uniform has the same entropy on every batch.
    assert changed_roles(once, other_updates) >= set(once.nets.roles()) - {"temperature"}
    assert not same_bits(fresh_learner(algorithm, seed=1, kind=kind).nets, fresh.nets)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pair if pair[0] in ("sac", "cql", "dqn", "redq") else pytest.param(*pair, marks=pytest.mark.slow)
        for pair in MEMBERS.values()
    ],
    ids=MEMBERS,
)
def test_ten_blocks_are_five_and_five(name, kind):
    algorithm = small(name)
    at_once, _ = updated(algorithm, fresh_learner(algorithm, kind=kind), blocks=10, kind=kind)
    in_two, _ = updated(algorithm, five_blocks(name, kind), kind=kind)
    assert same_bits(at_once, in_two)


@every_algorithm
def test_one_dispatch_equals_a_plain_loop_of_uncompiled_updates(name, kind):
    """n critic updates, each on a batch of its own, then the actor on the last one; keys from the learner's step."""
    algorithm, log = small(name), LOGS[kind]
    compiled, metrics = updated(algorithm, random_learner(algorithm, kind=kind), kind=kind)
    learner, seen = random_learner(algorithm, kind=kind), []

    def draw(key):
        rows = jax.random.randint(named(key, "rows"), (algorithm.batch_size,), 0, log.offline_size)
        return jax.tree.map(lambda column: column[rows], log.offline)

    for _ in range(5):
        key = named(jax.random.key(0), "step", learner.step)
        batch = draw(named(key, "sample"))
        for step_key in jax.random.split(named(key, "critic"), algorithm.critic_updates):
            batch = draw(named(step_key, "sample"))
            learner, reported = critic_update(algorithm, (), learner, batch, named(step_key, "critic"))
            seen += [("critic_loss", reported["critic_loss"])]
        learner, reported = actor_update(algorithm, (), learner, batch, named(key, "actor"), KINDS[kind].action_size)
        seen += [(loss, reported[loss]) for loss in ("actor_loss",) if loss in reported]
        step = learner.step + max(algorithm.critic_updates, 1)
        learner = Learner(learner.nets, learner.optimisers, (), step, learner.normaliser)
    assert learner.step == compiled.step
    assert {loss for loss, _ in seen} == {"critic_loss", "actor_loss"} & set(metrics)
    for loss in {loss for loss, _ in seen}:
        mean = np.mean([float(value) for name, value in seen if name == loss])
        assert float(metrics[loss]) == pytest.approx(mean, rel=1e-4)
    for a, b in zip(jax.tree.leaves(compiled.nets), jax.tree.leaves(learner.nets), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def bare_update(h, action_size, learner, batch, critic_key, actor_key):
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
        target_key, penalty_key = named(critic_key, "target"), named(critic_key, "penalty")
        if "behaviour" in optimisers:
            given, behaviour_key = nets, named(critic_key, "behaviour")
            step("behaviour", lambda behaviour: h.behaviour_loss(behaviour, given, batch, behaviour_key))
        if "value" in optimisers:
            first, value_key = nets, named(critic_key, "value")
            step("value", lambda value: h.value_loss(value, first, batch, value_key))
        before = nets
        y = batch.reward + batch.discount * h.next_value(before, batch, named(target_key, "next_value"))

        def critic_loss(critic):
            q = critic(batch.observation, batch.action)
            penalty, aux = h.critic_penalty(critic, before, batch, q, penalty_key)
            return h.bellman_loss(q - y).mean(1).sum() + penalty, aux

        aux = step("critic", critic_loss)
        if "multiplier" in optimisers:
            step("multiplier", lambda value: (h.multiplier_loss(value, aux), None))
        if not h.polyak_with_actor:
            follow("target_critic")

    def actor_loss(actor):
        loss, aux = h.actor_loss(actor, nets, batch, named(actor_key, "actor_loss"))
        return loss.mean(), aux

    aux = step(h.policy, actor_loss) if h.policy else {}
    if "temperature" in optimisers:
        step("temperature", lambda value: (h.temperature_loss(value, aux, action_size), None))
    for target in TARGETS:
        if target in nets.roles() and (target != "target_critic" or h.polyak_with_actor):
            follow(target)
    return nets, states


def shared_update(h, action_size, bridges, learner, batch, critic_key, actor_key):
    learner = Learner(learner.nets, learner.optimisers, ((),) * len(bridges), learner.step, learner.normaliser)
    if "critic" in learner.optimisers:
        learner, _ = critic_update(h, bridges, learner, batch, critic_key)
    learner, _ = actor_update(h, bridges, learner, batch, actor_key, action_size)
    return learner.nets, learner.optimisers


@mostly_defaults
def test_no_bridges_and_bridges_that_change_nothing_are_bit_identical_to_an_update_without_bridges(case):
    algorithm, size = algorithm_of(case), spaces_of(case).action_size
    learner, batch = learner_of(case, algorithm), jax.tree.map(jnp.asarray, batch_of(case))
    keys = jax.random.split(jax.random.key(1))
    bare = bare_update(algorithm, size, learner, batch, *keys)
    assert not same_bits(bare[0], learner.nets)
    assert same_bits(shared_update(algorithm, size, (), learner, batch, *keys), bare)
    assert same_bits(shared_update(algorithm, size, (Bridge(), Bridge()), learner, batch, *keys), bare)


@every_algorithm
def test_a_saved_learner_goes_on_where_it_stopped_bit_for_bit(name, kind, tmp_path):
    algorithm, learner = small(name), five_blocks(name, kind)
    digest = save(tmp_path / "checkpoint", Checkpoint(algorithm, (), KINDS[kind], None, learner))
    back = load(tmp_path / "checkpoint")
    assert back.algorithm == algorithm
    assert back.spaces == KINDS[kind]
    assert digest == parameters_sha256(back.learner) == parameters_sha256(learner)
    assert same_bits(back.learner, learner)
    there, here = updated(back.algorithm, back.learner, kind=kind), updated(algorithm, learner, kind=kind)
    assert same_bits(there[0], here[0])


@every_case
def test_every_variant_is_saved_whole(case, tmp_path):
    algorithm = algorithm_of(case)
    learner = learner_of(case, algorithm)
    save(tmp_path / "checkpoint", Checkpoint(algorithm, (), spaces_of(case), None, learner))
    back = load(tmp_path / "checkpoint")
    assert back.algorithm == algorithm
    assert same_bits(back.learner, learner)


def same_numbers(monkeypatch):
    """Let both worlds draw the same random numbers, from a sequence that starts anew at each call of this function."""
    rng = np.random.default_rng(0)

    def draws(sample):
        def draw(source, shape, *bounds):
            numbers = sample(*bounds, size=shape).astype(np.float32)
            return numbers if isinstance(source, np.random.Generator) else jnp.asarray(numbers)

        return draw

    for name, sample in (("normal", rng.standard_normal), ("uniform", rng.uniform), ("gumbel", rng.gumbel)):
        monkeypatch.setattr(random, name, draws(sample))


@every_case
@pytest.mark.parametrize("rows", [(), (1,), (50,)])
def test_acting_on_the_host_equals_acting_on_the_device(case, rows, monkeypatch):
    """On the same random numbers, where an action takes any."""
    algorithm, spaces = algorithm_of(case), spaces_of(case)
    learner = learner_of(case, algorithm)
    policy = Policy(algorithm, learner)
    far = 5 if spaces.discrete else 1  # so that another action is best now and then
    observation = np.random.default_rng(0).normal(scale=far, size=(*rows, 3)).astype(np.float32)
    for explore in (False, True):
        same_numbers(monkeypatch)
        host = policy(observation, np.random.default_rng(0), explore)
        same_numbers(monkeypatch)
        device = algorithm.action_distribution(learner.nets, jnp.asarray(observation), explore).sample(
            jax.random.key(0)
        )
        assert isinstance(host, np.ndarray)
        assert host.dtype == device.dtype == (np.int32 if spaces.discrete else np.float32)
        assert host.shape == device.shape == (rows if spaces.discrete else (*rows, spaces.action_size))
        np.testing.assert_allclose(host, device, atol=1e-6)
        if rows == (50,) and (explore or not spaces.discrete):
            assert len(np.unique(host, axis=0)) > 1


@every_case
def test_exploration_stays_in_bounds_and_only_it_is_random(case):
    algorithm, spaces = algorithm_of(case), spaces_of(case)
    policy = Policy(algorithm, learner_of(case, algorithm))
    observation = np.full((200, 3), 0.5, np.float32)
    explored = policy(observation, np.random.default_rng(0), explore=True)
    again = policy(observation, np.random.default_rng(0), explore=True)
    assert np.array_equal(explored, again)
    decided = policy(observation, np.random.default_rng(1))
    assert np.ptp(decided, axis=0).max() < 1e-6  # rows of a matrix product may round differently
    different = len(np.unique(explored, axis=0))
    if spaces.discrete:
        assert set(explored.tolist()) <= set(range(spaces.action_size))
        assert different == spaces.action_size  # each is tried
    else:
        assert np.abs(explored).max() <= 1
        if "online" in algorithm.phases:  # draws that are clipped in every dimension meet in a corner
            free = (np.abs(explored) < 1).any(1)
            assert len(np.unique(explored[free], axis=0)) == free.sum() > 100


SIDE_BY_SIDE = {
    member: MEMBERS[member] for member in ("bc-discrete", "iql-continuous", "cal-ql", "bcq", "discrete-bcq")
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(*pair, id=member, marks=() if member in ("bc-discrete", "cal-ql") else pytest.mark.slow)
        for member, pair in SIDE_BY_SIDE.items()
    ],
)
def test_seeds_side_by_side_learn_what_each_learns_alone(name, kind):
    """jax.vmap over learner and key; only the rounding of batched sums may differ."""
    algorithm = small(name)
    starts = [random_learner(algorithm, seed, kind) for seed in (0, 1)]
    alone = [updated(algorithm, start, seed=seed, kind=kind) for seed, start in enumerate(starts)]
    options = {"algorithm": algorithm, "bridges": (), "strategy": None, "spaces": KINDS[kind], "blocks": 5}
    together = jax.vmap(lambda learner, key: run_updates(learner, LOGS[kind], key, jnp.zeros(()), **options))(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *clone(starts)),
        jnp.stack([jax.random.key(0), jax.random.key(1)]),
    )
    assert not same_bits(alone[0][0].nets, alone[1][0].nets)
    for seed in (0, 1):
        mine = jax.tree.map(lambda leaf, seed=seed: leaf[seed], together)
        assert jax.tree.structure(mine) == jax.tree.structure(alone[seed])
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(alone[seed]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


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
    assert {(name, kind) for name, _, kind in CASES.values()} == {
        (name, kind) for name, cls in ALGORITHMS.items() if not cls.on_policy for kind in cls.actions
    }
