"""Alarms without a candidate: the world, a sensor or the reward is no longer what it was."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies.live_promotion.world import LIVE, World

from segue.evidence import LUCKY
from segue.live.database import Unavailable
from segue.live.monitor import REFERENCE, Monitor, reference_begins, tolerated
from segue.live.policies import latest_deployment
from segue.live.promotion import ITSELF, Promoter, change, resume
from segue.live.schema import CursorRow, DecisionRow, EpisodeRow, OutcomeRow
from segue.live.trial import READER, declare, read_rules
from segue.live.values import Refused
from segue.seen import Observed

DRAW = np.random.default_rng(0)


def arrive(
    world: World,
    observations: np.ndarray,
    returns: np.ndarray,
    arm: str = "live",
    unit: str | None = None,
    cost: float | None = None,
) -> None:
    """Episodes of one step, or of as many as there are rows; and a review when their windows have closed."""
    rows = []
    for seen, earned in zip(observations, returns, strict=True):
        world.now += 1
        name = f"u{next(world.units)}"
        rows.append(EpisodeRow(world.now, name, unit or name, arm, LIVE, 1.0, 1))
        for t, one in enumerate(np.atleast_2d(seen).astype(np.float32)):
            decision = name if t == 0 else f"{name}-{t}"
            rows.append(DecisionRow(world.now, decision, name, t, one.tobytes(), None, b"", 0.0, LIVE, "live", None))
        rows.append(OutcomeRow(world.now, name, name, float(earned), cost, None, 1, 0))
    world.now += 100
    world.database.append([*rows, CursorRow(world.now, READER, 0, "")])
    world.promoter.review()


def mode(world: World) -> str:
    now = latest_deployment(world.database)
    assert now is not None
    return now.mode


def alarms(world: World) -> list[str]:
    rows = world.database.read("SELECT detail FROM audit WHERE what = 'alarm' ORDER BY seq")
    return [json.loads(detail)["changed"] for (detail,) in rows]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The reference and 1,000 more episodes are in the log, and nothing has changed."""
    made = World(tmp_path / "live.db", window=20.0)
    arrive(made, DRAW.normal(size=(REFERENCE + 1000, 3)), DRAW.normal(size=REFERENCE + 1000))
    assert mode(made) == "live"
    return made


def test_a_sensor_with_another_unit_freezes_the_service(world: World) -> None:
    arrive(world, DRAW.normal(size=(200, 3)) * [1, 2.54, 1], DRAW.normal(size=200))
    assert mode(world) == "frozen"
    [(why,)] = world.database.read("SELECT why FROM deployments ORDER BY seq DESC LIMIT 1")
    assert "number 1" in why


def test_a_reward_with_the_wrong_sign_freezes_the_service(tmp_path: Path) -> None:
    world = World(tmp_path / "live.db", window=20.0)
    arrive(world, DRAW.normal(size=(REFERENCE, 3)), 1 + DRAW.normal(size=REFERENCE))
    arrive(world, DRAW.normal(size=(60, 3)), -1 - DRAW.normal(size=60))
    assert (mode(world), alarms(world)) == ("frozen", ["returns"])


def late(units: int, unit_of_progress: float = 1.0) -> np.ndarray:
    """Episodes of four steps: noise, and how far they are, which is 0 at first."""
    steps = np.broadcast_to(unit_of_progress * np.arange(4) / 4, (units, 4))
    return np.dstack([DRAW.normal(size=(units, 4)), steps])


TRAINED = {"observed": {"low": [-4.0, 0.0], "high": [4.0, 0.75], "episodes": 2_000}}


def test_what_the_policy_was_not_trained_on_freezes_the_service_from_the_first_units_on(tmp_path: Path) -> None:
    world = World(tmp_path / "live.db", TRAINED)
    arrive(world, late(40, 2.54), np.zeros(40))
    assert (mode(world), alarms(world)) == ("frozen", ["training"])
    [(why,)] = world.database.read("SELECT why FROM deployments ORDER BY seq DESC LIMIT 1")
    assert "number 1 (counted from 0, flattened): 1.905, and 0 to 0.75 in training" in why
    resume(world.database, "me")
    arrive(world, late(100, 2.54), np.zeros(100))
    assert (mode(world), alarms(world)) == ("live", ["training"])


def test_a_first_observation_that_the_policy_was_not_trained_on_does_so_within_five_units(tmp_path: Path) -> None:
    world, seen = World(tmp_path / "live.db", TRAINED), late(5)
    seen[:, 0, 0] = 9.0
    arrive(world, seen, np.zeros(5))
    assert (mode(world), alarms(world)) == ("frozen", ["training"])


def test_units_that_are_over_count_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.live.monitor.OPEN", 5)
    world = World(tmp_path / "live.db", TRAINED)
    arrive(world, late(100), np.zeros(100))
    arrive(world, late(60, 2.54), np.zeros(60))
    assert (mode(world), alarms(world)) == ("frozen", ["training"])


def test_a_policy_that_leads_many_units_to_states_that_training_has_not_reached_goes_on(tmp_path: Path) -> None:
    world, seen = World(tmp_path / "live.db", TRAINED), late(1000)
    seen[::20, 2:, 1] = 2.0
    arrive(world, seen, np.zeros(1000))
    assert (mode(world), alarms(world)) == ("live", [])


def test_a_few_strange_units_a_candidates_units_and_what_never_changed_in_training_are_no_alarm(tmp_path: Path) -> None:
    observed = {"low": [-4.0, 0.0, 1.0], "high": [4.0, 0.75, 1.0], "episodes": 2_000}
    world = World(tmp_path / "live.db", {"observed": observed})
    seen = np.dstack([late(1000), np.full((1000, 4), 7.0)])
    seen[::200, 3, 1] = 9.0
    arrive(world, seen, np.zeros(1000))
    arrive(world, np.dstack([late(100, 9.0), np.full((100, 4), 7.0)]), np.zeros(100), arm="candidate")
    assert (mode(world), alarms(world)) == ("live", [])


@pytest.mark.parametrize("episodes", [10, 30, 100])
def test_a_range_of_few_episodes_does_not_freeze_healthy_traffic(tmp_path: Path, episodes: int) -> None:
    draw = np.random.default_rng(episodes)
    for repeat in range(10):
        training, traffic = draw.normal(size=(episodes, 4)), draw.normal(size=(600, 1, 4))
        world = World(tmp_path / f"{repeat}.db", {"observed": Observed.of(training, episodes).plain()})
        arrive(world, traffic, np.zeros(600))
        assert (mode(world), alarms(world)) == ("live", [])


@pytest.mark.parametrize("episodes", [10, 30, 100])
def test_a_range_of_few_episodes_finds_a_sensor_with_quite_another_unit(tmp_path: Path, episodes: int) -> None:
    training = np.random.default_rng(episodes).normal(size=(episodes, 2))
    world = World(tmp_path / "live.db", {"observed": Observed.of(training, episodes).plain()})
    arrive(world, DRAW.normal(size=(100, 1, 2)) * [1, 100], np.zeros(100))
    assert (mode(world), alarms(world)) == ("frozen", ["training"])


def test_one_episode_says_nothing_about_the_next() -> None:
    assert [tolerated(episodes, 0.25, 1) for episodes in (0, 1)] == [1, 1]


@pytest.mark.parametrize("name", ["normal", "uniform", "exponential"])
def test_a_range_of_n_episodes_is_left_as_often_as_tolerated_in_few_datasets_only(name: str) -> None:
    draw, episodes, margin = np.random.default_rng(0), 10, 0.25
    sample = getattr(draw, name)(size=(4_000, episodes))
    low, high = sample.min(1), sample.max(1)
    beyond, further = margin * (high - low), np.sort(getattr(draw, name)(size=20_000))
    left = np.searchsorted(further, low - beyond) + len(further) - np.searchsorted(further, high + beyond)
    assert (left / len(further) > tolerated(episodes, margin, 1)).mean() <= LUCKY
    assert (left / len(further) > tolerated(episodes, 4 * margin, 1)).mean() > 0, "it is no empty promise"


def test_a_rise_is_no_alarm_and_nor_is_a_bad_candidate(world: World) -> None:
    arrive(world, DRAW.normal(size=(500, 3)), 2 + DRAW.normal(size=500))
    arrive(world, DRAW.normal(size=(500, 3)), DRAW.normal(size=500) - 5, arm="candidate")
    assert (mode(world), alarms(world)) == ("live", [])


def test_a_unit_that_comes_back_counts_once(world: World) -> None:
    arrive(world, np.full((500, 3), 2.0), np.full(500, -2.0), unit="the same")
    assert (mode(world), alarms(world)) == ("live", [])


def test_an_alarm_is_raised_once_and_what_is_resumed_is_taken_as_normal(world: World) -> None:
    for _ in range(3):
        arrive(world, DRAW.normal(size=(100, 3)) + 2, DRAW.normal(size=100))
    assert alarms(world) == ["observations"]
    resume(world.database, "me")
    arrive(world, DRAW.normal(size=(REFERENCE + 300, 3)) + 2, DRAW.normal(size=REFERENCE + 300))
    assert (mode(world), alarms(world)) == ("live", ["observations"])


@pytest.mark.parametrize(
    "interrupted", [Refused(409, "changed", "somebody else has just changed"), Unavailable("gone")]
)
def test_an_alarm_whose_freeze_was_interrupted_freezes_at_the_next_review(
    world: World, interrupted: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any, **to: Any) -> Any:
        raise interrupted

    monkeypatch.setattr("segue.live.promotion.change", fails)
    with contextlib.suppress(Unavailable):
        arrive(world, DRAW.normal(size=(100, 3)) + 2, DRAW.normal(size=100))
    assert (mode(world), alarms(world)) == ("live", ["observations"])
    monkeypatch.undo()
    world.promoter.review()
    assert (mode(world), alarms(world)) == ("frozen", ["observations"])


def test_where_the_application_acts_an_alarm_is_noted_and_nobody_is_stopped(world: World) -> None:
    now = latest_deployment(world.database)
    assert now is not None
    change(world.database, now, "me", "apprentice", "", mode="apprentice")
    for _ in range(2):  # it goes on, and is one alarm
        arrive(world, DRAW.normal(size=(100, 3)) + 2, DRAW.normal(size=100), arm="application")
        assert (mode(world), alarms(world)) == ("apprentice", ["observations"])


def to(world: World, mode: str, who: str = "me") -> None:
    now = latest_deployment(world.database)
    assert now is not None
    change(world.database, now, who, mode, "", mode=mode)


def test_who_lets_a_policy_act_after_an_alarm_is_not_overruled_by_it_when_the_service_starts_anew(world: World) -> None:
    to(world, "apprentice")
    arrive(world, DRAW.normal(size=(100, 3)) + 2, DRAW.normal(size=100), arm="application")
    to(world, "live")
    Promoter(world.database).review()
    assert (mode(world), alarms(world)) == ("live", ["observations"])


def test_a_step_of_the_service_itself_does_not_overrule_an_alarm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, contextlib.suppress(Unavailable):
        patch.setattr("segue.live.promotion.change", lambda *given, **to: (_ for _ in ()).throw(Unavailable("gone")))
        arrive(world, DRAW.normal(size=(100, 3)) + 2, DRAW.normal(size=100))
    to(world, "live", who=ITSELF)
    Promoter(world.database).review()
    assert (mode(world), alarms(world)) == ("frozen", ["observations"])


def test_an_alarm_that_a_person_has_decided_upon_hides_no_other(world: World) -> None:
    to(world, "apprentice")
    arrive(world, DRAW.normal(size=(100, 3)) + 2, 1 + DRAW.normal(size=100), arm="application")
    to(world, "live")
    for _ in range(5):
        arrive(world, DRAW.normal(size=(40, 3)) + 2, DRAW.normal(size=40) - 5)
    assert (mode(world), alarms(world)) == ("frozen", ["observations", "returns"])


@pytest.mark.parametrize(("episodes", "said"), [(10, True), (2_000, False)])
def test_that_few_episodes_widen_the_watch_is_said_once_when_it_begins(
    tmp_path: Path, episodes: int, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path / "live.db", {"observed": {**TRAINED["observed"], "episodes": episodes}})
    for _ in range(2):
        arrive(world, late(5), np.zeros(5))
    assert sum("known from few episodes" in record.message for record in caplog.records) == said


def test_what_never_changes_is_left_out_and_watching_can_be_switched_off(tmp_path: Path) -> None:
    world = World(tmp_path / "live.db", window=20.0)
    constant = np.ones((REFERENCE, 3))
    arrive(world, constant, np.zeros(REFERENCE))
    arrive(world, constant * 2, np.zeros(REFERENCE))  # nothing is known of how it varies
    declare(world.database, 0.0, "me", {"run_length": None})
    arrive(world, constant, np.full(REFERENCE, -9.0))
    assert (mode(world), alarms(world)) == ("live", [])


def test_a_restart_and_any_split_find_the_same(world: World) -> None:
    arrive(world, DRAW.normal(size=(20, 3)), DRAW.normal(size=20))
    arrive(world, DRAW.normal(size=(200, 3)) + 1, DRAW.normal(size=200))
    [(detail,)] = world.database.read("SELECT detail FROM audit WHERE what = 'alarm'")
    anew = Monitor(world.database, 1, read_rules(world.database)).review()
    assert anew is not None
    assert anew.seq == json.loads(detail)["row"]
    assert reference_begins(world.database) > 1


@pytest.mark.parametrize(("cost", "found"), [(1.0, []), (3.0, ["costs"]), (-1.0, ["costs"])])
def test_costs_of_the_live_policy_above_the_limit_freeze_the_service(
    world: World, cost: float, found: list[str]
) -> None:
    declare(world.database, 0.0, "me", {"cost_limit": 2.0})
    arrive(world, DRAW.normal(size=(100, 3)), DRAW.normal(size=100), cost=cost)
    assert (mode(world), alarms(world)) == ("frozen" if found else "live", found)


def test_a_rule_that_changes_holds_at_the_next_review(tmp_path: Path) -> None:
    world = World(tmp_path / "live.db")
    arrive(world, DRAW.normal(size=(REFERENCE, 3)), 1 + DRAW.normal(size=REFERENCE))
    declare(world.database, 0.0, "me", {"window": 20.0})
    arrive(world, DRAW.normal(size=(60, 3)), -1 - DRAW.normal(size=60))
    assert alarms(world) == ["returns"]
