"""The offline loop: many updates on the dataset per dispatch, evaluated now and then.

The loop does not run its updates, it asks for them, so that those of several jobs can be one program
(segue.training.vmapped).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

from segue import rng
from segue.algorithms.base import Algorithm
from segue.core import Learner, Metrics
from segue.envs import USUAL, Environment, Patience
from segue.evaluation import Probe, roll_out
from segue.policy import Policy
from segue.replay.base import Replay
from segue.training.checkpointing import NO_CHECKPOINTS, Checkpointer, Position
from segue.training.early_stopping import EarlyStopping
from segue.training.recorder import Recorder
from segue.training.recovery import Recovery
from segue.training.update import Updates, train

#: Updates per dispatch: long enough to hide the dispatch, short enough for a progress bar and Ctrl-C.
UPDATES_PER_DISPATCH = 100


class Answer(NamedTuple):
    """What came of them."""

    learner: Learner
    metrics: Metrics
    training: float = 0.0
    """Seconds for which the answer waited until they were done; 0 if they are only under way."""


T = TypeVar("T")
#: A loop, which is sent what came of the updates that it asked for, and returns a T.
Asking: TypeAlias = Generator[Updates, Answer, T]


def alone(loop: Asking[T]) -> T:
    """Run a loop to its end, its updates as they come."""
    with contextlib.closing(loop):
        try:
            asked = next(loop)
            while True:
                asked = loop.send(Answer(*train(asked)))
        except StopIteration as end:
            return end.value


def train_offline(
    algorithm: Algorithm,
    learner: Learner,
    replay: Replay,
    recorder: Recorder,
    *,
    steps: int,
    seed: int,
    env_id: str | Environment | None,
    eval_every: int,
    eval_episodes: int,
    phase: str = "offline",
    train_policy: bool = True,
    patience: Patience = USUAL,
    cost: str | None = None,
    keep: Callable[[Learner], object] = lambda learner: None,
    stopping: EarlyStopping | None = None,
    checkpointer: Checkpointer = NO_CHECKPOINTS,
    position: Position | None = None,
) -> Asking[Learner]:
    """`steps` critic updates (policy updates for an algorithm without a critic) on the dataset.

    With `train_policy` False the policy is held still: fitted Q evaluation with the algorithm's own target.
    With an environment, the policy is evaluated every `eval_every` steps and at the end; that last score is the one
    the online phase is measured against. `cost` is the key of `info` whose sum evaluations record. `keep` is called
    with the learner at each of these steps, also without an environment. `stopping` looks at it there too, and may end
    the phase. With a `position` it goes on from there, and ignores `learner`; a phase that had ended stays as it is.
    """
    key = rng.stream(seed, phase)
    probe = Probe(replay.logged)
    per_block = algorithm.updates_per_block
    step, evaluated = 0, 0
    if position is not None:
        step, evaluated, learner = position.step, position.plain["evaluated"], position.learners["learner"]

    def tell(message: str) -> None:
        recorder.event(phase, step, message)

    recovery = Recovery(phase, recorder, learner, position)

    def save() -> None:
        plain: dict[str, Any] = {"evaluated": evaluated, "recovery": recovery.position()}
        remembered, arrays = ({}, {}) if stopping is None else stopping.position()
        learners = {"learner": learner, "recovery": recovery.good}
        checkpointer.save(Position(step, learners, plain | remembered, arrays))

    while True:
        if step > 0 and (step // eval_every > evaluated // eval_every or step >= steps):
            evaluations, evaluated = step // eval_every, step
            if env_id is not None:
                with recorder.clock(phase, "evaluation"):
                    policy = Policy(algorithm, learner)
                    rollouts = roll_out(
                        policy, env_id, eval_episodes, seed, evaluations, False, patience, tell, evaluations <= 1, cost
                    )
                    recorder.metrics(phase, step, probe.measure(policy, rollouts))
                recorder.evaluation(phase, step, rollouts.returns, rollouts.costs)
            keep(learner)
            recovery.mark(learner, step)
            if stopping is not None:
                with recorder.clock(phase, "evaluation"):
                    recorder.metrics(phase, step, stopping.look(algorithm, learner.nets, step))
                if step >= steps:
                    tell(stopping.never(step))
                elif (reason := stopping.reason()) is not None:
                    tell(reason)
                    recorder.progress(phase, step, step)
                    save()
        if step >= steps or (stopping is not None and stopping.reason() is not None):
            return learner
        stop = min(step + UPDATES_PER_DISPATCH, (step // eval_every + 1) * eval_every, steps)
        blocks = -(-(stop - step) // per_block)
        asked_at = time.perf_counter()
        learner, metrics, training = yield Updates(
            learner, replay, key, step / steps, algorithm, blocks=blocks, train_policy=train_policy, step=step
        )
        # Alone, the answer comes at once when nothing need be compiled.
        recorder.spent(phase, "compile", time.perf_counter() - asked_at - training)
        step += blocks * per_block
        learner, _ = recovery.fetch(learner, step, metrics)
        recorder.progress(phase, min(step, steps), steps)
        if step >= steps or checkpointer.due():
            save()
