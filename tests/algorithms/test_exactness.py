"""Every algorithm computes what its paper says: losses, targets, gradients and which numbers they move."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measured import (
    OF_CRITIC_UPDATE,
    WITH_CRITIC,
    algorithm_of,
    batch_of,
    every_case,
    first_with_critic,
    in_float32,
    in_float64,
    learner_of,
    mostly_defaults,
)
from references import reference

from helpers import (
    SUITE,
    bellman_target,
    changed_roles,
    policy_role,
    same_bits,
)
from segue.algorithms import TD3
from segue.core import Learner, Normaliser, origin
from segue.data import load
from segue.rng import named

#: What is compared for each trained role.
QUANTITIES = {
    "actor": {"actor_loss", "reported_actor_loss"},
    "perturbation": {"actor_loss", "reported_actor_loss"},
    "critic": {"critic_loss", "target"},
    "value": {"value_loss"},
    "behaviour": {"behaviour_loss"},
    "temperature": {"temperature_loss"},
    "multiplier": {"multiplier_loss"},
    "cost_critic": {"cost_critic_loss"},
    "cost_multiplier": {"cost_multiplier_loss"},
}


def quantities(measured):
    """The names of all that must be compared for this algorithm's trained roles."""
    return set().union(*(QUANTITIES[role] for role in measured.algorithm.optimisers()))


def assert_close(actual, expected, tolerance):
    """Equal up to this error relative to each number, or to the typical one where a number is nearly 0."""
    expected = np.asarray(expected)
    assert np.shape(actual) == expected.shape
    typical = np.sqrt(np.mean(expected**2))
    assert typical > 1e-4
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=tolerance, atol=tolerance * typical)


def test_every_algorithm_has_a_reference():
    for ref in map(reference, SUITE):
        assert ref.VARIANTS
        assert isinstance(ref.CONSERVATIVE, bool)
        assert isinstance(ref.PROBE, dict)


def targets(learner: Learner) -> set[str]:
    return {role for role in learner.nets.roles() if origin(role)}


def losses_and_targets_equal_the_reference_in_float32(case):
    measured = in_float32(case)
    assert measured.segue.keys() == measured.reference.keys() == quantities(measured)
    for quantity, expected in measured.reference.items():
        assert np.asarray(measured.segue[quantity]).dtype == np.float32
        assert_close(measured.segue[quantity], expected, 1e-5)


def losses_and_targets_equal_the_reference_in_float64(case):
    measured = in_float64(case)
    assert measured.segue.keys() == measured.reference.keys() == quantities(measured)
    for quantity, expected in measured.reference.items():
        assert np.asarray(measured.segue[quantity]).dtype == np.float64
        assert_close(measured.segue[quantity], expected, 1e-9)


def each_role_moves_by_the_derivative_of_its_own_loss_and_of_nothing_else(case):
    """Plain descent moves a role by minus its gradient: compared with differences of the reference's loss, leaf by
    leaf, in which everything but that role (target, advantage, scale, temperature) is held constant."""
    measured = in_float64(case)
    trained = set(measured.algorithm.optimisers())
    assert trained == set(measured.of_role)
    rng = np.random.default_rng(0)
    for role, loss in measured.of_role.items():
        after = measured.after_critic if role in OF_CRITIC_UPDATE else measured.after_actor
        leaves, structure = jax.tree.flatten(measured.before.nets.roles()[role])
        moved = [
            np.asarray(b) - np.asarray(a)
            for b, a in zip(leaves, jax.tree.leaves(after.nets.roles()[role]), strict=True)
        ]
        largest = max(np.abs(gradient).max() for gradient in moved)
        assert largest > 1e-4
        for i, (leaf, gradient) in enumerate(zip(leaves, moved, strict=True)):
            direction = rng.normal(size=leaf.shape)
            step = 1e-5 / np.sqrt(direction.size)

            def along(distance, bound=(i, leaf, leaves, structure, direction, loss)):
                i, leaf, leaves, structure, direction, loss = bound
                shifted = [*leaves[:i], np.asarray(leaf) + distance * direction, *leaves[i + 1 :]]
                with jax.enable_x64(True):
                    return loss(jax.tree.unflatten(structure, shifted))

            derivative = (along(step) - along(-step)) / (2 * step)
            scale = largest * np.linalg.norm(direction)
            assert abs((gradient * direction).sum() - derivative) < 1e-6 * scale, f"{role}, leaf {i}"


def a_critic_update_moves_the_behaviour_the_values_the_multiplier_and_the_critics_target_only(case):
    measured = in_float64(case)
    named = {"behaviour", "value", "critic", "multiplier", "target_critic", "cost_critic", "target_cost_critic"}
    expected = named & set(measured.before.nets.roles())
    if isinstance(measured.algorithm, TD3):  # its targets wait for the policy
        expected.remove("target_critic")
    assert changed_roles(measured.before, measured.after_critic) == expected


def an_actor_update_moves_the_policy_the_temperature_and_the_targets_only(case):
    measured = in_float64(case)
    policy = policy_role(measured.algorithm)
    expected = {policy, f"target_{policy}", "temperature", "cost_multiplier"} & set(measured.before.nets.roles())
    if isinstance(measured.algorithm, TD3):
        expected.add("target_critic")
    assert changed_roles(measured.before, measured.after_actor) == expected


def optimisers_of_roles_that_do_not_move_keep_their_state(case):
    measured = in_float32(case)
    for after in (measured.after_critic, measured.after_actor):
        if after is not None:
            moved = changed_roles(measured.before, after) - targets(measured.before)
            states = measured.before.optimisers
            changed = {role for role in states if not same_bits(states[role], after.optimisers[role])}
            assert changed == moved


def the_first_step_of_each_role_is_its_own_learning_rate(case):
    """Adam's first step is lr · sign of the gradient."""
    measured = in_float32(case)
    h = measured.algorithm
    named = {policy_role(h): "actor", "multiplier": "critic"}  # the others have rates of their own names
    for role in measured.of_role:
        rate = getattr(h, f"{named.get(role, role)}_learning_rate")
        after = measured.after_critic if role in OF_CRITIC_UPDATE else measured.after_actor
        old, new = (jax.tree.leaves(learner.nets.roles()[role]) for learner in (measured.before, after))
        largest = max(float(jnp.abs(a - b).max()) for a, b in zip(old, new, strict=True))
        assert largest == pytest.approx(rate, rel=2e-3)


def targets_follow_by_exactly_tau(case):
    measured = in_float64(case)
    tau = measured.algorithm.polyak
    followed = 0
    for after in (measured.after_critic, measured.after_actor):
        for target in changed_roles(measured.before, after) & targets(measured.before):
            followed += 1
            online = after.nets.roles()[target.removeprefix("target_")]
            trees = (online, measured.before.nets.roles()[target], after.nets.roles()[target])
            for o, old, new in zip(*map(jax.tree.leaves, trees), strict=True):
                np.testing.assert_allclose(new, tau * np.asarray(o) + (1 - tau) * np.asarray(old), rtol=1e-12)
    assert followed == len(targets(measured.before))


def targets_have_no_optimiser(case):
    assert not any(origin(role) for role in algorithm_of(case).optimisers())


def no_gradient_flows_through_the_bellman_target(case):
    algorithm = algorithm_of(case)
    learner, batch = learner_of(case, algorithm), jax.tree.map(jnp.asarray, batch_of(case))

    def total(nets):
        moved = type(learner)(nets, learner.optimisers, (), learner.step, learner.normaliser)
        return bellman_target(algorithm, (), moved, batch, jax.random.key(0)).sum()

    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(jax.grad(total)(learner.nets)))


def a_terminal_stops_the_bootstrap_and_a_time_out_does_not(case):
    """Through the dataset's own columns: two episodes of two steps, the first ended by a terminal, the second by
    time."""
    algorithm = algorithm_of(case)
    rows = batch_of(case, 4, seed=2)
    log = load(
        {
            "observations": rows.observation,
            "actions": rows.action,
            "rewards": rows.reward,
            "next_observations": rows.next_observation,
            "terminals": np.array([False, True, False, False]),
            "timeouts": np.array([False, False, False, True]),
        }
    )
    batch = log.transitions(0.9, Normaliser.identity(3))
    assert batch.discount == pytest.approx([0.9, 0, 0.9, 0.9])
    learner, key = learner_of(case, algorithm), jax.random.key(0)
    target = np.asarray(bellman_target(algorithm, (), learner, batch, key))
    next_value = algorithm.next_value(learner.nets, batch, named(key, "next_value"))
    assert np.abs(next_value).min() > 1e-3
    assert target[1] == batch.reward[1]
    assert target == pytest.approx(batch.reward + [0.9, 0, 0.9, 0.9] * np.asarray(next_value), rel=1e-5)
    elsewhere = bellman_target(algorithm, (), learner, batch._replace(next_observation=rows.observation), key)
    assert ((np.asarray(elsewhere) != target) == [True, False, True, True]).all()


@pytest.mark.slow
@mostly_defaults
def test_in_float32_an_update_is_what_its_paper_says(case):
    losses_and_targets_equal_the_reference_in_float32(case)
    optimisers_of_roles_that_do_not_move_keep_their_state(case)
    the_first_step_of_each_role_is_its_own_learning_rate(case)


@every_case
def test_in_float64_an_update_is_what_its_paper_says(case):
    """One case for all claims: measuring it is what takes time."""
    losses_and_targets_equal_the_reference_in_float64(case)
    each_role_moves_by_the_derivative_of_its_own_loss_and_of_nothing_else(case)
    an_actor_update_moves_the_policy_the_temperature_and_the_targets_only(case)
    targets_have_no_optimiser(case)
    if case in WITH_CRITIC:
        a_critic_update_moves_the_behaviour_the_values_the_multiplier_and_the_critics_target_only(case)
        targets_follow_by_exactly_tau(case)


@first_with_critic
def test_where_the_bellman_target_ends_and_that_it_is_a_constant(case):
    no_gradient_flows_through_the_bellman_target(case)
    a_terminal_stops_the_bootstrap_and_a_time_out_does_not(case)
