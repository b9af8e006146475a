"""Runs jobs: in this process one after the other, or side by side where a dispatcher has them done.

A worker is pinned to its cores before JAX starts, so results do not depend on how many workers there are, only on the
number of cores each has; that number is recorded with the run. On an accelerator, offline phases that differ in
numbers only (seeds, trials of a sweep) are one program, in this process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import queue
import signal
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial

from segue.data.mapped import MappedDataset
from segue.errors import SegueError
from segue.runner.dispatch import Dispatcher
from segue.runner.job import Inputs, execute
from segue.runner.jobs import Event, Exited, Job
from segue.runner.machine import has_accelerator, release_programs
from segue.runner.stopping import Heard, Stop, Stopped, say
from segue.runner.vmapped import NotTogether, program_of, run_vmapped
from segue.workers.process import keep_trace

#: Seconds that workers get to save what they have, by the signal that stops them.
GRACE_SECONDS = {signal.SIGINT: 30.0, signal.SIGTERM: 6.5}
#: Seconds after which a signal is heard, at the latest.
HEARING_SECONDS = 0.2
#: Jobs in one program, so that a large sweep fits into the memory of the device.
MOST_TOGETHER = 64


@dataclasses.dataclass
class Outcome:
    """How a job ended: complete, interrupted, failed (with the error) or pending (never started)."""

    status: str = "pending"
    error: str | None = None


def run_jobs(
    jobs: Sequence[Job], dispatcher: Dispatcher | None, on_event: Callable[[Job, Event], None]
) -> tuple[dict[str, Outcome], int | None]:
    """Run every job that has no result yet; a job waits for the one whose checkpoint it starts from.

    Args:
        jobs: in their order.
        dispatcher: has them done side by side; None: this process does one after the other.
        on_event: is told what happens.

    Returns:
        The outcome of each job by label, and the signal that stopped them, if one did.
    """
    outcomes = {job.label: Outcome("complete") if job.result() else Outcome() for job in jobs}
    if (dispatcher is None or dispatcher.here) and has_accelerator():
        together = [group for group in _differing_in_numbers(jobs, outcomes) if len(group) > 1]
        stopped = _in_turn(together, jobs, outcomes, on_event)
        if stopped is not None:
            return outcomes, stopped
    if dispatcher is None:
        return outcomes, _in_turn([[job] for job in jobs], jobs, outcomes, on_event)
    return outcomes, _side_by_side(jobs, outcomes, dispatcher, on_event)


def _differing_in_numbers(jobs: Sequence[Job], outcomes: dict[str, Outcome]) -> Iterator[list[Job]]:
    """The offline jobs that are still to do, those together that can be one program."""
    groups: dict[Hashable, list[Job]] = {}
    for job in jobs:
        if job.phase == "offline" and outcomes[job.label].status == "pending":
            groups.setdefault(program_of(job), []).append(job)
    for group in groups.values():
        for start in range(0, len(group), MOST_TOGETHER):
            yield group[start : start + MOST_TOGETHER]


def _blocked(job: Job, jobs: Sequence[Job], outcomes: dict[str, Outcome]) -> Outcome | None:
    """The outcome of the job this one waits for, if that is not complete."""
    for other in jobs:
        if job.pretrained is not None and other.checkpoints == job.pretrained.parent:
            outcome = outcomes[other.label]
            return None if outcome.status == "complete" else outcome
    return None


def _in_turn(
    groups: Sequence[Sequence[Job]],
    jobs: Sequence[Job],
    outcomes: dict[str, Outcome],
    on_event: Callable[[Job, Event], None],
) -> int | None:
    """Do the jobs of a group together, one group after the other."""
    for group in groups:
        todo = [job for job in group if outcomes[job.label].status == "pending"]
        for job in [job for job in todo if _blocked(job, jobs, outcomes)]:
            outcomes[job.label] = Outcome("failed", "its offline phase did not finish")
            todo.remove(job)
        if not todo:
            continue
        requested = _do(todo, outcomes, on_event)
        if requested is not None:
            return requested
    return None


def _do(todo: Sequence[Job], outcomes: dict[str, Outcome], on_event: Callable[[Job, Event], None]) -> int | None:
    """Do these jobs together; returns the signal that stopped them, if one did."""
    requested = None
    ended: list[BaseException | None]
    try:
        for job in todo:
            on_event(job, {"event": "start"})
        release_programs()
        with Stop().listening() as stop:
            inputs = Inputs(todo[0])
            if len(todo) > 1:
                on_disk = isinstance(inputs.dataset, MappedDataset)
                why = "each one alone: the dataset is on disk, and each reads other rows of it"
                said = f"{len(todo)} offline phases are {why if on_disk else 'one program on the accelerator'}"
                on_event(todo[0], {"event": "note", "message": said})
                if on_disk:
                    return None  # all are still to do
            ended = run_vmapped(
                [execute(job, inputs, partial(on_event, job), stop) for job in todo],
                lambda message: on_event(todo[0], {"event": "note", "message": message}),
            )
            requested = stop.requested
    except (Exception, KeyboardInterrupt) as everyones:
        ended = [everyones] * len(todo)
    for job, error in zip(todo, ended, strict=True):
        if isinstance(error, NotTogether):  # still to do
            said = f"not in one program with the others ({error}); it starts again alone"
            on_event(job, {"event": "note", "message": said})
            continue
        outcomes[job.label] = _outcome(job, error)
        if isinstance(error, KeyboardInterrupt):
            requested = _number(error)
        else:
            on_event(job, {"event": "end", "status": outcomes[job.label].status})
    if any(error is not None for error in ended):
        del ended, error
        gc.collect()  # what failed holds its dataset and its learners in a cycle
    return requested


def _outcome(job: Job, error: BaseException | None) -> Outcome:
    """What a job that was ended so came to."""
    if error is None:
        return Outcome("complete")
    if isinstance(error, KeyboardInterrupt):
        return Outcome("complete" if job.result() else "interrupted")
    if isinstance(error, SegueError):
        return Outcome("failed", str(error))
    # A defect of ours or of an environment: the other jobs go on, and the trace is kept in a file.
    where = keep_trace(job.records, "".join(traceback.format_exception(error)))
    return Outcome("failed", f"{type(error).__name__}: {error}{where}")


def _number(interrupt: KeyboardInterrupt) -> int:
    return interrupt.number if isinstance(interrupt, Stopped) else signal.SIGINT


def _side_by_side(
    jobs: Sequence[Job],
    outcomes: dict[str, Outcome],
    dispatcher: Dispatcher,
    on_event: Callable[[Job, Event], None],
) -> int | None:
    running: set[str] = set()
    stopping: int | None = None
    waiting = [job for job in jobs if outcomes[job.label].status == "pending"]

    def settle(job: Job, event: Event | Exited) -> None:
        if event["event"] != "exit":
            on_event(job, event)
            return
        running.remove(job.label)
        outcome = outcomes[job.label]
        outcome.error = None if stopping else event["error"] or None
        outcome.status = "interrupted" if stopping and event["status"] == "failed" else event["status"]
        on_event(job, {"event": "end", "status": outcome.status})

    def wait() -> None:
        try:
            with contextlib.suppress(queue.Empty):
                settle(*dispatcher.next(timeout=HEARING_SECONDS))
        except KeyboardInterrupt as asked:  # by who is told of the events
            heard.came.append(_number(asked))

    def start(job: Job) -> None:
        running.add(job.label)
        waiting.remove(job)
        try:
            with heard.raising_the_second():
                dispatcher.start(job)
        except KeyboardInterrupt:
            running.remove(job.label)
            outcomes[job.label].status = "interrupted"

    with Heard().listening() as heard:
        while (waiting or running) and not heard.came:
            for job in list(waiting):
                blocker = _blocked(job, jobs, outcomes)
                if blocker is not None and blocker.status in ("failed", "interrupted"):
                    outcomes[job.label] = Outcome("failed", "its offline phase did not finish")
                    waiting.remove(job)
                elif blocker is None and len(running) < dispatcher.room and not heard.came:
                    start(job)
            if running:
                wait()
        if not heard.came:
            return None
        stopping = heard.came[0]
        if stopping == signal.SIGINT:
            say("stopping at the next place to save; Ctrl-C again stops at once")
        deadline = time.monotonic() + GRACE_SECONDS[signal.Signals(stopping)]
        with contextlib.suppress(KeyboardInterrupt), heard.raising_the_second():
            dispatcher.stop(stopping)
        while running:
            wait()
            if running and (len(heard.came) > 1 or time.monotonic() > deadline):
                dispatcher.kill()  # their events are still to come
        return stopping
