"""A small log, what a bridge sees of it when it attaches, and learners with bridges."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from helpers import KINDS, clone, random_learner, transitions
from segue.algorithms import Algorithm
from segue.bridges import Bridge, Handover
from segue.core import Learner, Normaliser
from segue.data.dataset import Dataset
from segue.replay import OnlineOnly, Replay, ReplayStrategy, append
from segue.training.update import replace, run_updates

KEY = jax.random.key(5)


@cache
def log(kind: str = "continuous", rows: int = 64) -> Dataset:
    """Eight episodes of random transitions."""
    made = transitions(rows, seed=1, kind=kind)
    return Dataset(
        observations=made.observation,
        actions=made.action,
        rewards=made.reward,
        next_observations=made.next_observation,
        terminals=np.arange(rows) % 8 == 7,
        episode_starts=np.arange(0, rows, 8),
        spaces=KINDS[kind],
        source="made",
        cost=made.cost,
    )


def handover(algorithm: Algorithm, kind: str = "continuous", dataset: Dataset | None = None) -> Handover:
    """What the bridge may look at."""
    dataset = dataset or log(kind)
    rows = algorithm.transitions(dataset, Normaliser.identity(dataset.spaces.observation_size))

    def fit_critic(learner: Learner, steps: int) -> Learner:
        return run_updates(
            learner,
            Replay.create(rows, 0, KINDS[kind]),
            KEY,
            jnp.zeros(()),
            algorithm=algorithm,
            bridges=(),
            strategy=None,
            blocks=steps,
            train_policy=False,
        )[0]

    return Handover(algorithm, KINDS[kind], dataset, rows, fit_critic=fit_critic)


def attach(
    bridges: tuple[Bridge, ...], algorithm: Algorithm, kind: str = "continuous", learner: Learner | None = None
) -> Learner:
    """A learner with these bridges, attached in their order as a run does it; the one given is spared."""
    learner = random_learner(algorithm, kind=kind) if learner is None else clone(learner)
    states: dict[str, Any] = {}
    for bridge in sorted(bridges, key=lambda bridge: bridge.attach_order):
        key = jax.random.fold_in(KEY, bridge.attach_order)
        learner, states[bridge.name] = bridge.attach(learner, handover(algorithm, kind), key)
    return replace(learner, bridges=tuple(states[bridge.name] for bridge in bridges))


def live(kind: str = "continuous", rows: int = 40) -> Replay:
    """A replay of live data only."""
    return append(Replay.create(None, 64, KINDS[kind], costs=True), transitions(rows, seed=2, kind=kind))


def run(
    learner: Learner,
    algorithm: Algorithm,
    bridges: tuple[Bridge, ...],
    kind: str = "continuous",
    blocks: int = 2,
    progress: float = 0.25,
    strategy: ReplayStrategy | None = None,
) -> tuple[Learner, Any]:
    """The learner after these blocks of updates on live data; the one given is spared."""
    return run_updates(
        clone(learner),
        live(kind),
        KEY,
        jnp.asarray(progress, jnp.float32),
        algorithm=algorithm,
        bridges=bridges,
        strategy=strategy or OnlineOnly(),
        blocks=blocks,
    )
