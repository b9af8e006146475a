"""Datasets with actions at their bounds: what imitation by likelihood makes of them, and the warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue

ROWS = 4_000


def at_the_bound(share: float) -> dict[str, Any]:
    """One state; this share of the actions is exactly 1, the others are 0."""
    rng = np.random.default_rng(0)
    return {
        "observations": 0.01 * rng.normal(size=(ROWS, 2)),
        "actions": (rng.random((ROWS, 1)) < share).astype(np.float32),
        "rewards": np.zeros(ROWS),
        "terminals": np.zeros(ROWS),
        "timeouts": np.arange(ROWS) % 100 == 99,
        "action_low": [-1.0],
        "action_high": [1.0],
    }


SMALL: dict[str, Any] = {"hidden_sizes": (32,), "batch_size": 256, "actor_learning_rate": 3e-3}


def imitated(algorithm: segue.Algorithm, out: Path) -> float:
    """The action that an imitation of 20 % ones takes."""
    dataset = at_the_bound(0.2)
    result = segue.run(segue.Recipe(dataset=dataset, offline=algorithm, offline_steps=600), out)
    policy = segue.load_checkpoint(next(result.directory.glob("checkpoints/*/seed-0/final"))).policy()
    return float(policy(dataset["observations"][:200]).mean())


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(segue.IQL(**SMALL), id="iql"),
        pytest.param(segue.BC(loss="nll", **SMALL), id="bc-nll", marks=pytest.mark.slow),
        pytest.param(segue.AWAC(**SMALL), id="awac", marks=pytest.mark.slow),  # the same likelihood, weighted
        pytest.param(segue.BC(**SMALL), id="bc-mse", marks=pytest.mark.slow),  # no likelihood
    ],
)
def test_imitation_with_equal_weights_acts_near_the_mean(algorithm, tmp_path):
    assert imitated(algorithm, tmp_path / "run") == pytest.approx(0.2, abs=0.08)


def test_a_squashed_gaussian_runs_after_the_actions_at_the_bound(tmp_path):
    assert imitated(segue.BC(loss="nll", distribution="squashed", **SMALL), tmp_path / "run") > 0.5


@pytest.mark.parametrize("share", [0.18, 0.22])
def test_a_run_warns_from_a_fifth_of_actions_at_a_bound(share, tmp_path):
    notes: list[str] = []
    recipe = segue.Recipe(dataset=at_the_bound(share), offline=segue.BC(**SMALL), offline_steps=1)
    segue.run(recipe, tmp_path / "run", on_event=lambda job, event: notes.append(event.get("message", "")))
    assert any("at a bound in 20% of the steps or more" in note for note in notes) == (share > 0.2)
