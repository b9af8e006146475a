"""The behaviour policy b: its logged propensities, or a model of it fitted by maximum likelihood.

An estimated b makes every weight an estimate. It is fitted on most of the episodes, stopped where the likelihood of the
others is highest, and its calibration on those others is measured: where its probabilities are wrong, so is every
estimate by weights (Hanna, Niekum & Stone 2019, arXiv 1806.01347, on when fitting b helps).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int
from scipy import special

from segue import rng
from segue.core import Array, Key
from segue.data.dataset import Dataset
from segue.errors import Checked, DataError, RecipeError
from segue.networks import Actor, CategoricalActor
from segue.networks.distributions import ACTION_MARGIN
from segue.ope.policy import in_chunks

#: Updates between two looks at the episodes held out.
DISPATCH = 100
#: A calibration error above this is worth a warning.
CALIBRATION_LIMIT = 0.05
#: Bins of probability, or of the distribution function.
BINS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class BehaviourModel(Checked):
    """How b is fitted where its propensities were not logged."""

    name: ClassVar[str] = "behaviour model"

    steps: int = 5_000
    """Most updates; the parameters with the best likelihood of the held-out episodes are kept."""
    batch_size: int = 256
    """Transitions per update."""
    hidden_sizes: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers."""
    learning_rate: float = 1e-3
    """Adam step size."""
    held_out: float = 0.2
    """Share of the episodes that only choose the parameters and measure the calibration."""

    def __post_init__(self) -> None:
        for field in ("steps", "batch_size"):
            if getattr(self, field) < 1:
                raise RecipeError(f"behaviour model: {field} is {getattr(self, field)}; expected at least 1")
        if not self.learning_rate > 0:
            raise RecipeError(f"behaviour model: learning_rate is {self.learning_rate}; expected above 0")
        if not 0 < self.held_out < 1:
            raise RecipeError(f"behaviour model: held_out is {self.held_out}; expected above 0 and below 1")


@dataclasses.dataclass(frozen=True)
class Propensities:
    """log b(a|s) of every logged action, and where it is from."""

    log_prob: Float[np.ndarray, " N"]
    estimated: bool
    calibration_error: float | None = None
    """Of an estimate, on the episodes held out, in [0, 1]; see `calibration_error`."""
    notes: tuple[str, ...] = ()
    """What a reader should know of it."""


def propensities(dataset: Dataset, model: BehaviourModel, seed: int) -> Propensities:
    """The logged propensities, or else estimated ones.

    Raises:
        DataError: if the dataset has too few episodes to fit b and hold some out.
    """
    if dataset.behaviour_log_prob is not None:
        return Propensities(dataset.behaviour_log_prob.astype(np.float64), estimated=False)
    if dataset.spaces.image is not None:
        raise DataError(
            f"{dataset.source}: the behaviour policy cannot be estimated from images; expected propensities in the "
            "column 'behaviour_log_prob'"
        )
    count = len(dataset.episode_starts)
    held = max(round(model.held_out * count), 1)
    if held >= count:
        raise DataError(
            f"{dataset.source}: {count} episode(s), of which {held} would be held out; expected at least 2 to estimate "
            "the behaviour policy, or propensities in the column 'behaviour_log_prob'"
        )
    chosen = rng.generator(seed, "behaviour").permutation(count)[:held]
    out = np.repeat(np.isin(np.arange(count), chosen), dataset.episode_lengths)
    normaliser = dataset.normaliser()
    observation = np.asarray(normaliser(dataset.observations), np.float32)
    actor = _fit(model, dataset, observation, out, seed)
    error = calibration_error(actor, observation[out], dataset.actions[out])
    notes = [
        f"the dataset has no 'behaviour_log_prob': its policy was estimated from {count - held:,} episodes; on the "
        f"other {held} its probabilities are off by {error:.1%}"
    ]
    if error > CALIBRATION_LIMIT:
        notes.append(
            f"that is more than {CALIBRATION_LIMIT:.0%}: weights, and every estimate that uses them, are unreliable; "
            "log the propensities, or give the model more width or steps"
        )
    return Propensities(
        _log_prob(actor, observation, dataset.actions, dataset.allowed_actions), True, error, tuple(notes)
    )


def calibration_error(
    actor: Actor | CategoricalActor,
    observation: Float[np.ndarray, "rows observation"],
    action: Float[np.ndarray, "rows action"] | Int[np.ndarray, " rows"],
) -> float:
    """How far predicted probabilities are from frequencies, in [0, 1]; about √(1/rows) for the true policy.

    Discrete: pairs of state and action are put in ten bins by their probability; ½ Σ_bins |expected − actual count|
    per row, the share of probability in the wrong bin. Continuous: a standardised action Φ((atanh a − μ) / σ) should be
    uniform; the same share over its ten bins, for the worst dimension.
    """
    if isinstance(actor, CategoricalActor):
        probability = in_chunks(actor.probabilities, observation).astype(np.float64)
        hit = np.arange(probability.shape[1]) == action[:, None]
        which = np.minimum((probability * BINS).astype(int), BINS - 1).ravel()
        off = np.bincount(which, (probability - hit).ravel(), BINS)
        return float(np.abs(off).sum() / 2 / len(action))
    mean, log_std = actor(observation)
    inside = np.clip(action.astype(np.float64), -1 + ACTION_MARGIN, 1 - ACTION_MARGIN)
    uniform = special.ndtr((np.arctanh(inside) - mean) / np.exp(log_std))
    which = np.minimum((uniform * BINS).astype(int), BINS - 1)
    shares = np.stack([(which == b).mean(0) for b in range(BINS)])
    return float((np.abs(shares - 1 / BINS).sum(0) / 2).max())


def _log_prob(
    actor: Any, observation: np.ndarray, action: np.ndarray, allowed: np.ndarray | None = None
) -> Float[np.ndarray, " rows"]:
    def of(row: np.ndarray) -> Any:
        masks = () if allowed is None else (allowed[row],)
        return actor.log_prob(observation[row], action[row], *masks)

    return in_chunks(of, np.arange(len(observation))).astype(np.float64)


def _fit(model: BehaviourModel, dataset: Dataset, observation: np.ndarray, out: np.ndarray, seed: int) -> Any:
    """The actor whose likelihood of the held-out rows was the highest, as host arrays."""
    kind: Any = CategoricalActor if dataset.spaces.discrete else Actor
    key = rng.stream(seed, "behaviour")
    actor = kind.init(rng.named(key, "actor"), observation.shape[1], dataset.spaces.action_size, model.hidden_sizes)
    state = optax.adam(model.learning_rate).init(actor)
    data = jnp.asarray(observation[~out]), jnp.asarray(dataset.actions[~out])
    best, best_loss = actor, np.inf
    for step in range(0, model.steps, DISPATCH):
        keys = jax.random.split(rng.named(key, "step", step), min(DISPATCH, model.steps - step))
        actor, state = _descend(actor, state, data, keys, model)
        loss = -_log_prob(actor, observation[out], dataset.actions[out]).mean()
        if loss < best_loss:
            best, best_loss = actor, loss
    return jax.tree.map(np.asarray, best)


@partial(jax.jit, static_argnames=("model",))
def _descend(actor: Any, state: Any, data: tuple[Array, Array], keys: Key, model: BehaviourModel) -> tuple[Any, Any]:
    optimiser = optax.adam(model.learning_rate)

    def step(carry: tuple[Any, Any], key: Key) -> tuple[tuple[Any, Any], None]:
        actor, state = carry
        rows = jax.random.randint(key, (model.batch_size,), 0, len(data[0]))
        gradient = jax.grad(lambda a: -a.log_prob(data[0][rows], data[1][rows]).mean())(actor)
        move, state = optimiser.update(gradient, state, actor)
        return (optax.apply_updates(actor, move), state), None

    return jax.lax.scan(step, (actor, state), keys)[0]
