"""Several trainings in one program, of other seeds and other numbers, are each what they are alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import LOG, clone, fresh_learner, other_numbers, small
from segue.training.update import run_updates
from segue.training.vmapped import run_updates_together

OPTIONS = {"blocks": 3}


@pytest.mark.parametrize("name", ["sac", pytest.param("cql", marks=pytest.mark.slow)])
def test_trainings_together_are_each_training_alone(name):
    algorithms = small(name), other_numbers(small(name))
    learners = [fresh_learner(algorithms[0], seed=seed) for seed in (0, 1)]
    keys = jax.random.split(jax.random.key(5), 2)
    both = run_updates_together(clone(learners), LOG, list(keys), jnp.zeros(()), algorithms, **OPTIONS)
    for i, (learner, (together, metrics)) in enumerate(zip(learners, both, strict=True)):
        after, reported = run_updates(clone(learner), LOG, keys[i], jnp.zeros(()), algorithms[i], **OPTIONS)
        for a, b in zip(jax.tree.leaves(together.nets), jax.tree.leaves(after.nets), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)
        assert float(metrics["critic_loss"]) == pytest.approx(float(reported["critic_loss"]), rel=1e-4)
