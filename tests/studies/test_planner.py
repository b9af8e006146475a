"""The waypoint planner: shortest ways round walls, and a ball that gets to the goal."""

from __future__ import annotations

import numpy as np
import pytest
from studies.data.planner import Planner, free_cells, next_cell

from segue.envs.record import record

U = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, "g", "r", 1], [1, 1, 1, 1, 1]]


def test_it_goes_round_the_wall() -> None:
    cells = free_cells(U)
    way = [(1, 1)]
    while way[-1] != (3, 1):
        way.append(next_cell(cells, way[-1], (3, 1)))
    assert way == [(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)]


def test_where_there_is_no_way_it_stays() -> None:
    assert next_cell([(1, 1), (3, 1)], (1, 1), (3, 1)) == (1, 1)


def test_the_planner_reaches_the_goal_and_the_wanderer_goes_past_it() -> None:
    env_id = "PointMaze_UMaze-v3"
    returns = {
        detour: [
            episode.rewards.sum()
            for episode in record(Planner(env_id, 0.5, detour), env_id, 1_500, explore=True, seed=0, part=0)
        ]
        for detour in (0, 60)
    }
    assert len(returns[0]) == 5, "no episode ends before its time limit"
    assert min(returns[0]) > 150, "of 300 steps, the greater part at the goal"
    assert np.mean(returns[60]) < np.mean(returns[0]) / 2


def test_without_exploring_there_is_no_noise() -> None:
    planner = Planner("PointMaze_UMaze-v3", 0.5)
    observation = np.array([-1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 0.0, 0.0], np.float32)
    first, second = (
        planner.act(observation[None], (), np.random.default_rng(seed), False).action[0] for seed in (0, 1)
    )
    assert first == pytest.approx(second)
    assert first[0] > 0.9, "to the right, where the way round begins"
