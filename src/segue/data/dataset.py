"""The dataset: immutable, validated columns with episode boundaries, spaces, statistics and its source."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Literal

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float, Int, Real, UInt64

from segue import rng
from segue.core import Normaliser, Spaces, Transition, is_image
from segue.data.boundaries import Contradiction, boundaries
from segue.data.encoding import Encoding
from segue.envs.spec import Environment
from segue.errors import DataError
from segue.seen import Observed

#: What to do with actions outside the bounds: refuse the dataset, or clip them into it.
OutOfRange = Literal["error", "clip"]
#: Rounding slack when actions are compared with their bounds.
BOUND_TOLERANCE = 1e-4
#: Rounding slack of a logarithm of a probability above 0.
LOG_PROB_TOLERANCE = 1e-4
#: What TD3+BC and CORL add to standard deviations: an observation that varies by less is constant to a network.
STD_EPSILON = 1e-3
#: Rows of a column that are hashed at a time: it may lie on disk.
HASHED_AT_ONCE = 2**20
#: Largest rounding of observations to 32-bit floats, in their standard deviations.
MAX_ROUNDING = 0.1


@dataclasses.dataclass(frozen=True)
class Columns:
    """What a format reader found, before validation. Rows are steps, in order of time within an episode."""

    observations: np.ndarray
    actions: np.ndarray
    terminals: np.ndarray
    """1 where the episode ended in a true terminal state."""
    rewards: np.ndarray | None = None
    """None if the file has none: only imitation learns from it."""
    timeouts: np.ndarray | None = None
    """1 where the episode was cut by a time limit; None if the file does not say."""
    next_observations: np.ndarray | None = None
    """None if the file stores only observations; they are then shifted within each episode."""
    env_id: str | None = None
    """Gymnasium id of the environment that was logged, if the file says."""
    env_spec: str | None = None
    """JSON of what belongs to that environment beside its id: kwargs, max_episode_steps, wrappers."""
    action_bounds: tuple[np.ndarray, np.ndarray] | None = None
    """Low and high of the logged action space, if the file says; actions are rescaled from it to [-1, 1]."""
    discrete_actions: int | None = None
    """Number of discrete actions, if the file says."""
    behaviour_log_prob: np.ndarray | None = None
    """log b(a|s) of the logged action under the policy that took it, if the file says: the logged propensity. For
    continuous actions a density over them as they are logged, before they are rescaled."""
    cost: np.ndarray | None = None
    """Cost of each step, a safety signal, if the file says."""
    allowed_actions: np.ndarray | None = None
    """Whether each discrete action could be taken, a row per step, if the file says."""
    encoding: Encoding | None = None
    """What the numbers of observations and actions mean, if the file says."""
    notes: tuple[str, ...] = ()
    """What the reader did to the data, in words."""


@dataclasses.dataclass(frozen=True, repr=False)
class Dataset:
    """A validated log of N transitions in episode order.

    Attributes hold read-only arrays. Continuous actions are in [-1, 1]; discrete ones are integers from 0.
    """

    observations: Real[np.ndarray, "N observation"]
    """Float32; uint8 where they are images."""
    actions: Float[np.ndarray, "N action"] | Int[np.ndarray, " N"]
    rewards: Float[np.ndarray, " N"]
    """NaN in every row where the dataset has none."""
    next_observations: Real[np.ndarray, "N observation"]
    terminals: Bool[np.ndarray, " N"]
    """True where the episode reached a true terminal state: the only place where nothing is bootstrapped."""
    episode_starts: Int[np.ndarray, " episodes"]
    """Row of the first transition of each episode."""
    spaces: Spaces
    source: str
    env_id: str | None = None
    env_spec: str | None = None
    """JSON of what belongs to that environment beside its id."""
    bounds_known: bool = False
    """Whether the bounds or the number of the actions were given; otherwise they are ±1, or the largest one and 1."""
    action_bounds: tuple[Float[np.ndarray, " action"], Float[np.ndarray, " action"]] | None = None
    """Low and high of continuous actions in the unit that they were logged in; None if that is [-1, 1]."""
    notes: tuple[str, ...] = ()
    """What was done to the dataset while loading, in words."""
    behaviour_log_prob: Float[np.ndarray, " N"] | None = None
    """log b(a|s) of the policy that acted (a density over [-1, 1] for continuous actions); None if unknown."""
    cost: Float[np.ndarray, " N"] | None = None
    """Cost of each step, a safety signal, for evaluation and for algorithms that learn from it. None if unknown."""
    allowed_actions: Bool[np.ndarray, "N actions"] | None = None
    """Which discrete actions could be taken; None where all could."""
    encoding: Encoding | None = None
    """What the numbers of observations and actions mean, where the dataset was a table."""
    part_of_episode: Int[np.ndarray, " episodes"] | None = None
    """Of a mixture: the number of the part that each episode is from, in ascending order."""
    part_weights: tuple[float, ...] = ()
    """Of a mixture with weights: the share of samples drawn from each part."""

    def __len__(self) -> int:
        return len(self.rewards)

    def __repr__(self) -> str:
        return (
            f"Dataset({self.source}: {len(self):,} transitions in {len(self.episode_starts):,} episodes, "
            f"{self.spaces.describe()})"
        )

    def in_memory(self) -> Dataset:
        """The same dataset as arrays: itself, unless it lies on disk (segue.data.mapped)."""
        return self

    def excerpt(self) -> Dataset:
        """What is looked at: the dataset, or of a large one on disk some random episodes."""
        return self

    @property
    def rewards_known(self) -> bool:
        """Whether the dataset has rewards; without them only imitation learns from it."""
        return not np.isnan(self.rewards).any()

    @property
    def environment(self) -> Environment | None:
        """The environment that was logged, if the dataset names it."""
        if self.env_spec is not None:
            return Environment.read(json.loads(self.env_spec))
        return None if self.env_id is None else Environment(self.env_id)

    @property
    def episode_lengths(self) -> Int[np.ndarray, " episodes"]:
        """Transitions per episode."""
        return np.diff(np.append(self.episode_starts, len(self)))

    @property
    def episode_returns(self) -> Float[np.ndarray, " episodes"]:
        """Undiscounted sum of rewards per episode."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.episode_starts)

    @property
    def episode_costs(self) -> Float[np.ndarray, " episodes"] | None:
        """Sum of costs per episode; None if they are unknown."""
        return None if self.cost is None else np.add.reduceat(self.cost.astype(np.float64), self.episode_starts)

    def require_cost(self, what: str) -> Float[np.ndarray, " N"]:
        """The cost of each step, which this part needs.

        Raises:
            DataError: if the dataset has none.
        """
        if self.cost is None:
            raise DataError(
                f"{self.source}: {what} needs the cost of each step, and the dataset has none: add a column "
                "'cost' (of a table: --cost-column NAME), or record one with segue collect --cost KEY"
            )
        return self.cost

    @property
    def episode_terminals(self) -> Bool[np.ndarray, " episodes"]:
        """Whether each episode ended in a true terminal (otherwise: time-out, or the dataset was cut)."""
        return self.terminals[np.append(self.episode_starts[1:], len(self)) - 1]

    def normaliser(self) -> Normaliser:
        """Mean and standard deviation of the observations (+1e-3, as TD3+BC and CORL do); the identity for images."""
        if self.spaces.image is not None:
            return Normaliser.identity(self.spaces.observation_size)
        mean = self.observations.mean(0, dtype=np.float64)
        std = self.observations.std(0, dtype=np.float64) + STD_EPSILON
        return Normaliser(mean.astype(np.float32), std.astype(np.float32))

    def observed(self) -> Observed | None:
        """The range of each number of an observation; None for images."""
        return None if self.spaces.image is not None else Observed.of(self.observations, len(self.episode_starts))

    def returns_to_go(self, discount: float, failure_reward: float | None = None) -> Float[np.ndarray, " N"]:
        """Discounted sum of rewards from each row to the end of its episode, a cut one summed as it is."""
        episodes = np.split(self.rewards, self.episode_starts[1:])
        return np.concatenate([returns_to_go(rewards, discount, failure_reward) for rewards in episodes])

    def next_actions(self) -> Float[np.ndarray, "N action"] | Int[np.ndarray, " N"]:
        """The action of the next row of the same episode; NaN (−1 for discrete ones) in an episode's last row."""
        following = np.roll(self.actions, -1, axis=0)
        following[np.append(self.episode_starts[1:], len(self)) - 1] = -1 if self.spaces.discrete else np.nan
        return following

    def next_rows(self) -> Int[np.ndarray, " N"]:
        """The row of the next step of the same episode; −1 in an episode's last row."""
        following = np.arange(1, len(self) + 1, dtype=np.int32)
        following[np.append(self.episode_starts[1:], len(self)) - 1] = -1
        return following

    def next_allowed_actions(self) -> Bool[np.ndarray, "N actions"] | None:
        """Which actions can be taken in the next observation: those of the next row; all in an episode's last row."""
        if self.allowed_actions is None:
            return None
        following = np.roll(self.allowed_actions, -1, axis=0)
        following[np.append(self.episode_starts[1:], len(self)) - 1] = True
        return following

    def best_episodes(self, fraction: float) -> Dataset:
        """The episodes with the highest returns, at least one, in their order."""
        count = max(round(fraction * len(self.episode_starts)), 1)
        chosen = np.sort(np.argsort(-self.episode_returns, kind="stable")[:count])
        note = f"only the best {count:,} of {len(self.episode_starts):,} episodes"
        return dataclasses.replace(self.episodes(chosen), notes=(*self.notes, note))

    def split(self, share: float, seed: int) -> tuple[Dataset, Dataset | None]:
        """The episodes to learn from, and those held out to judge what was learnt, both in their order.

        The episodes held out are chosen at random. The second part is None if there are none.
        """
        out, generator = np.zeros(len(self.episode_starts), bool), rng.generator(seed, "held out")
        for members in self._parts():
            out[members[generator.permutation(len(members))[: _held_out(len(members), share)]]] = True
        if not out.any():
            return self, None
        return self.episodes(np.flatnonzero(~out)), self.episodes(np.flatnonzero(out))

    def held_out_count(self, share: float) -> int:
        """How many episodes `split` holds out: this share, but at least one is left to learn from.

        One episode alone cannot judge a policy, so no episode is held out where it would be one. Each part of a
        mixture holds out its own.
        """
        return sum(_held_out(len(members), share) for members in self._parts())

    def _parts(self) -> list[Int[np.ndarray, " members"]]:
        """The episodes of each part of a mixture; all of them if it is none."""
        if self.part_of_episode is None:
            return [np.arange(len(self.episode_starts))]
        return [np.flatnonzero(self.part_of_episode == part) for part in np.unique(self.part_of_episode)]

    def part_rows(self, copies: int = 0) -> tuple[Int[np.ndarray, " parts"], Float[np.ndarray, " parts"]] | None:
        """Of a mixture with weights: how many rows each part has, and its share of the samples; otherwise None.

        `copies` of each row count too (segue.training.hindsight).
        """
        if not self.part_weights:
            return None
        parts = self._parts()
        assert self.part_of_episode is not None
        shares = np.array([self.part_weights[self.part_of_episode[members[0]]] for members in parts])
        rows = np.array([self.episode_lengths[members].sum() for members in parts])
        return rows * (1 + copies), shares / shares.sum()

    def episodes(self, chosen: Int[np.ndarray, " chosen"]) -> Dataset:
        """The episodes with these numbers, in this order."""
        lengths = self.episode_lengths[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        rows = np.repeat(self.episode_starts[chosen] - starts, lengths) + np.arange(lengths.sum())
        return dataclasses.replace(
            self,
            observations=self.observations[rows],
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            next_observations=self.next_observations[rows],
            terminals=self.terminals[rows],
            episode_starts=starts,
            behaviour_log_prob=None if self.behaviour_log_prob is None else self.behaviour_log_prob[rows],
            cost=None if self.cost is None else self.cost[rows],
            allowed_actions=None if self.allowed_actions is None else self.allowed_actions[rows],
            part_of_episode=None if self.part_of_episode is None else self.part_of_episode[chosen],
        )

    def transitions(self, discount: float, normaliser: Normaliser, failure_reward: float | None = None) -> Transition:
        """The whole dataset as one batch: normalised observations, γ where bootstrapped and 0 at terminals."""
        return Transition(
            observation=np.asarray(normaliser(self.observations)),
            action=self.actions,
            reward=self.rewards,
            next_observation=np.asarray(normaliser(self.next_observations)),
            discount=np.where(self.terminals, 0.0, discount).astype(np.float32),
            return_to_go=self.returns_to_go(discount, failure_reward),
            next_action=self.next_actions(),
        )

    def in_space(self, space: gym.Space) -> Dataset:
        """The same dataset, its integer actions read as an environment means them where the dataset does not say.

        A `Discrete` space settles how many there are and which is the first; in a `Box` integers are continuous.

        Raises:
            DataError: if an action is not in the space.
        """
        if self.bounds_known or not self.spaces.discrete:
            return self
        low, high = int(self.actions.min()), int(self.actions.max())
        if isinstance(space, gym.spaces.Box):
            if high > 1:
                raise DataError(
                    f"{self.source}: 'actions' holds integers up to {high}, and the environment has continuous ones; "
                    "give their bounds: add action_low and action_high to the dataset"
                )
            actions = self.actions.astype(np.float32)[:, None]
            note = "integer actions are continuous ones in the environment"
            settled = dataclasses.replace(self.spaces, action_size=1, discrete=False)
        elif isinstance(space, gym.spaces.Discrete):
            first, last = int(space.start), int(space.start + space.n - 1)
            if low < first or high > last:
                raise DataError(
                    f"{self.source}: 'actions' goes from {low} to {high}, the environment's from {first} to {last}; "
                    f"expected the same: if the dataset counts from 0, add discrete_actions={space.n} to it"
                )
            actions = (self.actions - first).astype(np.int32)
            note = f"actions {first} to {last} are those of the environment; the dataset holds {low} to {high}"
            settled = dataclasses.replace(self.spaces, action_size=int(space.n))
        else:
            return self
        actions.flags.writeable = False
        same = settled == self.spaces and actions[0] == self.actions[0]
        notes = self.notes if same else (*self.notes, note)
        return dataclasses.replace(self, actions=actions, spaces=settled, bounds_known=settled.discrete, notes=notes)

    def _unit_bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        size = self.spaces.action_size
        return None if self.spaces.discrete else (np.full(size, -1.0), np.full(size, 1.0))

    def fingerprint(self) -> str:
        """A short hash of every transition, to name a dataset by its content."""
        digest = hashlib.sha256()
        known = (self.observations, self.actions, self.rewards, self.next_observations, self.terminals)
        optional = (self.behaviour_log_prob, self.cost, self.allowed_actions)
        for column in (*known, self.episode_starts, *optional):
            for start in range(0, 0 if column is None else len(column), HASHED_AT_ONCE):
                digest.update(np.ascontiguousarray(column[start : start + HASHED_AT_ONCE]).data)  # type: ignore[index]
        return digest.hexdigest()[:12]

    def episode_fingerprints(self) -> UInt64[np.ndarray, " episodes"]:
        """A hash of each episode's observations, actions and rewards. Episodes that are equal have equal ones."""
        actions = self.actions.astype(np.float32)
        columns = [np.ascontiguousarray(column).data for column in (self.observations, actions, self.rewards)]
        stops = np.append(self.episode_starts[1:], len(self)).tolist()
        digests = bytearray()
        for start, stop in zip(self.episode_starts.tolist(), stops, strict=True):
            digest = hashlib.blake2b(digest_size=8)
            for column in columns:
                digest.update(column[start:stop])
            digests += digest.digest()
        return np.frombuffer(bytes(digests), "<u8").astype(np.uint64)

    def columns(self) -> Columns:
        """The dataset as a format's writer takes it; loading what it wrote gives the same transitions."""
        ends = np.zeros(len(self), bool)
        ends[np.append(self.episode_starts[1:], len(self)) - 1] = True
        shape = (len(self), *(self.spaces.image or (-1,)))
        return Columns(
            observations=self.observations.reshape(shape),
            actions=self.actions,
            rewards=self.rewards if self.rewards_known else None,
            terminals=self.terminals,
            timeouts=ends & ~self.terminals,
            next_observations=self.next_observations.reshape(shape),
            env_id=self.env_id,
            env_spec=self.env_spec,
            action_bounds=self._unit_bounds() if self.bounds_known else None,
            discrete_actions=self.spaces.action_size if self.spaces.discrete and self.bounds_known else None,
            behaviour_log_prob=self.behaviour_log_prob,
            cost=self.cost,
            allowed_actions=self.allowed_actions,
            encoding=self.encoding,
        )

    def in_units(self) -> Columns:
        """`columns`, but continuous actions (and their densities) are in the unit that they were logged in, float32."""
        columns = self.columns()
        if self.action_bounds is None:
            return columns
        low, high = self.action_bounds
        actions = (low + high) / 2 + (high - low) / 2 * self.actions.astype(np.float64)
        density = None
        if self.behaviour_log_prob is not None:
            density = self.behaviour_log_prob - np.float32(log_volume(low, high))
        return dataclasses.replace(
            columns,
            actions=np.clip(actions, low, high).astype(np.float32),
            action_bounds=self.action_bounds,
            behaviour_log_prob=density,
        )

    @classmethod
    def from_columns(cls, columns: Columns, source: str, out_of_range: OutOfRange = "error") -> Dataset:
        """Validate and put in shape.

        Raises:
            DataError: naming the source, the column, the first bad row, and what was expected.
        """
        return _Loading(columns, source, out_of_range).finish()


def log_volume(low: np.ndarray, high: np.ndarray) -> float:
    """log of how much larger a box of actions is than [-1, 1]; dimensions with nothing to choose do not count."""
    return float(np.log((high - low)[high > low] / 2).sum())


def _held_out(count: int, share: float) -> int:
    held = min(round(share * count), count - 1)
    return held if held >= 2 else 0


def returns_to_go(
    rewards: Float[np.ndarray, " steps"], discount: float, failure_reward: float | None = None
) -> Float[np.ndarray, " steps"]:
    """Discounted sum of rewards from each step of an episode to its end.

    With a `failure_reward`, an episode that got nothing else has failed and would have gone on failing: its returns
    are r / (1 − γ) (the Cal-QL authors' treatment of sparse rewards).
    """
    if failure_reward is not None and discount < 1 and np.allclose(rewards, failure_reward):
        return np.full(len(rewards), failure_reward / (1 - discount), np.float32)
    result = np.empty(len(rewards), np.float64)
    running = 0.0
    for step in range(len(rewards) - 1, -1, -1):
        running = float(rewards[step]) + discount * running
        result[step] = running
    return result.astype(np.float32)


def _one_hot(actions: np.ndarray) -> bool:
    """Whether every row is 0 but for a single 1, and not always the same one."""
    if actions.ndim != 2 or actions.shape[1] < 2 or not ((actions == 0) | (actions == 1)).all():
        return False
    return bool((actions.sum(1) == 1).all() and (actions != actions[0]).any())


def few(noun: str, indices: Sequence[int] | Int[np.ndarray, " n"]) -> str:
    """`columns 1, 4 and 7 more`: what these numbers are, and the first of them."""
    return f"{noun}{'s' * (len(indices) != 1)} {listed(indices)}"


def listed(items: Sequence[object] | np.ndarray) -> str:
    """`1, 4 and 7 more`: the first eight, and how many there are besides."""
    return ", ".join(map(str, items[:8])) + (f" and {len(items) - 8:,} more" if len(items) > 8 else "")


class _Loading:
    """The checks, in the order in which their messages make sense."""

    def __init__(self, columns: Columns, source: str, out_of_range: OutOfRange) -> None:
        self.columns, self.source, self.out_of_range = columns, source, out_of_range
        self.notes = list(columns.notes)
        self.counted = "observations" if columns.rewards is None else "rewards"

    def fail(self, message: str) -> DataError:
        return DataError(f"{self.source}: {message}")

    def finish(self) -> Dataset:
        columns = self.columns
        rewards = self.rewards()
        rows = len(rewards)
        if rows == 0:
            raise self.fail(f"the dataset is empty: '{self.counted}' has no rows")
        observations = self.matrix("observations", columns.observations, rows, images=True)
        self.require_variation(np.asarray(columns.observations).reshape(rows, -1), observations)
        terminals = self.flags("terminals", columns.terminals, rows)
        timeouts = None if columns.timeouts is None else self.flags("timeouts", columns.timeouts, rows)
        actions, spaces = self.actions(rows, observations.shape[1])
        if observations.dtype == np.uint8:
            spaces = dataclasses.replace(spaces, image=np.shape(columns.observations)[1:])
        log_prob = self.behaviour_log_prob(rows, spaces)
        cost = self.cost(rows)
        allowed = self.allowed(rows, actions, spaces)
        next_observations = None
        if columns.next_observations is not None:
            next_observations = self.matrix("next_observations", columns.next_observations, rows, images=True)
            if next_observations.dtype != observations.dtype:
                raise self.fail(
                    f"'next_observations' holds {columns.next_observations.dtype} of shape "
                    f"{columns.next_observations.shape}, 'observations' {columns.observations.dtype} of shape "
                    f"{columns.observations.shape}; expected the same: images are uint8 and have two or three axes"
                )
            if next_observations.shape != observations.shape:
                raise self.fail(
                    f"'next_observations' has {next_observations.shape[1]} columns, 'observations' has "
                    f"{observations.shape[1]}; expected the same"
                )
        try:
            found = boundaries(observations, next_observations, terminals, timeouts)
        except Contradiction as error:
            raise self.fail(str(error)) from None
        self.notes += found.notes
        ends = self.closed(found.ends)
        keep = ~found.reset
        if next_observations is None:
            next_observations = np.concatenate([observations[1:], observations[-1:]])
            # What followed a terminal was not logged; the next row starts another episode and is not it.
            next_observations[ends] = observations[ends]
            # The last row of a cut episode has no next observation to bootstrap from.
            keep = ~ends | terminals
            if not keep.all():
                cut, gone = int((~keep).sum()), int((~keep & np.append(True, ends[:-1])).sum())
                self.notes.append(
                    f"no 'next_observations': they were shifted within each episode, and the last step of "
                    f"{cut} episodes that did not end in a terminal was left out"
                    + (f"; {gone} of these episodes had but that step and are left out as a whole" if gone else "")
                )
                if keep.any() and np.ptp(rewards[keep]) == 0 and (rewards[~keep] != rewards[keep][0]).any():
                    self.notes.append(
                        f"the steps left out held every reward that is not {rewards[keep][0]:g}: give "
                        "'next_observations' to keep them"
                    )
        if not keep.any():
            raise self.fail("no transition is left: every episode is one step long and has no next observation")
        # An episode whose every row is left out vanishes; the others keep their order.
        episode = np.concatenate([[0], np.cumsum(ends)[:-1]])[keep]
        starts = np.flatnonzero(np.diff(episode, prepend=-1))
        dataset = Dataset(
            observations=observations[keep],
            actions=actions[keep],
            rewards=rewards[keep],
            next_observations=next_observations[keep],
            terminals=terminals[keep],
            episode_starts=starts,
            spaces=spaces,
            source=self.source,
            env_id=columns.env_id,
            env_spec=columns.env_spec,
            bounds_known=columns.action_bounds is not None or columns.discrete_actions is not None,
            action_bounds=None if spaces.discrete or columns.action_bounds is None else self.bounds(spaces.action_size),
            notes=tuple(self.notes),
            behaviour_log_prob=None if log_prob is None else log_prob[keep],
            cost=None if cost is None else cost[keep],
            allowed_actions=None if allowed is None else allowed[keep],
            encoding=columns.encoding,
        )
        for value in vars(dataset).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        return dataset

    def rewards(self) -> np.ndarray:
        if self.columns.rewards is None:
            self.notes.append("no 'rewards': only imitation (bc) learns from it")
            observations = self.numbers("observations", self.columns.observations)
            return np.full(len(observations), np.nan, np.float32)
        rewards = self.numbers("rewards", self.columns.rewards).astype(np.float32)
        if rewards.ndim == 0 or rewards.shape[1:] not in ((), (1,)):
            raise self.fail(f"'rewards' has shape {rewards.shape}; expected one number per step")
        return rewards.reshape(-1)

    def require_variation(self, wide: np.ndarray, narrow: np.ndarray) -> None:
        """Refuse observations that vary so little around a large value that 32-bit floats cannot tell them apart."""
        if wide.dtype.itemsize <= 4:
            return
        wide = wide.astype(np.float64)
        error = np.sqrt(((wide - narrow) ** 2).mean(0))
        std = wide.std(0)
        lost = np.flatnonzero((std >= STD_EPSILON) & (error > MAX_ROUNDING * std))
        if len(lost):
            worst = lost[np.argmax(error[lost] / std[lost])]
            raise self.fail(
                f"'observations' loses its variation in 32-bit floats in {few('column', lost)}: column {worst} is "
                f"{wide[:, worst].mean():.6g} on average, and varies by {std[worst]:.3g}; subtract an offset from the "
                "column, in the dataset and in the environment alike"
            )
        moves = np.abs(np.diff(wide, axis=0))
        usual = np.array([np.median(column[column > 0]) if column.any() else np.inf for column in moves.T])
        blurred = np.flatnonzero((std >= STD_EPSILON) & (error > usual))
        if len(blurred):
            self.notes.append(
                f"'observations' loses its steps in 32-bit floats in {few('column', blurred)}: values are rounded by "
                f"more than they usually change from row to row. Subtract an offset, in the environment too"
            )

    def numbers(self, name: str, array: np.ndarray) -> np.ndarray:
        array = np.asarray(array)
        if array.dtype.kind not in "fiub":
            raise self.fail(f"'{name}' holds {array.dtype}; expected numbers")
        if array.ndim == 0:
            raise self.fail(f"'{name}' has shape (); expected one row per step")
        if array.dtype.kind == "f":
            bad = ~np.isfinite(array)
            if bad.any():
                where = np.argwhere(bad)[0]
                at = f"row {where[0]}" + (f", column {where[1]}" if len(where) > 1 else "")
                raise self.fail(
                    f"'{name}' is {array[tuple(where)]} at {at} ({int(bad.sum()):,} such values); expected "
                    "finite numbers: repair or remove those episodes"
                )
            with np.errstate(over="ignore"):
                narrow = array.astype(np.float32)
            if not np.isfinite(narrow).all():
                row = np.argwhere(~np.isfinite(narrow))[0][0]
                raise self.fail(f"'{name}' at row {row} is too large for 32-bit floats")
            return narrow
        return array

    def rows(self, name: str, array: np.ndarray, rows: int) -> None:
        if array.ndim == 0 or len(array) != rows:
            found = "no rows" if array.ndim == 0 else f"{len(array):,} rows"
            raise self.fail(
                f"'{name}' has {found}, '{self.counted}' has {rows:,}; expected one row per step in every column"
            )

    def matrix(self, name: str, array: np.ndarray, rows: int, images: bool = False) -> np.ndarray:
        array = self.numbers(name, array)
        if not (images and is_image(array.shape[1:], array.dtype)):
            array = array.astype(np.float32)
        self.rows(name, array, rows)
        flat = array.reshape(rows, -1)
        if flat.shape[1] == 0:
            raise self.fail(f"'{name}' has no columns (shape {array.shape}); expected at least one")
        return flat

    def flags(self, name: str, array: np.ndarray, rows: int) -> np.ndarray:
        array = self.numbers(name, array).reshape(-1)
        self.rows(name, array, rows)
        bad = (array != 0) & (array != 1)
        if bad.any():
            row = int(np.argmax(bad))
            raise self.fail(f"'{name}' is {array[row]} at row {row}; expected 0 or 1")
        return array.astype(bool)

    def actions(self, rows: int, observation_size: int) -> tuple[np.ndarray, Spaces]:
        columns, raw = self.columns, np.asarray(self.columns.actions)
        self.rows("actions", raw, rows)
        numeric = raw.dtype.kind in "fiub" and raw.size > 0
        single = numeric and raw.size == rows
        one_hot = numeric and _one_hot(raw)
        whole = numeric and (raw.dtype.kind != "f" or bool((raw == np.round(raw)).all()))
        if columns.discrete_actions is not None:
            if one_hot and raw.shape[1] == columns.discrete_actions:
                self.notes.append(f"one-hot 'actions' are read as the {columns.discrete_actions} discrete ones")
                return self.discrete(raw.argmax(1), rows, observation_size)
            if single and whole:
                return self.discrete(raw.reshape(-1), rows, observation_size)
            raise self.fail(f"'actions' holds {raw.dtype} of shape {raw.shape}; expected one integer per step")
        if columns.action_bounds is None:
            # Integers below 0 count nothing.
            if single and raw.dtype.kind in "iub" and raw.min() >= 0:
                return self.discrete(raw.reshape(-1), rows, observation_size)
            if one_hot:
                raise self.fail(
                    f"'actions' holds one-hot rows ({raw.shape[1]} columns, a single 1 in each): for discrete actions "
                    f"store actions.argmax(1), or add discrete_actions={raw.shape[1]}; for continuous ones add "
                    "action_low and action_high"
                )
        array = self.matrix("actions", raw, rows)
        size = array.shape[1]
        low, high = self.bounds(size)
        if len(low) != size or len(high) != size:
            raise self.fail(f"'actions' has {size} columns, its action space has {len(low)}; expected the same")
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
            raise self.fail("the action space is unbounded or empty; expected finite bounds with low <= high")
        # Centre first: symmetric bounds then lose no digit, and [-1, 1] changes nothing.
        # Where low equals high there is nothing to choose: only that value is within the bounds.
        half = np.where(high > low, (high - low) / 2, BOUND_TOLERANCE)
        scaled = ((array - (low + high) / 2) / half).astype(np.float32)
        outside = np.abs(scaled) > 1 + BOUND_TOLERANCE
        if outside.any():
            row, column = np.argwhere(outside)[0]
            share = outside.any(1).mean()
            what = (
                f"'actions' is {array[row, column]:.4g} at row {row}, column {column}, outside "
                f"[{low[column]:g}, {high[column]:g}] ({share:.1%} of rows have such a value, the largest is "
                f"{np.abs(scaled).max():.3g} times the bound)"
            )
            if self.out_of_range == "error" and single and whole and columns.action_bounds is None:
                raise self.fail(
                    f"{what}; they are whole numbers: for the ids of discrete actions store integers "
                    "(actions.astype(int)), for amounts add their bounds, action_low and action_high"
                )
            if self.out_of_range == "error":
                raise self.fail(
                    f"{what}; expected actions within the bounds: load with clip_actions=True "
                    "(--clip-actions) to clip them, or rescale them if the bounds are not the real ones"
                )
            if self.columns.behaviour_log_prob is not None:
                raise self.fail(
                    f"{what}, and the dataset has 'behaviour_log_prob'; a clipped action has no density: rescale the "
                    "actions if the bounds are not the real ones, or leave that column out"
                )
            self.notes.append(f"{what}: clipped")
        return np.where(high > low, np.clip(scaled, -1, 1), np.float32(0)), Spaces(observation_size, size)

    def bounds(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        named = self.columns.action_bounds or (-np.ones(size), np.ones(size))
        return np.ravel(named[0]).astype(np.float64), np.ravel(named[1]).astype(np.float64)

    def behaviour_log_prob(self, rows: int, spaces: Spaces) -> np.ndarray | None:
        name = "behaviour_log_prob"
        if self.columns.behaviour_log_prob is None:
            return None
        array = self.per_step(name, self.columns.behaviour_log_prob, rows)
        if not spaces.discrete:
            # A density changes with the scale of what it is a density of.
            return array + np.float32(log_volume(*self.bounds(spaces.action_size)))
        bad = array > LOG_PROB_TOLERANCE
        if bad.any():
            row = int(np.argmax(bad))
            raise self.fail(
                f"'{name}' is {array[row]:.4g} at row {row} ({int(bad.sum()):,} such values); expected the logarithm "
                "of a probability, 0 or less: store numpy.log(probability)"
            )
        return np.minimum(array, 0)

    def cost(self, rows: int) -> np.ndarray | None:
        if self.columns.cost is None:
            return None
        try:
            return self.per_step("cost", self.columns.cost, rows)
        except DataError as error:  # learning does without it
            self.notes.append(f"left out: {str(error).removeprefix(f'{self.source}: ')}")
            return None

    def allowed(self, rows: int, actions: np.ndarray, spaces: Spaces) -> np.ndarray | None:
        name, array = "allowed_actions", self.columns.allowed_actions
        if array is None:
            return None
        if not spaces.discrete:
            raise self.fail(f"'{name}' says which actions could be taken, and the actions are continuous; leave it out")
        array = np.asarray(array)
        self.rows(name, array, rows)
        if (
            array.shape != (rows, spaces.action_size)
            or array.dtype.kind not in "fiub"
            or not np.isin(array, (0, 1)).all()
        ):
            raise self.fail(
                f"'{name}' holds {array.dtype} of shape {array.shape}; expected 0 or 1 for each of the "
                f"{spaces.action_size} actions in every row"
            )
        mask = array.astype(bool)
        taken = mask[np.arange(rows), actions]
        if not taken.all():
            row = int(np.argmin(taken))
            raise self.fail(
                f"'{name}' forbids the action {actions[row]} at row {row}, which was taken there "
                f"({int((~taken).sum()):,} such rows); expected every logged action to be allowed"
            )
        return mask

    def per_step(self, name: str, array: np.ndarray, rows: int) -> np.ndarray:
        array = self.numbers(name, array)
        self.rows(name, array, rows)
        if array.shape[1:] not in ((), (1,)):
            raise self.fail(f"'{name}' has shape {array.shape}; expected one number per step")
        return array.reshape(rows).astype(np.float32)

    def discrete(self, array: np.ndarray, rows: int, observation_size: int) -> tuple[np.ndarray, Spaces]:
        array = array.astype(np.int64)
        masks = np.shape(self.columns.allowed_actions)[1:] if self.columns.allowed_actions is not None else ()
        count = self.columns.discrete_actions or (masks[0] if len(masks) == 1 else int(array.max()) + 1)
        bad = (array < 0) | (array >= count)
        if bad.any():
            row = int(np.argmax(bad))
            raise self.fail(f"'actions' is {array[row]} at row {row}; expected an integer from 0 to {count - 1}")
        return array.astype(np.int32), Spaces(observation_size, count, discrete=True)

    def closed(self, ends: np.ndarray) -> np.ndarray:
        if not ends.any():
            raise self.fail(
                "the episode that starts at row 0 never ends: neither 'terminals' nor 'timeouts' is set in "
                f"any of {len(ends):,} rows; expected at least one end (for one long run, set 'timeouts' in "
                "its last row)"
            )
        if not ends[-1]:
            start = int(np.flatnonzero(ends)[-1]) + 1
            self.notes.append(
                f"the last episode (from row {start}) has no end: kept as a cut episode of {len(ends) - start:,} steps"
            )
            ends = ends.copy()
            ends[-1] = True
        return ends
