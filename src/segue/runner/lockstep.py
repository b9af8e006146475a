"""Jobs that are one but for their seeds, in one process: their offline updates are one program.

Each keeps its own records and states, and is what it is alone up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from segue.runner.stopping import Stopped, StoppedAtOnce
from segue.training.offline import Asking, Updates, run
from segue.training.seeds import run_updates_together
from segue.types import Learner, Metrics


def in_lockstep(loops: Sequence[Asking[None]]) -> list[BaseException | None]:
    """Run every loop to its end; those that are behind, because they go on from an earlier state, go first.

    Returns:
        For each what ended it: None, or its error. One loop's error does not stop the others, nor does being asked to
        stop, which each hears at its next place to save.

    Raises:
        StoppedAtOnce: if that came.
        Exception: of the updates themselves, which are everyone's.
    """
    ended: dict[int, BaseException | None] = {}
    asked: dict[int, Updates] = {}

    def advance(index: int, answer: tuple[Learner, Metrics] | None) -> None:
        try:
            asked[index] = next(loops[index]) if answer is None else loops[index].send(answer)
        except StopIteration:
            ended[index] = None
        except StoppedAtOnce:
            raise
        except (Exception, Stopped) as error:
            ended[index] = error

    try:
        for index in range(len(loops)):
            advance(index, None)
        while asked:
            step = min(updates.step for updates in asked.values())
            now = [index for index in sorted(asked) if asked[index].step == step]
            answers = _answers([asked.pop(index) for index in now])
            for index, answer in zip(now, answers, strict=True):
                advance(index, answer)
    finally:
        for loop in loops:
            loop.close()
    return [ended[index] for index in range(len(loops))]


def _answers(asked: Sequence[Updates]) -> list[tuple[Learner, Metrics]]:
    first = asked[0]
    if len(asked) == 1:
        return [run(first)]
    return run_updates_together(
        [updates.learner for updates in asked],
        first.replay,
        [updates.key for updates in asked],
        jnp.asarray(first.progress, jnp.float32),
        **first.options,
    )
