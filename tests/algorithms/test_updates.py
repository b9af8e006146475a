"""Updates are a function of learner, data and key: bit for bit, however they are cut, compiled, saved or bridged."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from measured import CASES, FIRST, algorithm_of, batch_of, learner_of, of, spaces_of
from references import reference

from helpers import (
    LOGS,
    MEMBERS,
    clone,
    fresh_learner,
    other_numbers,
    random_learner,
    same_bits,
    small,
    transitions,
    updated,
)
from segue import rng
from segue.algorithms import ALGORITHMS, FQL
from segue.algorithms.base import BellmanStep, Follow, PolicyStep
from segue.bridges import Bridge
from segue.core import Learner
from segue.policy import Policy
from segue.rng import named
from segue.runner.checkpoint import Checkpoint, load, save
from segue.training.update import take_all, update_bridges
from segue.training.vmapped import run_updates_together


@cache
def two_blocks(name: str, kind: str) -> Learner:
    return updated(small(name), fresh_learner(small(name), kind=kind), blocks=2, kind=kind)[0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [pair if pair[0] == "redq" else pytest.param(*pair, marks=pytest.mark.slow) for pair in MEMBERS.values()],
    ids=MEMBERS,
)
def test_four_blocks_are_two_and_two(name, kind):
    algorithm = small(name)
    at_once, _ = updated(algorithm, fresh_learner(algorithm, kind=kind), blocks=4, kind=kind)
    in_two, _ = updated(algorithm, two_blocks(name, kind), blocks=2, kind=kind)
    assert same_bits(at_once, in_two)


#: One of each schedule of updates; the other algorithms with `-m slow`.
SCHEDULES = {"redq", "iql-continuous"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [pytest.param(*pair, id=m, marks=() if m in SCHEDULES else pytest.mark.slow) for m, pair in MEMBERS.items()],
)
def test_one_dispatch_equals_a_plain_loop_of_uncompiled_updates(name, kind):
    """n critic updates, each on a batch of its own, then the actor on the last one; keys from the learner's step."""
    algorithm, log = small(name), LOGS[kind]
    compiled, metrics = updated(algorithm, random_learner(algorithm, kind=kind), blocks=2, kind=kind)
    learner, seen = random_learner(algorithm, kind=kind), []

    def draw(key):
        rows = jax.random.randint(named(key, "rows"), (algorithm.batch_size,), 0, log.offline_size)
        return jax.tree.map(lambda column: column[rows], log.offline)

    often, seldom = ([step for step in algorithm.steps() if (step.every == 1) == due] for due in (True, False))
    length = algorithm.updates_per_block
    for _ in range(2):
        key = named(jax.random.key(0), "step", learner.step)
        for update_key in [key] if length == 1 else jax.random.split(named(key, "update"), length):
            batch = draw(named(update_key, "sample"))
            learner, reported = take_all(often, algorithm, (), learner, batch, update_key, {})
            seen += [("critic_loss", reported["critic_loss"])] if "critic_loss" in reported else []
        learner, reported = take_all(seldom, algorithm, (), learner, batch, key, reported)
        seen += [(loss, reported[loss]) for loss in ("actor_loss",) if loss in reported]
        learner = Learner(learner.nets, learner.optimisers, (), learner.step + length, learner.normaliser)
    assert learner.step == compiled.step
    assert {loss for loss, _ in seen} == {"critic_loss", "actor_loss"} & set(metrics)
    for loss in {loss for loss, _ in seen}:
        mean = np.mean([float(value) for name, value in seen if name == loss])
        assert float(metrics[loss]) == pytest.approx(mean, rel=1e-4)
    for a, b in zip(jax.tree.leaves(compiled.nets), jax.tree.leaves(learner.nets), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def bare_update(h, learner, batch, key):
    """Every step as one would write it if there were no bridges."""
    nets, states, aux = learner.nets, dict(learner.optimisers), {}
    for step in h.steps():
        if isinstance(step, Follow):
            online, old = getattr(nets, step.role), getattr(nets, step.target)
            mix = lambda new, old, rate=step.rate: rate * new + (1.0 - rate) * old  # noqa: E731
            nets = nets.replace(**{step.target: jax.tree.map(mix, online, old)})
            continue
        loss_key, given = named(key, step.role, "loss"), nets
        if isinstance(step, BellmanStep):
            y = batch.reward + batch.discount * step.next_value(
                nets, batch, named(key, step.role, "target", "next_value")
            )
            loss = lambda critic, s=step, y=y, n=given, k=loss_key: s.loss(critic, n, batch, y, k)  # noqa: E731
        elif isinstance(step, PolicyStep):

            def loss(actor, s=step, n=given, k=loss_key):
                per_sample, reported = s.loss(actor, n, batch, k)
                return per_sample.mean(), reported
        else:
            loss = lambda net, s=step, n=given, k=loss_key, a=aux: s.loss(net, n, batch, k, a)  # noqa: E731
        parameters = getattr(nets, step.role)
        gradient, reported = jax.grad(loss, has_aux=True)(parameters)
        move, states[step.role] = step.optimiser.update(gradient, states[step.role], parameters)
        nets, aux = nets.replace(**{step.role: optax.apply_updates(parameters, move)}), {**aux, **reported}
    return nets, states


def shared_update(h, bridges, learner, batch, key):
    learner = Learner(learner.nets, learner.optimisers, ((),) * len(bridges), learner.step, learner.normaliser)
    learner, aux = take_all(h.steps(), h, bridges, learner, batch, key, {})
    learner, _ = update_bridges(h, bridges, learner, batch, key, aux)
    return learner.nets, learner.optimisers


@of({"td3-default", "iql-continuous-default", "cal-ql-default", "bcq-default", "discrete-cql-default"})
def test_no_bridges_and_bridges_that_change_nothing_are_bit_identical_to_an_update_without_bridges(case):
    algorithm, key = algorithm_of(case), jax.random.key(1)
    learner, batch = learner_of(case, algorithm), jax.tree.map(jnp.asarray, batch_of(case))
    bare = bare_update(algorithm, learner, batch, key)
    assert not same_bits(bare[0], learner.nets)
    assert same_bits(shared_update(algorithm, (), learner, batch, key), bare)
    assert same_bits(shared_update(algorithm, (Bridge(), Bridge()), learner, batch, key), bare)


def a_variant_is_saved_whole(case, tmp_path):
    algorithm = algorithm_of(case)
    learner = learner_of(case, algorithm)
    save(tmp_path / "checkpoint", Checkpoint(algorithm, (), spaces_of(case), None, learner))
    back = load(tmp_path / "checkpoint")
    assert back.algorithm == algorithm
    assert same_bits(back.learner, learner)


def same_numbers(monkeypatch):
    """Let both worlds draw the same random numbers, from a sequence that starts anew at each call of this function."""
    generator = np.random.default_rng(0)

    def draws(sample):
        def draw(source, shape, *bounds):
            numbers = sample(*bounds, size=shape).astype(np.float32)
            return numbers if isinstance(source, np.random.Generator) else jnp.asarray(numbers)

        return draw

    for name, sample in (
        ("normal", generator.standard_normal),
        ("uniform", generator.uniform),
        ("gumbel", generator.gumbel),
    ):
        monkeypatch.setattr(rng, name, draws(sample))


def acting_on_the_host_equals_acting_on_the_device(case, rows, monkeypatch):
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


def exploration_stays_in_bounds_and_only_it_is_random(case):
    algorithm, spaces = algorithm_of(case), spaces_of(case)
    policy = Policy(algorithm, learner_of(case, algorithm))
    observation = np.full((200, 3), 0.5, np.float32)
    explored = policy(observation, np.random.default_rng(0), explore=True)
    again = policy(observation, np.random.default_rng(0), explore=True)
    assert np.array_equal(explored, again)
    decided = policy(observation, np.random.default_rng(1))
    assert (
        isinstance(algorithm, FQL) or np.ptp(decided, axis=0).max() < 1e-6
    )  # rows of a matrix product may round differently
    different = len(np.unique(explored, axis=0))
    if spaces.discrete:
        assert set(explored.tolist()) <= set(range(spaces.action_size))
        assert different == spaces.action_size  # each is tried
    else:
        assert np.abs(explored).max() <= 1
        if "online" in algorithm.phases:  # draws that are clipped in every dimension meet in a corner
            free = (np.abs(explored) < 1).any(1)
            assert len(np.unique(explored[free], axis=0)) == free.sum() > 100


@of(FIRST)
def test_a_variant_is_saved_whole_and_acts_as_it_says(case, tmp_path, monkeypatch):
    a_variant_is_saved_whole(case, tmp_path)
    exploration_stays_in_bounds_and_only_it_is_random(case)
    for rows in [(), (1,), (50,)]:
        acting_on_the_host_equals_acting_on_the_device(case, rows, monkeypatch)


SIDE_BY_SIDE = {
    member: MEMBERS[member] for member in ("bc-discrete", "iql-continuous", "cal-ql", "bcq", "discrete-bcq")
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(*pair, id=member, marks=pytest.mark.slow)  # tests/training/test_parallel.py has a run's own
        for member, pair in SIDE_BY_SIDE.items()
    ],
)
def test_seeds_and_trials_side_by_side_learn_what_each_learns_alone(name, kind):
    """Only the rounding of batched sums may differ."""
    algorithms = small(name), small(name), other_numbers(small(name))
    seeds = 0, 1, 0
    starts = [random_learner(algorithms[0], seed, kind) for seed in seeds]
    alone = [updated(*of, seed=seed, kind=kind) for *of, seed in zip(algorithms, starts, seeds, strict=True)]
    keys = [jax.random.key(seed) for seed in seeds]
    together = run_updates_together(clone(starts), LOGS[kind], keys, jnp.zeros(()), algorithms, blocks=5)
    assert not any(same_bits(alone[0][0].nets, other.nets) for other, _ in alone[1:])
    for mine, own in zip(together, alone, strict=True):
        assert jax.tree.structure(mine) == jax.tree.structure(own)
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(own), strict=True):
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


@pytest.mark.parametrize("rate", [0.0, 1e-3])
def test_a_step_size_of_0_holds_the_temperature(rate):
    algorithm = small("sac", temperature_learning_rate=rate)
    learner = fresh_learner(algorithm)
    before = float(learner.nets.temperature)
    after, _ = updated(algorithm, learner)
    assert (float(after.nets.temperature) == before) == (rate == 0)


def test_an_algorithm_without_a_reference_fails_the_suite():
    with pytest.raises(pytest.fail.Exception, match="not_there"):
        reference("not-there")


def test_the_cases_cover_every_registered_algorithm():
    assert {(name, kind) for name, _, kind in CASES.values()} == {
        (name, kind) for name, cls in ALGORITHMS.items() if not cls.on_policy for kind in cls.actions
    }
