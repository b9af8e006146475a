"""The online loop: environments step on the host while the previous updates run on the device.

One chunk of L environment steps after the other:

    host    act for L steps with the policy of the updates that are finished ── append ── dispatch ──▶ next chunk
    device  ……… the updates dispatched at the end of the chunk before ………┘

So the acting policy has seen the data up to between L and 2·L steps ago; L is fixed by the recipe (`dispatch_length`),
and the run is deterministic. With `max_lag`, environments do not wait for each other: a chunk is the L steps that
arrive first, and those that are under way then arrive in a later one, `max_lag` steps after their data at most.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from segue.algorithms.base import Algorithm
from segue.bridges.base import Bridge
from segue.core import Learner
from segue.envs import USUAL, Environment, Episodes, Patience
from segue.envs.goals import Goals
from segue.envs.overlapped import Overlapped
from segue.envs.process import Choice, elsewhere
from segue.evaluation import Probe, roll_out
from segue.policy import Policy
from segue.replay import Replay, ReplayStrategy
from segue.seen import Observed
from segue.training.agent import Agent, AgentSettings
from segue.training.bridge_reviews import REFERENCE_EPISODES
from segue.training.checkpointing import NO_CHECKPOINTS, Checkpointer, Position
from segue.training.collect import Collector
from segue.training.hindsight import Hindsight
from segue.training.lag import Lag
from segue.training.recorder import Recorder

#: Is given the step, the learner, and the range of the observations so far.
Keep = Callable[[int, Learner, Observed | None], None]
#: Looks at values and returns only.
NO_PROBE = Probe(None)
#: What counts as the handover, in environment steps: where `handover_eval_every` applies.
HANDOVER_STEPS = 10_000
#: Longest chunk: the policy that collects is at most twice this many steps old.
MAX_DISPATCH = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineSettings:
    """How the online phase runs; see the fields of the same names in `segue.Recipe`."""

    env_id: str | Environment
    steps: int
    warmup_steps: int
    random_warmup: bool
    updates_per_step: float
    environments: int
    eval_every: int
    eval_episodes: int
    seed: int
    handover_eval_every: int | None = None
    patience: Patience = USUAL
    environment_processes: Choice = "no"
    max_lag: int = 0
    hindsight: int = 0
    cost: str | None = None

    def episodes(self, recorder: Recorder, tell: Callable[[str], None]) -> Episodes:
        """The environments to train in."""
        environment, choice = Environment.of(self.env_id), self.environment_processes
        place = (environment, self.environments, self.seed, "training")
        if not self.max_lag:
            apart = elsewhere(environment, self.environments, choice, recorder.note)
            return Episodes(*place, self.patience, tell, apart, self.cost)
        apart = elsewhere(environment, self.environments, "yes" if choice == "auto" else choice, recorder.note)
        assert apart is not None
        recorder.note(
            f"max_lag is {self.max_lag}, so environments do not wait for each other: steps are learnt from as they "
            "arrive, and neither this run nor one that resumes it repeats to the bit"
        )
        return Overlapped(*place, apart, self.patience, tell, self.cost)

    def next_evaluation(self, step: int) -> int:
        """The first step after this one at which the policy is evaluated."""
        following = min((step // self.eval_every + 1) * self.eval_every, self.steps)
        if self.handover_eval_every is not None and step < HANDOVER_STEPS:
            following = min(following, (step // self.handover_eval_every + 1) * self.handover_eval_every)
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


def least_lag(eval_every: int, environments: int) -> int:
    """The least `max_lag` that chunks can keep, which is the largest lag of environments that wait for each other."""
    return 2 * dispatch_length(eval_every, environments) - 1


def train_online(
    algorithm: Algorithm,
    bridges: tuple[Bridge, ...],
    strategy: ReplayStrategy,
    learner: Learner,
    replay: Replay,
    recorder: Recorder,
    settings: OnlineSettings,
    probe: Probe = NO_PROBE,
    keep: Keep = lambda step, learner, observed: None,
    checkpointer: Checkpointer = NO_CHECKPOINTS,
    position: Position | None = None,
) -> Learner:
    """Collect `steps` environment steps, with `updates_per_step` critic updates for each after the warm-up.

    Evaluates before the first step, every `eval_every` steps and at the end, in environments of its own; `keep` is
    called with the learner, and the range of observations so far, at each of these points. With a `position` it goes
    on from there, and ignores `learner`.
    """
    s = settings
    length = dispatch_length(s.handover_eval_every or s.eval_every, s.environments)
    began, evaluate_at, known = 0, 0, 0
    lag = Lag(s.max_lag, s.steps) if s.max_lag else None

    def tell(message: str) -> None:
        recorder.event("online", agent.step, message)

    budget = AgentSettings(
        steps=s.steps,
        warmup_steps=s.warmup_steps,
        updates_per_step=s.updates_per_step,
        seed=s.seed,
        slots=s.environments,
    )
    agent = Agent(algorithm, bridges, strategy, learner, replay, recorder, budget, checkpointer.replay_log, position)
    goals = Goals(s.env_id) if s.hindsight else None
    hindsight = None if goals is None else Hindsight(goals, s.hindsight, s.seed, s.environments)
    episodes = s.episodes(recorder, tell)
    collector = Collector(
        algorithm, episodes, s.seed, hindsight, replay.online is not None and replay.online.allowed is not None
    )
    if position is not None:
        known = position.plain["began"]
        evaluate_at = s.next_evaluation(known)
        collector.restore(position, agent.policy)

    try:
        while True:
            agent.learn()
            recorder.progress("online", agent.step, s.steps)
            if agent.step == evaluate_at:
                agent.before_judging()
                known = agent.step
                judge(agent.policy, agent.step, recorder, s, probe, tell)
                keep(agent.step, agent.learner, collector.observed())
                agent.recovery.mark(agent.learner, agent.step)
            if agent.step >= s.steps:
                return agent.finish()
            if agent.reviews is None:
                agent.compare_with(*reference(agent.policy, bridges, recorder, s, tell))
            began, evaluate_at = agent.step, s.next_evaluation(agent.step)
            stop = min(agent.step + length, evaluate_at)
            lags: list[np.ndarray] = []
            while agent.step < stop:
                random_action = s.random_warmup and agent.step < s.warmup_steps
                if lag is None:
                    seen = collector.step(agent.policy, random_action)
                else:
                    seen = collector.arrivals(agent.policy, random_action, lag, agent.step, known, stop)
                if seen.broken is not None:
                    agent.abandon(np.flatnonzero(seen.broken).tolist())
                if seen.known is not None:
                    lags.append(np.arange(agent.step, agent.step + len(seen.known)) - seen.known)
                agent.tell(seen.batch, seen.reward, seen.done, seen.slots, seen.carry, seen.cost)
            if lags:
                late = np.concatenate(lags)
                values = {"policy_lag": float(late.mean()), "policy_lag_max": float(late.max())}
                recorder.metrics("online", agent.step, values)
            for copies in collector.copies(agent.policy):
                agent.tell_copies(copies)
            agent.take_in()
            known = began
            if agent.step >= s.steps or checkpointer.due():
                (at, arrays), (plain, learners) = collector.position(), agent.position()
                checkpointer.save(Position(agent.step, learners, {**at, **plain, "began": began}, arrays))
    finally:
        episodes.close()
        if goals is not None:
            goals.close()


def judge(
    policy: Policy,
    step: int,
    recorder: Recorder,
    settings: OnlineSettings,
    probe: Probe,
    tell: Callable[[str], None],
) -> None:
    """Evaluate a policy in environments of its own and record what it earns and what its critic expects."""
    s = settings
    with recorder.clock("online", "evaluation"):
        rollouts = roll_out(
            policy, s.env_id, s.eval_episodes, s.seed, 1000 + step, False, s.patience, tell, step == 0, s.cost
        )
        recorder.metrics("online", step, probe.measure(policy, rollouts))
    recorder.evaluation("online", step, rollouts.returns, rollouts.costs)


def reference(
    policy: Policy,
    bridges: tuple[Bridge, ...],
    recorder: Recorder,
    settings: OnlineSettings,
    tell: Callable[[str], None],
) -> tuple[Float[np.ndarray, " episodes"], Float[np.ndarray, " episodes"] | None]:
    """Returns and costs of the policy as it was handed over, exploring; no episode if no bridge compares with them.

    The costs are None where the run records none.
    """
    s = settings
    if not any(bridge.needs_reference for bridge in bridges):
        return np.zeros(0), None if s.cost is None else np.zeros(0)
    with recorder.clock("online", "evaluation"):
        rollouts = roll_out(policy, s.env_id, REFERENCE_EPISODES, s.seed, 999, True, s.patience, tell, cost_key=s.cost)
    return rollouts.returns, rollouts.costs
