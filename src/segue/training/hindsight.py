"""Hindsight relabelling (HER, Andrychowicz et al. 2017): what was done, as if a goal reached later had been meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from segue import rng
from segue.algorithms.base import Algorithm
from segue.core import Normaliser, Transition
from segue.data.dataset import Dataset
from segue.envs.goals import Goals
from segue.errors import SegueError
from segue.training.checkpointing import generator_state, restore_generator

MASKED = (
    "hindsight does not know which actions are admissible under another goal; expected no --hindsight and no "
    "--dataset-hindsight where actions are masked"
)


class Steps(NamedTuple):
    """Consecutive steps of one episode, with flat observations as the environment gave them."""

    observation: Float[np.ndarray, "steps observation"]
    action: Float[np.ndarray, "steps action"] | Int[np.ndarray, " steps"]
    next_observation: Float[np.ndarray, "steps observation"]
    terminated: Bool[np.ndarray, " steps"]
    cost: Float[np.ndarray, " steps"]
    """0 where no cost is asked for; it does not depend on the goal."""


class Relabelled(NamedTuple):
    """Copies of some steps, with other goals."""

    steps: Steps
    reward: Float[np.ndarray, " steps"]
    next_action: Float[np.ndarray, "steps action"] | Int[np.ndarray, " steps"]
    """NaN, or −1 for discrete actions, after the last step of the episode."""


def relabel(episode: Steps, goals: Goals, copies: int, source: np.random.Generator) -> Relabelled:
    """So many copies of each step, each with a goal achieved by a uniformly drawn step from itself on (`future`).

    The reward is that of the new goal. The episode ends where reaching the new goal ends it, or where it ended for
    another reason than its own goal; where the environment does not compute that, where it ended.

    Raises:
        SegueError: as `Goals.rewards` does.
    """
    count = len(episode.terminated)
    rows = np.repeat(np.arange(count), copies)
    later = source.integers(rows, count)
    observation, action, following, terminated, cost = (column[rows] for column in episode)
    achieved, meant = following[:, goals.achieved].copy(), following[:, goals.desired].copy()
    goal = episode.next_observation[later][:, goals.achieved]
    observation[:, goals.desired] = following[:, goals.desired] = goal
    ends = goals.ends(achieved, goal)
    if ends is not None:
        own = goals.ends(achieved, meant)
        assert own is not None
        terminated = ends | (terminated & ~own)
    unknown = np.full_like(episode.action[:1], -1 if episode.action.ndim == 1 else np.nan)
    next_action = np.concatenate([episode.action[1:], unknown])[rows]
    return Relabelled(
        Steps(observation, action, following, terminated, cost), goals.rewards(achieved, goal), next_action
    )


def as_transitions(
    algorithm: Algorithm,
    normaliser: Normaliser,
    steps: Steps,
    reward: Float[np.ndarray, " rows"],
    next_action: Float[np.ndarray, "rows action"] | Int[np.ndarray, " rows"],
) -> Transition:
    """Steps as an algorithm learns from them; the return-to-go is unknown, −inf."""
    count = len(reward)
    return Transition(
        observation=np.asarray(normaliser(steps.observation)),
        action=steps.action,
        reward=algorithm.learning_rewards(reward),
        next_observation=np.asarray(normaliser(steps.next_observation)),
        discount=np.where(steps.terminated, 0.0, algorithm.discount).astype(np.float32),
        return_to_go=np.full(count, -np.inf, np.float32),
        next_action=next_action,
        following=np.full(count, -1, np.int32) if algorithm.sequence_length > 1 else None,
        cost=steps.cost if algorithm.needs_costs else None,
    )


def logged_with_copies(
    algorithm: Algorithm, dataset: Dataset, normaliser: Normaliser, goals: Goals, copies: int
) -> Transition:
    """`algorithm.transitions` of a dataset, each episode followed by so many copies of its steps with other goals.

    The copies count as part of the dataset, so they are the same for every seed.

    Raises:
        SegueError: as `Goals.rewards` does; for a dataset with admissible actions.
    """
    logged = algorithm.transitions(dataset, normaliser)
    if logged.allowed is not None:
        raise SegueError(MASKED)
    source = rng.generator(0, "dataset", "hindsight")
    cost = np.zeros(len(dataset), np.float32) if dataset.cost is None else dataset.cost
    columns = Steps(dataset.observations, dataset.actions, dataset.next_observations, dataset.terminals, cost)
    parts: list[Transition] = []
    for start, length in zip(dataset.episode_starts.tolist(), dataset.episode_lengths.tolist(), strict=True):
        rows = slice(start, start + length)
        episode = Steps(*(column[rows] for column in columns))
        parts.append(jax.tree.map(lambda column, rows=rows: column[rows], logged))
        parts.append(as_transitions(algorithm, normaliser, *relabel(episode, goals, copies, source)))
    return jax.tree.map(lambda *columns: np.concatenate(columns), *parts)


class Hindsight:
    """Watches episodes side by side, and relabels those that have ended.

    Args:
        goals: of the environment.
        copies: of each step.
        seed: of the run.
        slots: episodes that run at the same time.
    """

    def __init__(self, goals: Goals, copies: int, seed: int, slots: int) -> None:
        self.goals, self.copies = goals, copies
        self.source = rng.generator(seed, "online", "hindsight")
        self.running: list[list[Steps]] = [[] for _ in range(slots)]
        self.ended: list[Steps] = []

    def watch(
        self, steps: Steps, done: Bool[np.ndarray, " rows"], slots: Int[np.ndarray, " rows"] | None = None
    ) -> None:
        """One step of the episode in each of these slots, by default in all; `done` where it was the last one."""
        for row, slot in enumerate(range(len(done)) if slots is None else slots.tolist()):
            episode = self.running[slot]
            # Copies, since environments and loops may use their arrays again.
            episode.append(Steps(*(column[row : row + 1].copy() for column in steps)))
            if done[row]:
                self.ended.append(_joined(episode))
                self.running[slot] = []

    def abandon(self, slots: Bool[np.ndarray, " slots"]) -> None:
        """The episodes that ran there are not learnt from; others begin with the next step."""
        for slot in np.flatnonzero(slots).tolist():
            self.running[slot] = []

    def take(self) -> list[Relabelled]:
        """Copies of the steps of each episode that has ended since the last call."""
        ended, self.ended = self.ended, []
        return [relabel(episode, self.goals, self.copies, self.source) for episode in ended]

    def position(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The generator as JSON, and the running episodes as arrays; those that have ended must have been taken."""
        return {"hindsight": generator_state(self.source)}, {
            f"hindsight.{slot}.{name}": column
            for slot, episode in enumerate(self.running)
            if episode
            for name, column in _joined(episode)._asdict().items()
        }

    def restore(self, plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Go back to a position."""
        restore_generator(self.source, plain["hindsight"])
        for slot in range(len(self.running)):
            names = [f"hindsight.{slot}.{name}" for name in Steps._fields]
            self.running[slot] = [Steps(*(arrays[name] for name in names))] if names[0] in arrays else []


def _joined(parts: list[Steps]) -> Steps:
    return Steps(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
