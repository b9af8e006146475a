"""The healthcare example: exact values, a learner that only improves what it has seen, and who is stopped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("icu_sepsis")

from examples.healthcare.cautious import ARMS, Plan, dataset, repeat, world
from examples.healthcare.learner import Records
from examples.healthcare.page import TOLERANCE, draw, held

SHORT = Plan(records=2_000, shadow=500, trial=2_000, watched=500)


def test_the_values_are_the_published_ones() -> None:
    assert world().clinician_value == pytest.approx(0.782, abs=0.001)
    assert world().optimal_value == pytest.approx(0.875, abs=0.001)
    uniform = world().allowed / world().allowed.sum(1, keepdims=True)
    assert world().value(uniform) == pytest.approx(0.780, abs=0.001)


def test_patients_of_a_policy_survive_as_often_as_its_exact_value_says() -> None:
    patients = world().treat(world().clinician, 4_000, np.random.default_rng(0))
    error = np.sqrt(0.25 / 4_000)
    assert patients.survived.mean() == pytest.approx(world().clinician_value, abs=4 * error)
    data = dataset(patients)
    assert data.episode_returns == pytest.approx(patients.survived)
    assert len(data.episode_starts) == 4_000


def test_the_learner_prefers_only_what_it_has_seen_often_and_only_what_is_admissible() -> None:
    records = Records(world())
    records.add(world().treat(world().clinician, 2_000, np.random.default_rng(0)))
    policy, promised = records.improved(10)
    assert policy.sum(1) == pytest.approx(np.ones(len(policy)))
    assert (policy[~world().allowed] == 0).all()
    seen = np.zeros(policy.shape)
    seen[records.state, records.action] = records.counts.sum(1)
    more = policy > records.baseline + 1e-9
    assert (seen[more] >= 10).all()
    assert promised > 0
    assert records.improved(np.inf)[0] == pytest.approx(records.baseline)


def test_a_repetition_repeats_and_nobody_is_treated_by_the_learner_before_the_trial() -> None:
    once, again = (repeat(world(), "cautious", 3, SHORT) for _ in range(2))
    assert once == again
    path = np.array(once["path"])
    assert held(path, np.array([0, 499])) == pytest.approx(world().clinician_value, abs=1e-5)
    assert path[-1, 0] == SHORT.shadow + SHORT.trial


@pytest.mark.slow
def test_a_learner_with_the_wrong_sign_harms_less_behind_the_trial_and_the_picture_shows_every_arm(
    tmp_path: Path,
) -> None:
    arms = {arm: [repeat(world(), arm, 0, SHORT)] for arm in ARMS}
    lowest = {arm: np.array(found[0]["path"])[:, 1].min() for arm, found in arms.items()}
    assert lowest["at once, reward with the wrong sign"] < lowest["cautious, reward with the wrong sign"]
    assert lowest["cautious"] >= world().clinician_value - TOLERANCE
    results = {"arms": json.loads(json.dumps(arms)), "clinician": world().clinician_value}
    draw(results | {"optimal": world().optimal_value}, tmp_path / "survival.png")
    assert (tmp_path / "survival.png").stat().st_size > 10_000
