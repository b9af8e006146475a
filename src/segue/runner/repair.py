"""Checkpoints that proved damaged, made again from the states, which hold the same learner."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from segue.files import set_aside
from segue.runner import checkpoint
from segue.runner.jobs import Job


def reopen(
    jobs: Sequence[Job], thorough: bool, lock: Callable[[], contextlib.AbstractContextManager[Any]]
) -> list[str]:
    """Have finished jobs whose checkpoint cannot be read run again from their last state; a sentence on each.

    Looks at the checkpoints that a job is about to start from, or if `thorough` at every phase's. The lock is held only
    where there is something to change.

    Raises:
        SegueError: for a checkpoint of another version of Segue, which is left as it is, and if another process runs
            these jobs.
    """
    needed = {job.pretrained for job in jobs if job.pretrained and not (job.result() or _has_state(job))}
    finished = [job for job in jobs if job.result()]
    damage = {
        job.label: (job, said)
        for job in finished
        if (thorough or _final(job) in needed) and (said := checkpoint.damage(_final(job))) is not None
    }
    if not damage:
        return []
    with lock():
        return [_reopen(job, said) for job, said in damage.values()]


def _reopen(job: Job, said: str) -> str:
    # The result first: a checkpoint without one is made again, a result without a checkpoint is a dead end.
    set_aside(job.records / "result.json")
    final = _final(job)
    now = f"it is now {set_aside(final).name}, and" if final.exists() else "so"
    return f"{said}: {now} {job.label} goes on from its last state to make it again"


def _final(job: Job) -> Path:
    return job.checkpoints / "final"


def _has_state(job: Job) -> bool:
    return any(job.states.glob("step-*"))
