"""Workers change how long a run takes, not what comes of it, as long as each job has the same number of cores."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import segue
from segue.recipe import Recipe, read_recipes
from segue.runner import compare
from segue.runner import run as run_recipe
from segue.runner.machine import visible_cores

SMALL = {"hidden_sizes": (8, 8), "batch_size": 16}
IN_TURN = """
import json, os, sys
os.sched_setaffinity(0, json.loads(sys.argv[1]))
from pathlib import Path
from segue.recipe import read_recipes
from segue.runner import compare
assert compare(read_recipes(Path(sys.argv[2])), sys.argv[3], workers=1).status == "complete"
"""


def recipe() -> Recipe:
    rng = np.random.default_rng(0)
    log = {
        "observations": rng.normal(size=(60, 3)),
        "actions": rng.uniform(-1, 1, (60, 1)),
        "rewards": rng.normal(size=60),
        "terminals": np.zeros(60),
        "timeouts": np.arange(60) % 20 == 19,
        "action_low": np.array([-1.0]),
        "action_high": np.array([1.0]),
    }
    return Recipe(
        dataset=log,
        env="Pendulum-v1",
        offline=segue.TD3BC(**SMALL),
        offline_steps=4,
        online=segue.SAC(**SMALL),
        online_steps=40,
        warmup_steps=10,
        eval_every=20,
        eval_episodes=2,
        seeds=2,
    )


def outcome(directory: Path) -> dict[str, object]:
    seeds = json.loads((directory / "summary.json").read_text())["arms"]["run"]["seeds"]
    kept = ("parameters_sha256", "offline_evaluations", "online_evaluations")
    return {seed: {name: result[name] for name in kept} for seed, result in seeds.items()}


def cores_per_job(directory: Path) -> int:
    return json.loads((directory / "provenance.json").read_text())["cores_per_job"]


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(visible_cores()) < 2, reason="needs two cores to pin to"
)
def test_two_seeds_side_by_side_are_the_two_seeds_in_turn_on_as_many_cores_each(tmp_path: Path):
    """Side by side each has half the cores; in turn they have the same number if the whole process is pinned so."""
    result = run_recipe(recipe(), tmp_path / "beside", workers=2)
    assert result.status == "complete"
    half = visible_cores()[: len(visible_cores()) // 2]
    again = [sys.executable, "-c", IN_TURN, json.dumps(half), str(tmp_path / "beside"), str(tmp_path / "turn")]
    subprocess.run(again, check=True, capture_output=True)
    assert cores_per_job(tmp_path / "beside") == cores_per_job(tmp_path / "turn") == len(half)
    assert outcome(tmp_path / "beside") == outcome(tmp_path / "turn")
    seeds = outcome(tmp_path / "turn")
    assert seeds["0"]["parameters_sha256"] != seeds["1"]["parameters_sha256"]


def test_a_seed_of_two_is_the_same_as_the_seed_alone(tmp_path: Path):
    """In one process, so on the same cores: nothing of the first seed's job reaches the second's."""
    scratch = {"dataset": None, "offline": None, "offline_steps": 0, "online": segue.TD3(**SMALL)}
    both = run_recipe(dataclasses.replace(recipe(), **scratch), tmp_path / "both", workers=1)
    alone = dataclasses.replace(read_recipes(both.directory)["run"], seed=1, seeds=1)
    compare({"run": alone}, tmp_path / "alone", workers=1)
    assert outcome(tmp_path / "alone")["1"] == outcome(tmp_path / "both")["1"]
