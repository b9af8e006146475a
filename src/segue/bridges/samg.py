"""SAMG, state-action-conditional offline model guidance (Zhang et al. 2024, arXiv 2410.18626).

The frozen offline critic is mixed into the Bellman target,

    y = r + γ (1 − d) [(1 − p(s, a)) V̄(s′) + p(s, a) V_off(s′)],

where p(s, a) says how much the dataset knows of (s, a). As far as its reviews tell, three things are the paper's: that
mix, a coefficient from the encoder of a conditional VAE (its latent dimensions count as independent Gaussians), and the
threshold on it. **Our reconstruction**: the exact form of the coefficient, the VAE's sizes and what it reconstructs,
all default values, and the adaptive rule but its idea. CQL's penalty is left as it is; the paper's change to it could
not be read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from segue import rng
from segue.algorithms.base import Algorithm, Aux, copy_arrays
from segue.bridges.base import Bridge, Handover, Report, Review, shapes_of
from segue.core import Array, Key, Learner, Nets, Spaces, Transition
from segue.describe import Panel, Remedy
from segue.networks import VAE
from segue.networks.vae import Target
from segue.replay.base import ReplayStrategy

#: Coefficients that look at nothing.
ABLATIONS = ("even", "random", "off")
#: Mastered samples that the adaptive form learns from, the oldest dropped first.
MASTERED = 10_000
#: Quantiles of the dataset's negative ELBO that the percentile form looks up.
QUANTILES = 101
#: Rows of the dataset held out from the fit, for the calibration report.
HELD_OUT = 2_000
#: Fit steps per dispatch.
FIT_DISPATCH = 500


class State(eqx.Module):
    """The frozen values, the C-VAE, what its scale is on the dataset, and the samples mastered since."""

    critic: Any
    value: Any
    vae: VAE
    optimiser: optax.OptState
    typical_kl: Float[Array, ""]
    """Median KL on the held-out log."""
    negative_elbo: Float[Array, " quantiles"]
    """Quantiles of the negative ELBO on the held-out log."""
    auroc: Float[Array, " 2"]
    """How well p tells the held-out log from the same states with shuffled, and with uniform actions; 0.5 is chance."""
    kl: Float[Array, ""]
    """Mean KL per latent dimension on the held-out log."""
    coefficient: Float[Array, ""]
    """Mean p on the held-out log."""
    error: Float[Array, ""]
    """Running quantile of the Bellman error on samples that the dataset knows."""
    mastered: tuple[Any, ...]
    """Observations, actions (one-hot if discrete) and next observations, [MASTERED, …]."""
    count: Array
    """Mastered samples so far."""
    key: Array
    """Data of the random key for what is learnt live."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SAMG(Bridge):
    """Guides the online critic by the frozen offline one, where the dataset knows the state and the action."""

    name: ClassVar[str] = "samg"
    single_actions: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("critic",)
    needs_dataset: ClassVar[bool] = True
    needs_pretrained: ClassVar[bool] = True
    remedies: ClassVar[tuple[Remedy, ...]] = (
        Remedy(
            "over-estimation after the handover",
            "the over-estimation came after the handover; it keeps the offline critic in the target",
            replay="online-only",
        ),
    )

    images: ClassVar[bool] = False

    coefficient: Literal["encoder", "kl", "elbo", "even", "random", "off"] = "encoder"
    """p before the threshold. `encoder`: Σ_j w_j P(|z| > |μ_j(s, a)|), w_j = 1/L; `kl`: exp(−KL / typical KL); `elbo`:
    share of the dataset with a worse ELBO; ablations: `even` (½), `random` (uniform), `off` (0)."""
    threshold: float = 0.2
    """p_m: below it, p is 0."""
    soft: bool = False
    """p · sigmoid((p − p_m) / 0.05) instead of the cut at p_m."""
    adaptive: bool = False
    """Whether samples that the dataset does not know, but the online critic masters, update the C-VAE."""
    target: Target = "action"
    """What the C-VAE reconstructs: the action from (s, z), or the next state from (s, a, z), which leaves z with
    nothing to say: on our Hopper dataset its posterior collapses."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Widths of its hidden layers (BCQ's and SUNG's have 750)."""
    kl_weight: float = 0.1
    """β of its loss."""
    fit_steps: int = 10_000
    """Updates of the C-VAE on the dataset, at the handover."""
    learning_rate: float = 1e-3
    """Adam step size of the C-VAE; a tenth of it online."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("threshold", 0 <= self.threshold <= 1, "between 0 and 1")
        self.require("hidden_sizes", bool(self.hidden_sizes) and min(self.hidden_sizes) >= 1, "positive widths")
        self.require("kl_weight", self.kl_weight > 0, "above 0")
        elbo_of_action = self.coefficient != "elbo" or self.target == "action"
        self.require("target", elbo_of_action, "action with the coefficient elbo, since p is a function of (s, a) only")
        pointless = self.adaptive and (self.soft or self.threshold == 0 or self.coefficient in ABLATIONS)
        self.require(
            "adaptive", not pointless, "false without a hard threshold above 0: it learns from what that cuts off"
        )
        self.require("fit_steps", self.fit_steps >= 1, "at least 1")
        self.require("learning_rate", self.learning_rate > 0, "above 0")

    def inherits(self, online: Algorithm) -> tuple[str, ...]:
        """The values that it freezes."""
        return ("critic", "value")

    def panels(self) -> tuple[Panel, ...]:
        """The share of the offline critic in the target, and the intrinsic reward."""
        share = "SAMG's share of the offline critic in the target"
        return (
            Panel(
                "samg_coefficient",
                "SAMG: offline critic's share",
                "of the bootstrapped value",
                share,
                limits=(0, 1),
            ),
            Panel("samg_intrinsic_reward", "SAMG: intrinsic reward", "per step", "SAMG's intrinsic reward"),
        )

    def refusal(self, online: Algorithm, replay: ReplayStrategy, others: Iterable[Bridge]) -> str | None:
        """Online replay holds live data only: the dataset speaks through its critic."""
        words = f"its replay holds live data only; expected replay online-only, not {replay.name}"
        return words if replay.needs_dataset else None

    def attach(self, learner: Learner, handover: Handover, key: Key) -> tuple[Learner, State]:
        """Freezes the values that were handed over, fits the C-VAE to the dataset, and measures it."""
        assert handover.logged is not None
        state = self.state(learner.nets, handover.spaces, rng.named(key, "state"))
        logged = (
            jnp.asarray(handover.logged.observation),
            one_hot(jnp.asarray(handover.logged.action), handover.spaces),
            jnp.asarray(handover.logged.next_observation),
        )
        order = jax.random.permutation(rng.named(key, "held-out"), len(logged[0]))
        held = min(HELD_OUT, max(len(order) // 10, 1))
        fitted, held_out = (tuple(column[rows] for column in logged) for rows in (order[held:], order[:held]))
        vae, optimiser = state.vae, state.optimiser
        for step in range(0, self.fit_steps, FIT_DISPATCH):
            count = min(FIT_DISPATCH, self.fit_steps - step)
            fit_key = rng.named(key, "fit", step)
            vae, optimiser = _fit(self, vae, optimiser, fitted, len(fitted[0]), fit_key, count)
            handover.tell(step + count, self.fit_steps)
        state = dataclasses.replace(state, vae=vae, optimiser=optimiser)
        return learner, self.measured(state, held_out, handover.spaces, rng.named(key, "report"))

    def state(self, nets: Nets, spaces: Spaces, key: Key) -> State:
        """The state before the fit."""
        vae_key = rng.named(key, "vae")
        vae = VAE.init(vae_key, spaces.observation_size, spaces.action_size, self.hidden_sizes, self.target)
        observations = jnp.zeros((MASTERED, spaces.observation_size))
        return State(
            critic=copy_arrays(nets.target_critic),
            value=copy_arrays(nets.get("value")),
            vae=vae,
            optimiser=self.optimiser(1.0).init(vae),
            typical_kl=jnp.ones(()),
            negative_elbo=jnp.zeros(QUANTILES),
            auroc=jnp.full(2, 0.5),
            kl=jnp.zeros(()),
            coefficient=jnp.zeros(()),
            error=jnp.zeros(()),
            mastered=(observations, jnp.zeros((MASTERED, spaces.action_size)), jnp.copy(observations)),
            count=jnp.zeros((), jnp.int32),
            key=jax.random.key_data(rng.named(key, "review")),
        )

    def skeleton(self, algorithm: Algorithm, spaces: Spaces) -> Any:
        """As `state`."""
        key = jax.random.key(0)
        return shapes_of(lambda: self.state(algorithm.init(key, spaces), spaces, key))

    def optimiser(self, share: float) -> optax.GradientTransformation:
        """Adam at this share of the step size."""
        return optax.adam(self.learning_rate * share)

    def measured(self, state: State, held_out: tuple[Array, ...], spaces: Spaces, key: Key) -> State:
        """The state with its scale and the calibration report, from rows of the dataset that were not fitted."""
        observation, action, following = held_out
        shuffled = jax.random.permutation(rng.named(key, "shuffled"), action)
        uniform_key = rng.named(key, "uniform")
        if spaces.discrete:
            # Other actions than the logged one: with few there are, ties would hide what p can tell.
            shift = jax.random.randint(uniform_key, (len(action),), 1, spaces.action_size)
            uniform = jax.nn.one_hot((action.argmax(-1) + shift) % spaces.action_size, spaces.action_size)
            shuffled = jnp.where((shuffled == action).all(-1, keepdims=True), uniform, shuffled)
        else:
            uniform = jax.random.uniform(uniform_key, action.shape, minval=-1.0, maxval=1.0)
        error, kl = self.elbo_terms(state, observation, action, following)
        state = dataclasses.replace(
            state,
            typical_kl=jnp.maximum(jnp.median(kl), 1e-6),
            negative_elbo=jnp.quantile(error + self.kl_weight * kl, jnp.linspace(0, 1, QUANTILES)),
            kl=kl.mean(),
        )
        logged, *others = (
            self.raw(state, observation, a, following, rng.named(key, "coefficient", i))
            for i, a in enumerate((action, shuffled, uniform))
        )
        auroc = jnp.stack([_auroc(logged, other) for other in others])
        mean = self.cut(logged).mean()
        return dataclasses.replace(state, auroc=auroc, coefficient=mean)

    def describe(self, state: State) -> tuple[str, ...]:
        """The calibration report of the C-VAE, and a warning if p means little."""
        if self.coefficient in ABLATIONS:
            return (f"samg: ablation {self.coefficient}; the C-VAE does not decide",)
        shuffled, uniform = map(float, state.auroc)
        lines = [
            f"samg: mean p on held-out data {float(state.coefficient):.2f}; p separates the dataset from shuffled "
            f"actions with AUROC {shuffled:.2f}, from uniform ones with {uniform:.2f}"
        ]
        doubt = "so p rests on the reconstruction alone" if self.coefficient == "elbo" else "so p is alike everywhere"
        if float(state.kl) < 0.01:
            lines.append(
                f"samg: WARNING: the C-VAE's posterior has collapsed (KL {float(state.kl):.3g} per latent dimension), "
                f"{doubt}; let it reconstruct the action (target), or make kl_weight smaller or fit_steps larger"
            )
        elif min(shuffled, uniform) < 0.7:
            lines.append(
                "samg: WARNING: the coefficient cannot tell the dataset from other actions (AUROC under 0.7): try "
                "another coefficient (elbo, kl) or target, more fit_steps, or larger hidden_sizes"
            )
        return tuple(lines)

    def raw(
        self, state: State, observation: Array, action: Array, following: Array, key: Key
    ) -> Float[jax.Array, " batch"]:
        """p_int(s, a) in [0, 1], before the threshold; actions are one-hot if discrete."""
        size = len(observation)
        if self.coefficient in ("even", "off"):
            return jnp.full(size, 0.5 if self.coefficient == "even" else 0.0)
        if self.coefficient == "random":
            return jax.random.uniform(key, (size,))
        if self.coefficient == "encoder":
            mean, _ = state.vae.encode(observation, action)
            return jax.scipy.special.erfc(jnp.abs(mean) / jnp.sqrt(2.0)).mean(-1)
        error, kl = self.elbo_terms(state, observation, action, following)
        if self.coefficient == "kl":
            return jnp.exp(-jnp.asarray(kl / state.typical_kl))
        better = jnp.searchsorted(state.negative_elbo, error + self.kl_weight * kl)
        return jnp.asarray(1 - better / len(state.negative_elbo))

    def elbo_terms(
        self, state: State, observation: Array, action: Array, following: Array
    ) -> tuple[Float[jax.Array, " batch"], Float[jax.Array, " batch"]]:
        """Reconstruction error and KL at the mean code instead of a drawn one, so that p is a function of (s, a)."""
        return state.vae.loss(observation, action, following, jnp.zeros((len(observation), state.vae.latent_size)))

    def cut(self, p: Float[Array, " batch"]) -> Float[jax.Array, " batch"]:
        """p where p ≥ p_m and 0 elsewhere (eq. 5), or the soft form; ablations have no threshold."""
        if self.coefficient in ABLATIONS:
            return jnp.asarray(p)
        if self.soft:
            return jnp.asarray(p * jax.nn.sigmoid((p - self.threshold) / 0.05))
        return jnp.where(p >= self.threshold, p, 0.0)

    def bootstrap(
        self,
        state: State,
        algorithm: Algorithm,
        nets: Nets,
        batch: Transition,
        next_value: Float[jax.Array, " batch"],
        value_key: Key,
        key: Key,
    ) -> tuple[Float[jax.Array, " batch"], Aux]:
        """(1 − p) V̄(s′) + p V_off(s′), V_off by the algorithm's own rule with the frozen values and the same draws."""
        p = jax.lax.stop_gradient(self.coefficient_of(state, batch, key))
        step = algorithm.bellman_step
        assert step is not None
        offline = step.next_value(self.frozen(state, nets), batch, value_key)
        intrinsic = jnp.abs(batch.discount * p * (offline - next_value))
        return (1 - p) * next_value + p * offline, {"samg_coefficient": p, "samg_intrinsic_reward": intrinsic}

    def coefficient_of(self, state: State, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """p(s, a) of a batch."""
        action = _features(state, batch)
        return self.cut(self.raw(state, batch.observation, action, batch.next_observation, key))

    @staticmethod
    def frozen(state: State, nets: Nets) -> Nets:
        """The networks with the offline values in place of the online ones."""
        return nets.replace(target_critic=state.critic, value=state.value)

    def update(
        self, state: State, algorithm: Algorithm, nets: Nets, batch: Transition, aux: Aux, key: Key
    ) -> tuple[State, Aux]:
        """Adaptive form: remembers samples that the dataset does not know (p = 0) but whose Bellman error is low.

        Low means under the running 25 % quantile of the errors on samples that the dataset knows.
        """
        if not self.adaptive:
            return state, {}
        p = self.coefficient_of(state, batch, rng.named(key, "coefficient"))
        step = algorithm.bellman_step
        assert step is not None
        value = step.next_value(nets, batch, rng.named(key, "next_value"))
        target = batch.reward + batch.discount * value
        error = jnp.abs(target - nets.critic(batch.observation, batch.action).min(0))
        known = p > 0
        # Quantile by stochastic approximation: up by 0.25, down by 0.75, in steps of a hundredth of the mean error.
        above = jnp.where(known, jnp.where(error > state.error, 0.25, -0.75), 0.0).mean()
        quantile = jnp.where(state.error == 0, error.mean(), state.error + 0.01 * error.mean() * above)
        chosen = ~known & (error < quantile)
        place = jnp.where(chosen, (state.count + jnp.cumsum(chosen) - 1) % MASTERED, MASTERED)
        columns = (batch.observation, _features(state, batch), batch.next_observation)
        mastered = tuple(
            ring.at[place].set(column, mode="drop") for ring, column in zip(state.mastered, columns, strict=True)
        )
        state = dataclasses.replace(
            state, error=quantile, mastered=mastered, count=state.count + chosen.sum().astype(jnp.int32)
        )
        return state, {"samg_mastered": chosen}

    def review(self, state: State, report: Report) -> Review:
        """Adaptive form: five steps of the C-VAE on mastered samples per report, at a tenth of the step size."""
        count = int(state.count) if self.adaptive else 0
        if count < 256:
            return Review(state)
        key = rng.named(jax.random.wrap_key_data(jnp.asarray(state.key)), "step", report.step)
        size = jnp.asarray(min(count, MASTERED))
        vae, optimiser = _fit(self, state.vae, state.optimiser, state.mastered, size, key, 5, share=0.1)
        return Review(dataclasses.replace(state, vae=vae, optimiser=optimiser), metrics={"samg_mastered_count": count})


def one_hot(action: Array, spaces: Spaces) -> Float[jax.Array, "batch action"]:
    """Actions as numbers: discrete ones one-hot."""
    return jax.nn.one_hot(action, spaces.action_size) if spaces.discrete else jnp.asarray(action)


def _features(state: State, batch: Transition) -> Float[jax.Array, "batch action"]:
    size = state.mastered[1].shape[-1]
    return jax.nn.one_hot(batch.action, size) if batch.action.ndim == 1 else jnp.asarray(batch.action)


def _noise(vae: VAE, key: Key, rows: int) -> Float[jax.Array, "rows latent"]:
    return jax.random.normal(key, (rows, vae.latent_size))


@partial(jax.jit, static_argnames=("samg", "steps", "share"))
def _fit(
    samg: SAMG,
    vae: VAE,
    optimiser: optax.OptState,
    data: tuple[Array, ...],
    size: Array | int,
    key: Key,
    steps: int,
    share: float = 1.0,
) -> tuple[VAE, optax.OptState]:
    """`steps` updates of the C-VAE on the first `size` rows of (s, a, s′)."""

    def step(carry: tuple[VAE, Any], step_key: Key) -> tuple[tuple[VAE, Any], None]:
        model, state = carry
        noise_key = rng.named(step_key, "noise")
        rows = jax.random.randint(rng.named(step_key, "rows"), (256,), 0, size)
        observation, action, following = (jnp.take(column, rows, axis=0) for column in data)

        def loss(candidate: VAE) -> jax.Array:
            error, kl = candidate.loss(observation, action, following, _noise(candidate, noise_key, len(rows)))
            return (error + samg.kl_weight * kl).mean()

        move, state = samg.optimiser(share).update(jax.grad(loss)(model), state, model)
        return (optax.apply_updates(model, move), state), None

    carry, _ = jax.lax.scan(step, (vae, optimiser), jax.random.split(key, steps))
    return carry


def _auroc(positive: Float[jax.Array, " a"], negative: Float[jax.Array, " b"]) -> Float[jax.Array, ""]:
    """P(positive > negative), ties counting half: the Mann–Whitney statistic."""
    ordered = jnp.sort(negative)
    below = jnp.searchsorted(ordered, positive, side="left")
    upto = jnp.searchsorted(ordered, positive, side="right")
    return ((below + upto) / 2).mean() / len(negative)
