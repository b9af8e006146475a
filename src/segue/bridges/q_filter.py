"""Q-filter: the policy learns only from samples whose action the critic rates highly enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue.algorithms.base import Algorithm, Aux
from segue.bridges.base import Bridge, Handover, shapes_of
from segue.core import Array, Key, Learner, Nets, Spaces, Transition
from segue.describe import Panel
from segue.replay.base import ReplayStrategy, take

#: Rows of the dataset whose mean rating is the threshold of the `average` rule.
SAMPLE = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class QFilter(Bridge):
    """Weighs down samples with a low rating in the policy loss: loss = Σ w·ℓ / Σ w.

    The percentile form on Q is the tutorial exercise's; Nair et al. 2018 (arXiv 1709.10089) introduced the idea with
    1[Q(s, a_demo) > Q(s, π(s))], which is a fixed threshold of 0 on the advantage. A raw Q percentile also favours good
    *states*; the advantage judges the action alone.
    """

    name: ClassVar[str] = "q-filter"
    needs: ClassVar[tuple[str, ...]] = ("critic", "actor")

    on: Literal["q", "advantage"] = "q"
    """What rates a sample: min_i Q_i(s, a), or that minus V(s) (without V: minus min_i Q_i(s, π(s)))."""
    rule: Literal["percentile", "fixed", "average"] = "percentile"
    """Where the threshold is: a percentile of the batch, a fixed value, or the dataset's average under today's
    critic."""
    percentile: float = 25.0
    """Samples below this percentile of the batch are filtered."""
    threshold: float = 0.0
    """The fixed value."""
    low_weight: float = 0.0
    """Weight of a filtered sample: 0 drops it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("percentile", 0 <= self.percentile <= 100, "between 0 and 100")
        self.require("low_weight", 0 <= self.low_weight <= 1, "between 0 and 1")
        self.require("threshold", self.threshold == self.threshold, "a number")

    def panels(self) -> tuple[Panel, ...]:
        """The share of samples that pass."""
        words = "share of samples that the Q-filter kept"
        return (Panel("q_filter_kept", "Q-filter: samples kept", "share", words, limits=(0, 1)),)

    def wants_dataset(self) -> bool:
        """Only for the dataset's average."""
        return self.rule == "average"

    def refusal(self, online: Algorithm, replay: ReplayStrategy, others: Iterable[Bridge]) -> str | None:
        """The average is over single actions of the dataset."""
        if self.rule == "average" and online.chunk_length > 1:
            return f"rule average rates single actions of the dataset, {online.name} chunks of {online.chunk_length}"
        return None

    def attach(self, learner: Learner, handover: Handover, key: Key) -> tuple[Learner, Any]:
        """A sample of the dataset, for its average."""
        if self.rule != "average":
            return learner, ()
        assert handover.logged is not None
        rows = jax.random.randint(key, (SAMPLE,), 0, len(handover.logged.reward))
        sample = take(handover.logged, rows)
        return learner, (sample.observation, sample.action)

    def skeleton(self, algorithm: Algorithm, spaces: Spaces) -> Any:
        """Observations and actions of the sample."""
        if self.rule != "average":
            return ()
        action = jnp.zeros(SAMPLE, jnp.int32) if spaces.discrete else jnp.zeros((SAMPLE, spaces.action_size))
        return shapes_of(lambda: (jnp.zeros((SAMPLE, spaces.observation_size)), action))

    def rating(
        self, nets: Nets, observation: Float[Array, "batch observation"], action: Array
    ) -> Float[jax.Array, " batch"]:
        """min_i Q_i(s, a), or the advantage."""
        q = nets.critic(observation, action).min(0)
        if self.on == "q":
            return q
        if "value" in nets:
            return q - nets.value(observation)[..., 0]
        return q - nets.critic(observation, nets.actor.mode(observation)).min(0)

    def actor_weight(
        self, state: Any, nets: Nets, batch: Transition, key: Key
    ) -> tuple[Float[jax.Array, " batch"] | None, Aux]:
        """1 where the rating ≥ the threshold, `low_weight` elsewhere; ties are kept."""
        rating = self.rating(nets, batch.observation, batch.action)
        if self.rule == "percentile":
            # One of the values itself: an interpolated percentile of equal values can round to just above them all.
            threshold = jnp.percentile(rating, self.percentile, method="higher")
        elif self.rule == "average":
            threshold = self.rating(nets, *state).mean()
        else:
            threshold = jnp.asarray(self.threshold)
        kept = rating >= threshold
        return jnp.where(kept, 1.0, self.low_weight), {"q_filter_kept": kept}
