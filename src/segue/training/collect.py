"""Live experience from Gymnasium environments: a step of every environment, or of those that have answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from segue import rng
from segue.acting import act, restart
from segue.algorithms.base import Algorithm
from segue.core import Spaces, Transition
from segue.envs import Episodes
from segue.envs.overlapped import Overlapped
from segue.errors import SegueError
from segue.policy import Policy
from segue.replay.base import with_masks
from segue.seen import Observed
from segue.training.checkpointing import Position, generator_state, restore_generator
from segue.training.hindsight import MASKED, Hindsight, Steps, as_transitions
from segue.training.lag import Lag

#: Steps whose observations are kept until their range is taken, which costs the same for one as for all of them.
UNREAD = 256


class Collected(NamedTuple):
    """What one step of every environment gave, or of some."""

    batch: Transition
    """To learn from."""
    reward: Float[np.ndarray, " rows"]
    """As it is."""
    done: Bool[np.ndarray, " rows"]
    """Where an episode ended with this step."""
    broken: Bool[np.ndarray, " environments"] | None
    """Where the episode before was quarantined, so that the next step is the first of another one, also where that is
    one of these; None: nowhere."""
    carry: Any
    """What the policy carried out of the step, before it starts anew where an episode ended."""
    cost: Float[np.ndarray, " rows"] | None
    """Of the step; None if none is recorded."""
    slots: Int[np.ndarray, " rows"] | None = None
    """The environment of each row; None: all in their order."""
    known: Int[np.ndarray, " rows"] | None = None
    """Live steps whose data the policy of each row knew; None: that is the same for all."""


class Collector:
    """Steps environments with a policy, and remembers what the policy carries from step to step.

    With `masks`, its transitions say which actions were allowed also where the environment does not (all).
    With `hindsight`, it also gives copies of finished episodes with other goals.

    Raises:
        SegueError: with both.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        episodes: Episodes,
        seed: int,
        hindsight: Hindsight | None = None,
        masks: bool = False,
    ) -> None:
        if masks and hindsight is not None:
            raise SegueError(MASKED)
        self.algorithm, self.episodes, self.hindsight, self.masks = algorithm, episodes, hindsight, masks
        self.source = rng.generator(seed, "online", "exploration")
        self.carry: Any = None
        #: Of the steps under way: their actions, and what the policy carries out of them.
        self._under_way: tuple[np.ndarray, Any] | None = None
        self._observed: Observed | None = None
        self._ended = 0
        self._unread: list[np.ndarray] = []

    @property
    def spaces(self) -> Spaces:
        """Of the environments."""
        return self.episodes.spaces

    def observed(self) -> Observed | None:
        """The range of the observations so far, with the episodes that have ended; None for images, and before any."""
        if self._unread:
            found = Observed.of(np.concatenate(self._unread), self._ended)
            self._observed = found if self._observed is None else self._observed.wider(found)
            self._unread, self._ended = [], 0
        return self._observed

    def step(self, policy: Policy, random_action: bool = False) -> Collected:
        """One step of every environment, with uniform actions or with the policy's, exploring."""
        episodes, count = self.episodes, len(self.episodes.observation)
        if self.carry is None:
            self.carry = policy.start(count)
        broken = episodes.lost if episodes.any_lost else None
        if broken is not None:
            self.carry = restart(policy, self.carry, broken)
        observation = episodes.observation
        action, self.carry = self._choose(policy, random_action)
        allowed = _copy(episodes.allowed)
        next_observation, reward, terminated, truncated = episodes.step(action)
        next_allowed = episodes.next_allowed
        while episodes.any_lost:  # those begin another episode, with a step that counts
            lost = episodes.lost
            broken = lost if broken is None else broken | lost
            self.carry = restart(policy, self.carry, lost)
            seen = episodes.observation
            again, carry = self._choose(policy, random_action)
            self.carry = _merged(lost, carry, self.carry)
            seen_allowed = _copy(episodes.allowed)
            anew = episodes.step(again, only=lost)
            if allowed is not None and next_allowed is not None:
                allowed = _where(lost, seen_allowed, allowed)
                next_allowed = _where(lost, episodes.next_allowed, next_allowed)
            observation, action = (_where(lost, *pair) for pair in ((seen, observation), (again, action)))
            next_observation, reward, terminated, truncated = (
                _where(lost, new, old)
                for new, old in zip(anew, (next_observation, reward, terminated, truncated), strict=True)
            )
        done, carry, cost = terminated | truncated, self.carry, episodes.cost.copy()
        if done.any():
            self.carry = restart(policy, self.carry, done)
        steps = Steps(observation, action, next_observation, terminated, cost)
        batch = self._learnable(policy, steps, reward, done, broken, (allowed, next_allowed))
        return Collected(batch, reward, done, broken, carry, None if episodes.cost_key is None else cost)

    def arrivals(self, policy: Policy, random_action: bool, lag: Lag, step: int, known: int, stop: int) -> Collected:
        """Some next steps, at most up to step `stop`, in the order in which they arrive; waits for the first.

        Environments that are free get an action at once. There may be no row, if all that came was bad.

        Args:
            policy: acts, exploring.
            random_action: whether actions are uniform instead.
            lag: holds steps back that others would come too late for.
            step: steps told so far.
            known: so many of these the policy knows.
            stop: the step after which it has to be asked again, with another policy.
        """
        episodes = self.episodes
        assert isinstance(episodes, Overlapped)
        if self.carry is None:
            self.carry = policy.start(len(episodes.observation))
        before = episodes.lost if episodes.any_lost else None
        if before is not None:  # episodes that could not be restored
            self.carry = restart(policy, self.carry, before)
        told: dict[int, int] = {}
        while not told:
            if chosen := episodes.free[: lag.room(step, known)]:
                self._begin(policy, random_action, chosen)
                lag.begin(chosen, known)
            told = lag.end(episodes.arrived(lag.next(step)), step, stop - step)
        assert self._under_way is not None
        action, carry = self._under_way
        observation, allowed = episodes.observation, _copy(episodes.allowed)
        taken = np.zeros(len(observation), bool)
        taken[list(told)] = True
        next_observation, reward, terminated, truncated = episodes.take(action, taken)
        lost, done, episodes.any_lost = episodes.lost, terminated | truncated, False
        self.carry = _merged(taken, carry, self.carry)
        if (over := done | lost).any():
            self.carry = restart(policy, self.carry, over)
        broken = lost if before is None else lost | before
        slots = np.array([slot for slot in told if not lost[slot]], np.int64)
        rows = (observation, action, next_observation, terminated, episodes.cost)
        steps, reward, done = Steps(*(column[slots] for column in rows)), reward[slots], done[slots]
        allowed, next_allowed = (mask if mask is None else mask[slots] for mask in (allowed, episodes.next_allowed))
        return Collected(
            self._learnable(policy, steps, reward, done, broken, (allowed, next_allowed), slots),
            reward,
            done,
            broken if broken.any() else None,
            jax.tree.map(lambda leaf: leaf[slots], carry),
            None if episodes.cost_key is None else steps.cost,
            slots,
            np.array([told[slot] for slot in slots.tolist()], np.int64),
        )

    def copies(self, policy: Policy) -> list[Transition]:
        """What hindsight makes of the episodes that have ended since the last call, to learn from."""
        if self.hindsight is None:
            return []
        return [as_transitions(self.algorithm, policy.normaliser, *copies) for copies in self.hindsight.take()]

    def position(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Where it stands, as JSON and as arrays."""
        carried = {f"carry.{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(self.carry))}
        plain, running = ({}, {}) if self.hindsight is None else self.hindsight.position()
        if (observed := self.observed()) is not None:
            plain = {**plain, "observed": observed.plain()}
        return (
            {"source": generator_state(self.source), **plain},
            {**self.episodes.position(), **carried, **running},
        )

    def restore(self, position: Position, policy: Policy) -> None:
        """Go back to a position; the policy is one that acts as it did then."""
        restore_generator(self.source, position.plain["source"])
        self.episodes.restore(position.arrays)
        start = policy.start(len(self.episodes.observation))
        leaves = [position.arrays[f"carry.{i}"] for i in range(len(jax.tree.leaves(start)))]
        self.carry = jax.tree.unflatten(jax.tree.structure(start), leaves)
        if "observed" in position.plain:
            self._observed = Observed.read(position.plain["observed"])
        if self.hindsight is not None:
            self.hindsight.restore(position.plain, position.arrays)

    def _begin(self, policy: Policy, random_action: bool, chosen: Sequence[int]) -> None:
        """Begin a step of each of these environments."""
        episodes = self.episodes
        action, carry = self._choose(policy, random_action)
        if self._under_way is not None:
            only = np.zeros(len(action), bool)
            only[list(chosen)] = True
            action, carry = _where(only, action, self._under_way[0]), _merged(only, carry, self._under_way[1])
        self._under_way = action, carry
        episodes.ask(action, chosen)

    def _learnable(
        self,
        policy: Policy,
        steps: Steps,
        reward: Float[np.ndarray, " rows"],
        done: Bool[np.ndarray, " rows"],
        broken: Bool[np.ndarray, " environments"] | None,
        allowed: tuple[np.ndarray | None, np.ndarray | None],
        slots: Int[np.ndarray, " rows"] | None = None,
    ) -> Transition:
        """Steps as transitions, once what else follows episodes has seen them."""
        if self.spaces.image is None:
            self._unread.append(steps.observation)
            self._ended += int(done.sum())
            if len(self._unread) == UNREAD:
                self.observed()
        steps = steps._replace(cost=steps.cost.astype(np.float32))
        if self.hindsight is not None:
            if broken is not None:
                self.hindsight.abandon(broken)
            self.hindsight.watch(steps, done, slots)
        # Backfill fills in the next action and the return-to-go, for the algorithms that use them.
        unknown = np.full_like(steps.action, -1 if self.spaces.discrete else np.nan)
        batch = as_transitions(self.algorithm, policy.normaliser, steps, reward, unknown)
        now, following = allowed
        if self.masks or now is not None:
            batch = with_masks(batch._replace(allowed=now, next_allowed=following), self.spaces.action_size)
        return batch

    def _choose(self, policy: Policy, random_action: bool) -> tuple[np.ndarray, Any]:
        """Actions for what the environments show now, and what is carried out of them."""
        spaces, count = self.spaces, len(self.episodes.observation)
        if not random_action:
            acted = act(policy, self.episodes.observation, self.carry, self.source, True, self.episodes.allowed)
            return np.asarray(acted.action), acted.carry
        if self.episodes.allowed is not None:
            drawn = np.where(self.episodes.allowed, self.source.uniform(size=self.episodes.allowed.shape), -1.0)
            return drawn.argmax(-1).astype(np.int32), self.carry
        if spaces.discrete:
            return self.source.integers(spaces.action_size, size=count, dtype=np.int32), self.carry
        return np.asarray(rng.uniform(self.source, (count, spaces.action_size), -1.0, 1.0)), self.carry


def _copy(masks: np.ndarray | None) -> np.ndarray | None:
    return None if masks is None else masks.copy()


def _merged(mask: Bool[np.ndarray, " environments"], new: Any, old: Any) -> Any:
    """What is carried, with these rows anew."""
    return jax.tree.map(lambda now, before: _where(mask, now, before), new, old)


def _where(mask: Bool[np.ndarray, " environments"], new: Any, old: np.ndarray) -> np.ndarray:
    return np.where(mask.reshape(-1, *[1] * (old.ndim - 1)), new, old)
