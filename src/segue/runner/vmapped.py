"""Jobs that differ in numbers only, in one process: their offline updates are one program.

The numbers are the seed and the algorithm's hyper-parameters with a fraction (segue.hyper). Each job keeps its own
records and states, and is what it is alone up to rounding.
"""

from __future__ import annotations

import contextlib
import gc
import json
import time
from collections.abc import Callable, Hashable, Sequence

import jax
import jax.numpy as jnp

from segue.algorithms import ALGORITHMS
from segue.recipe import decode
from segue.runner.jobs import OFFLINE_FIELDS, Job
from segue.runner.stopping import Stopped, StoppedAtOnce
from segue.training.offline import Answer, Asking
from segue.training.update import Updates, train
from segue.training.vmapped import run_updates_together

#: In the errors of a device whose memory is full.
FULL = "RESOURCE_EXHAUSTED"


class NotTogether(Exception):
    """The program of several jobs failed, or one does not fit into memory beside the others."""


def program_of(job: Job) -> Hashable:
    """What offline jobs have in common that can be one program: all but the numbers of the algorithm.

    The dataset is on the device once, so the numbers that it is made with are in common too.
    """
    algorithm = decode("algorithm", job.recipe["offline"], ALGORITHMS)
    common = [job.recipe[field] for field in OFFLINE_FIELDS if field != "offline"]
    common += [getattr(algorithm, name) for name in algorithm.dataset_numbers]
    return json.dumps(common, sort_keys=True), jax.tree.structure(algorithm)


def run_vmapped(loops: Sequence[Asking[None]], tell: Callable[[str], None]) -> list[BaseException | None]:
    """Run every loop to its end; those that are behind, because they go on from an earlier state, go first.

    A program that does not fit into the device's memory is divided in halves from then on, and `tell` is told.

    Returns:
        For each what ended it: None, or its error, which is NotTogether if it may run alone. One loop's error does not
        stop the others, nor does being asked to stop, which each hears at its next place to save.

    Raises:
        StoppedAtOnce: if that came.
    """
    ended: dict[int, BaseException | None] = {}
    asked: dict[int, Updates] = {}
    most = len(loops)

    def advance(index: int, given: Answer | None) -> None:
        try:
            asked[index] = next(loops[index]) if given is None else loops[index].send(given)
        except StopIteration:
            ended[index] = None
        except StoppedAtOnce:
            raise
        except (Exception, Stopped) as error:
            ended[index] = _not_together(error) if _full(error) and len(loops) > 1 else error

    with contextlib.ExitStack() as stack:
        for loop in loops:
            stack.enter_context(contextlib.closing(loop))
        for index in range(len(loops)):
            advance(index, None)
        while asked:
            step = min(updates.step for updates in asked.values())
            now = [index for index in sorted(asked) if asked[index].step == step][:most]
            todo = [asked[index] for index in now]
            try:
                answers = [Answer(*train(todo[0]))] if len(todo) == 1 else _together(todo)
            except Exception as error:
                if _full(error) and len(now) > 1:
                    most = -(-len(now) // 2)
                elif len(now) > 1 or (_full(error) and len(loops) > 1):
                    ended |= dict.fromkeys(now, _not_together(error))
                else:
                    ended |= dict.fromkeys(now, error)
            if len(now) > most:
                gc.collect()  # what failed may hold its learners in a cycle
                tell(f"{len(now)} learners do not fit into the accelerator's memory together; {most} at a time")
                continue
            for index in now:
                del asked[index]
            if now[0] in ended:
                continue
            for index, given in zip(now, answers, strict=True):
                advance(index, given)
    return [ended[index] for index in range(len(loops))]


def _full(error: BaseException) -> bool:
    """Whether the device's memory was full: what does not fit beside other learners may fit alone."""
    return FULL in str(error)


def _not_together(error: BaseException) -> NotTogether:
    line = str(error).partition("\n")[0][:200]
    return NotTogether(f"{type(error).__name__}: {line}")


def _together(asked: Sequence[Updates]) -> list[Answer]:
    first = asked[0]
    after = run_updates_together(
        [updates.learner for updates in asked],
        first.replay,
        [updates.key for updates in asked],
        jnp.asarray(first.progress, jnp.float32),
        [updates.algorithm for updates in asked],
        blocks=first.blocks,
        train_policy=first.train_policy,
    )
    # Or the first job would wait for all of them, and the others for it.
    start = time.perf_counter()
    jax.block_until_ready(after)
    training = time.perf_counter() - start
    return [Answer(learner, metrics, training) for learner, metrics in after]
