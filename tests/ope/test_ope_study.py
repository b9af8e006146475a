"""The study's small world: its datasets are of the MDP that is solved exactly."""

from __future__ import annotations

import numpy as np
import pytest
from studies.ope.__main__ import Small, pairs


@pytest.mark.parametrize("name", ["random", "optimal"])
def test_datasets_have_the_values_and_visits_of_the_linear_solve(name: str) -> None:
    world, episodes = Small(), 20_000
    policy = getattr(world, name)
    log = world.log(policy, episodes, 0, one_hot=True)
    assert log.rewards.sum() / episodes == pytest.approx(world.value(policy), abs=4 * 0.5 / np.sqrt(episodes))
    often = np.zeros(policy.shape)
    np.add.at(often, (log.observations.argmax(1), log.actions), 1 / episodes)
    np.testing.assert_allclose(often, world.visits(policy), atol=0.04)
    assert (pairs(policy.shape, log) == (policy > 0)).all()
    assert world.value(world.optimal) > world.value(world.random) + 0.1
