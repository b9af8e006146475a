"""A waypoint planner for PointMaze: breadth-first search over the maze's cells, and a PD controller with noise."""

from __future__ import annotations

from collections import deque

import numpy as np

from segue.acting import Acted, unknown
from segue.envs.make import make_raw

Cell = tuple[int, int]

PULL, DAMPING = 10.0, 1.0
"""Of the controller: force per distance to the waypoint, and per velocity (D4RL's values for the same task)."""


class Planner:
    """Pushes the ball from cell to cell to where it wants to be, with noise in every push.

    It acts on flattened observations: where the ball is, where the goal is, and the ball's position and velocity.

    Args:
        env_id: a PointMaze.
        noise: standard deviation of what is added to an action (of which 1 is the most).
        detour: steps for which it goes to one random place of the maze before it chooses another, instead of to the
            goal; 0 for always to the goal.
    """

    def __init__(self, env_id: str, noise: float, detour: int = 0) -> None:
        env = make_raw(env_id)
        self.maze = env.unwrapped.maze  # type: ignore[attr-defined]
        env.close()
        self.cells = free_cells(self.maze.maze_map)
        self.noise, self.detour = noise, detour
        self.left = 0
        self.target = np.zeros(2)

    def start(self, batch: int) -> tuple[()]:
        """One episode at a time, whose detour goes on into the next."""
        assert batch == 1
        return ()

    def act(self, observation: np.ndarray, carry: tuple[()], source: np.random.Generator, explore: bool) -> Acted:
        """The push in [-1, 1]²; without `explore` there is no noise."""
        action = self.push(observation[0], source, explore)[None]
        return Acted(action, unknown(action, (1,)), carry)

    def push(self, observation: np.ndarray, source: np.random.Generator, explore: bool) -> np.ndarray:
        """Towards the waypoint."""
        position, velocity = observation[:2], observation[6:8]
        goal = observation[2:4]
        if self.detour:
            if self.left == 0:
                cell = self.cells[source.integers(len(self.cells))]
                self.target, self.left = self.maze.cell_rowcol_to_xy(np.array(cell)), self.detour
            self.left -= 1
            goal = self.target
        push = PULL * (self.waypoint(position, goal) - position) - DAMPING * velocity
        if explore:
            push = np.clip(push, -1, 1) + self.noise * source.normal(size=2)
        return np.clip(push, -1, 1).astype(np.float32)

    def waypoint(self, position: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """The goal if it is in this cell; otherwise the centre of the next cell on the way to it."""
        here, there = self._cell(position), self._cell(goal)
        if here == there:
            return goal
        return np.asarray(self.maze.cell_rowcol_to_xy(np.array(next_cell(self.cells, here, there))))

    def _cell(self, place: np.ndarray) -> Cell:
        row, column = self.maze.cell_xy_to_rowcol(place)
        return int(row), int(column)


def free_cells(maze_map: list[list[int | str]]) -> list[Cell]:
    """(row, column) of every cell that is not a wall."""
    return [(i, j) for i, row in enumerate(maze_map) for j, cell in enumerate(row) if cell != 1]


def next_cell(cells: list[Cell], here: Cell, there: Cell) -> Cell:
    """The neighbour of `here` on a shortest way to `there`; `here` itself if there is none."""
    free, distance, queue = set(cells), {there: 0}, deque([there])
    while queue and here not in distance:
        cell = queue.popleft()
        for neighbour in _neighbours(cell):
            if neighbour in free and neighbour not in distance:
                distance[neighbour] = distance[cell] + 1
                queue.append(neighbour)
    ways = [cell for cell in _neighbours(here) if cell in distance]
    return min(ways, key=distance.__getitem__, default=here)


def _neighbours(cell: Cell) -> list[Cell]:
    i, j = cell
    return [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
