"""A log as a learner reads it: each episode's steps in order of time, and nothing that depends on when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.live.database import Database, open_database
from segue.live.schema import ActivationRow, DecisionRow, EpisodeRow, OutcomeRow
from segue.live.stream import Lost, Step, Stream, Told

SEEN, ACTION, OTHER = (np.float32([value]).tobytes() for value in (1.0, 0.25, -0.5))


def assigned(name: str, arm: str = "live") -> EpisodeRow:
    return EpisodeRow(0.0, name, name, arm, "p", 1.0, 1)


def decided(name: str, t: int) -> DecisionRow:
    return DecisionRow(0.0, f"{name}-{t}", name, t, SEEN, None, ACTION, 0.0, "p", "live", None)


def outcome(name: str, t: int, following: bytes | None = None, terminated: int = 0, truncated: int = 0) -> OutcomeRow:
    return OutcomeRow(0.0, f"{name}-{t}", f"{name}-{t}", 1.0, None, following, terminated, truncated)


def log(path: Path, *rows: Any) -> Database:
    database = open_database(path)
    for row in rows:
        database.append([row])
    return database


def everything(stream: Stream, page: int = 1000) -> list[Told | Lost]:
    found: list[Told | Lost] = []
    while steps := stream.read(page):
        for step in steps:
            found += stream.take(step)
    return found


def told(found: list[Told | Lost]) -> list[str]:
    return [f"{one.step.episode}-{one.step.t}" if isinstance(one, Told) else f"lost {one.slot}" for one in found]


def test_a_step_comes_when_outcome_and_next_observation_are_known_and_after_those_before_it(tmp_path: Path) -> None:
    rows = [assigned("a"), decided("a", 0), decided("a", 1), outcome("a", 1, SEEN), decided("a", 2), outcome("a", 0)]
    database = log(tmp_path / "log.db", *rows)
    stream = Stream(database)
    assert told(everything(stream)) == ["a-0", "a-1"]
    assert stream.waiting() == 0
    database.append([outcome("a", 2, terminated=1)])
    assert told(everything(stream)) == ["a-2"]
    assert stream.ended() == [3.0]


def test_returns_come_in_order_of_assignment_and_wait_for_the_episodes_before(tmp_path: Path) -> None:
    rows = [assigned("slow"), assigned("quick"), decided("slow", 0), decided("quick", 0)]
    rows += [outcome("quick", 0, terminated=1), outcome("slow", 0, SEEN)]
    database = log(tmp_path / "log.db", *rows)
    stream = Stream(database)
    everything(stream)
    assert stream.ended() == []
    for row in (decided("slow", 1), outcome("slow", 1, terminated=1)):
        database.append([row])
    everything(stream)
    assert stream.ended() == [2.0, 1.0]


def test_a_missing_outcome_is_waited_for_as_long_as_said_and_then_the_trajectory_is_cut(tmp_path: Path) -> None:
    rows = [assigned("a"), *(decided("a", t) for t in range(4)), outcome("a", 0), outcome("a", 2)]
    rows += [assigned("b"), decided("b", 0), outcome("b", 0, SEEN)]
    stream = Stream(log(tmp_path / "log.db", *rows), overdue=2)
    assert told(everything(stream)) == ["a-0", "lost 0", "a-2", "b-0"]


@pytest.mark.parametrize(("action", "expected"), [(OTHER, OTHER), (None, None)])
def test_a_decision_that_was_overridden_is_told_with_what_was_done_or_not_at_all(
    tmp_path: Path, action: bytes | None, expected: bytes | None
) -> None:
    rows = [assigned("a"), decided("a", 0), ActivationRow(0.0, "a-0", 0, action, "me"), outcome("a", 0, terminated=1)]
    stream = Stream(log(tmp_path / "log.db", *rows))
    (one,) = everything(stream)
    assert (one.step.action if isinstance(one, Told) else None) == expected
    assert isinstance(one, Told) == (expected is not None)
    assert stream.passed_over == (expected is None)


def test_an_override_that_is_heard_of_after_the_step_was_complete_changes_nothing_but_is_counted(
    tmp_path: Path,
) -> None:
    database = log(tmp_path / "log.db", assigned("a"), decided("a", 0), outcome("a", 0, terminated=1))
    before = everything(Stream(database))
    database.append([ActivationRow(0.0, "a-0", 0, OTHER, "me")])
    stream = Stream(database)
    assert everything(stream) == before
    assert stream.overridden_late() == 1


def test_an_override_that_is_waited_for_counts_and_until_then_the_step_is_not_read(tmp_path: Path) -> None:
    database = log(tmp_path / "log.db", assigned("a"), decided("a", 0), outcome("a", 0, terminated=1))
    stream = Stream(database, settle=1)
    assert everything(stream) == []
    database.append([ActivationRow(0.0, "a-0", 0, OTHER, "me")])
    (one,) = everything(stream)
    assert isinstance(one, Told)
    assert one.step.action == OTHER
    assert stream.overridden_late() == 0


def test_only_episodes_of_the_arm_are_read(tmp_path: Path) -> None:
    rows = [assigned("a"), assigned("b", "candidate"), decided("a", 0), decided("b", 0)]
    rows += [outcome("a", 0, terminated=1), outcome("b", 0, terminated=1)]
    database = log(tmp_path / "log.db", *rows)
    assert told(everything(Stream(database, "candidate"))) == ["b-0"]


@st.composite
def rows(draw: Any) -> list[Any]:
    """What a service may write: episodes side by side, outcomes late, out of order or never, overrides."""
    random = draw(st.randoms(use_true_random=False))
    written: list[Any] = []
    for name in "abc"[: draw(st.integers(1, 3))]:
        mine: list[tuple[float, Any]] = [(0.0, assigned(name))]
        length = draw(st.integers(1, 5))
        for t in range(length):
            mine.append((t + 1.0, decided(name, t)))
            end = draw(st.sampled_from(["terminated", "cut", "unknown"])) if t == length - 1 else None
            if draw(st.integers(0, 9)):
                following = SEEN if end == "cut" or draw(st.booleans()) else None
                ends = {"terminated": int(end == "terminated"), "truncated": int(end in ("cut", "unknown"))}
                following = None if end == "unknown" else following
                mine.append((t + 1.0 + random.random() * 4, outcome(name, t, following, **ends)))
            if not draw(st.integers(0, 5)):
                replacement = OTHER if draw(st.booleans()) else None
                mine.append((t + 1.0 + random.random() * 4, ActivationRow(0.0, f"{name}-{t}", 0, replacement, "me")))
        shift = random.random() * 5
        written += [(shift + at, row) for at, row in mine]
    return [row for _, row in sorted(written, key=lambda pair: pair[0])]


@settings(max_examples=30)
@given(
    rows=rows(),
    overdue=st.sampled_from([3, 1000]),
    settle=st.sampled_from([0, 2]),
    page=st.integers(1, 9),
    data=st.data(),
)
def test_what_is_told_follows_from_the_log_alone(
    tmp_path_factory: Any, rows: list[Any], overdue: int, settle: int, page: int, data: Any
) -> None:
    """Not from the pages in which it is read, from what comes after, or from where reading was stopped."""
    path = tmp_path_factory.mktemp("log") / "log.db"
    whole = log(path, *rows)
    expected = everything(Stream(whole, overdue=overdue, settle=settle))
    whole.close()

    growing = open_database(path.with_name("growing.db"))
    stream, found = Stream(growing, overdue=overdue, settle=settle), []
    for row in rows:
        growing.append([row])
        if data.draw(st.booleans()):
            found += everything(stream, page)
        if data.draw(st.booleans()):
            position = stream.position()
            stream = Stream(growing, overdue=overdue, settle=settle)
            stream.restore(position)
    found += everything(stream, page)
    growing.close()
    assert found == expected


@settings(max_examples=30)
@given(rows=rows(), overdue=st.sampled_from([3, 1000]))
def test_every_transition_is_told_once_and_each_slot_holds_one_trajectory_after_the_other(
    tmp_path_factory: Any, rows: list[Any], overdue: int
) -> None:
    database = log(tmp_path_factory.mktemp("log") / "log.db", *rows)
    stream = Stream(database, overdue=overdue)
    found = everything(stream)
    before: dict[int, Step] = {}
    for one in found:
        last = before.pop(one.slot, None)
        if isinstance(one, Lost):
            continue
        if last is not None:
            assert (one.step.episode, one.step.t) == (last.episode, last.t + 1)
        if not (one.step.terminated or one.step.truncated):
            before[one.slot] = one.step
    once = told([one for one in found if isinstance(one, Told)])
    assert len(once) == len(set(once))
    complete = database.read("SELECT COUNT(*) FROM steps")[0][0]
    assert len(once) + stream.passed_over + stream.waiting() == complete
    database.close()
