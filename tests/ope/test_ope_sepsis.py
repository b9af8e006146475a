"""The study's world, where that package is there: values as published, and estimates near them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from segue.ope import DiscretePolicy, evaluate_offline

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports a Gym that warns of its age
    pytest.importorskip("icu_sepsis")

from studies.ope.__main__ import Sepsis


@pytest.fixture(scope="module")
def world() -> Sepsis:
    return Sepsis()


def test_the_values_are_those_that_its_authors_publish(world: Sepsis) -> None:
    # The package's own description: average return of the random, the expert and the optimal policy.
    values = [world.value(policy) for policy in (world.random, world.clinician, world.optimal)]
    np.testing.assert_allclose(values, [0.78, 0.78, 0.88], atol=0.006)


def test_estimates_by_weights_are_near_the_exact_value(world: Sepsis) -> None:
    policy = 0.9 * world.clinician + 0.1 * world.optimal
    log = world.log(world.clinician, 2000, 0, one_hot=False)
    target = DiscretePolicy(lambda observation: policy[observation[:, 0].astype(int)])
    result = evaluate_offline(target, log, methods=["pdis", "is", "wpdis", "wis"], discount=1.0)
    for estimate in result.estimates:
        assert estimate.value == pytest.approx(world.value(policy), abs=0.06), estimate.method
        assert estimate.bounds.value_lower < world.value(policy)
