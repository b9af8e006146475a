"""Every measure has the value that its formula gives by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import page, read

from segue.report.measures import (
    area_under_curve,
    cumulative_regret,
    final_return,
    prior_knowledge,
    raw_dip,
    seed_measures,
    share_below,
    steps_to_reach,
    swing,
    time_to_recover,
)
from segue.report.references import D4RL, GYMNASIUM, Reference, reference
from segue.report.summary import Seed, decode

STEPS = [0, 1000, 4000]
RETURNS = [100.0, 40.0, 70.0]


def test_final_is_the_last_evaluation() -> None:
    assert final_return(RETURNS) == 70.0
    assert math.isnan(final_return([]))


def test_area_weighs_evaluations_by_the_steps_between_them() -> None:
    # (1000 · 70 + 3000 · 55) / 4000
    assert area_under_curve(STEPS, RETURNS) == pytest.approx(58.75)


def test_area_of_a_constant_curve_is_the_constant_wherever_it_starts() -> None:
    assert area_under_curve([500, 700, 2500], [7.0, 7.0, 7.0]) == pytest.approx(7.0)


def test_area_needs_two_evaluations() -> None:
    assert math.isnan(area_under_curve([0], [3.0]))


@pytest.mark.parametrize(("level", "step"), [(100.0, 0), (60.0, 0), (-5.0, 0), (100.1, math.inf), (math.nan, math.nan)])
def test_steps_to_reach_is_the_first_evaluation_at_or_above_the_level(level: float, step: float) -> None:
    assert steps_to_reach(STEPS, RETURNS, level) == pytest.approx(step, nan_ok=True)


def test_steps_to_reach_skips_what_is_below() -> None:
    assert steps_to_reach([0, 10, 20, 30], [1.0, 2.0, 5.0, 4.0], 4.0) == 20
    assert math.isnan(steps_to_reach([], [], 1.0))


@pytest.mark.parametrize(("offline", "dip"), [(90.0, 50.0), (10.0, 0.0), (math.nan, math.nan)])
def test_the_raw_dip_is_the_deepest_fall_below_the_offline_score(offline: float, dip: float) -> None:
    assert raw_dip(offline, RETURNS) == pytest.approx(dip, nan_ok=True)


def test_the_share_below_counts_live_evaluations_only() -> None:
    # Of the two after the handover, one is under 60 and both are under 90; step 0 is the handed-over policy itself.
    assert share_below(60.0, STEPS, RETURNS) == 0.5
    assert share_below(90.0, STEPS, RETURNS) == 1.0
    assert share_below(40.0, STEPS, RETURNS) == 0.0
    assert math.isnan(share_below(60.0, [0], [1.0]))
    assert math.isnan(share_below(math.nan, STEPS, RETURNS))


@pytest.mark.parametrize(
    ("offline", "returns", "step"),
    [
        (100.0, [100.0, 40.0, 120.0, 30.0, 100.0], 40),  # back after the first fall, but the deepest comes later
        (100.0, [100.0, 40.0, 120.0, 90.0, 95.0], 20),
        (100.0, [100.0, 40.0, 60.0, 80.0, 99.0], math.inf),
        (100.0, [100.0, 100.0, 110.0, 120.0, 100.0], 0),
        (math.nan, [100.0, 40.0, 120.0, 90.0, 95.0], math.nan),
    ],
)
def test_recovery_is_the_first_evaluation_after_the_lowest_at_the_offline_score(
    offline: float, returns: list[float], step: float
) -> None:
    assert time_to_recover(offline, [0, 10, 20, 30, 40], returns) == pytest.approx(step, nan_ok=True)


def test_regret_is_one_less_the_mean_success_of_the_live_evaluations() -> None:
    # 1 − (0.2 + 0.6) / 2; the score at the handover does not count.
    assert cumulative_regret([0, 10, 20], [90.0, 20.0, 60.0]) == pytest.approx(0.6)
    assert cumulative_regret([0, 10], [0.0, 130.0]) == pytest.approx(-0.3)
    assert math.isnan(cumulative_regret([0], [90.0]))


@pytest.mark.parametrize(
    ("offline", "log", "prior"),
    [(50.0, 80.0, 80.0), (90.0, 80.0, 90.0), (math.nan, 80.0, 80.0), (50.0, math.nan, math.nan)],
)
def test_prior_knowledge_is_the_better_of_policy_and_dataset(offline: float, log: float, prior: float) -> None:
    assert prior_knowledge(offline, log) == pytest.approx(prior, nan_ok=True)


# References


@pytest.mark.parametrize(
    ("env", "low", "high", "source"),
    [
        ("Hopper-v4", -20.272305, 3234.3, D4RL),
        ("hopper-medium-replay-v2", -20.272305, 3234.3, D4RL),
        ("antmaze-umaze-diverse-v2", 0.0, 1.0, D4RL),
        ("door-human-v1", -56.512833, 2880.5693087298737, D4RL),
        ("maze2d-umaze-v1", 23.85, 161.86, D4RL),
        ("Hopper-v5", 17.6, 3800.0, GYMNASIUM),
    ],
)
def test_every_family_has_its_own_convention(env: str, low: float, high: float, source: str) -> None:
    assert reference(env) == Reference(source, low, high)


@pytest.mark.parametrize(
    "env", ["Walker2d-v5", "AdroitHandDoor-v1", "maze2d-umaze-v2", "Hopper-v50", "xHopper-v4", None]
)
def test_where_no_convention_holds_none_is_borrowed(env: str | None) -> None:
    assert reference(env) is None


def test_scores_run_from_0_to_100_between_the_two_returns() -> None:
    convention = reference("hopper-medium-v2")
    assert convention is not None
    assert convention.scores(np.array([-20.272305, 3234.3, 1607.0138475])) == pytest.approx([0.0, 100.0, 50.0])


@pytest.mark.parametrize("env_id", ["Hopper-v5", "CartPole-v1", "InvertedPendulum-v5"])
def test_our_lower_references_are_what_random_actions_earn(env_id: str) -> None:
    import gymnasium as gym

    env = gym.make(env_id)
    env.action_space.seed(1)
    returns = []
    for seed in range(1000, 1150):
        env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    env.close()
    convention = reference(env_id)
    assert convention is not None
    error = np.std(returns, ddof=1) / math.sqrt(len(returns))
    assert abs(np.mean(returns) - convention.low) < 4 * error
    assert convention.high == gym.spec(env_id).reward_threshold


# Whole seeds


def recorded(plain: Mapping[str, Any], episodes: int = 1) -> Seed:
    """What this record says, with so many equal episodes behind every evaluation: no noise."""
    for evaluation in plain.get("online_evaluations", ()):
        evaluation["returns"] = [evaluation["mean_return"]] * episodes
    return decode({"arms": {"x": {"seeds": {"0": plain}}}}).arms["x"].seeds["0"]


def test_all_measures_of_a_seed_without_noise(seed: Any) -> None:
    record = recorded(seed({0: 100.0, 1000: 40.0, 2000: 70.0, 3000: 160.0}, 100.0) | {"training_return": 75.0}, 3)
    assert seed_measures(record, Reference("test", 0.0, 200.0), dataset_return=120.0) == pytest.approx(
        {
            "offline score": 100.0,
            "final": 160.0,
            "area": 80.0,  # (70 + 55 + 115) / 3
            "normalised": 80.0,
            "regret": 0.55,  # 1 − (0.2 + 0.35 + 0.8) / 3
            "cost": math.nan,  # not recorded
            "within limit": math.nan,
            "dip": 60.0,
            "raw dip": 60.0,
            "swing": math.sqrt((45**2 + 30**2) / 2),  # 40 − 85, 70 − 100
            "live": 75.0,
            "share below": 2 / 3,
            "recovery": 3000.0,
            "stability": -80.0,  # 40 − max(100, 120)
            "plasticity": 40.0,  # 160 − 120
        },
        nan_ok=True,
    )


def test_without_a_convention_or_a_dataset_nothing_is_made_up(seed: Any) -> None:
    measures = seed_measures(recorded(seed({0: 100.0, 1000: 40.0}, 100.0), 3))
    absent = {name for name, value in measures.items() if math.isnan(value)}
    assert absent == {"normalised", "regret", "cost", "within limit", "live", "stability", "plasticity", "swing"}


def test_one_episode_per_evaluation_gives_a_raw_dip_only(seed: Any) -> None:
    measures = seed_measures(recorded(seed({0: 100.0, 1000: 40.0}, 100.0)), dataset_return=0.0)
    assert measures["raw dip"] == 60.0
    assert all(math.isnan(measures[name]) for name in ("dip", "stability", "plasticity"))


def test_an_arm_that_replays_the_dataset_only_is_compared_with_the_dataset(seed: Any) -> None:
    measures = seed_measures(recorded(seed({0: 5.0, 1000: 40.0, 2000: 90.0}), 3), dataset_return=60.0)
    assert (measures["stability"], measures["plasticity"]) == (-20.0, 30.0)
    assert math.isnan(measures["dip"])


def test_swing_is_zero_on_average_where_only_noise_moves_the_evaluations() -> None:
    source = np.random.default_rng(0)
    found = np.array([swing(range(20), list(source.normal(size=(20, 10)))) for _ in range(400)])
    squares = found * abs(found)
    assert abs(squares.mean()) < 4 * squares.std() / 20 < 0.15 / 4  # 0.15: the variance by noise of what is squared


@pytest.mark.parametrize("steps", [[0, 1, 2, 3, 4], [0, 500, 1000, 3000, 4000]])
def test_a_steady_climb_does_not_swing(steps: list[int]) -> None:
    assert swing(steps, [np.full(3, 10.0 * step) for step in steps]) == pytest.approx(0, abs=1e-3)


def test_a_seed_without_evaluations_has_no_measures() -> None:
    assert all(math.isnan(value) for value in seed_measures(Seed()).values())


def test_a_seed_that_ends_with_its_offline_phase_has_no_dip_and_nothing_to_recover_from(seed: Any) -> None:
    measures = seed_measures(recorded(seed({}, 100.0, {500: 100.0})))
    assert measures["final"] == 100.0
    assert all(math.isnan(measures[name]) for name in ("dip", "raw dip", "recovery", "share below", "area"))


@given(
    st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=12),
    st.floats(-1e4, 1e4),
    st.floats(0.1, 100.0),
)
def test_measures_move_with_the_scale_of_returns(returns: list[float], shift: float, factor: float) -> None:
    """Times and shares do not depend on the unit of returns; falls scale with it and do not feel a shift."""
    values = np.round(returns, 3)
    moved = factor * values + shift
    steps = np.arange(len(returns)) * 10.0
    if np.unique(values).size != np.unique(moved).size:
        return  # rounding has made two values equal
    assert share_below(moved[0], steps, moved) == share_below(values[0], steps, values)
    assert time_to_recover(moved[0], steps, moved) == time_to_recover(values[0], steps, values)
    assert raw_dip(moved[0], moved) == pytest.approx(factor * raw_dip(values[0], values), rel=1e-6, abs=1e-6)
    assert area_under_curve(steps, moved) == pytest.approx(
        factor * area_under_curve(steps, values) + shift, rel=1e-6, abs=1e-6
    )


@pytest.mark.parametrize(("limit", "known"), [(None, True), (500, True), (100, False)])
def test_another_time_limit_than_the_registered_one_is_another_task_without_a_reference(arm, seed, limit, known):
    one = arm([seed({0: 10.0, 100: 35.0}, 10.0)], env="CartPole-v1", max_episode_steps=limit)
    assert (read({"arms": {"a": one}}).arms["a"].reference is not None) == known


def test_the_returns_that_a_recipe_names_are_its_reference(arm, seed):
    own = {"reference": [10, 60], "env": "Own-v0"}
    summary = read({"arms": {"a": arm([seed({0: 10.0, 100: 35.0}, 10.0)], **own)}})
    assert summary.arms["a"].reference.scores(np.array([35.0])).tolist() == [50.0]
    assert "Reference of normalised scores: given in the recipe (0 is 10, 100 is 60)." in page(summary)
