"""The online loop: environments step on the host while the previous updates run on the device.

One chunk of L environment steps after the other:

    host    act for L steps with the policy of the updates that are finished ── append ── dispatch ──▶ next chunk
    device  ……… the updates dispatched at the end of the chunk before ………┘

So the acting policy has seen the data up to between L and 2·L steps ago; L is fixed by the recipe (`dispatch_length`),
and the run is deterministic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from segue import random
from segue.algorithms.base import Algorithm
from segue.bridges.base import Bridge
from segue.envs import USUAL, Episodes, Patience
from segue.evaluation import Probe, roll_out
from segue.policy import Policy
from segue.replay import Replay, ReplayStrategy, append
from segue.replay.journal import refill
from segue.training.checkpointing import FORGETFUL, Keeper, Position
from segue.training.collect import Collector
from segue.training.hindsight import Hindsight
from segue.training.oversight import REFERENCE_EPISODES, Oversight
from segue.training.recorder import Recorder
from segue.training.recovery import Recovery
from segue.training.update import run_updates
from segue.types import Learner, Metrics, Transition

#: Looks at values and returns only.
NO_PROBE = Probe(None)
#: What counts as the seam, in environment steps: where `seam_eval_every` applies.
SEAM_STEPS = 10_000
#: Longest chunk: the policy that collects is at most twice this many steps old.
MAX_DISPATCH = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineSettings:
    """How the online phase runs; see the fields of the same names in `segue.Recipe`."""

    env_id: str
    steps: int
    warmup_steps: int
    random_warmup: bool
    updates_per_step: float
    environments: int
    eval_every: int
    eval_episodes: int
    seed: int
    seam_eval_every: int | None = None
    patience: Patience = USUAL

    def next_evaluation(self, step: int) -> int:
        """The first step after this one at which the policy is evaluated."""
        following = min((step // self.eval_every + 1) * self.eval_every, self.steps)
        if self.seam_eval_every is not None and step < SEAM_STEPS:
            following = min(following, (step // self.seam_eval_every + 1) * self.seam_eval_every)
        return following


def dispatch_length(eval_every: int, environments: int) -> int:
    """Environment steps per chunk, a multiple of the number of environments.

    The largest up to MAX_DISPATCH that divides `eval_every`, so that chunks are alike and compile once; where only
    short ones do, MAX_DISPATCH itself, with a shorter chunk before each evaluation.
    """
    longest = max(MAX_DISPATCH // environments, 1) * environments
    for length in range(longest, longest // 5, -environments):
        if eval_every % length == 0:
            return length
    return longest


def train_online(
    algorithm: Algorithm,
    bridges: tuple[Bridge, ...],
    strategy: ReplayStrategy,
    learner: Learner,
    replay: Replay,
    recorder: Recorder,
    settings: OnlineSettings,
    probe: Probe = NO_PROBE,
    keep: Callable[[int, Learner], None] = lambda step, learner: None,
    keeper: Keeper = FORGETFUL,
    position: Position | None = None,
) -> Learner:
    """Collect `steps` environment steps, with `updates_per_step` critic updates for each after the warm-up.

    Evaluates before the first step, every `eval_every` steps and at the end, in environments of its own; `keep` is
    called with the learner at each of these points. With a `position` it goes on from there, whatever `learner` is.
    """
    s = settings
    key = random.stream(s.seed, "online")
    length = dispatch_length(s.seam_eval_every or s.eval_every, s.environments)
    step, began, owed, evaluate_at = 0, 0, 0.0, 0

    def tell(message: str) -> None:
        recorder.event("online", step, message)

    episodes = Episodes(s.env_id, s.environments, s.seed, "training", s.patience, tell)
    collector = Collector(algorithm, episodes, s.seed)
    hindsight = Hindsight(algorithm.columns, algorithm.discount, s.environments, algorithm.sparse_failure_reward)
    journal = keeper.journal
    oversight: Oversight | None = None
    pending: tuple[int, Metrics] | None = None
    if position is not None:
        step, learner, there = position.step, position.learners["learner"], position.plain
        owed, evaluate_at = there["owed"], s.next_evaluation(there["began"])
        replay = refill(replay, position.rows)
        hindsight.restore(there["hindsight"])
        oversight = Oversight.restored(bridges, position, recorder)
    recovery = Recovery("online", recorder, learner, position)

    def acting(at: int) -> tuple[int, Policy]:
        return at, Policy(algorithm.at(np.asarray(at / s.steps, np.float32)), learner, bridges)

    # The step at which it was taken: an algorithm may explore less the later that is.
    since, policy = acting(0 if position is None else position.plain["since"])
    if position is not None:
        collector.restore(position, policy)

    def judge() -> None:
        with recorder.clock("online", "evaluation"):
            rollouts = roll_out(policy, s.env_id, s.eval_episodes, s.seed, 1000 + step, False, s.patience, tell)
            recorder.metrics("online", step, probe.measure(policy, rollouts))
        recorder.evaluation("online", step, rollouts.returns)
        keep(step, learner)
        recovery.mark(learner, step)

    try:
        while True:
            blocks = int(owed // algorithm.updates_per_block)
            if blocks:
                owed -= blocks * algorithm.updates_per_block
                with recorder.clock("online", "compile"):  # the call returns at once when it need not compile
                    learner, metrics = run_updates(
                        learner,
                        replay,
                        key,
                        jnp.asarray(step / s.steps, jnp.float32),
                        algorithm,
                        bridges,
                        strategy,
                        blocks=blocks,
                    )
                pending = (step, metrics)
            recorder.progress("online", step, s.steps)
            if step == evaluate_at:
                if pending is not None and recovery.lost(*pending):  # what has diverged is neither judged nor kept
                    learner, pending = recovery.fetch(learner, *pending)[0], None
                    assert oversight is not None  # there are updates only after a look at the first policy
                    oversight.start_again(step)
                since, policy = acting(step)
                judge()
            if step >= s.steps:
                break
            if oversight is None:
                returns = reference(policy, bridges, recorder, s, tell)
                oversight = Oversight(bridges, learner, returns, recorder, s.environments)
            began, evaluate_at = step, s.next_evaluation(step)
            stop = min(step + length, evaluate_at)
            rows = []
            while step < stop:
                random_action = s.random_warmup and step < s.warmup_steps
                batch, reward, done, broken = collector.step(policy, random_action)
                if broken is not None:
                    hindsight.abandon(broken)
                    oversight.abandon(broken)
                hindsight.watch(batch, done)
                oversight.watch(reward, done)
                rows.append(batch)
                step += s.environments
            if pending is not None:  # the updates that ran meanwhile; fetching them waits for the device
                learner, good = recovery.fetch(learner, *pending)
                if good:
                    learner = oversight.review(learner, step)
                else:
                    oversight.start_again(step)
                (since, policy), pending = acting(step), None
            arrived: Transition = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
            replay = append(replay, arrived)
            if journal is not None:
                journal.append(arrived)
            replay = hindsight.apply(replay, journal)
            if step > s.warmup_steps:
                owed += len(rows) * s.environments * s.updates_per_step * oversight.pace
            if step >= s.steps or keeper.due():
                plain, arrays = collector.position()
                plain |= {
                    "began": began,
                    "owed": owed,
                    "since": since,
                    "hindsight": hindsight.position(),
                    "oversight": oversight.position(),
                    "recovery": recovery.position(),
                }
                learners = {**oversight.learners(learner), "recovery": recovery.good}
                keeper.save(Position(step, learners, plain, arrays))
        if pending is not None:
            learner, _ = recovery.fetch(learner, *pending)
    finally:
        episodes.close()
    return learner


def reference(
    policy: Policy,
    bridges: tuple[Bridge, ...],
    recorder: Recorder,
    settings: OnlineSettings,
    tell: Callable[[str], None],
) -> Float[np.ndarray, " episodes"]:
    """Returns of the policy as it was handed over, exploring; none if no bridge wants to compare with them."""
    if not any(bridge.needs_reference for bridge in bridges):
        return np.zeros(0)
    with recorder.clock("online", "evaluation"):
        rollouts = roll_out(
            policy, settings.env_id, REFERENCE_EPISODES, settings.seed, 999, True, settings.patience, tell
        )
    return rollouts.returns
