"""Segue's side: the updates of several seeds of one algorithm as one program."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from typing import Any
from unittest import mock

# An update needs no environment: where Gymnasium is not installed, its name is enough.
if importlib.util.find_spec("gymnasium") is None:
    for name in ("gymnasium", "gymnasium.envs", "gymnasium.envs.registration"):
        sys.modules[name] = mock.MagicMock()

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.shapes import ACTION, OBSERVATION, columns
from segue.algorithms import ALGORITHMS
from segue.core import Normaliser, Spaces, Transition
from segue.replay import Replay
from segue.training.update import init_learner
from segue.training.vmapped import run_updates_together

#: Those that learn from a dataset, the ones first that the published targets are about.
FIRST = ("sac", "td3-bc", "iql")
NAMES = (*FIRST, *(name for name, cls in ALGORITHMS.items() if name not in FIRST and not cls.on_policy))


class Updates:
    """Learners of so many seeds, and a dataset of a million transitions to learn from."""

    def __init__(self, name: str, seeds: int, rows: int) -> None:
        self.algorithm = ALGORITHMS[name]()
        discrete = "continuous" not in self.algorithm.actions
        spaces = Spaces(OBSERVATION, ACTION, discrete)
        logged = transitions(rows, discrete)
        if not self.algorithm.needs_costs:
            logged = logged._replace(cost=None)
        self.replay = Replay.create(logged, 0, spaces)
        self.seeds, self.keys = seeds, list(jax.random.split(jax.random.key(1), seeds))
        self.learners = [
            init_learner(self.algorithm, self.algorithm.init(key, spaces), Normaliser.identity(OBSERVATION))
            for key in self.keys
        ]

    def run(self, updates: int) -> int:
        """So many updates of every seed in one dispatch, to the end; returns the updates of one seed."""
        per_block = self.algorithm.updates_per_block
        blocks = max(updates // per_block, 1)
        given = (self.learners, self.replay, self.keys, jnp.zeros(()), [self.algorithm] * self.seeds)
        self.learners = [learner for learner, _ in run_updates_together(*given, blocks=blocks)]
        jax.block_until_ready(self.learners)
        return blocks * per_block

    def finite(self) -> bool:
        """Whether what was learnt are numbers: a rate of updates that diverged says nothing."""
        return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves([one.nets for one in self.learners]))


def transitions(rows: int, discrete: bool) -> Transition:
    """Random transitions of Hopper's shapes, with three discrete actions or three dimensions."""
    data: dict[str, Any] = columns(rows)
    actions = data["actions"].argmax(1).astype(np.int32) if discrete else data["actions"]
    return Transition(
        observation=data["observations"],
        action=actions,
        reward=data["rewards"],
        next_observation=data["next_observations"],
        discount=np.full(rows, 0.99, np.float32),
        return_to_go=data["rewards"],
        next_action=actions,
        cost=np.abs(data["rewards"]),
    )


def memory() -> float | None:
    """Largest memory in use on the device so far, GiB, where it says."""
    with contextlib.suppress(AttributeError, RuntimeError):
        found = jax.devices()[0].memory_stats() or {}
        return found.get("peak_bytes_in_use", 0) / 2**30 or None
    return None
