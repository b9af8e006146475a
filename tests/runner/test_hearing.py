"""Signals at any moment of a run: each worker is known, so it is stopped and its end is heard."""

from __future__ import annotations

import queue
import signal
import threading
import types
from typing import Any, cast

import pytest

from segue.runner import executor, stopping
from segue.runner.stopping import Heard, Stopped, raising


class StoppedWhileStarting:
    """Where jobs run: SIGTERM comes while the first of them is started."""

    here, room = True, 1
    worker: Any = None
    passed_on: int | None = None

    def start(self, job: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        self.worker = job

    def next(self, timeout: float | None = None) -> Any:
        assert self.worker is not None, "nobody knows of the worker"
        if self.passed_on is None:
            raise queue.Empty
        return self.worker, {"event": "exit", "status": "interrupted", "error": ""}

    def stop(self, number: int) -> None:
        self.passed_on = number

    def kill(self) -> None: ...


@pytest.fixture(autouse=True)
def stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process would end nine seconds after SIGTERM."""
    monkeypatch.setattr(stopping, "leave_soon", lambda: None)


def test_a_worker_that_is_being_started_when_sigterm_comes_is_stopped_like_the_others() -> None:
    job: Any = types.SimpleNamespace(label="offline", pretrained=None, result=lambda: None)
    place = StoppedWhileStarting()
    events: list[Any] = []
    outcomes, stopped = executor.run_jobs([job], cast(Any, place), lambda job, event: events.append(event))
    assert (stopped, place.passed_on) == (signal.SIGTERM, signal.SIGTERM)
    assert outcomes["offline"].status == "interrupted"
    assert events == [{"event": "end", "status": "interrupted"}]


class StoppedAsTheWorkerEnds(StoppedWhileStarting):
    """SIGTERM comes after the end of the worker was taken from the queue, and before anybody knows of it."""

    def start(self, job: Any) -> None:
        self.worker = job

    def next(self, timeout: float | None = None) -> Any:
        if self.worker is None:
            raise AssertionError("the end of the worker is waited for, and has come already")
        ended, self.worker = self.worker, None
        signal.raise_signal(signal.SIGTERM)
        return ended, {"event": "exit", "status": "complete", "error": ""}


def test_the_end_of_a_worker_is_not_lost_to_a_signal() -> None:
    job: Any = types.SimpleNamespace(label="offline", pretrained=None, result=lambda: None)
    outcomes, stopped = executor.run_jobs([job], cast(Any, StoppedAsTheWorkerEnds()), lambda job, event: None)
    assert stopped == signal.SIGTERM
    assert outcomes["offline"].status == "complete"


class Blocked(StoppedAsTheWorkerEnds):
    """Passing Ctrl-C on blocks until it comes again; and more signals come while the jobs are killed."""

    killed = 0

    def next(self, timeout: float | None = None) -> Any:
        if not self.killed:
            signal.raise_signal(signal.SIGINT)
            raise queue.Empty
        return self.worker, {"event": "exit", "status": "failed", "error": "killed"}

    def stop(self, number: int) -> None:
        self.passed_on = number
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("a second Ctrl-C ends the call")

    def kill(self) -> None:
        self.killed += 1
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)


def test_a_second_signal_ends_what_takes_long_and_later_ones_end_nothing() -> None:
    job: Any = types.SimpleNamespace(label="offline", pretrained=None, result=lambda: None)
    place = Blocked()
    outcomes, stopped = executor.run_jobs([job], cast(Any, place), lambda job, event: None)
    assert (stopped, place.passed_on, place.killed) == (signal.SIGINT, signal.SIGINT, 1)
    assert outcomes["offline"].status == "interrupted"


def test_a_job_whose_start_takes_without_end_is_given_up_by_a_second_signal() -> None:
    class NeverStarted(Blocked):
        def start(self, job: Any) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("a second Ctrl-C ends the call")

        def stop(self, number: int) -> None:
            self.passed_on = number

    job: Any = types.SimpleNamespace(label="offline", pretrained=None, result=lambda: None)
    outcomes, stopped = executor.run_jobs([job], cast(Any, NeverStarted()), lambda job, event: None)
    assert stopped == signal.SIGINT
    assert outcomes["offline"].status == "interrupted"


def test_what_was_ignored_stays_so_and_what_was_heard_is_heard_again() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.getsignal(signal.SIGTERM)
    try:
        with Heard().listening() as heard:
            signal.raise_signal(signal.SIGINT)
            assert heard.came == []
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == (signal.SIG_IGN, before[1])
    finally:
        signal.signal(signal.SIGINT, before[0])


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_that_python_ignores_comes_again(number: int, raised: type[BaseException]) -> None:
    """What is raised in a finaliser, or in JAX's callback when garbage is collected, reaches nobody."""

    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def stopped() -> None:
        with raising(soon=False):
            one = Finalised()
            del one
            threading.Event().wait(60)

    with pytest.raises(raised):
        stopped()
