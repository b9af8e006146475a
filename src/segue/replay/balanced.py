"""Balanced: samples of the dataset that look like live ones come up more often (Lee et al. 2021, "Off2OnRL")."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from segue import rng
from segue.core import Key, Spaces, Transition
from segue.networks import MLP
from segue.replay.base import Replay, ReplayStrategy

EPSILON = 1e-10
#: Rows are drawn in two stages, a block and then a row of it: one sum over a million rows swallows small priorities
#: in float32.
BLOCK = 256


class DensityRatio(eqx.Module):
    """w(s, a) ≈ d_live(s, a) / d_log(s, a), its optimiser, and the priority of every row."""

    net: MLP
    optimiser: optax.OptState
    priorities: Float[jax.Array, " rows"]
    seen: Int[jax.Array, ""]
    """Live transitions that had come in when the priorities were written."""

    def __call__(self, batch: Transition, net: MLP | None = None) -> Float[jax.Array, " batch"]:
        """w(s, a), at least 0."""
        inputs = self.net.layers[0].weight.shape[0] - batch.observation.shape[-1]
        action = jax.nn.one_hot(batch.action, inputs) if batch.action.ndim == 1 else batch.action
        out = (net or self.net)(jnp.concatenate([batch.observation, action], axis=-1))
        return jax.nn.relu(out[..., 0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Balanced(ReplayStrategy):
    """Draws rows in proportion to priorities that follow a learnt density ratio; live rows come in at a high one."""

    name: ClassVar[str] = "balanced"

    first_online_fraction: float = 0.5
    """f: share of the batch that is live when `first_online_steps` of them have come in (the authors' code 0.5, its
    README 0.75)."""
    first_online_steps: int = 1000
    """Live transitions for which that share is meant."""
    temperature: float = 5.0
    """T of the priorities w^(1/T)."""
    learning_rate: float = 3e-4
    """Adam step size of the density ratio."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Widths of the density ratio's hidden layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, holds, expected in (
            ("first_online_fraction", 0 < self.first_online_fraction < 1, "between 0 and 1, both excluded"),
            ("first_online_steps", self.first_online_steps >= 1, "at least 1"),
            ("temperature", self.temperature > 0, "above 0"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
        ):
            self.require(field, holds, expected)

    def init(self, replay: Replay, spaces: Spaces, key: Key) -> DensityRatio:
        """A ratio of about 1 everywhere, and priority 1 for the dataset."""
        net = MLP.init(key, spaces.observation_size + spaces.action_size, self.hidden_sizes, 1, image=spaces.image)
        net = eqx.tree_at(lambda n: n.layers[-1].bias, net, jnp.ones(1))
        priorities = jnp.ones(replay.offline_size + replay.capacity)
        return DensityRatio(net, self.optimiser().init(net), priorities, jnp.zeros((), jnp.int32))

    def grow(self, state: DensityRatio, replay: Replay) -> DensityRatio:
        """Rows that no transition has come into have a priority that is not looked at."""
        more = replay.offline_size + replay.capacity - len(state.priorities)
        return eqx.tree_at(lambda ratio: ratio.priorities, state, jnp.pad(state.priorities, (0, more)))

    def priorities(self, state: DensityRatio, replay: Replay) -> Float[jax.Array, " rows"]:
        """Of every row: 0 where none is, M·f / ((1 − f)·first_online_steps) for what has come in since the last update,
        also over an older transition's.
        """
        f, size, slot = self.first_online_fraction, replay.offline_size, jnp.arange(replay.capacity)
        fresh = size * f / ((1 - f) * self.first_online_steps)
        head = (replay.count - 1) % replay.capacity
        age = head - slot + jnp.where(slot > head, replay.capacity, 0)  # transitions that came in after this one
        live = jnp.where(age < replay.count - state.seen, fresh, state.priorities[size:])
        return jnp.concatenate([state.priorities[:size], jnp.where(slot < replay.online_size, live, 0.0)])

    def optimiser(self) -> optax.GradientTransformation:
        """Adam."""
        return optax.adam(self.learning_rate)

    def rows(
        self, state: DensityRatio, key: Key, batch_size: int, replay: Replay, progress: Float[jax.Array, ""]
    ) -> Int[jax.Array, " batch"]:
        """Rows that are there, in proportion to their priorities."""
        priorities = self.priorities(state, replay)
        blocks = jnp.pad(priorities, (0, -len(priorities) % BLOCK)).reshape(-1, BLOCK)
        of_block, of_row = (jax.random.uniform(rng.named(key, of), (batch_size,)) for of in ("block", "row"))
        block = _draw(jnp.cumsum(blocks.sum(1)), of_block)
        within = jax.vmap(_draw)(jnp.cumsum(blocks[block], axis=1), of_row)
        return (block * BLOCK + within).astype(jnp.int32)

    def update(
        self, state: DensityRatio, rows: Int[jax.Array, " batch"], batch: Transition, replay: Replay, key: Key
    ) -> DensityRatio:
        """One step of the ratio on uniform batches of both sides, then new priorities for the rows just drawn.

        L = E_log[−log 2/(w + 1)] − E_live[log 2w/(w + 1)] (Jensen–Shannon bound); priority
        w^(1/T) / E_log[w^(1/T)], within [1e-3, 1e3].
        """
        size = len(rows)
        logged = replay.gather(jax.random.randint(rng.named(key, "log"), (size,), 0, replay.offline_size))
        live_rows = jax.random.randint(rng.named(key, "live"), (size,), 0, jnp.maximum(replay.online_size, 1))
        live = replay.gather(replay.offline_size + live_rows)

        def loss(net: MLP) -> Float[jax.Array, ""]:
            w_offline, w_live = state(logged, net), state(live, net)
            off = -jnp.log(2 / (w_offline + 1) + EPSILON).mean()
            on = jnp.log(2 * w_live / (w_live + 1) + EPSILON).mean()
            return off - on

        step, optimiser = self.optimiser().update(jax.grad(loss)(state.net), state.optimiser, state.net)
        net = optax.apply_updates(state.net, step)
        seen = jnp.copy(replay.count)  # whose buffer the next transitions to come in take over
        moved = DensityRatio(net, optimiser, self.priorities(state, replay), seen)
        power = 1 / self.temperature
        typical = (moved(logged) ** power).mean()
        priority = jnp.clip(moved(batch) ** power / jnp.maximum(typical, EPSILON), 1e-3, 1e3)
        return eqx.tree_at(lambda ratio: ratio.priorities, moved, moved.priorities.at[rows].set(priority))


def _draw(cumulative: Float[jax.Array, " choices"], uniform: Float[jax.Array, "*batch"]) -> Int[jax.Array, "*batch"]:
    """Where uniform · total falls; never on a choice without weight, also where the product rounds up to the total."""
    last = jnp.searchsorted(cumulative, cumulative[-1], side="left")
    return jnp.minimum(jnp.searchsorted(cumulative, uniform * cumulative[-1], side="right"), last)
