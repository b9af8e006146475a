"""Updates per second of every algorithm: `python -m benchmarks.updates`.

Hopper's shapes (11 observations, 3 actions), 100,000 transitions, batch 256, 256-256 networks, every core that is
visible. Algorithms take turns, and the median over the turns is printed: these machines are noisy.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from segue.algorithms import ALGORITHMS, Algorithm
from segue.replay import Replay
from segue.runner.machine import describe_machine
from segue.training.update import init_learner, run_updates
from segue.types import Learner, Normaliser, Spaces, Transition

SPACES = Spaces(11, 3)


def log(rows: int = 100_000) -> Transition:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    return Transition(
        observation=normal(rows, SPACES.observation_size),
        action=np.tanh(normal(rows, SPACES.action_size)),
        reward=normal(rows),
        next_observation=normal(rows, SPACES.observation_size),
        discount=np.full(rows, 0.99, np.float32),
        return_to_go=normal(rows),
        next_action=np.tanh(normal(rows, SPACES.action_size)),
    )


class Contestant:
    """An algorithm, ready to run `blocks` blocks per call."""

    def __init__(self, algorithm: Algorithm, replay: Replay, blocks: int) -> None:
        self.algorithm, self.replay, self.blocks = algorithm, replay, blocks
        nets = algorithm.init(jax.random.key(0), SPACES)
        self.learner: Learner = init_learner(algorithm, nets, Normaliser.identity(SPACES.observation_size))
        self.updates = blocks * max(algorithm.critic_updates, 1)

    def run(self) -> float:
        """Seconds for one call."""
        start = time.perf_counter()
        self.learner, _ = run_updates(
            self.learner,
            self.replay,
            jax.random.key(1),
            jnp.zeros(()),
            algorithm=self.algorithm,
            bridges=(),
            strategy=None,
            spaces=SPACES,
            blocks=self.blocks,
        )
        jax.block_until_ready(self.learner)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithms", nargs="*", default=list(ALGORITHMS), choices=[*ALGORITHMS, []])
    parser.add_argument("--turns", type=int, default=5)
    flags = parser.parse_args()
    replay = Replay.create(log(), 0, SPACES)
    contestants = [Contestant(ALGORITHMS[name](), replay, blocks=50) for name in flags.algorithms]
    first = [contestant.run() for contestant in contestants]
    turns = [[contestant.run() for contestant in contestants] for _ in range(flags.turns)]
    machine = describe_machine(1)
    print(f"{machine['processor']}, {machine['cores']} cores, {machine['device']}, jax {jax.__version__}\n")
    print(f"{'algorithm':<12}{'updates/s':>12}{'ms/update':>12}{'first call':>12}")
    for i, contestant in enumerate(contestants):
        seconds = statistics.median(turn[i] for turn in turns)
        rate = contestant.updates / seconds
        print(f"{contestant.algorithm.name:<12}{rate:>12.0f}{1000 / rate:>12.2f}{first[i]:>11.1f}s")


if __name__ == "__main__":
    main()
