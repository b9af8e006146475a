"""Several seeds in one program are each seed alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import LOG, clone, fresh_learner, small
from segue.training.seeds import run_updates_together
from segue.training.update import run_updates

OPTIONS = {"blocks": 3}


@pytest.mark.parametrize("name", ["sac", pytest.param("cql", marks=pytest.mark.slow)])
def test_seeds_together_are_each_seed_alone(name):
    algorithm = small(name)
    learners = [fresh_learner(algorithm, seed=seed) for seed in (0, 1)]
    keys = jax.random.split(jax.random.key(5), 2)
    given = [clone(learner) for learner in learners]
    both = run_updates_together(given, LOG, list(keys), jnp.zeros(()), algorithm=algorithm, **OPTIONS)
    for seed, (learner, (together, metrics)) in enumerate(zip(learners, both, strict=True)):
        after, reported = run_updates(clone(learner), LOG, keys[seed], jnp.zeros(()), algorithm=algorithm, **OPTIONS)
        for a, b in zip(jax.tree.leaves(together.nets), jax.tree.leaves(after.nets), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)
        assert float(metrics["critic_loss"]) == pytest.approx(float(reported["critic_loss"]), rel=1e-4)
