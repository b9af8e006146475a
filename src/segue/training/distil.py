"""Distillation: a fresh actor learns to act as the pretrained policy does, where that policy has no actor to carry."""

from __future__ import annotations

import numpy as np
from jaxtyping import Real

from segue import rng
from segue.algorithms.base import Algorithm
from segue.core import Learner
from segue.data.mapped import Column
from segue.imitation import imitate
from segue.policy import Policy
from segue.training.update import replace

#: States of the dataset that the teacher is asked about; BCQ tries a hundred actions in each.
STATES = 20_000
#: States per call of the teacher.
CHUNK = 1_000


def distil(
    teacher: Policy,
    learner: Learner,
    algorithm: Algorithm,
    observations: Real[np.ndarray, "rows observation"] | Column,
    steps: int,
    seed: int,
) -> tuple[Learner, float]:
    """The learner with its actor fitted, by `steps` updates, to what the teacher does without exploration.

    Args:
        teacher: the pretrained policy; it gets raw observations.
        learner: a learner of `algorithm`; only its actor and the optimiser of that change.
        algorithm: has an actor.
        observations: raw ones, of the dataset.
        steps: updates.
        seed: the run's.

    Returns:
        The learner, and the loss over the last tenth of the updates.
    """
    chosen = rng.generator(seed, "distil").permutation(len(observations))[:STATES]
    states = observations[np.sort(chosen)]
    source = rng.generator(seed, "distil", "teacher")
    actions = np.concatenate([teacher(states[i : i + CHUNK], source) for i in range(0, len(states), CHUNK)])
    normalised = np.asarray(teacher.normaliser(states))
    role = algorithm.policy_role
    fitted, state, losses = imitate(
        getattr(learner.nets, role),
        learner.optimisers[role],
        algorithm,
        normalised,
        actions,
        rng.stream(seed, "distil"),
        steps,
    )
    learner = replace(
        learner, nets=learner.nets.replace(**{role: fitted}), optimisers={**learner.optimisers, role: state}
    )
    return learner, float(losses[-max(steps // 10, 1) :].mean())
