"""Fitted Q evaluation (Le, Voloshin & Yue 2019, arXiv 1903.08738), with a bootstrap over episodes (Hao et al. 2021,
arXiv 2102.03607).

Each of M critics is fitted, by semi-gradient steps, to a dataset of its own: n episodes drawn with replacement from
the n,

    y = r + γ E_{a′~π(s′)} Q̄_m(s′, a′),    min E (Q_m(s, a) − y)²,    J_m = mean over its s₀ of E_{a~π} Q_m(s₀, a)

with nothing bootstrapped at a true terminal and Q̄_m following by Polyak averaging. The expectation is exact over
discrete actions; over continuous ones each update uses one of several stored draws, and values are the mean of all.
A value outside the range that rewards allow is an extrapolation. Q is moved into that range for each action, and V is
their mean: V(s) = E_{a~π} Q(s, a) still holds, as the doubly robust estimators need.

The value of row i for the doubly robust estimators comes from the critics that did not see its episode, about e⁻¹ of
them, so that model and episode are independent.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Int
from scipy import special

from segue import rng
from segue.core import Array, Key, Transition
from segue.data.dataset import Dataset
from segue.errors import Checked, Diverged, RecipeError
from segue.networks import Critic, DiscreteCritic, pick
from segue.ope.episodes import Episodes
from segue.ope.estimator import Bounds
from segue.ope.limits import Limits
from segue.ope.policy import DiscretePolicy, Judged, in_chunks

#: Rows of the dataset, and first states, at which it is looked whether values are in range.
LOOKED_AT = 10_000
UNLIMITED = Limits(-np.inf, np.inf)
#: Updates per dispatch.
DISPATCH = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class FQE(Checked):
    """Fitted Q evaluation."""

    steps: int = 10_000
    """Updates of every critic."""
    batch_size: int = 256
    """Transitions per update, of each critic's own."""
    hidden_sizes: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers; none for a critic that is linear in the observation (exact if it is one-hot)."""
    learning_rate: float = 1e-3
    """Adam step size; it falls to 0 by a cosine."""
    polyak: float = 0.05
    """τ of the target critics."""
    members: int = 8
    """M, critics, each with a bootstrap sample of the episodes."""
    draws: int = 8
    """Stored draws of a continuous, stochastic policy per state."""

    def __post_init__(self) -> None:

        def expect(field: str, holds: bool, expected: str) -> None:
            if not holds:
                raise RecipeError(f"fqe: {field} is {getattr(self, field)!r}; expected {expected}")

        for field in ("steps", "batch_size", "draws"):
            expect(field, getattr(self, field) >= 1, "at least 1")
        expect("members", self.members >= 2, "at least 2, for a standard error")
        expect("hidden_sizes", all(width >= 1 for width in self.hidden_sizes), "positive widths")
        expect("learning_rate", self.learning_rate > 0, "above 0")
        expect("polyak", 0 < self.polyak <= 1, "above 0 and at most 1")


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What FQE found."""

    values: Float[np.ndarray, " members"]
    """J_m of every critic."""
    earlier: float
    """The mean of them after three quarters of the updates."""
    behaviour_values: Float[np.ndarray, " members"]
    """The dataset's own value on each critic's episodes; a cut episode goes on with the judged policy."""
    q: Float[np.ndarray, " N"]
    """Q(s, a) of every row, by the critics that did not see its episode; 0 where all did."""
    v: Float[np.ndarray, " N"]
    """V(s) of every row, by the same critics."""
    limits: Limits
    """The range that rewards allow from the first state of an episode on."""
    outside: float
    """Share of all values of the critics that lay outside the range that rewards allow; they were moved into it."""

    @property
    def estimate(self) -> float:
        """The mean of the critics' values."""
        return float(self.values.mean())

    @property
    def drift(self) -> float:
        """How far the estimate still moved in the last quarter of the updates."""
        return abs(self.estimate - self.earlier)

    @property
    def standard_error(self) -> float:
        """Of the estimate, by the bootstrap: the standard deviation of the critics' values."""
        return float(self.values.std(ddof=1))

    def bounds(self, confidence: float) -> Bounds:
        """estimate ± t · standard error, t of Student's distribution with M − 1 degrees of freedom.

        They cover the sampling of episodes and the noise of fitting, not a critic that cannot represent Q or a
        dataset that does not show what the policy does.
        """
        t = float(special.stdtrit(len(self.values) - 1, confidence))
        difference = self.values - self.behaviour_values
        middle, spread = float(difference.mean()), t * float(difference.std(ddof=1))
        bounds = Bounds(self.estimate - t * self.standard_error, middle - spread, middle + spread)
        return self.limits.clip_bounds(bounds)


def fit(fqe: FQE, policy: Judged, dataset: Dataset, discount: float, seed: int) -> Fitted:
    """Evaluate a policy on a dataset, in the units of its rewards.

    Args:
        fqe: hyper-parameters.
        policy: what is judged; it gets raw observations.
        dataset: the dataset; its rewards are taken as they are, without the scale that an algorithm learns them in.
        discount: γ.
        seed: of initial critics, resamples and batches.

    Raises:
        Diverged: if a value is not finite.
    """
    if dataset.spaces.image is not None:
        raise RecipeError(f"{dataset.source}: fqe cannot fit a critic to images; evaluate the policy live instead")
    logged = dataset.transitions(discount, dataset.normaliser())
    # Values of about 1 in any unit of the rewards: the step size is then right for every dataset.
    scale = max(float(np.sqrt(np.mean(logged.return_to_go.astype(np.float64) ** 2))), 1e-8)
    at_start, anywhere = Limits.of_starts(dataset, discount), Limits.of_states(dataset, discount)
    key, source = rng.stream(seed, "fqe"), rng.generator(seed, "fqe")
    steps = rng.named(key, "step")
    here = _choices(policy, dataset.observations, fqe.draws, source, dataset.allowed_actions)
    there = _choices(policy, dataset.next_observations, fqe.draws, source, dataset.next_allowed_actions())

    count = len(dataset.episode_starts)
    times = source.multinomial(count, np.full(count, 1 / count), fqe.members)  # [members, episodes]
    seen = times[:, np.repeat(np.arange(count), dataset.episode_lengths)]  # [members, N]
    data = _Data.of(logged, scale, there, seen)

    spaces = dataset.spaces
    kind: Any = DiscreteCritic if spaces.discrete else Critic
    critic = kind.init(
        rng.named(key, "critic"), fqe.members, spaces.observation_size, spaces.action_size, fqe.hidden_sizes
    )
    state = critic, jax.tree.map(jnp.copy, critic), _optimiser(fqe).init(critic)

    def values(
        critic: Any, rows: Int[np.ndarray, " rows"], limits: Limits = anywhere
    ) -> Float[np.ndarray, "members rows"]:
        found = in_chunks(lambda r: _expected(critic, logged.observation[r], here[r], scale, limits).T, rows)
        return found.T

    def first_values(critic: Any) -> Float[np.ndarray, " members"]:
        found = values(critic, dataset.episode_starts)
        if not np.isfinite(found).all():
            raise Diverged("fqe: a value is not finite; lower the learning rate or the discount")
        return (at_start.clip(found) * times).sum(1) / count

    earlier, step = 0.0, 0
    while step < fqe.steps:
        stop = min(step + DISPATCH, fqe.steps)
        keys = jax.vmap(partial(rng.named, steps))(jnp.arange(step, stop))
        state = _descend(state, data, keys, fqe)
        if step < 0.75 * fqe.steps <= stop:
            earlier = float(first_values(_host(state[0])).mean())
        step = stop

    critic = _host(state[0])
    rows = np.arange(len(dataset))
    unseen = seen == 0
    q = scale * in_chunks(lambda r: critic(logged.observation[r], logged.action[r]).T, rows).T.astype(np.float64)
    some, starts = (part[:: len(part) // LOOKED_AT + 1] for part in (rows, dataset.episode_starts))
    outside = [
        anywhere.beyond(q),
        anywhere.beyond(values(critic, some, UNLIMITED)),
        at_start.beyond(values(critic, starts, UNLIMITED)),
    ]
    return Fitted(
        values=first_values(critic),
        earlier=earlier,
        behaviour_values=_behaviour_values(critic, there, logged, dataset, discount, scale, times, anywhere),
        q=_mean_where(anywhere.clip(q), unseen),
        v=_mean_where(values(critic, rows), unseen),
        limits=at_start,
        outside=float(np.concatenate(outside, axis=1).mean()),
    )


def _behaviour_values(
    critic: Any,
    there: Array,
    logged: Transition,
    dataset: Dataset,
    discount: float,
    scale: float,
    times: np.ndarray,
    limits: Limits,
) -> Float[np.ndarray, " members"]:
    lasts = np.append(dataset.episode_starts[1:], len(dataset)) - 1
    after = _expected(critic, logged.next_observation[lasts], there[lasts], scale, limits)
    cut = ~dataset.episode_terminals * discount**dataset.episode_lengths
    returns = Episodes.of(dataset, discount, np.zeros(len(dataset))).returns
    return ((returns + cut * after) * times).sum(1) / len(lasts)


def _host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def _mean_where(
    values: Float[np.ndarray, "members N"], chosen: Bool[np.ndarray, "members N"]
) -> Float[np.ndarray, " N"]:
    return (values * chosen).sum(0) / np.maximum(chosen.sum(0), 1)


def _choices(
    policy: Judged,
    observation: np.ndarray,
    draws: int,
    source: np.random.Generator,
    allowed: Bool[np.ndarray, "rows actions"] | None,
) -> np.ndarray:
    """π(·|s) among the allowed actions, [rows, actions]; of a continuous policy draws, [rows, draws, action]."""
    if isinstance(policy, DiscretePolicy):
        return policy.chances(observation, allowed).astype(np.float32)
    count = 1 if policy.deterministic else draws
    drawn = [in_chunks(lambda part: policy.draw(part, source), observation) for _ in range(count)]
    return np.stack(drawn, axis=1).astype(np.float32)


def _expected(
    critic: Any, observation: Array, choices: Array, scale: float, limits: Limits
) -> Float[np.ndarray, "members rows"]:
    """E_{a~π} Q_m(s, a) in the units of rewards, by probabilities or by all draws, each Q moved into the limits."""
    if isinstance(critic, DiscreteCritic):
        q = scale * np.asarray(critic.all(observation), np.float64)
        return (limits.clip(q) * np.asarray(choices)).sum(-1)
    repeated = np.broadcast_to(observation[:, None], (*choices.shape[:2], observation.shape[-1]))
    return limits.clip(scale * np.asarray(critic(repeated, choices), np.float64)).mean(-1)


class _Data(NamedTuple):
    """What the updates read, on the device."""

    observation: Array
    action: Array
    reward: Array
    """Divided by the scale of the returns."""
    next_observation: Array
    discount: Array
    """γ, 0 at a true terminal."""
    choices: Array
    """What the judged policy does in the next observation; see `_choices`."""
    rows: Int[Array, "members most"]
    """Row numbers of every member's resampled dataset, padded to the longest."""
    sizes: Int[Array, " members"]
    """How many rows each has."""

    @classmethod
    def of(cls, logged: Transition, scale: float, choices: Array, seen: Int[np.ndarray, "members N"]) -> _Data:
        """The dataset, and the rows of every member's resample given how often it holds each."""
        rows = [np.repeat(np.arange(seen.shape[1], dtype=np.int32), times) for times in seen]
        sizes = np.array([len(own) for own in rows], np.int32)
        table = np.stack([np.resize(own, sizes.max()) for own in rows])
        reward = logged.reward / np.float32(scale)
        columns = (
            logged.observation,
            logged.action,
            reward,
            logged.next_observation,
            logged.discount,
            choices,
            table,
            sizes,
        )
        return cls(*map(jnp.asarray, columns))


def _optimiser(fqe: FQE) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(fqe.learning_rate, fqe.steps))


@partial(jax.jit, static_argnames=("fqe",), donate_argnames=("state",))
def _descend(state: tuple[Any, Any, Any], data: _Data, keys: Key, fqe: FQE) -> tuple[Any, Any, Any]:
    """One update of every member per key."""
    members = jnp.arange(fqe.members)[:, None]

    def at(critic: Any, observation: Array, action: Array) -> Float[jax.Array, "members batch"]:
        if isinstance(critic, DiscreteCritic):
            return jnp.asarray(pick(critic.members(observation), action))
        return critic.each(observation, action)

    def step(carry: tuple[Any, Any, Any], key: Key) -> tuple[tuple[Any, Any, Any], None]:
        critic, target, optimiser_state = carry
        row_key = rng.named(key, "rows")
        which = jax.random.randint(row_key, (fqe.members, fqe.batch_size), 0, data.sizes[:, None])
        rows = data.rows[members, which]
        observation, action, next_observation = data.observation[rows], data.action[rows], data.next_observation[rows]
        if isinstance(critic, DiscreteCritic):
            following = (target.members(next_observation) * data.choices[rows]).sum(-1)
        else:
            draw = jax.random.randint(rng.named(key, "draws"), rows.shape, 0, data.choices.shape[1])
            following = at(target, next_observation, data.choices[rows, draw])
        goal = data.reward[rows] + data.discount[rows] * following

        def loss(critic: Any) -> jax.Array:
            return ((at(critic, observation, action) - goal) ** 2).mean(1).sum()

        move, optimiser_state = _optimiser(fqe).update(jax.grad(loss)(critic), optimiser_state, critic)
        critic = optax.apply_updates(critic, move)
        return (critic, optax.incremental_update(critic, target, fqe.polyak), optimiser_state), None

    return jax.lax.scan(step, state, keys)[0]
