"""Your own bridge: the policy's steps begin short after the handover and grow."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

import segue
from segue.bridges import Bridge


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gentle(Bridge):
    """Multiplies the length of the policy's steps by a factor that grows from 0 to 1."""

    name: ClassVar[str] = "gentle"
    needs: ClassVar[tuple[str, ...]] = ("actor",)

    over: float = 200.0
    """Policy updates until the steps have their full length."""

    def attach(self, learner: Any, handover: Any, key: Any) -> tuple[Any, Any]:
        """The state counts policy updates."""
        return learner, jnp.zeros((), jnp.int32)

    def skeleton(self, algorithm: Any, spaces: Any) -> Any:
        """One number."""
        return jax.ShapeDtypeStruct((), jnp.int32)

    def actor_rate(self, state: Any) -> Any:
        """updates / over, at most 1."""
        return jnp.minimum(state / self.over, 1.0)

    def update(self, state: Any, algorithm: Any, nets: Any, batch: Any, aux: Any, key: Any) -> tuple[Any, Any]:
        """Count."""
        return state + 1, {"gentle_rate": self.actor_rate(state)}


if __name__ != "__main__":
    segue.register(Gentle)  # for the script below, for workers, and for `segue run --import own_bridge`
else:
    from own_bridge import Gentle as Imported  # a part has to come from a module, not from the script itself

    small = segue.DiscreteSAC(hidden_sizes=(32, 32))
    recipe = segue.Recipe(
        dataset="segue:cartpole-mixed",
        offline=small,
        offline_steps=200,
        online=small,
        online_steps=400,
        warmup_steps=100,
        eval_every=200,
        eval_episodes=2,
        bridges=(Imported(),),
    )
    print(segue.run(recipe, "runs/own-bridge", progress=False).table())
