"""JAX, NumPy and ONNX Runtime give the same action, for every algorithm, and wherever float32 can tell."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import POLICIES, Made, attach, make

from helpers import small
from segue.algorithms import DiscreteSAC
from segue.bridges import JumpStart, PolicyExpansion
from segue.deployment.export import network_of
from segue.deployment.kinds import Gaussian
from segue.deployment.onnx_model import onnx_model
from segue.deployment.policy import ExportedPolicy
from segue.deployment.spaces import ContinuousActions
from segue.errors import SegueError
from segue.networks import ACTIVATIONS, MLP, Actor
from segue.networks.mlp import LayerNorm, Linear
from segue.training.update import replace

#: How far from what was seen in training: zeros, the usual, denormals, out of range, beyond where squares overflow.
MAGNITUDES = (0.0, 1.0, 10.0, 1e-30, 1e-42, 1e3, 1e6, 1e20, 1e30)


def observations(magnitude: float, rows: int = 200, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(rows, 3)) * magnitude).astype(np.float32)


def same(a: np.ndarray, b: np.ndarray, rows: Any = slice(None)) -> None:
    assert a.shape == b.shape
    np.testing.assert_allclose(a[rows], b[rows], rtol=0, atol=0 if a.dtype.kind == "i" else 1e-5)


def agree(made: Made, magnitude: float) -> None:
    x = observations(magnitude)
    settled = made.settled(x)
    assert settled.mean() > 0.6
    if isinstance(made.exported.kind, Gaussian) and magnitude != 1e3:
        settled[:] = True  # nothing is chosen, and nothing large cancels: every row counts
    action = made.exported(x)
    same(action, made.onnx(x), settled)
    same(action, made.units(made.on_device(x)), settled)
    same(action, made.units(made.original(x)), settled)
    for row in range(3):  # one observation at a time
        same(action[row], made.exported(x[row]), ... if settled[row] else slice(0, 0))


@pytest.mark.parametrize("which", POLICIES)
def test_jax_numpy_and_onnx_runtime_agree_to_1e_5_on_random_and_extreme_observations(
    which: str, tmp_path: Path
) -> None:
    made = make(tmp_path, *POLICIES[which])
    for magnitude in MAGNITUDES:
        agree(made, magnitude)


@pytest.mark.parametrize("which", POLICIES)
def test_exploring_draws_what_the_algorithm_draws(which: str, tmp_path: Path) -> None:
    made, x = make(tmp_path, *POLICIES[which]), observations(1.0)
    for seed in range(3):
        ours = made.exported(x, explore=True, source=np.random.default_rng(seed))
        same(ours, made.units(made.original(x, np.random.default_rng(seed), explore=True)))
    fresh = [made.exported(x, explore=True) for _ in range(2)]
    noisy = which != "bc-continuous"  # imitates without noise
    assert np.array_equal(*fresh) != noisy


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layer_norm", ["none", "before", "after"])
def test_every_activation_with_and_without_layer_norm_agrees(activation: Any, layer_norm: str, tmp_path: Path) -> None:
    algorithm = small("sac", activation=activation, actor_layer_norm=layer_norm)
    made = make(tmp_path, algorithm, "continuous")
    for magnitude in (1.0, 1e20):
        agree(made, magnitude)


@given(
    hidden=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    layer_norm=st.sampled_from(["none", "before", "after"]),
    size=st.integers(1, 12),
    actions=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_networks_of_any_build_are_those_of_segue_and_of_the_onnx_model(
    hidden: list[int], activation: str, layer_norm: str, size: int, actions: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)

    widths = [size, *hidden, 2 * actions]
    layers = tuple(Linear(numbers(a, b), numbers(b)) for a, b in itertools.pairwise(widths))
    norms = tuple(LayerNorm(1 + numbers(width), numbers(width)) for width in hidden) if layer_norm != "none" else ()
    actor = Actor(MLP(layers, norms, activation, layer_norm == "after"))
    bounds = ContinuousActions(np.full(actions, -1, np.float32), np.full(actions, 1, np.float32))
    space = {"type": "Box", "shape": [size]}
    kind = Gaussian(network_of(actor.mlp), None)
    exported = ExportedPolicy(kind, space, bounds, np.zeros(size, np.float32), np.ones(size, np.float32), {})
    x = rng.normal(size=(20, size)).astype(np.float32)
    session = onnxruntime.InferenceSession(onnx_model(exported), providers=["CPUExecutionProvider"])
    same(exported(x), actor.mode(x))
    same(exported(x), session.run(None, {"observation": x})[0])


@pytest.mark.parametrize(("algorithm", "kind"), [("sac", "continuous"), ("td3", "continuous"), ("iql", "discrete")])
def test_an_expanded_policy_takes_the_better_action_and_explores_as_the_bridge_does(
    algorithm: str, kind: str, tmp_path: Path
) -> None:
    made = make(tmp_path, algorithm, kind, (PolicyExpansion(inverse_temperature=2.0),))
    x = observations(1.0)
    bridge = dataclasses.replace(made.checkpoint.bridges[0], greedy=1.0)  # type: ignore[call-arg]
    greedy = dataclasses.replace(made.checkpoint, bridges=(bridge,)).policy()
    same(made.exported(x), made.units(greedy(x)))
    same(made.exported(x), made.onnx(x), made.settled(x))
    plain = dataclasses.replace(made.checkpoint, bridges=(), learner=replace(made.checkpoint.learner, bridges=()))
    differs = made.exported(x) != made.units(plain.policy()(x))
    assert 0.02 < differs.mean() < 1, "both policies act"
    ours = made.exported(x, explore=True, source=np.random.default_rng(1))
    same(ours, made.units(made.original(x, np.random.default_rng(1), explore=True)))
    assert "takes the better" in " ".join(made.notes)


def test_a_guide_that_still_acts_is_refused_and_one_that_no_longer_does_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(SegueError, match=r"first 7 steps of an episode.* horizon is 0"):
        make(tmp_path / "early", "sac", "continuous", (JumpStart(longest=7),))
    assert not (tmp_path / "early/exported").exists()
    early = make(tmp_path / "plain", "sac", "continuous")
    bridges, algorithm = (JumpStart(longest=7),), early.checkpoint.algorithm
    learner = attach(bridges, algorithm, "continuous", early.checkpoint.learner)
    state = learner.bridges[0]._replace(horizon=jnp.zeros((), jnp.int32))
    late = make(tmp_path / "late", algorithm, "continuous", bridges, replace(learner, bridges=(state,)))
    x = observations(1.0)
    assert np.array_equal(late.exported(x), early.exported(x))


def test_a_bridge_or_an_algorithm_that_acts_in_an_unknown_way_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiscreteSAC, "act", lambda self, nets, x, source, explore: nets.actor.mode(x) * 0)
    with pytest.raises(SegueError, match="would not act as the checkpoint does"):
        make(tmp_path, "discrete-sac", "discrete")
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize("which", ["sac-continuous", "bcq-continuous", "dqn-discrete", "discrete-bcq-discrete"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_an_error_and_in_onnx_an_action_that_none_could_take(
    which: str, value: float, tmp_path: Path
) -> None:
    made = make(tmp_path, *POLICIES[which])
    x = observations(1.0)
    x[4, 1] = value
    with pytest.raises(SegueError, match=r"number 1 of row 4 .*no action; expected finite numbers"):
        made.exported(x)
    with pytest.raises(SegueError, match=r"at number 1 \(flattened\)"):
        made.exported(x[4])
    action = made.onnx(x)
    assert (np.isnan(action) if action.dtype.kind == "f" else action == 0).reshape(200, -1)[4].all(), "below the first"
    same(np.delete(action, 4, 0), made.exported(np.delete(x, 4, 0)), made.settled(np.delete(x, 4, 0)))


def test_an_observation_so_large_that_float32_overflows_is_an_error(tmp_path: Path) -> None:
    made = make(tmp_path, "sac", "continuous")
    with pytest.raises(SegueError, match=r"out of the range of float32|too large for float32"):
        made.exported(np.full(3, 3e38, np.float32))
