"""Ten critics as ten networks, evaluated in a loop: `separate_critics ALGORITHM UPDATES`; otherwise as `updates`."""

from __future__ import annotations

import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks.contestants.updates import Updates, transitions
from benchmarks.gate import Gate
from segue.algorithms import ALGORITHMS
from segue.networks import MLP

MEMBERS = 10


class SeparateCritics(eqx.Module):
    """A tuple of networks that share nothing, not even an array."""

    members: tuple[MLP, ...]

    def __call__(self, observation: jax.Array, action: jax.Array) -> jax.Array:
        inputs = jnp.concatenate([observation, action], axis=-1)
        return jnp.stack([member(inputs)[..., 0] for member in self.members])

    def subset(self, members: jax.Array) -> SeparateCritics:
        """The networks of these numbers, which are known only when it runs."""
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves)[members], *self.members)
        return SeparateCritics(tuple(jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(len(members))))


def main() -> None:
    gate = Gate()
    base = ALGORITHMS[sys.argv[1]]

    def init_critic(self: Any, key: jax.Array, spaces: Any) -> SeparateCritics:
        size = spaces.observation_size + spaces.action_size
        keys = jax.random.split(key, self.ensemble_size)
        norm = self.critic_layer_norm
        return SeparateCritics(tuple(MLP.init(k, size, self.hidden_sizes, 1, layer_norm=norm) for k in keys))

    algorithm = type("Separate", (base,), {"init_critic": init_critic})(ensemble_size=MEMBERS)
    contestant = Updates(algorithm, int(sys.argv[2]), transitions(100_000))
    gate.forever(contestant.run)


if __name__ == "__main__":
    main()
