"""Segue's updates: `updates ALGORITHM UPDATES [--rows N | --mapped FOLDER] [--trials N] [--set …]`, in one dispatch."""

from __future__ import annotations

import argparse
import ast
from typing import Any

from benchmarks.gate import Gate
from benchmarks.shapes import ACTION, OBSERVATION, columns


class Updates:
    """A learner, and a dataset to learn from."""

    def __init__(self, algorithm: Any, updates: int, log: Any) -> None:
        import jax

        from segue.core import Normaliser, Spaces
        from segue.replay import Replay
        from segue.training.update import init_learner

        self.spaces = Spaces(OBSERVATION, ACTION)
        nets = algorithm.init(jax.random.key(0), self.spaces)
        self.algorithm, self.replay = algorithm, Replay.create(log, 0, self.spaces)
        self.learner = init_learner(algorithm, nets, Normaliser.identity(OBSERVATION))
        per_block = algorithm.updates_per_block
        self.blocks = max(updates // per_block, 1)
        self.updates = self.blocks * per_block

    def run(self) -> float:
        """One dispatch; returns its updates."""
        import jax

        from segue.training.update import Updates, train

        given = (self.learner, self.replay, jax.random.key(1), 0.0, self.algorithm)
        self.learner, _ = train(Updates(*given, blocks=self.blocks))
        jax.block_until_ready(self.learner)
        return self.updates


class Trials:
    """Several learners, each with a step size of its own, as one program."""

    def __init__(self, algorithm: Any, updates: int, log: Any, trials: int) -> None:
        import jax
        import jax.numpy as jnp

        rate = algorithm.actor_learning_rate
        self.algorithms = [algorithm.adjusted(actor_learning_rate=rate * 0.9**i) for i in range(trials)]
        self.first = Updates(algorithm, updates, log)
        self.learners = [jax.tree.map(jnp.copy, self.first.learner) for _ in self.algorithms]

    def run(self) -> float:
        """One dispatch; returns the updates of all trials."""
        import jax
        import jax.numpy as jnp

        from segue.training.vmapped import run_updates_together

        first, keys = self.first, [jax.random.key(1)] * len(self.learners)
        given = (self.learners, first.replay, keys, jnp.zeros(()), self.algorithms)
        self.learners = [learner for learner, _ in run_updates_together(*given, blocks=first.blocks)]
        jax.block_until_ready(self.learners)
        return first.updates * len(self.learners)


def transitions(rows: int) -> Any:
    """The random dataset as the update samples it."""
    import numpy as np

    from segue.core import Transition

    data = columns(rows)
    return Transition(
        observation=data["observations"],
        action=data["actions"],
        reward=data["rewards"],
        next_observation=data["next_observations"],
        discount=np.full(rows, 0.99, np.float32),
        return_to_go=data["rewards"],
        next_action=data["actions"],
    )


def on_disk(algorithm: Any, folder: str) -> Any:
    """A mapped dataset as the update samples it: without the episodes held out, normalised."""
    from segue.data import load
    from segue.replay.on_disk import transitions_of

    dataset = load(f"mapped:{folder}").split(0.1, 0)[0]
    return transitions_of(algorithm, dataset, dataset.normaliser())


def main() -> None:
    gate = Gate()
    parser = argparse.ArgumentParser()
    parser.add_argument("algorithm")
    parser.add_argument("updates", type=int)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--mapped")
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[])
    flags = parser.parse_args()
    from segue.algorithms import ALGORITHMS

    values = {name: ast.literal_eval(value) for name, value in (pair.split("=") for pair in flags.set)}
    algorithm = ALGORITHMS[flags.algorithm](**values)
    log = transitions(flags.rows) if flags.mapped is None else on_disk(algorithm, flags.mapped)
    given = (algorithm, flags.updates, log)
    gate.forever(Updates(*given).run if flags.trials == 1 else Trials(*given, flags.trials).run)


if __name__ == "__main__":
    main()
