"""What the online phase samples from: the read-only log, a ring of live transitions, and a strategy over both.

A replay strategy is a distribution over row numbers: 0…M−1 are the dataset, M… are the ring. That is all it decides.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from segue import rng
from segue.core import Array, Key, Spaces, Transition, as_numbers
from segue.hyper import HyperParameters
from segue.replay.on_disk import OnDisk


class Shares(eqx.Module):
    """How a dataset of several parts is sampled: a share from each part, uniformly within it."""

    sizes: Int[jax.Array, " parts"]
    """Rows of each part; the parts lie one after the other."""
    until: Float[jax.Array, " parts"]
    """Cumulative shares; the last one is 1."""

    @classmethod
    def of(cls, sizes: Int[np.ndarray, " parts"], shares: Float[np.ndarray, " parts"]) -> Shares:
        """From the rows and the share of each part."""
        return cls(jnp.asarray(sizes, jnp.int32), jnp.asarray(np.cumsum(shares), jnp.float32).at[-1].set(1.0))

    def draw(self, key: Key, batch_size: int) -> Int[jax.Array, " batch"]:
        """Row numbers of the dataset."""
        part = jnp.searchsorted(self.until, jax.random.uniform(rng.named(key, "part"), (batch_size,)), side="right")
        row = jax.random.randint(rng.named(key, "row"), (batch_size,), 0, self.sizes[part])
        return jnp.cumsum(self.sizes)[part] - self.sizes[part] + row


class Replay(eqx.Module):
    """Device-resident data. The dataset is shared and never copied; the ring is overwritten oldest first."""

    offline: Transition | None
    """The dataset, [M, …]; None if it lies on disk."""
    online: Transition | None
    """The ring, [capacity, …]; None in the offline phase."""
    count: Int[jax.Array, ""]
    """Live transitions received so far, also those already overwritten."""
    shares: Shares | None = None
    """Where the dataset is a mixture with weights: how its rows are drawn. Otherwise uniformly."""
    disk: OnDisk | None = eqx.field(default=None, static=True)
    """A dataset that is not on the device; `window` reads what an update needs of it."""

    def draw_dataset(self, key: Key, batch_size: int) -> Int[jax.Array, " batch"]:
        """Row numbers of the dataset, each part of a mixture with its share."""
        if self.shares is None:
            return jax.random.randint(key, (batch_size,), 0, self.offline_size)
        return self.shares.draw(key, batch_size)

    @property
    def offline_size(self) -> int:
        """M, transitions in the dataset."""
        if self.disk is not None:
            return len(self.disk)
        return 0 if self.offline is None else self.offline.reward.shape[0]

    @property
    def logged(self) -> Transition | OnDisk | None:
        """The dataset, wherever it lies."""
        return self.offline if self.disk is None else self.disk

    @property
    def capacity(self) -> int:
        """Rows of the ring."""
        return 0 if self.online is None else self.online.reward.shape[0]

    @property
    def online_size(self) -> Int[jax.Array, ""]:
        """Live transitions in the ring."""
        return jnp.minimum(self.count, self.capacity)

    def gather(self, rows: Int[Array, " batch"]) -> Transition:
        """The transitions of these row numbers; images as float32."""
        if self.online is None:
            return take(self.offline, rows)
        if self.offline is None:
            return take(self.online, rows)
        logged = rows < self.offline_size
        from_dataset = take(self.offline, jnp.where(logged, rows, 0))
        from_ring = take(self.online, jnp.where(logged, 0, rows - self.offline_size))

        def choose(a: Array, b: Array) -> Array:
            return jnp.where(logged.reshape(-1, *[1] * (a.ndim - 1)), a, b)

        return jax.tree.map(choose, from_dataset, from_ring)

    def rows_of(self, following: Int[Array, " batch"], rows: Int[Array, " batch"]) -> Int[Array, " batch"]:
        """The rows that the transitions in `rows` say follow them; −1 where none does."""
        # What follows is newer than what is still stored, so that it is stored as well.
        live = jnp.where(following >= 0, self.offline_size + following % max(self.capacity, 1), -1)
        return jnp.where(rows < self.offline_size, following, live)

    def window(
        self, rows: Int[np.ndarray, "*updates batch"], length: int
    ) -> tuple[Replay, Int[Array, "*updates batch"]]:
        """A replay that holds, of a dataset on disk, what updates with these rows need; and the rows in it.

        `length` is the number of steps that are looked at from each row (segue.chunks).
        """
        assert self.disk is not None
        logged = rows < self.offline_size
        offline = self.disk.window(np.where(logged, rows, 0).reshape(-1), length)
        if self.online is not None and self.online.allowed is not None:
            offline = with_masks(offline, self.online.allowed.shape[1])
        places = np.arange(rows.size).reshape(rows.shape) * length
        there = np.where(logged, places, rows - self.offline_size + rows.size * length).astype(np.int32)
        offline = jax.tree.map(jnp.asarray, offline)
        return Replay(offline, self.online, self.count), jnp.asarray(there)

    @classmethod
    def create(
        cls,
        offline: Transition | OnDisk | None,
        capacity: int,
        spaces: Spaces,
        sequences: bool = False,
        costs: bool = False,
        masks: bool = False,
        part_rows: tuple[Int[np.ndarray, " parts"], Float[np.ndarray, " parts"]] | None = None,
    ) -> Replay:
        """The dataset, on the device unless it lies on disk, and an empty ring of this capacity (0: none).

        With what `sequences` of steps, `costs` or `masks` of allowed actions need; `part_rows` are the rows and shares
        of a mixture's parts.
        """
        disk = offline if isinstance(offline, OnDisk) else None
        offline = None if offline is None or disk is not None else jax.tree.map(jnp.asarray, offline)
        ring = empty(capacity, spaces) if capacity else None
        if ring is not None and sequences:
            ring = ring._replace(following=jnp.full(capacity, -1, jnp.int32))
        if ring is not None and costs:
            ring = ring._replace(cost=jnp.zeros(capacity))
        if masks:
            every = [jnp.ones((capacity, spaces.action_size), bool) for _ in range(2)]  # in buffers of their own
            ring = None if ring is None else ring._replace(allowed=every[0], next_allowed=every[1])
            offline = None if offline is None else jax.tree.map(jnp.asarray, with_masks(offline, spaces.action_size))
        shares = None if offline is None or part_rows is None else Shares.of(*part_rows)
        return cls(offline, ring, jnp.zeros((), jnp.int32), shares, disk)


def with_masks(batch: Transition, actions: int) -> Transition:
    """The batch, with masks that allow all of so many actions where it has none."""
    if batch.allowed is not None:
        return batch
    every = np.ones((*batch.reward.shape, actions), bool)
    return batch._replace(allowed=every, next_allowed=every.copy())


def empty(rows: int, spaces: Spaces) -> Transition:
    """A batch of zeros."""
    observation = jnp.zeros((rows, spaces.observation_size), jnp.float32 if spaces.image is None else jnp.uint8)
    action = jnp.zeros(rows, jnp.int32) if spaces.discrete else jnp.zeros((rows, spaces.action_size))
    return Transition(
        observation=observation,
        action=action,
        reward=jnp.zeros(rows),
        next_observation=jnp.zeros_like(observation),
        discount=jnp.zeros(rows),
        return_to_go=jnp.zeros(rows),
        next_action=jnp.zeros_like(action),
    )


def take(block: Transition | None, rows: Int[Array, " batch"]) -> Transition:
    """These rows of a block; images as float32."""
    return jax.tree.map(lambda column: as_numbers(jnp.take(column, rows, axis=0, mode="clip")), block)


@partial(jax.jit, donate_argnames=("ring", "count"))
def _write(
    ring: Transition, count: Int[Array, ""], batch: Transition, arrived: Int[Array, ""] | int
) -> tuple[Transition, Int[Array, ""]]:
    capacity, place = ring.reward.shape[0], jnp.arange(batch.reward.shape[0])
    # Scattering to one row twice leaves open which value stays: of more than fit, only the newest are written.
    written = (place < arrived) & (place >= arrived - capacity)
    rows = jnp.where(written, (count + place) % capacity, capacity)
    return jax.tree.map(lambda column, new: column.at[rows].set(new, mode="drop"), ring, batch), count + arrived


def append(replay: Replay, batch: Transition) -> Replay:
    """The replay with these live transitions in the ring; the old ring's buffers are reused, so drop it."""
    assert replay.online is not None
    arrived = batch.reward.shape[0]
    padding = (1 << max(arrived - 1, 0).bit_length()) - arrived  # so that few sizes are compiled

    def padded(column: Array) -> np.ndarray:
        return np.pad(np.asarray(column), [(0, padding), *[(0, 0)] * (column.ndim - 1)])

    ring, count = _write(replay.online, replay.count, jax.tree.map(padded, batch), arrived)
    return dataclasses.replace(replay, online=ring, count=count)


@partial(jax.jit, donate_argnames=("column",))
def _overwrite(column: jax.Array, rows: Int[Array, " rows"], values: Array) -> Array:
    return column.at[rows].set(values, mode="drop")


#: Rows amended per dispatch: one size, so that it compiles once.
AMEND_ROWS = 256


def amend(replay: Replay, column: str, numbers: np.ndarray, values: np.ndarray) -> Replay:
    """The replay with a column filled in for transitions that were appended earlier.

    `numbers` count the live transitions from the first; those already overwritten are passed over.
    """
    assert replay.online is not None
    kept = numbers >= int(replay.count) - replay.capacity
    numbers, values = numbers[kept], values[kept]
    data = getattr(replay.online, column)
    for start in range(0, len(numbers), AMEND_ROWS):
        rows = np.full(AMEND_ROWS, replay.capacity)  # beyond the ring: dropped
        part = slice(start, start + AMEND_ROWS)
        count = len(numbers[part])
        rows[:count] = numbers[part] % replay.capacity
        padded = np.zeros((AMEND_ROWS, *values.shape[1:]), values.dtype)
        padded[:count] = values[part]
        data = _overwrite(data, rows, padded)
    ring = replay.online._replace(**{column: data})
    return dataclasses.replace(replay, online=ring)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayStrategy(HyperParameters):
    """What the online phase samples."""

    needs_dataset: ClassVar[bool] = True
    """Whether it makes sense only with a dataset."""
    mixtures: ClassVar[bool] = False
    """Whether it draws rows of the dataset by `Replay.draw_dataset`, so that the weights of a mixture hold."""

    capacity: int | None = None
    """Live transitions kept, oldest dropped first; None keeps all of the online phase."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("capacity", self.capacity is None or self.capacity >= 1, "at least 1, or none to keep all")

    @classmethod
    def stateless(cls) -> bool:
        """Whether the rows of an update do not depend on the updates before it, so that they can be read ahead."""
        return cls.init is ReplayStrategy.init and cls.update is ReplayStrategy.update

    def init(self, replay: Replay, spaces: Spaces, key: Key) -> Any:
        """The strategy's state, where it has one: it is carried through the updates as `Learner.sampler`."""
        return ()

    def grow(self, state: Any, replay: Replay) -> Any:
        """The state for a ring that has become larger, because the budget has."""
        return state

    def update(self, state: Any, rows: Int[jax.Array, " batch"], batch: Transition, replay: Replay, key: Key) -> Any:
        """The next state, after these rows were drawn."""
        return state

    def rows(
        self, state: Any, key: Key, batch_size: int, replay: Replay, progress: Float[jax.Array, ""]
    ) -> Int[jax.Array, " batch"]:
        """Row numbers of a batch; `progress` is the share of the online phase that is over, in [0, 1]."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MovingShare(ReplayStrategy):
    """A strategy in which the dataset has a share that moves linearly from `start` to `end`."""

    start: float = 0.5
    """Share of the dataset when the online phase starts."""
    end: float = 0.0
    """Share of the dataset from `until` on."""
    until: float = 0.5
    """Share of the online phase after which the dataset's share stays at `end`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, low in (("start", 0.0), ("end", 0.0), ("until", 1e-6)):
            self.require(field, low <= getattr(self, field) <= 1, f"between {low:g} and 1")

    def share(self, progress: Float[jax.Array, ""]) -> Float[jax.Array, ""]:
        """The dataset's share when this share of the online phase is over."""
        return self.start + (self.end - self.start) * jnp.minimum(progress / self.until, 1.0)


def draw_rows(
    key: Key,
    batch_size: int,
    replay: Replay,
    from_dataset: Float[jax.Array, ""] | float,
) -> Int[jax.Array, " batch"]:
    """A batch whose first `from_dataset` share is from the dataset and whose rest is uniform over the ring."""
    logged = replay.draw_dataset(rng.named(key, "log"), batch_size)
    rows = jax.random.randint(rng.named(key, "ring"), (batch_size,), 0, jnp.maximum(replay.online_size, 1))
    live = replay.offline_size + rows
    count = jnp.where(replay.online_size > 0, jnp.round(from_dataset * batch_size), batch_size)
    return jnp.where(jnp.arange(batch_size) < count, logged, live)
