"""SAMG: the target it makes, what it knows of the dataset, and what its adaptive form learns."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handovers import KEY, run
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from helpers import (
    KINDS,
    actor_update,
    bellman_target,
    critic_update,
    few,
    finite,
    random_learner,
    same_bits,
    small,
    transitions,
)
from segue.algorithms import Algorithm
from segue.bridges import SAMG, Handover, Report, samg
from segue.bridges.samg import State
from segue.core import Learner, Transition
from segue.errors import RecipeError
from segue.rng import named
from segue.training.update import replace

#: Algorithms that bootstrap in ways of their own: with entropy, smoothed, by V, with the policy's average, greedily.
MEMBERS = {
    "sac": "continuous",
    "td3": "continuous",
    "awac": "continuous",
    "iql": "continuous",
    "cql": "continuous",
    "discrete-sac": "discrete",
    "dqn": "discrete",
}
every_member = pytest.mark.parametrize(("name", "kind"), MEMBERS.items(), ids=MEMBERS)
BATCHES = {kind: jax.tree.map(jnp.asarray, transitions(kind=kind)) for kind in KINDS}
BATCH = BATCHES["continuous"]
VALUES = ("target_critic", "value")


def shaken(tree: Any, seed: int, size: float = 0.5) -> Any:
    """Other numbers in the same places."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x) + size * rng.normal(size=x.shape), x.dtype), tree)


def guided(bridge: SAMG, algorithm: Algorithm, kind: str = "continuous") -> Learner:
    """A learner beside the values of another, which are frozen, and a C-VAE of random numbers."""
    learner = random_learner(algorithm, 0, kind)
    bridge = dataclasses.replace(bridge, hidden_sizes=(8,))
    state = bridge.state(random_learner(algorithm, 1, kind).nets, KINDS[kind], KEY)
    state = dataclasses.replace(
        state, vae=shaken(state.vae, 2), negative_elbo=jnp.linspace(0.2, 2, 101), typical_kl=jnp.asarray(5.0)
    )
    return replace(learner, bridges=(state,))


def blank(learner: Learner) -> Learner:
    """The same with an encoder of zeros, so that μ = 0 and p = 1 everywhere."""
    (state,) = learner.bridges
    encoder = jax.tree.map(jnp.zeros_like, state.vae.encoder)
    return replace(learner, bridges=(dataclasses.replace(state, vae=dataclasses.replace(state.vae, encoder=encoder)),))


def bare(learner: Learner) -> Learner:
    return replace(learner, bridges=())


def p_of(bridge: SAMG, learner: Learner, batch: Transition = BATCH) -> np.ndarray:
    return np.asarray(bridge.coefficient_of(learner.bridges[0], batch, KEY))


def forward(net: Any, x: np.ndarray) -> np.ndarray:
    """A ReLU network in float64."""
    *hidden, head = [(np.asarray(layer.weight, np.float64), np.asarray(layer.bias, np.float64)) for layer in net.layers]
    for weight, bias in hidden:
        x = np.maximum(x @ weight + bias, 0)
    return x @ head[0] + head[1]


def encoded(state: State, batch: Transition, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of the action, mean and log standard deviation of its code, in float64."""
    action = np.asarray(batch.action, np.float64)
    if kind == "discrete":
        action = np.eye(KINDS[kind].action_size)[np.asarray(batch.action)]
    mean, log_std = np.split(forward(state.vae.encoder, np.hstack([np.asarray(batch.observation), action])), 2, axis=1)
    return action, mean, np.clip(log_std, -4, 15)


def elbo_terms(state: State, batch: Transition, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """‖a − decoded‖² at the mean code and KL(q ‖ N(0, 1)), each a mean over dimensions."""
    action, mean, log_std = encoded(state, batch, kind)
    decoded = np.tanh(forward(state.vae.decoder, np.hstack([np.asarray(batch.observation), mean])))
    kl = 0.5 * (mean**2 + np.exp(2 * log_std) - 1 - 2 * log_std).mean(1)
    return ((decoded - action) ** 2).mean(1), kl


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(*pair, id=pair[0], marks=() if pair[0] in ("sac", "iql", "dqn") else pytest.mark.slow)
        for pair in MEMBERS.items()
    ],
)
def test_with_p_0_everywhere_it_is_the_algorithm_itself_bit_for_bit(name, kind):
    """Uncompiled: the compiler may round the same sums differently in another program."""
    algorithm, bridge, batch = small(name), SAMG(coefficient="off"), BATCHES[kind]
    learner = guided(bridge, algorithm, kind)
    plain, expected = critic_update(algorithm, (), bare(learner), batch, KEY)
    after, metrics = critic_update(algorithm, (bridge,), learner, batch, KEY)
    assert same_bits(bare(after), plain)
    assert not same_bits(after.nets.critic, learner.nets.critic)
    assert metrics.pop("samg_coefficient") == metrics.pop("samg_intrinsic_reward") == 0
    assert same_bits(metrics, expected)
    actors = [actor_update(algorithm, b, n, batch, KEY) for b, n in [((), plain), ((bridge,), after)]]
    assert same_bits(bare(actors[1][0]), actors[0][0])
    assert same_bits(actors[1][1], actors[0][1])


@every_member
def test_with_p_1_everywhere_the_target_knows_only_the_frozen_values(name, kind):
    """The online targets may be anything; the draws of the next action are the algorithm's own."""
    algorithm, bridge, batch = small(name), SAMG(), BATCHES[kind]
    learner = blank(guided(bridge, algorithm, kind))
    (state,) = learner.bridges
    assert np.array_equal(p_of(bridge, learner, batch), np.ones(16))
    target = bellman_target(algorithm, (bridge,), learner, batch, KEY)
    frozen = {role: net for role, net in zip(VALUES, (state.critic, state.value), strict=True) if net is not None}
    offline = replace(bare(learner), nets=learner.nets.replace(**frozen))
    assert same_bits(target, bellman_target(algorithm, (), offline, batch, KEY))
    elsewhere = {role: shaken(net, 3) for role, net in learner.nets.roles().items() if role in VALUES}
    moved = replace(learner, nets=learner.nets.replace(**elsewhere))
    assert same_bits(target, bellman_target(algorithm, (bridge,), moved, batch, KEY))
    plain = bellman_target(algorithm, (), bare(learner), batch, KEY)
    ends = np.asarray(batch.discount) == 0
    assert np.array_equal(np.asarray(target)[ends], np.asarray(batch.reward)[ends])
    assert (np.asarray(target) != np.asarray(plain))[~ends].all()


@pytest.mark.parametrize("name", ["td3", "iql"])
@pytest.mark.parametrize("options", [{}, {"soft": True}, {"coefficient": "even"}, {"coefficient": "kl"}], ids=str)
def test_the_target_is_that_of_a_reward_which_pulls_towards_the_frozen_value(name, options):
    """y = r + r_in + γ (1 − d) V̄ with r_in = γ (1 − d) p (V_off − V̄)."""
    algorithm, bridge = small(name), SAMG(**options)
    learner = guided(bridge, algorithm)
    (state,) = learner.bridges
    key = named(KEY, "next_value")
    nets = learner.nets
    online = np.asarray(algorithm.next_value(nets, BATCH, key), np.float64)
    if name == "iql":
        inputs, frozen_value = np.asarray(BATCH.next_observation), state.value
        offline = forward(frozen_value, inputs)[:, 0]
    else:
        offline = np.asarray(algorithm.next_value(nets.replace(target_critic=state.critic), BATCH, key), np.float64)
    p = p_of(bridge, learner).astype(np.float64)
    assert 0 < p.mean() < 1
    discount = np.asarray(BATCH.discount, np.float64)
    intrinsic = discount * p * (offline - online)
    expected = np.asarray(BATCH.reward) + intrinsic + discount * online
    np.testing.assert_allclose(
        bellman_target(algorithm, (bridge,), learner, BATCH, KEY), expected, rtol=1e-5, atol=1e-5
    )
    _, aux = bridge.bootstrap(state, algorithm, nets, BATCH, jnp.asarray(online, jnp.float32), key, KEY)
    np.testing.assert_allclose(aux["samg_intrinsic_reward"], np.abs(intrinsic), rtol=1e-4, atol=1e-5)
    assert np.abs(intrinsic).max() > 0.1


@pytest.mark.parametrize("name", ["td3", "iql"])
def test_the_frozen_values_and_the_vae_stay_while_the_learner_moves(name):
    algorithm, bridge = small(name), SAMG(coefficient="even")
    learner = guided(bridge, algorithm)
    after, _ = run(learner, algorithm, (bridge,), blocks=3)
    assert same_bits(after.bridges, learner.bridges)
    roles = learner.nets.roles()
    assert all(not same_bits(after.nets.roles()[role], net) for role, net in roles.items())


def test_no_gradient_of_the_critics_loss_reaches_through_the_target():
    """The step towards the guided target is that towards the same numbers given as rewards."""
    algorithm, bridge = small("td3"), SAMG(coefficient="even")
    learner = guided(bridge, algorithm)
    y = bellman_target(algorithm, (bridge,), learner, BATCH, named(KEY, "critic", "target"))
    told = BATCH._replace(reward=y, discount=jnp.zeros_like(BATCH.discount))
    after, _ = critic_update(algorithm, (bridge,), learner, BATCH, KEY)
    expected, _ = critic_update(algorithm, (), bare(learner), told, KEY)
    assert same_bits(after.nets, expected.nets)


def test_the_ablations_are_one_half_and_a_draw_per_sample_whatever_the_threshold():
    learner = guided(SAMG(), small("td3"))
    batch = jax.tree.map(jnp.asarray, transitions(2000))
    for threshold in (0.0, 1.0):
        assert (p_of(SAMG(coefficient="even", threshold=threshold), learner) == 0.5).all()
        assert (p_of(SAMG(coefficient="off", threshold=threshold), learner) == 0).all()
        bridge = SAMG(coefficient="random", threshold=threshold)
        drawn = p_of(bridge, learner, batch)
        counts, _ = np.histogram(drawn, 20, (0, 1))
        assert counts.sum() == 2000
        assert ((counts - 100) ** 2 / 100).sum() < 50  # χ² with 19 degrees of freedom: the 99.99th percentile
        other = np.asarray(bridge.coefficient_of(learner.bridges[0], batch, jax.random.key(1)))
        assert (other != drawn).mean() > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoders_form_is_how_far_out_the_code_lies_on_average(kind):
    """Σ_j (1/L) · 2 (1 − Φ(|μ_j|))."""
    name = "td3" if kind == "continuous" else "dqn"
    bridge, batch = SAMG(threshold=0.0), BATCHES[kind]
    learner = guided(bridge, small(name), kind)
    _, mean, _ = encoded(learner.bridges[0], batch, kind)
    assert mean.shape == (16, 2 * KINDS[kind].action_size)
    np.testing.assert_allclose(p_of(bridge, learner, batch), (2 * norm.sf(np.abs(mean))).mean(1), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kl_and_elbo_forms_are_those_of_the_definition(kind):
    name = "td3" if kind == "continuous" else "dqn"
    batch = BATCHES[kind]
    learner = guided(SAMG(), small(name), kind)
    (state,) = learner.bridges
    error, kl = elbo_terms(state, batch, kind)
    by_kl = p_of(SAMG(coefficient="kl", threshold=0.0), learner, batch)
    np.testing.assert_allclose(by_kl, np.exp(-kl / 5.0), rtol=1e-4, atol=1e-6)
    bridge = SAMG(coefficient="elbo", threshold=0.0, kl_weight=0.25)
    quantiles = np.linspace(0.2, 2, 101)
    worse = (quantiles >= (error + 0.25 * kl)[:, None]).mean(1)
    by_elbo = p_of(bridge, learner, batch)
    np.testing.assert_allclose(by_elbo, worse, atol=1e-5)
    assert len(np.unique(worse)) > 3


@few
@given(
    low=st.floats(0, 1, width=32),
    high=st.floats(0, 1, width=32),
    soft=st.booleans(),
    p=st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5),
)
def test_p_lies_between_0_and_1_and_falls_with_the_threshold(low, high, soft, p):
    low, high = min(low, high), max(low, high)
    p = np.array(p, np.float32)
    lower, higher = (np.asarray(SAMG(threshold=t, soft=soft).cut(jnp.asarray(p))) for t in (low, high))
    assert (higher <= lower).all()
    assert (lower <= p).all()
    assert (higher >= 0).all()
    if soft:
        np.testing.assert_allclose(lower, p / (1 + np.exp(-(p.astype(np.float64) - low) / 0.05)), rtol=1e-4, atol=1e-7)
    else:
        assert np.array_equal(lower, np.where(p >= np.float32(low), p, 0))


@few
@given(
    positive=st.lists(st.integers(0, 6), min_size=7, max_size=7),
    negative=st.lists(st.integers(0, 6), min_size=4, max_size=4),
)
def test_the_auroc_is_the_share_of_pairs_in_order_with_ties_counting_half(positive, negative):
    a, b = np.array(positive, np.float32), np.array(negative, np.float32)
    expected = ((a[:, None] > b) + 0.5 * (a[:, None] == b)).mean()
    assert float(samg._auroc(jnp.asarray(a), jnp.asarray(b))) == pytest.approx(expected, abs=1e-6)


ROWS = 1500


def fitted(bridge: SAMG, kind: str = "continuous", structured: bool = True) -> State:
    """What it attaches to a dataset whose actions lie on one of two sides, by the state, or anywhere."""
    rng = np.random.default_rng(0)
    s = rng.normal(size=(ROWS, 3)).astype(np.float32)
    if kind == "discrete":
        a = (s[:, 0] > 0) + 2 * (s[:, 1] > 0) if structured else rng.integers(0, 4, ROWS)
        a = a.astype(np.int32)
    else:
        centre = 0.3 * np.tanh(s[:, :2]) + 0.5 * rng.choice([-1, 1], size=(ROWS, 2))
        a = centre + 0.05 * rng.normal(size=(ROWS, 2)) if structured else rng.uniform(-1, 1, (ROWS, 2))
        a = np.clip(a, -1, 1).astype(np.float32)
    log = transitions(ROWS, kind=kind)._replace(observation=s, action=a, next_observation=s + np.float32(0.1))
    algorithm = small("dqn" if kind == "discrete" else "td3")
    learner = random_learner(algorithm, kind=kind)
    after, state = bridge.attach(learner, Handover(algorithm, KINDS[kind], None, log), KEY)
    assert after is learner
    assert same_bits(state.critic, learner.nets.target_critic)
    assert finite(state)
    return state


QUICK: dict[str, Any] = {"fit_steps": 1000, "hidden_sizes": (32, 32)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("coefficient", "kind"),
    [("elbo", "continuous"), pytest.param("encoder", "discrete", marks=pytest.mark.slow)],
)
def test_the_report_tells_a_dataset_that_can_be_told_from_one_that_cannot(coefficient, kind):
    bridge = SAMG(coefficient=coefficient, **QUICK)
    structured, anything = fitted(bridge, kind), fitted(bridge, kind, structured=False)
    assert np.asarray(structured.auroc).min() > 0.75
    assert len(bridge.describe(structured)) == 1
    np.testing.assert_allclose(anything.auroc, 0.5, atol=0.12)  # 150 held-out rows
    _, warning = bridge.describe(anything)
    assert warning.startswith("samg: WARNING: the coefficient cannot tell the dataset from other actions")
    if coefficient == "elbo":
        # By construction uniform on the dataset: its mean above the threshold of 0.2 is ½ (1 − 0.2²).
        for state in (structured, anything):
            assert float(state.coefficient) == pytest.approx(0.48, abs=0.01)


@pytest.mark.slow
def test_the_report_warns_of_a_posterior_that_has_collapsed():
    bridge = SAMG(kl_weight=50.0, **QUICK)
    state = fitted(bridge)
    assert float(state.kl) < 0.01
    assert float(state.coefficient) > 0.95
    _, warning = bridge.describe(state)
    assert warning.startswith("samg: WARNING: the C-VAE's posterior has collapsed")


def test_the_report_of_an_ablation_says_that_the_vae_decides_nothing():
    state = guided(SAMG(), small("td3")).bridges[0]
    for name in ("even", "random", "off"):
        assert SAMG(coefficient=name).describe(state) == (f"samg: ablation {name}; the C-VAE does not decide",)


ADAPTIVE = SAMG(adaptive=True, threshold=0.45)


def learnt(learner: Learner, algorithm: Algorithm, bridge: SAMG, seed: int = 0, error: float = 0.0) -> Any:
    """A batch, the state before and after one update on it, what was reported, and (p, Bellman error)."""
    (state,) = learner.bridges
    state = dataclasses.replace(state, error=jnp.asarray(error, jnp.float32))
    batch = jax.tree.map(jnp.asarray, transitions(seed=seed))
    value_key = named(KEY, "next_value")
    after, aux = bridge.update(state, algorithm, learner.nets, batch, {}, KEY)
    value = np.asarray(algorithm.next_value(learner.nets, batch, value_key), np.float64)
    q = np.asarray(learner.nets.critic(batch.observation, batch.action), np.float64).min(0)
    missed = np.abs(np.asarray(batch.reward) + np.asarray(batch.discount) * value - q)
    return batch, after, aux, p_of(bridge, learner, batch), missed


@pytest.mark.parametrize("seed", range(4))
def test_mastered_are_the_samples_that_the_dataset_does_not_know_and_whose_bellman_error_is_low(seed):
    """Low: under a running 25 % quantile of the errors on samples that the dataset knows."""
    algorithm = small("td3")
    learner = guided(ADAPTIVE, algorithm)
    batch, after, aux, p, missed = learnt(learner, algorithm, ADAPTIVE, seed, error=1.0)
    known = p > 0
    step = 0.01 * missed.mean() * (np.where(missed > 1.0, 0.25, -0.75) * known).mean()
    assert float(after.error) == pytest.approx(1.0 + step, abs=1e-5)
    mastered = ~known & (missed < 1.0 + step)
    assert np.array_equal(aux["samg_mastered"], mastered)
    assert int(after.count) == mastered.sum()
    for ring, column in zip(after.mastered, (batch.observation, batch.action, batch.next_observation), strict=True):
        assert np.array_equal(ring[: mastered.sum()], np.asarray(column)[mastered])
        assert not np.asarray(ring[mastered.sum() :]).any()
    assert 0 < mastered.sum() < (~known).sum() < 16


@pytest.mark.slow
def test_the_running_quantile_settles_where_a_quarter_of_the_known_errors_lie_below():
    algorithm, bridge = small("td3"), SAMG(adaptive=True, threshold=1e-6)
    learner = guided(bridge, algorithm)
    step = jax.jit(lambda state, batch: bridge.update(state, algorithm, learner.nets, batch, {}, KEY)[0])
    batches = [jax.tree.map(jnp.asarray, transitions(seed=seed)) for seed in range(25)]
    (state,) = learner.bridges
    for i in range(1500):
        state = step(state, batches[i % 25])
    below = np.concatenate([learnt(learner, algorithm, bridge, seed)[4] < float(state.error) for seed in range(25)])
    assert below.mean() == pytest.approx(0.25, abs=0.03)
    assert int(state.count) == 0  # the dataset knows everything here


def test_the_ring_of_mastered_samples_drops_the_oldest_first(monkeypatch):
    monkeypatch.setattr(samg, "MASTERED", 8)
    algorithm = small("td3")
    bridge = SAMG(adaptive=True, threshold=1.0)  # p = 0: the dataset knows nothing
    learner, seen = guided(bridge, algorithm), []
    for seed in range(4):
        batch, after, aux, _, _ = learnt(learner, algorithm, bridge, seed, error=1.0)
        seen += list(np.asarray(batch.action)[np.asarray(aux["samg_mastered"])])
        learner = replace(learner, bridges=(after,))
    assert int(after.count) == len(seen) > 16
    expected = np.zeros((8, 2), np.float32)
    for number, action in enumerate(seen):
        expected[number % 8] = action
    assert np.array_equal(after.mastered[1], expected)


def test_without_the_adaptive_form_nothing_is_remembered_and_nothing_learnt():
    bridge = SAMG()
    learner = guided(bridge, small("td3"))
    (state,) = learner.bridges
    after, aux = bridge.update(state, small("td3"), learner.nets, BATCH, {}, KEY)
    assert after is state
    assert aux == {}
    full = dataclasses.replace(state, count=jnp.asarray(5000))
    assert bridge.review(full, report(learner)).state is full


def report(learner: Learner, step: int = 0) -> Report:
    return Report(step, np.zeros(0), np.zeros(0, bool), np.zeros(0), learner)


def test_the_vae_waits_for_256_mastered_samples():
    bridge = SAMG(adaptive=True, hidden_sizes=(8,))
    learner = guided(bridge, small("td3"))
    (state,) = learner.bridges
    for count, learns in ((255, False), (256, True), (10**6, True)):
        state = dataclasses.replace(state, count=jnp.asarray(count, jnp.int32))
        review = bridge.review(state, report(learner))
        assert same_bits(review.state.vae, state.vae) != learns
        assert same_bits(dataclasses.replace(review.state, vae=state.vae, optimiser=state.optimiser), state)
        assert review.metrics == ({"samg_mastered_count": count} if learns else {})


def test_p_grows_on_the_samples_that_were_mastered():
    """And the guide fades in nowhere else by itself: the frozen critic is what it was."""
    bridge = SAMG(adaptive=True, learning_rate=1e-2, **{**QUICK, "fit_steps": 500})
    learner = random_learner(small("td3"))
    state = fitted(bridge)
    rng = np.random.default_rng(1)
    observation = jnp.asarray(rng.normal(size=(samg.MASTERED, 3)) + np.array([4, 4, 0]), jnp.float32)
    action = jnp.full((samg.MASTERED, 2), -0.9) + 0.01 * jnp.asarray(rng.normal(size=(samg.MASTERED, 2)), jnp.float32)
    state = dataclasses.replace(
        state, mastered=(observation, action, observation), count=jnp.asarray(samg.MASTERED, jnp.int32)
    )
    before = np.asarray(bridge.raw(state, observation, action, observation, KEY)).mean()
    after = state
    for step in range(60):
        after = bridge.review(after, report(learner, step)).state
    grown = np.asarray(bridge.raw(after, observation, action, observation, KEY)).mean()
    assert grown > before + 0.1
    assert same_bits((after.critic, after.value), (state.critic, state.value))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("threshold", -0.1, "between 0 and 1"),
        ("threshold", 1.1, "between 0 and 1"),
        ("threshold", float("nan"), "a finite number"),
        ("hidden_sizes", (0,), "positive widths"),
        ("kl_weight", 0.0, "above 0"),
        ("fit_steps", 0, "at least 1"),
        ("learning_rate", 0.0, "above 0"),
    ],
)
def test_a_hyper_parameter_out_of_range_names_the_range(field, value, expected):
    with pytest.raises(RecipeError) as error:
        SAMG(**{field: value})
    assert str(error.value) == f"samg: {field} is {value!r}; expected {expected}"


def test_an_elbo_of_the_next_state_is_refused():
    with pytest.raises(RecipeError, match="samg: target is 'next_observation'; expected action with the coefficient"):
        SAMG(coefficient="elbo", target="next_observation")
