"""A dataset on disk as an algorithm learns from it: rows are drawn as ever, read ahead of the updates that need them.

What is drawn does not depend on where the dataset lies: the same rows at the same updates, and the same bits, as from
memory. Only the rows of one dispatch are on the device.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from segue import rng
from segue.core import Normaliser, Transition
from segue.data.dataset import Dataset
from segue.data.mapped import EXCERPT, MappedDataset

if TYPE_CHECKING:
    from segue.algorithms.base import Algorithm


def transitions_of(algorithm: Algorithm, dataset: Dataset, normaliser: Normaliser) -> Transition | OnDisk:
    """The whole dataset as the algorithm learns from it; one on disk stays there.

    Raises:
        DataError: if the algorithm learns from costs, and the dataset has none.
    """
    if isinstance(dataset, MappedDataset):
        return OnDisk(algorithm, dataset, normaliser)
    return algorithm.transitions(dataset, normaliser)


class OnDisk:
    """Transitions of a mapped dataset, by rows.

    Raises:
        DataError: if the algorithm learns from costs, and the dataset has none.
    """

    def __init__(self, algorithm: Algorithm, dataset: MappedDataset, normaliser: Normaliser) -> None:
        self.algorithm, self.dataset, self.normaliser = algorithm, dataset, normaliser
        if algorithm.needs_costs:
            dataset.require_cost(algorithm.name)
        self.returns: np.ndarray | None = None
        self.ahead: tuple[np.ndarray, Future[Transition]] | None = None
        self.reader = ThreadPoolExecutor(1)

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def allowed(self) -> Any:
        """Which discrete actions could be taken, where the dataset says."""
        return self.dataset.allowed_actions

    def read(self, rows: Int[np.ndarray, " n"]) -> Transition:
        """The transitions of these rows: `algorithm.transitions(dataset, normaliser)[rows]`.

        The return-to-go is -inf (unknown) for an algorithm that does not use it. `following` is left out.
        """
        algorithm, dataset = self.algorithm, self.dataset
        found = dataset.view.take(rows)
        first, second = found["first"], found["second"]
        masks = self.allowed is not None
        return Transition(
            observation=np.asarray(self.normaliser(first["observation"])),
            action=np.ascontiguousarray(first["action"]),
            reward=algorithm.learning_rewards(first["reward"]),
            next_observation=np.asarray(self.normaliser(second["observation"])),
            discount=np.where(first["terminal"], 0.0, algorithm.discount).astype(np.float32),
            return_to_go=self._returns_to_go(rows),
            next_action=np.ascontiguousarray(second["action"]),
            cost=np.ascontiguousarray(first["cost"]) if algorithm.needs_costs else None,
            allowed=np.ascontiguousarray(first["allowed"]) if masks else None,
            next_allowed=np.ascontiguousarray(second["allowed"]) if masks else None,
        )

    def chains(self, rows: Int[np.ndarray, " n"], length: int) -> Transition:
        """The same with the transitions that follow each of them, n · length in all: `following` says where.

        A chain that reaches the end of its episode repeats its last row.
        """
        starts = self.dataset.episode_starts
        ends = np.append(starts[1:], len(self))[np.searchsorted(starts, rows, side="right") - 1] - 1
        chain = np.minimum(rows[:, None] + np.arange(length), ends[:, None])
        number = np.arange(chain.size, dtype=np.int32).reshape(chain.shape)
        following = np.full_like(number, -1)
        following[:, :-1] = np.where(chain[:, :-1] < ends[:, None], number[:, 1:], -1)
        return self.read(chain.reshape(-1))._replace(following=following.reshape(-1))

    def window(self, rows: Int[np.ndarray, " n"], length: int) -> Transition:
        """The transitions of a dispatch: those read ahead, if these are the same rows."""
        expected, self.ahead = self.ahead, None
        if expected is not None and np.array_equal(expected[0], rows):
            return expected[1].result()
        return self._load(rows, length)

    def read_ahead(self, rows: Int[np.ndarray, " n"], length: int) -> None:
        """Begin to read what the next call of `window` probably asks for."""
        self.ahead = rows, self.reader.submit(self._load, rows, length)

    def sample(self) -> Transition:
        """A million random transitions, in their order; all where there are no more."""
        rows = np.arange(len(self))
        if len(self) > EXCERPT:
            # With replacement, then without the few that came twice: a permutation would be as long as the dataset.
            rows = np.unique(rng.generator(0, "sample").integers(0, len(self), EXCERPT))
        return self.read(rows)

    def _load(self, rows: Int[np.ndarray, " n"], length: int) -> Transition:
        return self.read(rows) if length == 1 else self.chains(rows, length)

    def _returns_to_go(self, rows: Int[np.ndarray, " n"]) -> np.ndarray:
        algorithm = self.algorithm
        if "return_to_go" not in algorithm.columns:
            return np.full(len(rows), -np.inf, np.float32)
        if self.returns is None:
            parts = [
                dataclasses.replace(block, rewards=algorithm.learning_rewards(block.rewards)).returns_to_go(
                    algorithm.discount, algorithm.sparse_failure_reward
                )
                for block in self.dataset.blocks()
            ]
            self.returns = np.concatenate(parts)
        return self.returns[rows]
