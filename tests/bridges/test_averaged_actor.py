"""The averaged actor: evaluations and exports are the Polyak average; learning and training episodes are untouched."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handovers import attach, run

from helpers import for_each, random_learner, same_bits, small
from segue.bridges import AveragedActor
from segue.core import Nets, Spaces
from segue.errors import RecipeError
from segue.policy import Policy
from segue.runner.checkpoint import Checkpoint
from segue.training.update import replace

BRIDGE = AveragedActor(average=0.25)


@for_each(
    ("name", "kind", "role"),
    [("sac", "continuous", "actor"), ("bcq", "continuous", "perturbation"), ("dqn", "discrete", "critic")],
)
def test_it_begins_with_the_policy_that_was_handed_over_and_holds_nothing_else(name, kind, role):
    learner = attach((BRIDGE,), small(name), kind)
    assert same_bits(learner.bridges[0], Nets(**{role: getattr(learner.nets, role)}))


def test_the_average_follows_by_tau():
    state = Nets(actor=jnp.asarray(0.0))
    for now in (4.0, 8.0):
        nets = Nets(actor=jnp.asarray(now), critic=jnp.asarray(1.0))
        state, _ = BRIDGE.update(state, small("sac"), nets, None, {}, jax.random.key(0))
    assert float(state.actor) == 0.75 * (0.25 * 4) + 0.25 * 8


@for_each(("name", "kind"), [("sac", "continuous"), ("discrete-cql", "discrete")])
def test_the_learner_is_the_same_to_the_bit_without_it(name, kind):
    algorithm = small(name)
    plain, _ = run(random_learner(algorithm, kind=kind), algorithm, (), kind=kind)
    averaged, _ = run(attach((BRIDGE,), algorithm, kind), algorithm, (BRIDGE,), kind=kind)
    assert same_bits(plain.nets, averaged.nets)


@for_each(("name", "kind"), [("sac", "continuous"), ("dqn", "discrete")])
def test_the_learner_explores_and_the_average_is_evaluated_and_deployed(name, kind):
    algorithm = small(name)
    learner, average = random_learner(algorithm, 0, kind), random_learner(algorithm, 1, kind)
    role = algorithm.policy_role
    together = replace(learner, bridges=(Nets(**{role: getattr(average.nets, role)}),))
    observation = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    shown = Policy(algorithm, average)(observation)
    assert not np.array_equal(shown, Policy(algorithm, learner)(observation))
    assert np.array_equal(Policy(algorithm, together, (BRIDGE,))(observation), shown)
    exploring = [
        Policy(algorithm, who, bridges)(observation, np.random.default_rng(5), explore=True)
        for who, bridges in ((learner, ()), (together, (BRIDGE,)))
    ]
    assert np.array_equal(*exploring)
    spaces = Spaces(3, 1) if kind == "continuous" else Spaces(3, 2, discrete=True)
    held = Checkpoint(algorithm, (BRIDGE,), spaces, None, together)
    assert np.array_equal(held.policy()(observation), shown)


@pytest.mark.parametrize("average", [0.0, 1.5])
def test_an_average_that_cannot_be_is_refused(average):
    with pytest.raises(RecipeError, match="above 0 and at most 1"):
        AveragedActor(average=average)
