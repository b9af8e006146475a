"""SAC learners of several seeds in one program: `seeds NUMBER UPDATES`; the units are updates of all seeds."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp

from benchmarks.contestants.updates import Updates, transitions
from benchmarks.gate import Gate
from segue.algorithms import SAC
from segue.algorithms.base import copy_arrays
from segue.training.seeds import run_updates_together


def main() -> None:
    gate = Gate()
    number, updates = int(sys.argv[1]), int(sys.argv[2])
    one = Updates(SAC(), updates, transitions(100_000))
    learners = [copy_arrays(one.learner) for _ in range(number)]
    keys = list(jax.random.split(jax.random.key(1), number))
    options = {"algorithm": one.algorithm, "bridges": (), "strategy": None, "spaces": one.spaces, "blocks": one.blocks}

    def turn() -> float:
        nonlocal learners
        learners = [
            learner for learner, _ in run_updates_together(learners, one.replay, keys, jnp.zeros(()), **options)
        ]
        jax.block_until_ready(learners)
        return number * one.updates

    gate.forever(turn)


if __name__ == "__main__":
    main()
