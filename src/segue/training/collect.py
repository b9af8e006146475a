"""Live experience from Gymnasium environments: one step of every environment at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from segue import rng
from segue.acting import act, restart
from segue.algorithms.base import Algorithm
from segue.core import Spaces, Transition
from segue.envs import Episodes
from segue.errors import SegueError
from segue.policy import Policy
from segue.replay.base import with_masks
from segue.seen import Observed
from segue.training.checkpointing import Position, generator_state, restore_generator
from segue.training.hindsight import MASKED, Hindsight, Steps, as_transitions

#: Steps whose observations are kept until their range is taken, which costs the same for one as for all of them.
UNREAD = 256


class Collected(NamedTuple):
    """What one step of every environment gave."""

    batch: Transition
    """To learn from."""
    reward: Float[np.ndarray, " environments"]
    """As it is."""
    done: Bool[np.ndarray, " environments"]
    """Where an episode ended with this step."""
    broken: Bool[np.ndarray, " environments"] | None
    """Where the episode before was quarantined, so that this step is the first of another one; None: nowhere."""
    carry: Any
    """What the policy carried out of the step, before it starts anew where an episode ended."""
    cost: Float[np.ndarray, " environments"] | None
    """Of the step; None if none is recorded."""


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
        observation, action = episodes.observation, self._choose(policy, random_action)
        allowed = _copy(episodes.allowed)
        next_observation, reward, terminated, truncated = episodes.step(action)
        next_allowed = episodes.next_allowed
        while episodes.any_lost:  # those begin another episode, with a step that counts
            lost = episodes.lost
            broken = lost if broken is None else broken | lost
            self.carry = restart(policy, self.carry, lost)
            seen, again = episodes.observation, self._choose(policy, random_action, lost)
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
        if self.spaces.image is None:
            self._unread.append(observation)
            self._ended += int((terminated | truncated).sum())
            if len(self._unread) == UNREAD:
                self.observed()
        done, carry = terminated | truncated, self.carry
        cost = None if episodes.cost_key is None else episodes.cost.copy()
        if done.any():
            self.carry = restart(policy, self.carry, done)
        steps = Steps(observation, action, next_observation, terminated, episodes.cost.astype(np.float32))
        if self.hindsight is not None:
            if broken is not None:
                self.hindsight.abandon(broken)
            self.hindsight.watch(steps, done)
        # Backfill fills in the next action and the return-to-go, for the algorithms that use them.
        unknown = np.full_like(action, -1 if self.spaces.discrete else np.nan)
        batch = as_transitions(self.algorithm, policy.normaliser, steps, reward, unknown)
        if self.masks or allowed is not None:
            batch = with_masks(batch._replace(allowed=allowed, next_allowed=next_allowed), self.spaces.action_size)
        return Collected(batch, reward, done, broken, carry, cost)

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

    def _choose(
        self, policy: Policy, random_action: bool, only: Bool[np.ndarray, " environments"] | None = None
    ) -> np.ndarray:
        """Actions for what the environments show now; `only` there the step counts for what is carried on."""
        spaces, count = self.spaces, len(self.episodes.observation)
        if not random_action:
            acted = act(policy, self.episodes.observation, self.carry, self.source, True, self.episodes.allowed)
            if only is None:
                self.carry = acted.carry
            else:
                self.carry = jax.tree.map(lambda new, old: _where(only, new, old), acted.carry, self.carry)
            return np.asarray(acted.action)
        if self.episodes.allowed is not None:
            drawn = np.where(self.episodes.allowed, self.source.uniform(size=self.episodes.allowed.shape), -1.0)
            return drawn.argmax(-1).astype(np.int32)
        if spaces.discrete:
            return self.source.integers(spaces.action_size, size=count, dtype=np.int32)
        return np.asarray(rng.uniform(self.source, (count, spaces.action_size), -1.0, 1.0))


def _copy(masks: np.ndarray | None) -> np.ndarray | None:
    return None if masks is None else masks.copy()


def _where(mask: Bool[np.ndarray, " environments"], new: Any, old: np.ndarray) -> np.ndarray:
    return np.where(mask.reshape(-1, *[1] * (old.ndim - 1)), new, old)
