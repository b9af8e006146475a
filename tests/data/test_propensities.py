"""The optional column of logged propensities: validated, rescaled, written and read back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_logs import as_columns, as_dict, make_episodes

from segue.data import Columns, load, npz
from segue.errors import DataError


def discrete(log_prob: np.ndarray) -> dict[str, np.ndarray]:
    log = as_dict(make_episodes([(3, True), (2, False)]))
    return {**log, "actions": np.array([0, 1, 2, 1, 0]), "behaviour_log_prob": log_prob}


def test_a_dataset_without_propensities_has_none() -> None:
    assert load(as_dict(make_episodes([(3, True)]))).behaviour_log_prob is None


def test_probabilities_of_discrete_actions_are_kept() -> None:
    log_prob = np.log([0.5, 1.0, 0.25, 1e-9, 0.125])
    np.testing.assert_allclose(load(discrete(log_prob)).behaviour_log_prob, log_prob, rtol=1e-6)


@pytest.mark.parametrize(
    ("log_prob", "expected"),
    [
        (
            np.array([0.5, 0, 0, 0, 0]),
            r"'behaviour_log_prob' is 0.5 at row 0 \(1 such values\); expected the logarithm",
        ),
        (np.array([-1, -1, -np.inf, -1, -1]), "'behaviour_log_prob' is -inf at row 2"),
        (np.array([-1, np.nan, -1, -1, -1]), "'behaviour_log_prob' is nan at row 1"),
        (np.array([-1.0, -1]), "'behaviour_log_prob' has 2 rows, 'rewards' has 5"),
        (-np.ones((5, 2)), r"has shape \(5, 2\); expected one number per step"),
        (np.array(["a"] * 5), "'behaviour_log_prob' holds <U1; expected numbers"),
    ],
)
def test_what_is_no_logarithm_of_a_probability_is_refused(log_prob: np.ndarray, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        load(discrete(log_prob))


def test_a_rounding_error_above_zero_is_a_probability_of_one() -> None:
    assert load(discrete(np.full(5, 1e-7))).behaviour_log_prob.tolist() == [0] * 5


@given(low=st.floats(-5, 0), width=st.floats(0.1, 10))
def test_a_density_is_rescaled_with_its_actions(low: float, width: float) -> None:
    log = as_dict(make_episodes([(4, True)], action_size=2))
    bounds = np.array([low, -1]), np.array([low + width, 1])
    actions = low + (log["actions"][:, :1] + 1) / 2 * width
    # Uniform over the bounds: density 1 / (width · 2) as logged, and 1/4 over [-1, 1]².
    uniform = np.full(4, -np.log(width * 2))
    named = {**log, "actions": np.hstack([actions, log["actions"][:, 1:]]), "behaviour_log_prob": uniform}
    dataset = load({**named, "action_low": bounds[0], "action_high": bounds[1]}, clip_actions=False)
    np.testing.assert_allclose(dataset.behaviour_log_prob, -np.log(4), atol=1e-5)


def test_a_clipped_action_has_no_density() -> None:
    log = as_dict(make_episodes([(4, True)]))
    log["actions"][2, 0] = 3
    assert load(log, clip_actions=True).notes
    with pytest.raises(DataError, match="a clipped action has no density"):
        load({**log, "behaviour_log_prob": np.zeros(4)}, clip_actions=True)


def test_they_are_written_and_read_back_and_are_part_of_the_fingerprint(tmp_path) -> None:
    made = make_episodes([(3, True), (2, False)])
    log_prob = np.linspace(-2, 2, 5).astype(np.float32)
    columns = dataclasses.replace(as_columns(made), behaviour_log_prob=log_prob)
    npz.write(tmp_path / "log.npz", columns)
    back = load(f"npz:{tmp_path / 'log.npz'}")
    assert back.behaviour_log_prob.tolist() == log_prob.tolist()
    assert npz.read(str(tmp_path / "log.npz")).behaviour_log_prob.dtype == np.float32
    without = dataclasses.replace(back, behaviour_log_prob=None)
    assert without.fingerprint() == load(as_dict(made)).fingerprint() != back.fingerprint()
    named = {name: value for name, value in vars(back.columns()).items() if isinstance(value, np.ndarray)}
    assert load(named).behaviour_log_prob is not None


def test_rows_that_are_left_out_take_theirs_along() -> None:
    log = as_dict(make_episodes([(3, True), (3, False), (2, True)]), next_observations=False)
    dataset = Columns(**log, behaviour_log_prob=np.arange(8.0))
    from segue.data import Dataset

    kept = Dataset.from_columns(dataset, "log")
    assert kept.behaviour_log_prob.tolist() == [0, 1, 2, 3, 4, 6, 7]
    best = kept.best_episodes(0.4)
    assert best.behaviour_log_prob.tolist() in ([0, 1, 2], [3, 4], [6, 7])
