"""The conservative update: how far the policy is from its anchor, what that costs, and how the price is found."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handovers import KEY, attach, handover, run
from hypothesis import given
from hypothesis import strategies as st

from helpers import (
    KINDS,
    actor_update,
    few,
    finite,
    for_each,
    random_learner,
    same_bits,
    small,
    transitions,
)
from segue.algorithms import SAC
from segue.bridges import ConservativeUpdate, EarnedFreedom
from segue.core import Learner
from segue.errors import RecipeError
from segue.replay import OnlineOnly
from segue.training.update import replace

BATCHES = {kind: jax.tree.map(jnp.asarray, transitions(kind=kind)) for kind in KINDS}
#: What bounds the policy of which kind.
DISTANCES = [("squared", "continuous"), ("kl", "continuous"), ("kl", "discrete"), ("squared", "discrete")]
NAMES = {"continuous": "td3", "discrete": "awac"}
every_distance = pytest.mark.parametrize(("distance", "kind"), DISTANCES)


def forward(mlp: Any, x: np.ndarray) -> np.ndarray:
    """A ReLU network in float64; the biases of an ensemble's member have an axis of one."""
    *hidden, head = [[np.asarray(leaf, np.float64) for leaf in (layer.weight, layer.bias)] for layer in mlp.layers]
    for weight, bias in hidden:
        x = np.maximum(x @ weight + bias, 0)
    return x @ head[0] + head[1]


def distance_of(kind: str, distance: str, actor: Any, anchor: Any) -> float:
    """mean (tanh μ − tanh μ′)², or the mean of KL(π ‖ π′) in closed form; for discrete actions always the latter."""
    x = np.asarray(BATCHES[kind].observation, np.float64)
    here, there = forward(actor.mlp, x), forward(anchor.mlp, x)
    if kind == "discrete":
        log_p, log_q = (out - np.log(np.exp(out).sum(1, keepdims=True)) for out in (here, there))
        return float((np.exp(log_p) * (log_p - log_q)).sum(1).mean())
    if hasattr(actor, "raw_log_std"):  # a Gaussian around tanh(mean), of one σ
        std, other_std = (np.exp(np.asarray(policy.raw_log_std, np.float64)) for policy in (actor, anchor))
        mean, other_mean = np.tanh(here), np.tanh(there)
        kl = np.log(other_std / std) + (std**2 + (mean - other_mean) ** 2) / (2 * other_std**2) - 0.5
        return float((kl.sum(1) if distance == "kl" else ((mean - other_mean) ** 2)).mean())
    (mean, raw), (other_mean, other_raw) = (np.split(out, 2, axis=1) for out in (here, there))
    if distance == "squared":
        return float(((np.tanh(mean) - np.tanh(other_mean)) ** 2).mean())
    std, other_std = (np.exp(-5 + 7 * 0.5 * (np.tanh(value) + 1)) for value in (raw, other_raw))
    kl = np.log(other_std / std) + (std**2 + (mean - other_mean) ** 2) / (2 * other_std**2) - 0.5
    return float(kl.sum(1).mean())


def away(bridge: ConservativeUpdate, kind: str) -> Learner:
    """A learner whose anchor is another policy."""
    algorithm = small(NAMES[kind])
    multiplier = jnp.asarray(bridge.initial_multiplier or 1.0, jnp.float32)
    state = bridge.state(random_learner(algorithm, 1, kind).nets.actor, multiplier)
    return replace(random_learner(algorithm, 0, kind), bridges=(state,))


def penalty(bridge: ConservativeUpdate, learner: Learner, kind: str, actor: Any = None) -> Any:
    actor = learner.nets.actor if actor is None else actor
    batch = BATCHES[kind]
    return bridge.actor_penalty(learner.bridges[0], actor, learner.nets, batch, jnp.zeros_like(batch.reward), KEY)


@every_distance
@pytest.mark.parametrize("multiplier", [0.5, 3.0])
def test_the_penalty_is_the_price_times_the_distance_to_the_anchor(distance, kind, multiplier):
    bridge = ConservativeUpdate(distance=distance, initial_multiplier=multiplier, epsilon=0.125)
    learner = away(bridge, kind)
    expected = distance_of(kind, distance, learner.nets.actor, learner.bridges[0].anchor)
    assert expected > 0.126
    value, aux = penalty(bridge, learner, kind)
    assert float(value) == pytest.approx(multiplier * expected, rel=1e-4)
    assert float(aux["constraint"]) == pytest.approx(expected, rel=1e-4)
    assert float(aux["constraint_violation"]) == pytest.approx(expected - 0.125, rel=1e-3)
    _, aux = penalty(ConservativeUpdate(distance=distance, epsilon=1e6), learner, kind)
    assert aux["constraint_violation"] == 0


@every_distance
def test_at_the_switch_the_penalty_is_0_and_pulls_nowhere(distance, kind):
    bridge = ConservativeUpdate(distance=distance, initial_multiplier=100.0)
    learner = attach((bridge,), small(NAMES[kind]), kind)
    assert same_bits(learner.bridges[0].anchor, learner.nets.actor)
    value, gradient = jax.value_and_grad(lambda actor: penalty(bridge, learner, kind, actor)[0])(learner.nets.actor)
    assert float(value) == pytest.approx(0, abs=1e-5)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0, atol=2e-5)


def test_the_anchor_and_the_price_are_constants_of_the_policys_loss():
    bridge = ConservativeUpdate()
    learner = away(bridge, "continuous")
    (state,) = learner.bridges
    gradient = jax.grad(
        lambda anchor: penalty(bridge, replace(learner, bridges=(state._replace(anchor=anchor),)), "continuous")[0]
    )(state.anchor)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(gradient))


RATE = 0.05


@cache
def dual_step(epsilon: float) -> Callable[[Any, jax.Array], Any]:
    bridge = ConservativeUpdate(epsilon=epsilon, multiplier_learning_rate=RATE)
    nets, batch = random_learner(small("td3")).nets, BATCHES["continuous"]
    return jax.jit(lambda state, d: bridge.update(state, small("td3"), nets, batch, {"constraint": d}, KEY))


@few
@given(
    distances=st.lists(st.floats(2.0**-16, 1.0, width=32), min_size=6, max_size=6),
    epsilon=st.sampled_from([1e-3, 0.125]),
    multiplier=st.floats(0.125, 1024.0, width=32),
)
def test_the_price_descends_the_dual_by_adam(distances, epsilon, multiplier):
    """log λ steps down the gradient λ (ε − distance) of λ (ε − distance)."""
    bridge = ConservativeUpdate(multiplier_learning_rate=RATE, initial_multiplier=multiplier)
    (state,) = away(bridge, "continuous").bridges
    price, m, v = math.log(multiplier), 0.0, 0.0
    for t, distance in enumerate(distances, 1):
        state, aux = dual_step(epsilon)(state, jnp.asarray(distance, jnp.float32))
        gradient = math.exp(price) * (epsilon - distance)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        price -= RATE * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        assert float(state.log_multiplier) == pytest.approx(price, abs=1e-3)
        assert float(aux["constraint_multiplier"]) == pytest.approx(math.exp(price), rel=1e-3)


@pytest.mark.parametrize(("epsilon", "rises"), [(1e-9, True), (1e6, False)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_price_rises_while_the_policy_is_too_far_and_falls_while_it_is_not(kind, epsilon, rises):
    bridge, algorithm = ConservativeUpdate(epsilon=epsilon, initial_multiplier=1.0), small(NAMES[kind])
    learner, seen = away(bridge, kind), [1.0]
    for _ in range(3):
        learner, metrics = actor_update(algorithm, (bridge,), learner, BATCHES[kind], KEY)
        assert (float(metrics["constraint_violation"]) > 0) == rises
        seen.append(float(metrics["constraint_multiplier"]))
    assert np.all(np.diff(seen) > 0) if rises else np.all(np.diff(seen) < 0)


def test_the_price_stops_at_1e8_and_the_loss_stays_finite():
    bridge = ConservativeUpdate(epsilon=1e-9, initial_multiplier=9.9e7, multiplier_learning_rate=1.0)
    learner = away(bridge, "continuous")
    for _ in range(3):
        learner, metrics = actor_update(small("td3"), (bridge,), learner, BATCHES["continuous"], KEY)
    assert float(metrics["constraint_multiplier"]) == pytest.approx(1e8, rel=1e-5)
    assert finite((learner, metrics))
    beyond = learner.bridges[0]._replace(log_multiplier=jnp.asarray(80.0))
    value, aux = penalty(bridge, replace(learner, bridges=(beyond,)), "continuous")
    assert float(value) == pytest.approx(1e8 * float(aux["constraint"]), rel=1e-5)


@pytest.mark.parametrize("polyak", [0.25, 1.0])
def test_the_anchor_follows_the_policy_by_polyak_averaging_after_its_step(polyak):
    bridge = ConservativeUpdate(polyak=polyak)
    before = away(bridge, "continuous")
    after, _ = actor_update(small("td3"), (bridge,), before, BATCHES["continuous"], KEY)
    assert not same_bits(after.nets.actor, before.nets.actor)
    trees = (after.bridges[0].anchor, after.nets.actor, before.bridges[0].anchor)
    for anchor, policy, old in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(anchor, polyak * np.asarray(policy) + (1 - polyak) * np.asarray(old), atol=1e-6)


@pytest.mark.parametrize("distance", ["squared", pytest.param("kl", marks=pytest.mark.slow)])
@pytest.mark.slow  # the price that does it is measured in the tests of the first price and of the dual
def test_a_small_epsilon_slows_the_policy_down(distance):
    """Against the same bridge with a bound that never binds, over the same updates."""
    algorithm = small("td3")
    moved = {}
    for epsilon in (1e-7, 1e6):
        bridge = ConservativeUpdate(distance=distance, epsilon=epsilon)
        before = attach((bridge,), algorithm)
        after, _ = run(before, algorithm, (bridge,), blocks=40)
        x = np.asarray(BATCHES["continuous"].observation)
        modes = [np.asarray(learner.nets.actor.mode(x)) for learner in (before, after)]
        moved[epsilon] = float(np.sqrt(((modes[1] - modes[0]) ** 2).mean()))
    assert 0 < moved[1e-7] < 0.5 * moved[1e6]


PUSHED = [("td3", "squared", "continuous"), ("td3-bc", "squared", "continuous"), ("iql", "kl", "continuous")]
PUSHED += [("sac", "kl", "continuous"), ("sac", "squared", "continuous"), ("awac", "kl", "discrete")]


@pytest.mark.parametrize(("name", "distance", "kind"), PUSHED)
def test_the_first_price_holds_the_push_of_the_policys_own_loss_at_the_distance_epsilon(name, distance, kind):
    """Walked down the loss's gradient until the distance is ε, the penalty rises as steeply as the loss falls."""
    algorithm, batch = small(name), BATCHES[kind]
    nets, epsilon = random_learner(algorithm, kind=kind).nets, 1e-5
    bridge = ConservativeUpdate(distance=distance, epsilon=epsilon)
    price = float(bridge.balance(algorithm, nets, batch, KEY))
    push = jax.grad(lambda actor: algorithm.actor_loss(actor, nets, batch, KEY)[0].mean())(nets.actor)
    squared = sum(float((np.asarray(leaf, np.float64) ** 2).sum()) for leaf in jax.tree.leaves(push))

    def distance_after(step: float) -> float:
        actor = jax.tree.map(lambda value, g: np.asarray(value, np.float64) - step * np.asarray(g), nets.actor, push)
        return distance_of(kind, distance, actor, nets.actor)

    near, far = 0.0, 1.0
    while distance_after(far) < epsilon:
        far *= 2
    for _ in range(60):
        middle = (near + far) / 2
        near, far = (middle, far) if distance_after(middle) < epsilon else (near, middle)
    rise = (distance_after(1.001 * far) - distance_after(0.999 * far)) / (0.002 * far)
    assert price * rise == pytest.approx(squared, rel=0.05)


@pytest.mark.parametrize(("name", "factor"), [("td3", 100.0), ("td3-bc", 1.0)])
def test_the_first_price_grows_with_q_only_where_the_policys_loss_does(name, factor):
    """TD3+BC divides by mean |Q|."""
    algorithm, bridge = small(name), ConservativeUpdate()
    nets = random_learner(algorithm).nets
    large = jax.tree.map(lambda leaf: leaf, nets.critic)
    *_, head = large.members.layers
    scaled = eqx.tree_at(lambda h: (h.weight, h.bias), head, (100 * head.weight, 100 * head.bias))
    large = eqx.tree_at(lambda c: c.members.layers[-1], large, scaled)
    prices = [
        float(bridge.balance(algorithm, n, BATCHES["continuous"], KEY)) for n in (nets, nets.replace(critic=large))
    ]
    assert prices[1] == pytest.approx(factor * prices[0], rel=1e-3)


def test_without_a_push_the_first_price_is_as_small_as_it_may_be():
    algorithm = small("td3")
    nets = random_learner(algorithm).nets
    flat = nets.replace(critic=jax.tree.map(jnp.zeros_like, nets.critic))
    assert float(ConservativeUpdate().balance(algorithm, flat, BATCHES["continuous"], KEY)) == pytest.approx(1e-6)


def test_the_first_price_is_measured_on_the_dataset_or_is_what_was_asked_for_or_1_without_a_critic():
    learner = attach((ConservativeUpdate(),), small("td3"))
    rows = handover(small("td3")).logged
    everywhere = float(ConservativeUpdate().balance(small("td3"), learner.nets, jax.tree.map(jnp.asarray, rows), KEY))
    assert math.exp(learner.bridges[0].log_multiplier) == pytest.approx(everywhere, rel=0.1)  # 1024 draws of 64 rows
    for name, options, expected in (("td3", {"initial_multiplier": 7.0}, 7), ("ppo", {}, 1)):
        bridge = ConservativeUpdate(**options)
        (state,) = attach((bridge,), small(name)).bridges
        assert math.exp(state.log_multiplier) == pytest.approx(expected, rel=1e-5)
        assert bridge.describe(state) == (f"conservative-update: the multiplier starts at {expected}",)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [(field, 0.0, "above 0") for field in ("epsilon", "initial_multiplier", "multiplier_learning_rate")]
    + [("polyak", value, "above 0 and at most 1") for value in (0.0, 1.1)],
)
def test_a_hyper_parameter_out_of_range_names_the_range(field, value, expected):
    with pytest.raises(RecipeError) as error:
        ConservativeUpdate(**{field: value})
    assert str(error.value) == f"conservative-update: {field} is {value!r}; expected {expected}"


@for_each("cls", [ConservativeUpdate, EarnedFreedom])
def test_kl_is_refused_where_an_algorithm_says_that_its_policy_has_no_density(cls):
    """A plug-in says so itself: it need not be derived from TD3."""

    class Plugin(SAC):
        name = "plugin"
        has_density = False

    reason = cls(distance="kl").refusal(Plugin(), OnlineOnly(), ())
    assert reason == "plugin's policy has no density: there is no KL between two; expected distance squared"
    assert cls(distance="squared").refusal(Plugin(), OnlineOnly(), ()) is None
    assert cls(distance="kl").refusal(SAC(), OnlineOnly(), ()) is None
