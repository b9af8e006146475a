"""What every algorithm must keep to."""

from __future__ import annotations

import dataclasses
import math
import typing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segue import conformance as suite
from segue.acting import restart
from segue.algorithms import ALGORITHMS
from segue.algorithms.base import BellmanStep, Follow, PolicyStep
from segue.core import Normaliser, origin
from segue.deployment.export import export_policy
from segue.evaluation.held_out import HeldOut
from segue.networks.encoder import Encoder
from segue.policy import Policy
from segue.recipe import decode, encode
from segue.replay import Replay
from segue.runner.checkpoint import Checkpoint, load, save, skeleton
from segue.training.handover import hand_over
from segue.training.update import init_learner, run_updates

BLOCKS = 3


def updated(name: str, kind: str, seed: int = 0, learner: Any = None, **changes: Any) -> Any:
    """A learner, by default a fresh one, after a few blocks of updates on random data, and what was reported."""
    algorithm = dataclasses.replace(suite.small(name), **changes)
    learner = suite.copy_of(learner) if learner else suite.learner_of(algorithm, kind)
    replay, progress = suite.replay(suite.spaces_of(algorithm, kind)), jnp.zeros(())
    return run_updates(learner, replay, jax.random.key(seed), progress, algorithm, blocks=BLOCKS)


def compiled() -> int:
    """Programs of the shared update so far."""
    return int(run_updates._cache_size())  # type: ignore[attr-defined]


def off_policy(name: str) -> None:
    """Skip an algorithm that the shared update does not run."""
    if ALGORITHMS[name].on_policy:
        pytest.skip("learns from its own rollouts, not from a replay")


def test_it_says_what_it_is(algorithm: str) -> None:
    """Name, phases, kinds of actions, and a sentence on itself."""
    cls = ALGORITHMS[algorithm]
    assert cls.name == algorithm
    assert set(cls.phases) <= {"offline", "online"}
    assert cls.phases
    assert set(cls.actions) <= {"continuous", "discrete"}
    assert cls.actions
    assert (cls.__doc__ or "").strip()
    assert set(cls.conservatism) <= {field.name for field in dataclasses.fields(cls)}


def test_a_recipe_brings_it_back(algorithm: str) -> None:
    """From plain data."""
    own = suite.small(algorithm)
    assert decode("algorithm", encode(own), ALGORITHMS) == own


def test_every_role_has_one_step_or_is_a_copy_of_another(algorithm: str) -> None:
    """Or it would never learn, or twice."""
    own = suite.small(algorithm)
    roles, steps = suite.learner_of(own).nets.roles(), own.steps()
    trained = [step.role for step in steps if not isinstance(step, Follow)]
    assert len(set(trained)) == len(trained)
    assert set(trained) == {role for role in roles if origin(role) is None}
    assert {step.target for step in steps if isinstance(step, Follow)} <= set(roles)
    assert {step.every for step in steps} <= {1, own.updates_per_block}
    assert sum(isinstance(step, PolicyStep) for step in steps) <= 1
    assert sum(isinstance(step, BellmanStep) for step in steps) <= 1


def test_updates_move_every_role_and_stay_finite(algorithm: str, kind: str) -> None:
    """In so many steps as a block has."""
    off_policy(algorithm)
    own = suite.small(algorithm)
    before, (after, reported) = suite.learner_of(own, kind), updated(algorithm, kind)
    still = [role for role, net in before.nets.roles().items() if suite.same_bits(net, after.nets.roles()[role])]
    assert still == []
    assert int(after.step) == BLOCKS * own.updates_per_block
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after, reported)))


def test_the_same_seed_gives_the_same_bits_and_another_one_others(algorithm: str, kind: str) -> None:
    """So that a run can be repeated."""
    off_policy(algorithm)
    once, again, other = updated(algorithm, kind)[0], updated(algorithm, kind)[0], updated(algorithm, kind, seed=1)[0]
    assert suite.same_bits(once, again)
    assert not suite.same_bits(once.nets, other.nets)


def test_another_number_is_no_other_program(algorithm: str, kind: str) -> None:
    """A learning rate is data: nothing is compiled for it."""
    off_policy(algorithm)
    own = suite.small(algorithm)
    rate = next(field.name for field in dataclasses.fields(own) if field.name.endswith("learning_rate"))
    updated(algorithm, kind)
    programs = compiled()
    after, _ = updated(algorithm, kind, **{rate: getattr(own, rate) / 2})
    assert compiled() == programs
    assert not suite.same_bits(after.nets, updated(algorithm, kind)[0].nets)


def test_its_dataset_is_made_with_no_other_numbers_than_it_says(algorithm: str, kind: str) -> None:
    """`dataset_numbers`: trials of a sweep that agree on these share the dataset on an accelerator."""
    off_policy(algorithm)
    own, hints = suite.small(algorithm), typing.get_type_hints(ALGORITHMS[algorithm])
    names = [field.name for field in dataclasses.fields(own) if hints[field.name] in (float, float | None)]
    assert set(own.dataset_numbers) <= set(names)
    others = set(names) - set(own.dataset_numbers)
    spaces = suite.spaces_of(own, kind)
    dataset = suite.dataset(spaces)
    rewards = np.where(np.arange(len(dataset)) < 8, 0.25, dataset.rewards)  # the first episode is one of a sparse task
    dataset = dataclasses.replace(dataset, rewards=rewards.astype(np.float32))

    def made(number: float) -> Any:
        other = own.adjusted(**dict.fromkeys(others, number))
        return other.transitions(other.select(dataset), Normaliser.identity(spaces.observation_size))

    assert suite.same_bits(made(0.25), made(0.75))


def test_no_number_of_a_fresh_learner_is_weakly_typed(algorithm: str, kind: str) -> None:
    """Or every phase would compile twice."""
    leaves = jax.tree_util.tree_leaves_with_path(suite.learner_of(suite.small(algorithm), kind))
    assert [jax.tree_util.keystr(path) for path, leaf in leaves if leaf.weak_type] == []


def test_the_policys_loss_is_per_sample(algorithm: str, kind: str) -> None:
    """So that bridges can weigh it."""
    off_policy(algorithm)
    own = suite.small(algorithm)
    if own.policy_step is None:
        pytest.skip("acts by its critic alone")
    learner, spaces = suite.learner_of(own, kind), suite.spaces_of(own, kind)
    batch = jax.tree.map(jnp.asarray, suite.transitions(spaces, 16))
    if own.chunk_length > 1:
        batch = batch._replace(action=jnp.tile(batch.action, own.chunk_length), valid=jnp.ones((16, own.chunk_length)))
    loss, _ = own.policy_step.loss(getattr(learner.nets, own.policy_step.role), learner.nets, batch, jax.random.key(0))
    assert loss.shape == (16,)


def test_a_density_that_it_claims_is_one_that_bridges_can_compare(algorithm: str, kind: str) -> None:
    """`has_density`: its actor's `kl` to itself is 0, and to another one above 0."""
    own = suite.small(algorithm)
    here, there = (suite.learner_of(own, kind, seed).nets for seed in (0, 1))
    if not own.has_density or "actor" not in here:
        pytest.skip("learns no density")
    observation = jnp.asarray(suite.transitions(suite.spaces_of(own, kind)).observation)
    np.testing.assert_allclose(here.actor.kl(here.actor, observation), 0, atol=1e-6)
    assert float(here.actor.kl(there.actor, observation).mean()) > 0


def test_held_out_episodes_can_judge_it(algorithm: str, kind: str) -> None:
    """Early stopping (`patience`) asks for Q of logged actions, or without a critic for the policy's loss."""
    own = suite.small(algorithm)
    if "offline" not in own.phases or own.chunk_length > 1:
        pytest.skip("has no offline phase, or rates chunks of actions")
    learner, dataset = suite.learner_of(own, kind), suite.dataset(suite.spaces_of(own, kind))
    fit = HeldOut(own, dataset, learner.normaliser).fit(own, learner.nets)
    assert np.isfinite(fit.value)
    assert fit.parts.sum() == pytest.approx(0, abs=1e-6)


def test_every_network_encodes_images(algorithm: str) -> None:
    """An update is only traced: to compile one for every algorithm would take minutes."""
    own = suite.small(algorithm)
    plain = suite.spaces_of(own)
    spaces = dataclasses.replace(plain, observation_size=math.prod(suite.IMAGE), image=suite.IMAGE)
    nets = own.init(jax.random.key(0), spaces)
    for role, net in nets.roles().items():
        assert bool(encoders(net)) == (len(jax.tree.leaves(net)) > 1), role
    learner = init_learner(own, nets, Normaliser.identity(spaces.observation_size))
    if not own.on_policy:
        replay = Replay.create(own.transitions(suite.dataset(spaces), learner.normaliser), 0, spaces)
        given = jax.random.key(0), jnp.zeros(())
        after, _ = jax.eval_shape(lambda learner: run_updates(learner, replay, *given, own, blocks=1), learner)
        assert suite.structure(after) == suite.structure(learner)
    policy = Policy(own, learner)
    acted = policy.act(suite.dataset(spaces).observations[:5], policy.start(5), np.random.default_rng(0), True)
    assert np.shape(acted.action) == ((5,) if spaces.discrete else (5, spaces.action_size))


def encoders(net: Any) -> list[Encoder]:
    """All that a network has."""
    parts = jax.tree.leaves(net, is_leaf=lambda part: isinstance(part, Encoder))
    return [part for part in parts if isinstance(part, Encoder)]


@pytest.mark.parametrize("explore", [False, True])
def test_it_acts_within_the_bounds_and_carries_on(algorithm: str, kind: str, explore: bool) -> None:
    """For episodes side by side, also where one begins anew."""
    own = suite.small(algorithm)
    spaces, policy = suite.spaces_of(own, kind), Policy(own, suite.learner_of(own, kind))
    rng, carry = np.random.default_rng(0), policy.start(5)
    for _ in range(4):
        acted = policy.act(rng.normal(size=(5, 3)).astype(np.float32), carry, rng, explore)
        assert isinstance(acted.action, np.ndarray)
        assert acted.action.shape == ((5,) if spaces.discrete else (5, spaces.action_size))
        assert acted.action.dtype == (np.int32 if spaces.discrete else np.float32)
        assert acted.action.min() >= (0 if spaces.discrete else -1)
        assert acted.action.max() <= (spaces.action_size - 1 if spaces.discrete else 1)
        assert np.shape(acted.log_prob()) == (5,)
        assert suite.structure(acted.carry) == suite.structure(carry)
        ended = np.array([True, False, False, True, False])
        carry = restart(policy, acted.carry, ended)
        for fresh, before, now in zip(*map(jax.tree.leaves, (policy.start(5), acted.carry, carry)), strict=True):
            assert np.array_equal(now[ended], np.asarray(fresh)[ended])
            assert np.array_equal(now[~ended], np.asarray(before)[~ended])


def test_a_checkpoint_brings_it_back_bit_for_bit(algorithm: str, kind: str, tmp_path: Path) -> None:
    """It goes on from there to the same numbers, and its skeleton has the shapes of a fresh learner."""
    own = suite.small(algorithm)
    spaces = suite.spaces_of(own, kind)
    learner = suite.learner_of(own, kind) if own.on_policy else updated(algorithm, kind)[0]
    shapes = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(skeleton(own, (), spaces))]
    assert shapes == [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(learner)]
    save(tmp_path / "saved", Checkpoint(own, (), spaces, None, learner))
    back = load(tmp_path / "saved")
    assert back.algorithm == own
    assert suite.same_bits(back.learner, learner)
    if not own.on_policy:
        goes_on = updated(algorithm, kind, learner=back.learner), updated(algorithm, kind, learner=learner)
        assert suite.same_bits(*goes_on)


def test_its_export_acts_as_it_does_and_knows_how_probable_that_is(algorithm: str, kind: str, tmp_path: Path) -> None:
    """Discrete actions also among the allowed ones. The export itself compares all of this with the checkpoint."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    own, rng = suite.small(algorithm), np.random.default_rng(0)
    spaces = suite.spaces_of(own, kind)
    save(tmp_path / "saved", Checkpoint(own, (), spaces, None, suite.learner_of(own, kind)))
    policy = export_policy(tmp_path / "saved", tmp_path / "exported").policy
    if policy.dependence is not None:
        pytest.skip("remembers, so its actions have no probability in one state")
    x, allowed = rng.normal(size=(20, 3)).astype(np.float32), None
    if spaces.discrete:
        allowed = rng.random((20, spaces.action_size)) < 0.5
        allowed[:, 0] |= ~allowed.any(-1)
    for explore in (False, True):
        assert (policy.kind(explore) == "discrete") == spaces.discrete
        if policy.kind(explore) == "draws":
            continue
        acted = policy.act(x, (), rng, explore, allowed, log_prob=True)
        known = policy.log_prob(x, np.asarray(acted.action), explore=explore, allowed=allowed)
        np.testing.assert_allclose(known, acted.log_prob(), rtol=1e-3, atol=1e-3)
        if allowed is not None:
            assert allowed[np.arange(20), acted.action].all()


def test_it_hands_over_to_itself_whole(algorithm: str) -> None:
    """Every role is carried over as it is."""
    own = suite.small(algorithm)
    given = suite.learner_of(own, seed=1)
    learner, said = hand_over(given, own, own, suite.spaces_of(own), jax.random.key(0))
    frozen = {role for role in learner.nets.roles() if origin(role) is not None}
    assert said.fresh == ()
    for role, net in learner.nets.roles().items():
        if role not in frozen:
            assert suite.same_bits(net, given.nets.roles()[role])
