"""`inspect` counts right, finds each problem it knows and no other, and draws a picture."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from made_logs import as_dict, episodes, make_episodes
from rich.console import Console

from segue.cli.main import main
from segue.data import bundled, load
from segue.data.inspection import inspect, plot
from segue.data.problems import (
    CHECKS,
    amounts_as_ids,
    constant_observations,
    constant_rewards,
    cut_short,
    duplicate_episodes,
    idle_actions,
    ids_as_floats,
    late_rewards,
    narrow_actions,
    no_terminals,
    outlying_observations,
    problems,
    reward_scale,
    saturated_actions,
    short_dataset,
    terminals_at_the_limit,
)
from segue.errors import DataError

RNG = np.random.default_rng(0)
HEALTHY = as_dict(make_episodes([(int(n), bool(n % 3)) for n in RNG.integers(20, 400, size=60)]))


def healthy(**changes):
    return {name: value.copy() for name, value in (HEALTHY | changes).items()}


def constant_column(name, column, value=0.5):
    array = HEALTHY[name].copy()
    array[:, column] = value
    return array


def with_outlier():
    array = HEALTHY["observations"].copy()
    array[123, 1] = 1e3
    return array


def twice():
    return {name: np.concatenate([value, value]) for name, value in HEALTHY.items()}


def limited(length):
    return as_dict(make_episodes([(length, True)] * 8 + [(5, True)] * 60))


SICK = {
    short_dataset: as_dict(make_episodes([(30, True)])),
    duplicate_episodes: twice(),
    constant_rewards: healthy(rewards=np.zeros_like(HEALTHY["rewards"])),
    reward_scale: healthy(rewards=1e4 * HEALTHY["rewards"]),
    no_terminals: healthy(
        terminals=np.zeros_like(HEALTHY["terminals"]), timeouts=HEALTHY["terminals"] | HEALTHY["timeouts"]
    ),
    terminals_at_the_limit: limited(200),
    late_rewards: healthy(rewards=np.roll((HEALTHY["actions"] ** 2).sum(1), 1)),
    constant_observations: healthy(observations=constant_column("observations", 2)),
    outlying_observations: healthy(observations=with_outlier()),
    idle_actions: healthy(actions=constant_column("actions", 1)),
    ids_as_floats: healthy(actions=(HEALTHY["rewards"] > 0)[:, None] * 1.0),
    amounts_as_ids: healthy(actions=(1e4 * np.abs(HEALTHY["rewards"])).astype(int) % 300),
    narrow_actions: healthy(actions=0.01 * HEALTHY["actions"]),
    saturated_actions: healthy(
        actions=constant_column("actions", 0, 1.0) * np.where(HEALTHY["rewards"] > 0, 1, -1)[:, None]
    ),
}


def test_every_check_has_a_sick_dataset_here():
    assert set(SICK) == set(CHECKS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_check_finds_its_problem_and_a_healthy_dataset_has_none(check):
    found = check(load(SICK[check]))
    assert found is not None
    assert found.found
    assert found.meaning
    assert found.advice
    assert check(load(HEALTHY)) is None


def test_a_problem_names_the_dimension_and_the_row():
    assert "never changing: 2" in constant_observations(load(SICK[constant_observations])).found
    assert "dimension 1, is" in outlying_observations(load(SICK[outlying_observations])).found
    assert "at row 123 (1000)" in outlying_observations(load(SICK[outlying_observations])).found
    assert "never varying: 1" in idle_actions(load(SICK[idle_actions])).found
    assert "60 episodes repeated exactly (first: episode 60 is episode 0)" in duplicate_episodes(load(twice())).found


def test_small_rewards_are_told_from_large_ones():
    assert "large" in reward_scale(load(SICK[reward_scale])).found
    assert "small" in reward_scale(load(healthy(rewards=1e-5 * HEALTHY["rewards"]))).found
    sparse = np.zeros_like(HEALTHY["rewards"])
    sparse[::500] = 1
    assert reward_scale(load(healthy(rewards=sparse))) is None


@pytest.mark.parametrize("log", [f"segue:{name}" for name in bundled()])
def test_bundled_datasets_are_sick_of_nothing_but_what_they_are(log):
    assert {problem.found.split(":")[0] for problem in problems(load(log))} <= {
        "every reward is 0",
        "1 action dimension at a bound in 20% of the steps or more",
    }
    assert load(log).notes == ()


@pytest.mark.parametrize(
    "rewards",
    [
        lambda first: np.where(first, 1.0, 0.0),  # paid at the end, recorded with the next episode
        lambda first: np.where(first, 0.0, HEALTHY["rewards"]),
    ],
    ids=["paid at starts only", "never paid at starts"],
)
def test_rewards_in_the_first_rows_of_episodes_give_away_that_they_are_late(rewards):
    first = np.roll(HEALTHY["terminals"] | HEALTHY["timeouts"], 1)
    assert "first row of" in late_rewards(load(healthy(rewards=rewards(first)))).found


@pytest.mark.parametrize("reward", ["observations", "actions", "next_observations"])
def test_rewards_of_the_same_step_are_not_late(reward):
    assert late_rewards(load(healthy(rewards=(HEALTHY[reward] ** 2).sum(1)))) is None


def test_two_episodes_that_end_a_terminal_at_one_length_are_enough():
    assert "the length of every episode" in terminals_at_the_limit(load(equal(2))).found
    at_limit = equal(1, 200) | {"env_id": "Pendulum-v1"}
    assert "the time limit of Pendulum-v1" in terminals_at_the_limit(load(at_limit)).found
    assert terminals_at_the_limit(load(equal(1, 200))) is None


def equal(count, length=30):
    return as_dict(make_episodes([(length, True)] * count))


def test_one_step_episodes_that_repeat_are_not_copies():
    bandit = as_dict(make_episodes([(1, True)] * 300))
    assert duplicate_episodes(load({name: np.concatenate([value, value]) for name, value in bandit.items()})) is None


def test_a_dataset_without_rewards_is_inspected_and_drawn(tmp_path):
    log = {name: value for name, value in HEALTHY.items() if name != "rewards"}
    inspection = inspect(load(log))
    assert inspection.returns is None
    assert json.loads(json.dumps(inspection.to_dict(), allow_nan=False))["rewards"] is None
    Console(file=io.StringIO()).print(inspection)
    plot(load(log), tmp_path / "log.png")
    assert (tmp_path / "log.png").stat().st_size > 0


def test_discrete_actions_never_taken_are_a_problem():
    actions = np.where(HEALTHY["rewards"] > 0, 0, 2)
    found = idle_actions(load(healthy(actions=actions, discrete_actions=np.array(3))))
    assert "1 action of 3 never taken: 1" in found.found
    found = idle_actions(load(healthy(actions=actions, discrete_actions=np.array(2_000))))
    assert "1,998 actions of 2,000 never taken: 1, 3, 4, 5, 6, 7, 8, 9 and 1,990 more" in found.found


@given(episodes())
def test_the_numbers_are_those_of_the_dataset(made):
    inspection = inspect(load(as_dict(made)))
    assert inspection.transitions == sum(len(e.rewards) for e in made)
    assert inspection.episodes == len(made) == inspection.terminals + inspection.timeouts
    assert inspection.terminals == sum(e.terminal for e in made)
    returns = [float(e.rewards.sum(dtype=np.float64)) for e in made]
    assert inspection.returns.minimum == pytest.approx(min(returns))
    assert inspection.returns.median == pytest.approx(np.median(returns))
    assert inspection.returns.mean == pytest.approx(np.mean(returns))
    assert inspection.lengths.maximum == max(len(e.rewards) for e in made)
    assert len(inspection.observations) == made[0].observations.shape[1]
    assert inspection.actions[1].maximum == pytest.approx(max(e.actions[:, 1].max() for e in made))


def test_the_share_at_the_bounds_counts_steps_within_a_hundredth():
    log = as_dict(make_episodes([(4, True)], action_size=1))
    log["actions"] = np.array([[1.0], [-0.995], [0.98], [0.0]])
    assert inspect(load(log)).actions[0].at_bounds == 0.5


def discrete_log():
    log = as_dict(make_episodes([(20, True), (30, False)]))
    return log | {"actions": np.arange(50) % 3}


@pytest.mark.parametrize("log", [HEALTHY, discrete_log(), SICK[short_dataset]], ids=["continuous", "discrete", "short"])
def test_an_inspection_goes_into_json_and_onto_a_terminal(log):
    inspection = inspect(load(log))
    assert json.loads(json.dumps(inspection.to_dict()))["transitions"] == len(log["rewards"])
    console = Console(width=100, file=io.StringIO())
    console.print(inspection)
    words = console.file.getvalue()
    assert f"{len(log['rewards']):,} transitions" in words
    for problem in problems(load(log)):
        assert problem.found in words


def test_of_many_actions_the_most_and_the_least_often_allowed_are_shown() -> None:
    log = discrete_log()
    masks = np.ones((len(log["rewards"]), 2000))
    masks[1:, 1234] = 0
    inspection = inspect(load(log | {"allowed_actions": masks}))
    console = Console(width=100, file=io.StringIO())
    console.print(inspection)
    lines = console.file.getvalue().splitlines()
    assert len(lines) < 60
    assert ["1234", "0.0%", "2.0%"] in map(str.split, lines)
    assert any("1,980 between them" in line for line in lines)
    assert "allowed actions: 1,999.02 of 2,000 on average" in " ".join(lines)


def test_how_many_actions_are_allowed_on_average_is_said() -> None:
    masks = np.eye(3)[np.arange(50) % 3]  # the logged action
    masks[:25, 0] = 1
    inspection = inspect(load(discrete_log() | {"allowed_actions": masks}))
    assert inspection.allowed_shares == pytest.approx(masks.mean(0))
    console = Console(width=100, file=io.StringIO())
    console.print(inspection)
    words = " ".join(console.file.getvalue().split())
    assert (
        f"allowed actions: {masks.sum(1).mean():.2f} of 3 on average, at least 1; "
        f"{(masks.sum(1) == 1).mean():.1%} of steps allowed only one; every logged action was allowed"
    ) in words
    assert inspect(load(discrete_log())).allowed_shares == ()


@pytest.mark.parametrize(
    "log", [HEALTHY, discrete_log(), SICK[constant_rewards]], ids=["continuous", "discrete", "flat"]
)
def test_a_plot_is_one_png_of_readable_size(tmp_path, log):
    import matplotlib.image

    plot(load(log), tmp_path / "new/log.png")
    pixels = matplotlib.image.imread(tmp_path / "new/log.png")
    assert pixels.shape[:2] == (960, 1440)
    assert pixels.std() > 0.05


def test_a_plot_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        plot(load(HEALTHY), tmp_path / "file/log.png")


def test_actions_of_a_narrow_range_are_found_beside_rare_large_ones() -> None:
    actions = np.random.default_rng(0).uniform(-0.9, -0.87, size=HEALTHY["actions"].shape)
    actions[:20] = 1
    found = narrow_actions(load(healthy(actions=actions)))
    assert found is not None
    assert "in 98% of the steps: 0, 1" in found.found


def test_advice_on_actions_that_never_vary_asks_for_other_ones() -> None:
    found = idle_actions(load(healthy(actions=np.full_like(HEALTHY["actions"], 0.5))))
    assert found is not None
    assert "check that the column of actions is the right one" in found.advice


def test_actions_outside_their_bounds_are_shown_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.savez(tmp_path / "log.npz", **healthy(actions=2 * HEALTHY["actions"]))
    assert main(["inspect", str(tmp_path / "log.npz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "actions outside their bounds" in found["problems"][0]["found"]
    assert any(": clipped" in note for note in found["notes"])
    with pytest.raises(DataError, match="outside"):
        load(tmp_path / "log.npz")


def test_episodes_that_outlast_the_live_time_limit_are_told_with_what_they_earn_until_then():
    lengths = (30, 10, 50)
    log = make_episodes([(length, False) for length in lengths])
    dataset = load(as_dict(log) | {"rewards": np.ones(90, np.float32)})
    found = cut_short(dataset, 20)
    assert found is not None
    assert found.found.startswith("2 episodes of 3 longer than the 20 steps")
    assert "earns 16.67 in that time, and 30 in all" in found.meaning  # (20 + 10 + 20) / 3
    assert "--max-episode-steps 50" in found.advice


def test_without_rewards_only_the_lengths_are_told():
    log = {name: value for name, value in as_dict(make_episodes([(50, False)])).items() if name != "rewards"}
    found = cut_short(load(log), 20)
    assert found is not None
    assert found.meaning == "what they show after that step cannot be reached live"


def test_rewards_that_are_the_same_at_every_step_are_a_task_where_episodes_end_early():
    lasting = as_dict(make_episodes([(30, True), (50, False)]))
    lasting["rewards"][:] = 1.0
    assert constant_rewards(load(lasting)) is None
    lasting["rewards"][:] = 0.0
    assert constant_rewards(load(lasting)) is not None


@pytest.mark.parametrize("limit", [None, 50, 48], ids=["no limit", "the longest episode", "two of 90 steps are late"])
def test_a_live_time_limit_that_hardly_cuts_is_no_problem(limit):
    assert cut_short(load(as_dict(make_episodes([(n, False) for n in (30, 10, 50)]))), limit) is None
