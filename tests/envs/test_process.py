"""Environments in processes of their own: the same numbers, and no more trouble, than in this one."""

from __future__ import annotations

import os
import re
import time
from typing import Any

import numpy as np
import pytest

from segue.envs import Environment, Episodes, Patience
from segue.envs.process import Remote, _step_time, in_processes
from segue.errors import RecipeError, SegueError
from toys import PENDULUM, Aim, Clock


class Bad(Clock):
    """Misbehaves in the second step of its first episode."""

    def __init__(self, how: str) -> None:
        self.how = how

    def step(self, action: Any) -> Any:
        if self.time == 1 and self.episode == 0:
            if self.how == "raises":
                raise ConnectionError("it is gone")
            if self.how == "hangs":
                time.sleep(100)
            if self.how == "dies":
                os._exit(3)
        return super().step(action)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.envs.process.visible_cores", lambda: [0, 1])


def test_processes_give_the_same_bits_also_after_a_restart():
    actions = np.random.default_rng(0).uniform(-1, 1, (45, 2, 1)).astype(np.float32)
    alone, apart = (Episodes(PENDULUM, 2, 3, "test", processes=processes) for processes in (False, True))
    again = Episodes(PENDULUM, 2, 3, "test", processes=True)
    for step, action in enumerate(actions):
        if step == 30:  # in the middle of an episode
            again.restore(alone.position())
        only = np.array([True, step % 3 > 0])
        expected = [given[only] for given in alone.step(action, only)]
        for episodes in (apart, again) if step >= 30 else (apart,):
            for got, wanted in zip(episodes.step(action, only), expected, strict=True):
                np.testing.assert_array_equal(got[only], wanted)
    for episodes in (alone, apart, again):
        episodes.close()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        pytest.param("raises", "ConnectionError: it is gone", marks=pytest.mark.slow),
        pytest.param("hangs", "did not come back for 0.5 seconds", marks=pytest.mark.slow),
        ("dies", r"its process ended \(exit code 3\)"),
    ],
)
def test_a_process_that_misbehaves_is_quarantined_and_replaced(how: str, said: str):
    heard: list[str] = []
    environment = Environment(f"{__name__}:Bad", {"how": how})
    episodes = Episodes(environment, 1, 0, "test", Patience(step_timeout=0.5), heard.append, processes=True)
    action = np.zeros((1, 1), np.float32)
    episodes.step(action)
    before = episodes.envs[0]
    episodes.step(action)
    assert episodes.lost.tolist() == [True]
    assert before.process.poll() is not None
    assert episodes.step(action)[0].tolist() == [[1.0]]
    assert len(heard) == 1
    assert re.search(said, heard[0])
    episodes.close()
    assert episodes.envs[0].process.poll() is not None


def test_a_constructor_that_raises_in_a_process_says_so_here():
    remote = Remote(Environment(f"{__name__}:Bad"), 1.0)
    with pytest.raises(SegueError, match="missing 1 required positional argument: 'how'"):
        remote.ready()
    remote.close()


@pytest.mark.parametrize(
    ("choice", "count", "seconds", "apart"),
    [
        ("auto", 4, 0.01, True),
        ("auto", 4, 0.0001, False),
        ("auto", 1, 0.01, False),
        ("no", 4, 1, False),
        ("yes", 2, 0, True),
    ],
)
def test_environments_go_to_processes_where_a_step_is_slow_or_if_asked_to(
    choice: Any, count: int, seconds: float, apart: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("segue.envs.process._step_time", lambda environment: seconds)
    heard: list[str] = []
    assert in_processes(Environment(PENDULUM), count, choice, heard.append) is apart
    assert (heard != []) == (choice == "auto" and apart)


def test_what_no_other_process_can_make_stays_here_or_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("segue.envs.process._step_time", lambda environment: 1.0)
    here = Environment("__main__:Here")
    assert not in_processes(here, 4, "auto", print)
    with pytest.raises(RecipeError, match="is defined in the script or notebook itself"):
        in_processes(here, 4, "yes", print)


class Slow(Aim):
    """A step takes 3 milliseconds."""

    def step(self, action: Any) -> Any:
        time.sleep(0.003)
        return super().step(action)


def test_a_slow_step_is_measured_and_a_misbehaving_environment_is_not():
    assert _step_time(Environment(f"{__name__}:Slow")) >= 0.003
    assert _step_time(Environment(f"{__name__}:Bad", {"how": "raises"})) == 0
