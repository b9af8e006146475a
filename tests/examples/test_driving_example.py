"""The driving example: its roads are highway-env's, traffic is the same for all drivers, and its short form runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("highway_env", reason="pip install 'segue[driving]'")

from examples.driving.__main__ import main
from examples.driving.drivers import FASTER, STYLES, decide
from examples.driving.journeys import Journey, drive, measures, with_intervals
from examples.driving.judge import RULES, stand_still
from examples.driving.roads import SEEN, SPEEDS, Highway, Merge, Track
from highway_env.envs.highway_env import HighwayEnvFast
from highway_env.envs.merge_env import MergeEnv

LIVE = {"plain", "plain, guarded", "PPO", "auto", "auto, Huber's loss"}


@pytest.mark.parametrize(("ours", "theirs"), [(Highway, HighwayEnvFast), (Merge, MergeEnv)])
def test_vehicles_move_as_in_highway_env_and_the_driver_sees_what_it_shows(ours, theirs):
    seen = {"type": "Kinematics", "vehicles_count": SEEN, "see_behind": True}
    driven = {"type": "DiscreteMetaAction", "target_speeds": SPEEDS}
    config = {
        name: ours.default_config()[name]
        for name in ("duration", "simulation_frequency", "vehicles_count")
        if name in ours.default_config()
    }
    env, own = ours(), theirs({**config, "observation": seen, "action": driven})
    one, other = (road.reset(seed=3)[0] for road in (env, own))
    for action in (1, 3, 0, 4, 2, 1, 3, 3):
        assert one == pytest.approx(other.reshape(-1), abs=1e-6)
        assert [v.position.tolist() for v in env.road.vehicles] == [v.position.tolist() for v in own.road.vehicles]
        one, *_, over, _, info = env.step(action)
        other, *_, _ended, _, _ = own.step(action)
        assert info["crashed"] == own.vehicle.crashed
        if over:
            break


def test_a_seed_is_the_same_traffic_whoever_drives_and_whatever_was_driven_before():
    fresh, used = Track(), Track()
    used.reset(seed=0)
    used.step(3)
    for seed in (5, 6, 7):
        assert np.array_equal(fresh.reset(seed=seed)[0], used.reset(seed=seed)[0])
        assert type(fresh.driven) is type(used.driven)


def test_an_aggressive_driver_is_faster_and_closer_than_a_timid_one():
    found = {}
    for name in ("timid", "aggressive"):
        style, source = STYLES[name]._replace(noise=0.0), np.random.default_rng(0)
        act = lambda seen, roads, style=style, source=source: [decide(road.driven, style, source) for road in roads]  # noqa: E731
        found[name] = measures(np.array(drive(act, range(3)), float))
    assert found["aggressive"]["km/h"] > found["timid"]["km/h"] + 5
    assert found["aggressive"]["time gap < 1 s, %"] > found["timid"]["time gap < 1 s, %"]


def test_careful_driving_earns_more_than_standing_still_and_that_more_than_crashing():
    style, source = STYLES["timid"]._replace(noise=0.0), np.random.default_rng(0)
    drivers = {
        "careful": lambda seen, roads: [decide(road.driven, style, source) for road in roads],
        "still": stand_still,
        "reckless": lambda seen, roads: [FASTER] * len(roads),
    }
    journeys = {name: np.array(drive(act, range(4)), float) for name, act in drivers.items()}
    crashed, values = ({name: found[:, i] for name, found in journeys.items()} for i in (1, 0))
    assert not crashed["careful"].any()
    assert not crashed["still"].any()
    assert values["careful"].min() > values["still"].max() + 5
    assert values["reckless"][crashed["reckless"] == 1].max() < values["still"].min() - 5


def test_measures_are_ratios_of_sums():
    journeys = np.array([Journey(3.0, True, 500.0, 20, 5, 40.0), Journey(5.0, False, 1500.0, 60, 15, 40.0)], float)
    assert measures(journeys) == {
        "return": 4.0,
        "crashes per 100 km": 50.0,
        "km/h": pytest.approx(90.0),
        "time gap < 1 s, %": 25.0,
        "jerk, m/s³": 1.0,
    }


def test_differences_in_the_same_traffic_are_narrower_than_each_drivers_own_interval():
    rng = np.random.default_rng(0)
    traffic = rng.gamma(2.0, 300.0, (1, 40, 1)) * np.array([0.01, 0, 1, 0.05, 0, 0]) + np.array([0, 0, 500, 20, 0, 0])
    one, other = traffic.repeat(2, 0), traffic.repeat(2, 0) + np.array([1.0, 0, 0, 0, 0, 0])
    value, low, high = with_intervals(other, one)["return"]
    assert (value, low, high) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    _, low, high = with_intervals(one)["return"]
    assert high - low > 1


@pytest.mark.slow
def test_the_short_form_runs_and_the_same_command_draws_it_again(tmp_path: Path, capsys):
    for _ in range(2):
        assert main(["--short", "--out", str(tmp_path)]) == 0
        table = capsys.readouterr().out
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found["journeys"]) == {*RULES, "cloned", "best tenth", *LIVE}
    assert set(found["training"]) == LIVE
    assert all(f"| {name} |" in table for name in found["journeys"])
    assert (tmp_path / "driving.png").stat().st_size > 10_000


@pytest.mark.slow
def test_telemetry_is_inspected_cloned_and_judged(tmp_path: Path, capsys):
    rng = np.random.default_rng(0)
    names = (
        "steps speed gap RPM actualGear velocity_x yaw angular_velocity_y current_action_abs_0 actions_0 reward done"
    )
    for lap, rows in enumerate((1, 30, 40, 50)):
        values = rng.uniform(-1, 1, (rows, len(names.split())))
        values[:, 0], values[:, -1] = np.arange(rows), np.arange(rows) == 29 + 10 * (lap - 1)
        lines = [f"{','.join(map(str, row))},{row[-1]}" for row in values]
        (tmp_path / f"lap{lap}.csv").write_text("\n".join([f"{names.replace(' ', ',')},out_of_track", *lines]))
    assert main(["--telemetry", str(tmp_path), "--out", str(tmp_path / "x"), "--short"]) == 0
    said = capsys.readouterr().out
    assert "3 ended in a terminal" in said
    assert "behaviour" in said
