"""Ask and tell: an off-policy learner that is told of transitions and asked for a policy, and owns no environment.

    agent.learn()            dispatch the updates that are owed
    policy = agent.policy    act with it, wherever that is
    agent.tell(…)            what came of it
    agent.take_in()          the policy of the updates that have finished; what was told may be sampled from now on

Gymnasium episodes are one source (segue.training.online). In a live system a reward may come late: `begin` notes an
action when it is taken and `complete` adds the rest when it is known. Until a transition is complete, and all before it
in its episode are, nothing is learnt from it.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Real

from segue import rng
from segue.acting import Carry
from segue.algorithms.base import Algorithm
from segue.bridges.base import Bridge
from segue.core import Learner, Metrics, Transition
from segue.errors import SegueError
from segue.policy import Policy
from segue.replay import Replay, ReplayStrategy, append
from segue.replay.base import with_masks
from segue.replay.replay_log import ReplayLog, refill
from segue.training.bridge_reviews import BridgeReviews
from segue.training.checkpointing import Position
from segue.training.recorder import Recorder
from segue.training.recovery import Recovery
from segue.training.return_backfill import ReturnBackfill
from segue.training.update import Updates, train


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """How much is learnt from how much; see the fields of the same names in `segue.Recipe`."""

    steps: int
    """Transitions of the whole online phase, over which schedules run; more may be told."""
    warmup_steps: int
    updates_per_step: float
    seed: int
    slots: int = 1
    """Episodes that may run side by side."""
    dispatch: int | None = None
    """Blocks of updates per dispatch: `learn` does whole dispatches only, and each size is compiled once. None: all
    that are owed at once, for a caller that owes the same number every time."""


@dataclasses.dataclass
class _Begun:
    """A transition of which the rest may be missing."""

    observation: np.ndarray
    action: np.ndarray
    rest: tuple[float, np.ndarray, bool, bool, float | None] | None = None
    """Reward, next observation, terminated, truncated, cost."""


class Agent:
    """Learns online from what it is told.

    Attributes:
        policy: to act with now; another one after each `take_in`.
        step: transitions told so far.
        learner: the learner; what is dispatched but not taken in is part of it.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        bridges: tuple[Bridge, ...],
        strategy: ReplayStrategy,
        learner: Learner,
        replay: Replay,
        recorder: Recorder,
        settings: AgentSettings,
        replay_log: ReplayLog | None = None,
        position: Position | None = None,
    ) -> None:
        self.algorithm, self.bridges, self.strategy, self.settings = algorithm, bridges, strategy, settings
        self.learner, self.replay, self.recorder, self.replay_log = learner, replay, recorder, replay_log
        self.key = rng.stream(settings.seed, "online")
        self.step, self.owed, self.since = 0, 0.0, 0
        self.pending: tuple[int, Metrics] | None = None
        columns = (*algorithm.columns, *(("following",) if algorithm.sequence_length > 1 else ()))
        self.backfill = ReturnBackfill(columns, algorithm.discount, settings.slots, algorithm.sparse_failure_reward)
        self.reviews: BridgeReviews | None = None
        self.told: list[Transition] = []
        self.copied: list[Transition] = []
        self.begun: list[deque[_Begun]] = [deque() for _ in range(settings.slots)]
        if position is not None:
            there = position.plain
            self.step, self.learner = position.step, position.learners["learner"]
            self.owed, self.since = there["owed"], there["since"]
            self.replay = refill(replay, position.rows)
            self.backfill.restore(there["backfill"])
            self.reviews = BridgeReviews.restored(bridges, position, recorder)
        self.recovery = Recovery("online", recorder, self.learner, position)
        self.policy = self._policy(self.since)

    def compare_with(
        self, returns: Float[np.ndarray, " episodes"], costs: Float[np.ndarray, " episodes"] | None = None
    ) -> None:
        """Returns (and costs) of the policy that was handed over, for the bridges that compare with them; before
        anything else.
        """
        self.reviews = BridgeReviews(self.bridges, self.learner, returns, self.recorder, self.settings.slots, costs)

    def learn(self) -> None:
        """Dispatch the updates that are owed; the call waits for nothing but a program's first compilation.

        Nothing is dispatched while earlier updates wait for `take_in`, which looks at their metrics.
        """
        if self.pending is not None:
            return
        block = self.algorithm.updates_per_block
        blocks = int(self.owed // block)
        if self.settings.dispatch is not None:
            blocks = self.settings.dispatch if blocks >= self.settings.dispatch else 0
        if not blocks:
            return
        self.owed -= blocks * block
        progress = self._progress(self.step)
        how = (self.algorithm, self.bridges, self.strategy)
        with self.recorder.clock("online", "compile"):  # the call returns at once when it need not compile
            self.learner, metrics = train(Updates(self.learner, self.replay, self.key, progress, *how, blocks=blocks))
        self.pending = (self.step, metrics)

    def tell(
        self,
        batch: Transition,
        reward: Float[np.ndarray, " rows"],
        done: Bool[np.ndarray, " rows"],
        slots: Int[np.ndarray, " rows"] | None = None,
        carry: Carry = None,
        cost: Float[np.ndarray, " rows"] | None = None,
    ) -> None:
        """A transition of the episode in each of these slots, by default in all, with normalised observations.

        `reward` is the environment's own, of which `batch` has what the algorithm learns from. `carry` is what the
        policy carried out of these steps; without it a bridge cannot know which of its policies acted. `cost` is what
        these steps cost, always or never given.
        """
        self.backfill.watch(batch, done, slots)
        self._reviewed().watch(reward, done, slots, carry, cost)
        self.told.append(batch)
        self.step += len(done)

    def tell_raw(
        self,
        slots: Int[np.ndarray, " rows"],
        observation: Real[np.ndarray, "rows observation"],
        action: Float[np.ndarray, "rows action"] | Int[np.ndarray, " rows"],
        reward: Float[np.ndarray, " rows"],
        next_observation: Real[np.ndarray, "rows observation"],
        terminated: Bool[np.ndarray, " rows"],
        truncated: Bool[np.ndarray, " rows"],
        cost: Float[np.ndarray, " rows"] | None = None,
    ) -> None:
        """`tell` with raw observations; each slot occurs once. Nothing is checked.

        `cost` is given to an algorithm that learns from costs, and only to one.
        """
        batch = Transition(
            observation=np.asarray(self.policy.normaliser(observation)),
            action=action,
            reward=self.algorithm.learning_rewards(reward),
            next_observation=np.asarray(self.policy.normaliser(next_observation)),
            discount=np.where(terminated, 0.0, self.algorithm.discount).astype(np.float32),
            return_to_go=np.full(len(reward), -np.inf, np.float32),
            next_action=np.full_like(action, -1 if action.ndim == 1 else np.nan),
            following=np.full(len(reward), -1, np.int32) if self.algorithm.sequence_length > 1 else None,
            cost=cost,
        )
        assert self.replay.online is not None
        if self.replay.online.allowed is not None:
            batch = with_masks(batch, self.replay.online.allowed.shape[1])
        self.tell(batch, reward, terminated | truncated, slots, cost=cost)

    def tell_copies(self, copies: Transition) -> None:
        """Transitions that were made of others, as hindsight does: they may be sampled, and do not count as steps."""
        self.copied.append(copies)

    def abandon(self, slots: Sequence[int]) -> None:
        """The episodes in the slots with these numbers will never end; others begin with the next step."""
        mask = np.zeros(self.settings.slots, bool)
        mask[list(slots)] = True
        self.backfill.abandon(mask)
        self._reviewed().abandon(mask)
        for slot in slots:
            self.begun[slot].clear()

    def add_slots(self, count: int) -> None:
        """So many more episodes may run side by side."""
        self.settings = dataclasses.replace(self.settings, slots=self.settings.slots + count)
        self.backfill.add_slots(count)
        self._reviewed().add_slots(count)
        self.begun += [deque() for _ in range(count)]

    def begin(self, slot: int, observation: Float[np.ndarray, " observation"], action: Any) -> _Begun:
        """Note the action taken in a raw observation of the episode in this slot; `complete` takes what is returned.

        The action is as the policy gives it: in [-1, 1], or an integer from 0.

        Raises:
            SegueError: for an observation or an action of another shape, or one that is not finite or out of range.
        """
        begun = _Begun(self._observation(observation), self._action(action))
        self.begun[slot].append(begun)
        return begun

    def complete(
        self,
        begun: _Begun,
        reward: float,
        next_observation: Float[np.ndarray, " observation"],
        terminated: bool = False,
        truncated: bool = False,
        cost: float | None = None,
    ) -> None:
        """Add what came of an action.

        Raises:
            SegueError: if it is complete already, or its episode was abandoned; for numbers that are not finite, an
                observation of another shape, or a cost missing that the algorithm learns from.
        """
        if not np.isfinite(reward):
            raise SegueError(f"the reward is {reward}; expected a finite number")
        if self.algorithm.needs_costs and not (cost is not None and np.isfinite(cost)):
            raise SegueError(f"the cost is {cost}; {self.algorithm.name} learns from costs: expected a finite number")
        following = self._observation(next_observation)
        slot = next((slot for slot, waiting in enumerate(self.begun) if any(one is begun for one in waiting)), None)
        if slot is None or begun.rest is not None:
            raise SegueError("the transition is complete already, or its episode was abandoned; nothing was changed")
        begun.rest = (float(reward), following, terminated, truncated, cost)
        while self.begun[slot] and self.begun[slot][0].rest is not None:
            self._tell_one(slot, self.begun[slot].popleft())

    def waiting(self) -> int:
        """Transitions that have begun and are not learnt from yet."""
        return sum(map(len, self.begun))

    def take_in(self) -> None:
        """Wait for the updates under way and take their policy; from now on what was told may be sampled."""
        if self.pending is not None:
            self.learner, good = self.recovery.fetch(self.learner, *self.pending)
            if good:
                self.learner = self._reviewed().review(self.learner, self.step)
            else:
                self._reviewed().start_again(self.step)
            self.pending = None
            self._act_anew()
        if not self.told:
            return
        told, copied, self.told, self.copied = self.told, self.copied, [], []
        steps = self._append(told)  # first: the backfill has numbered these already
        if copied:
            self.backfill.count += self._append(copied)
        self.replay = self.backfill.apply(self.replay, self.replay_log)
        if self.step > self.settings.warmup_steps:
            self.owed += steps * self.settings.updates_per_step * self._reviewed().pace

    def before_judging(self) -> None:
        """The policy of now; of the last good learner, if the updates under way have diverged."""
        if self.pending is not None and self.recovery.lost(*self.pending):
            self.learner = self.recovery.fetch(self.learner, *self.pending)[0]
            self._reviewed().start_again(self.step)
            self.pending = None
        self._act_anew()

    def finish(self) -> Learner:
        """The learner, once all updates are done."""
        if self.pending is not None:
            self.learner, _ = self.recovery.fetch(self.learner, *self.pending)
            self.pending = None
        return self.learner

    def position(self) -> tuple[dict[str, Any], dict[str, Learner]]:
        """Where it stands between `take_in` and `learn`, as JSON and learners.

        The replay log has the transitions told; what has only begun has to be begun again.
        """
        reviews = self._reviewed()
        plain = {
            "owed": self.owed,
            "since": self.since,
            "backfill": self.backfill.position(),
            "reviews": reviews.position(),
            "recovery": self.recovery.position(),
        }
        return plain, {**reviews.learners(self.learner), "recovery": self.recovery.good}

    def _append(self, batches: list[Transition]) -> int:
        """Put these into the ring, and return how many they are."""
        arrived: Transition = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
        self.replay = append(self.replay, arrived)
        if self.replay_log is not None:
            self.replay_log.append(arrived)
        return len(arrived.reward)

    def _observation(self, given: Any) -> np.ndarray:
        assert self.replay.online is not None
        column, expected = self.replay.online.observation, self.policy.normaliser.mean.shape
        observation = np.asarray(given, column.dtype)
        if column.dtype == np.uint8:
            observation = observation.reshape(-1)
        if observation.shape != expected or not np.isfinite(observation).all():
            raise SegueError(f"the observation is {given!r}; expected {expected[0]} finite numbers")
        return observation

    def _action(self, given: Any) -> np.ndarray:
        assert self.replay.online is not None
        column = self.replay.online.action
        action = np.asarray(given, np.int32 if column.ndim == 1 else np.float32)
        if (
            action.shape != column.shape[1:]
            or action.min() < (0 if column.ndim == 1 else -1)
            or not (column.ndim == 1 or np.abs(action).max() <= 1)
        ):
            what = "an integer from 0" if column.ndim == 1 else f"{column.shape[1]} numbers in [-1, 1]"
            raise SegueError(f"the action is {given!r}; expected {what}, as the policy gives it")
        return action

    def _act_anew(self) -> None:
        self.since, self.policy = self.step, self._policy(self.step)

    def _progress(self, at: int) -> float:
        """Share of the schedules that is over; a live system may go on after their end."""
        return min(at / self.settings.steps, 1.0)

    def _policy(self, at: int) -> Policy:
        """An algorithm may explore less the later it is."""
        now = self.algorithm.at(np.asarray(self._progress(at), np.float32))
        return Policy(now, self.learner, self.bridges)

    def _reviewed(self) -> BridgeReviews:
        if self.reviews is None:
            self.compare_with(np.zeros(0))
        assert self.reviews is not None
        return self.reviews

    def _tell_one(self, slot: int, begun: _Begun) -> None:
        assert begun.rest is not None
        reward, following, terminated, truncated, cost = begun.rest
        self.tell_raw(
            np.array([slot]),
            begun.observation[None],
            begun.action[None],
            np.array([reward], np.float32),
            following[None],
            np.array([terminated]),
            np.array([truncated]),
            np.array([cost], np.float32) if self.algorithm.needs_costs else None,
        )
