"""Several seeds in one program are each seed alone, and a batch over several devices is the batch on one."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import LOG, SPACES, clone, fresh_learner, small
from segue.training.seeds import run_updates_together
from segue.training.update import run_updates

OPTIONS = {"bridges": (), "strategy": None, "spaces": SPACES, "blocks": 3}

ON_FOUR_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh
from helpers import LOG, SPACES, clone, fresh_learner, small
from segue.training.update import run_updates

algorithm = small("NAME", batch_size=16)
learner = fresh_learner(algorithm)
options = {"algorithm": algorithm, "bridges": (), "strategy": None, "spaces": SPACES, "blocks": 3}
arguments = (LOG, jax.random.key(0), jnp.zeros(()))
mesh = Mesh(jax.devices(), ("batch",))
assert mesh.size == 4
one, _ = run_updates(clone(learner), *arguments, **options)
program = run_updates.lower(clone(learner), *arguments, **options, mesh=mesh).compile().as_text()
assert "all-reduce" in program
four, _ = run_updates(clone(learner), *arguments, **options, mesh=mesh)
for a, b in zip(jax.tree.leaves(one.nets), jax.tree.leaves(four.nets)):
    np.testing.assert_allclose(a, b, atol=2e-5)
print("the same")
"""


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


@pytest.mark.parametrize("name", ["sac", pytest.param("cql", marks=pytest.mark.slow)])
def test_a_batch_over_four_devices_is_the_batch_on_one(name):
    flags = "--xla_force_host_platform_device_count=4"
    path = os.pathsep.join([os.path.dirname(os.path.dirname(__file__)), *sys.path])
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", ON_FOUR_DEVICES.replace("NAME", name)], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "the same", done.stderr
