"""An exported policy acts as the library does, for every algorithm and bridge, without code of theirs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from made import POLICIES, Made, attach, make

from helpers import random_learner, small
from segue import rng
from segue.acting import Acted
from segue.algorithms import ALGORITHMS, BC, Algorithm
from segue.bridges import JumpStart, PolicyExpansion
from segue.errors import SegueError
from segue.networks.distributions import ClippedGaussian, kind_of
from segue.ope.policy import judged
from segue.training.update import replace

#: Builds of networks and ways of acting beyond the small ones of every algorithm.
VARIANTS: dict[str, tuple[Algorithm, str]] = {
    "gelu, norm after": (small("sac", activation="gelu", actor_layer_norm="after"), "continuous"),
    "elu, norm before": (small("td3", activation="elu", actor_layer_norm="before"), "continuous"),
    "tanh, five members with norm": (
        small("dqn", activation="tanh", ensemble_size=5, critic_layer_norm="after"),
        "discrete",
    ),
    "squashed iql": (small("iql", distribution="squashed"), "continuous"),
    "one hidden layer": (small("awac", hidden_sizes=(5,)), "continuous"),
    "imitation by squared error": (small("bc", loss="mse"), "continuous"),
    "no noise": (small("td3", exploration_noise=0.0), "continuous"),
    "chunks": (small("fql", chunk=3), "continuous"),
}
CASES: dict[str, tuple[Algorithm | str, str]] = POLICIES | VARIANTS


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """The exported policy of a case; each is exported once."""
    return functools.cache(lambda case: make(tmp_path_factory.mktemp("case"), *CASES[case]))


def observations(magnitude: float = 1.0, rows: int = 200, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(rows, 3)) * magnitude).astype(np.float32)


def same(ours: np.ndarray, theirs: Any, ties: float = 0.0, tolerance: float = 1e-5) -> None:
    """Equal but for rounding, and for a share of rows in which it decides between two actions."""
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    alike = np.isclose(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)
    assert alike.reshape(len(ours), -1).all(1).mean() >= 1 - ties


def agree(made: Made, steps: int = 1, x: np.ndarray | None = None, ties: float = 0.0) -> None:
    """Actions, log-probabilities and memory are the library's on the same noise, step by step."""
    x, policy, ours = observations() if x is None else x, made.checkpoint.policy(), made.exported
    for explore in (False, True):
        carries: Any = ours.start(len(x)), policy.start(len(x))
        for step in range(steps):
            acted = ours.act(x, carries[0], np.random.default_rng(step), explore)
            tape = rng.Tape(made.noise(explore, len(x), step))
            expected = policy.act(x, carries[1], tape, explore)
            same(acted.action, expected.action, ties)
            # Where tanh saturates, the density depends on the last digits of the action.
            inside = np.abs(acted.action).reshape(len(x), -1).max(1) < 0.99 if acted.action.ndim > 1 else ...
            with np.errstate(divide="ignore"):
                same(acted.log_prob()[inside], expected.log_prob()[inside], ties, tolerance=2e-3)
            carries = acted.carry, expected.carry
            assert len(acted.carry) == len(jax.tree.leaves(expected.carry))
            for mine, theirs in zip(acted.carry, jax.tree.leaves(expected.carry), strict=True):
                same(mine, theirs, ties)
            x = x[::-1] * np.float32(1.1)


#: What acts with the same code as another: SAC, TD3 and DQN.
ALIKE = {"sac-n", "redq", "rlpd", "edac", "cql", "cal-ql", "td3-bc", "rebrac", "discrete-cql"}
ALIKE |= {"sac-lagrangian", "cql-lagrangian", "awac"}
MARKED = [
    pytest.param(case, marks=pytest.mark.slow if case in POLICIES and POLICIES[case][0] in ALIKE else ())
    for case in CASES
]


@pytest.mark.parametrize("case", MARKED)
def test_an_exported_policy_acts_as_the_library_does_on_the_same_noise(case: str, of: Callable[[str], Made]) -> None:
    made = of(case)
    steps = 1 if not made.exported.start(1) else 5
    # BCQ takes the best of a hundred candidates.
    agree(made, steps, ties=0.02 if "bcq" in case else 0.0)
    for explore in (False, True):
        x = observations()
        ours = made.exported(x, explore=explore, source=np.random.default_rng(1))
        same(ours, made.units(made.original(x, explore=explore, seed=1)), 0.02 if "bcq" in case else 0.0)
        # As the documentation says how to run it.
        plain = made.onnx(x, explore=explore, seed=1)
        assert np.array_equal(plain["action"], ours)


@pytest.mark.parametrize("case", MARKED)
def test_actions_are_as_probable_as_off_policy_evaluation_of_the_checkpoint_has_them(
    case: str, of: Callable[[str], Made]
) -> None:
    """Or both say that it is not known."""
    made, x, rng = of(case), observations(rows=50), np.random.default_rng(0)
    ours, policy, discrete = made.exported, made.checkpoint.policy(), made.checkpoint.spaces.discrete
    size = made.checkpoint.spaces.action_size
    action = rng.integers(0, size, 50) if discrete else rng.uniform(-0.9, 0.9, (50, size)).astype(np.float32)
    for explore in (False, True):
        if policy.dependence is not None:
            with pytest.raises(SegueError, match="acts by what it did in earlier steps; the probability of a given"):
                ours.log_prob(x, action, explore=explore)
            continue
        expected: Any = judged(policy, explore)
        assert ours.kind(explore) == kind_of(policy.distribution(x, explore))
        match ours.kind(explore):
            case "certain":
                assert np.isnan(ours.log_prob(x, action, explore=explore)).all()
                assert judged(ours, explore).deterministic  # type: ignore[union-attr]
            case "draws":
                with pytest.raises(SegueError, match="from no density that is known"):
                    ours.log_prob(x, action, explore=explore)
            case _:
                same(ours.log_prob(x, action, explore=explore), expected.log_prob(x, action), 0.02, tolerance=1e-3)
                same(judged(ours, explore).log_prob(x, action), expected.log_prob(x, action), 0.02, tolerance=1e-3)


@pytest.mark.parametrize("case", [case for case, (_, kind) in CASES.items() if kind == "discrete"])
@pytest.mark.parametrize("explore", [False, True])
def test_among_allowed_actions_it_acts_as_the_library_does(case: str, explore: bool, of: Callable[[str], Made]) -> None:
    made, x = of(case), observations()
    allowed = np.random.default_rng(1).random((len(x), 4)) < 0.4
    allowed[:, 2] |= ~allowed.any(-1)
    policy, ours = made.checkpoint.policy(), made.exported
    acted = ours.act(x, (), np.random.default_rng(3), explore, allowed, log_prob=True)
    assert np.take_along_axis(allowed, np.asarray(acted.action)[:, None], axis=1).all()
    tape = rng.Tape(made.noise(explore, len(x), 3))
    expected = policy.act(x, policy.start(len(x)), tape, explore, allowed)
    same(acted.action, expected.action)
    same(acted.log_prob(), expected.log_prob())
    log_probs = ours.log_probs(x, explore=explore, allowed=allowed)
    assert np.isneginf(log_probs[~allowed]).all()
    same(np.exp(log_probs).sum(-1), np.ones(len(x)))
    same(acted.log_prob(), ours.log_prob(x, acted.action, explore=explore, allowed=allowed))
    decided = ours.decide(x, explore=explore, source=np.random.default_rng(3), allowed=allowed)
    assert decided.action.tolist() == (acted.action + 1).tolist(), "counted as the environment does"
    assert decided.log_prob.tolist() == acted.log_prob().tolist()
    one = ours.decide(x[0], explore=explore, source=np.random.default_rng(3), allowed=allowed[0])
    assert allowed[0, one.decision]


@pytest.mark.parametrize("case", ["sac-continuous", "iql-continuous", "gelu, norm after", "dqn-discrete"])
def test_observations_far_from_the_dataset_have_the_librarys_actions(case: str, tmp_path: Path) -> None:
    """Where float32 decides: not where large numbers cancel in a few of the rows."""
    made = make(tmp_path, *CASES[case])
    for magnitude in (0.0, 1e-42, 10.0, 1e3, 1e20):
        x = observations(magnitude)
        same(made.exported(x), made.units(made.original(x)), ties=0.02)


def test_one_observation_at_a_time_has_the_action_that_it_has_in_a_batch(tmp_path: Path) -> None:
    made, x = make(tmp_path, "sac", "continuous"), observations(rows=3)
    same(np.stack([made.exported(row) for row in x]), made.exported(x))
    same(made.exported(x[:, None]), made.exported(x)[:, None])


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("sac", "continuous"), ("iql", "discrete"), pytest.param("fql", "continuous", marks=pytest.mark.slow)],
)
def test_an_expanded_policy_draws_from_both_as_the_bridge_does(algorithm: str, kind: str, tmp_path: Path) -> None:
    made = make(tmp_path, algorithm, kind, (PolicyExpansion(inverse_temperature=2.0),))
    agree(made)
    with pytest.raises(SegueError, match=r"the bridge policy-expansion has a say .* cannot keep to allowed actions"):
        made.exported(observations(), allowed=np.ones((200, 4), bool))
    with pytest.raises(SegueError, match="the bridge policy-expansion has a say"):
        judged(made.exported, explore=True)
    plain = dataclasses.replace(made.checkpoint, bridges=(), learner=replace(made.checkpoint.learner, bridges=()))
    x, sources = observations(), (np.random.default_rng(0), np.random.default_rng(0))
    differs = made.exported(x, source=sources[0]) != made.units(plain.policy()(x, sources[1]))
    assert 0.02 < differs.mean() < 1, "both policies act"


@pytest.mark.parametrize("algorithm", [small("sac"), small("fql", chunk=3)], ids=lambda a: a.name)
def test_a_guide_acts_in_the_first_steps_of_an_episode(algorithm: Algorithm, tmp_path: Path) -> None:
    bridges, x = (JumpStart(longest=2),), observations(rows=20)
    learner = attach(bridges, algorithm, "continuous", random_learner(algorithm))
    online = random_learner(algorithm, seed=9).nets  # no longer what the guide is a copy of
    made = make(tmp_path, algorithm, "continuous", bridges, replace(learner, nets=online))
    carry, noise = made.exported.start(len(x)), made.noise(False, len(x), 0)
    guide = dataclasses.replace(made.checkpoint, bridges=(), learner=replace(learner, bridges=())).policy()
    alone = dataclasses.replace(made.checkpoint, bridges=(), learner=replace(made.checkpoint.learner, bridges=()))
    for step in range(4):
        acted = made.exported.act(x, carry, np.random.default_rng(step), False)
        carry = acted.carry
        if algorithm.name == "sac":
            acting = guide if step < 2 else alone.policy()
            same(acted.action, acting(x))
    assert carry[-1].tolist() == [4] * len(x), "the clock"
    assert len(noise) == (0 if algorithm.name == "sac" else 2), "the policy's noise and the guide's"
    assert "start and act" in made.notes[0]


def test_a_guide_that_no_longer_acts_is_left_out(tmp_path: Path) -> None:
    bridges, algorithm = (JumpStart(longest=7),), small("sac")
    learner = attach(bridges, algorithm)
    state = learner.bridges[0]._replace(horizon=jnp.zeros((), jnp.int32))
    early = make(tmp_path / "early", algorithm, "continuous", bridges, learner)
    late = make(tmp_path / "late", algorithm, "continuous", bridges, replace(learner, bridges=(state,)))
    size = [(made.directory / "policy.onnx").stat().st_size for made in (early, late)]
    assert size[1] < size[0]
    plain = dataclasses.replace(late.checkpoint, bridges=(), learner=replace(learner, bridges=()))
    same(late.exported(observations()), late.units(plain.policy()(observations())))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wobble(BC):
    """An algorithm of another package: it moves half of the way to where its actor points, give or take."""

    name: ClassVar[str] = "wobble"
    sort: bool = False
    host: bool = False
    counted: bool = False

    def start(self, nets: Any, batch: int) -> Any:
        return {"action": np.full((batch, 2), 0.25, np.float32), "steps": np.zeros(batch, np.int64)}

    def act(self, nets: Any, observation: Any, carry: Any, source: rng.Source, explore: bool) -> Acted:
        xp = observation.__array_namespace__()
        if self.sort:
            observation = xp.sort(observation, axis=-1)
        if self.host:
            observation = np.asarray(observation)
        if self.counted and int(observation.shape[0]) > 5:
            xp = np
        target = nets.actor.mode(observation) * (-1.0) ** (carry["steps"] % 2)[:, None]
        if explore:
            target = target + rng.uniform(rng.named(source, "wobble"), target.shape, -0.1, 0.2)
        mean = 0.5 * (carry["action"] + target)
        chosen = ClippedGaussian(mean, np.asarray([0.1], np.float32))
        action = chosen.sample(source) if explore else mean.clip(-1, 1)
        return Acted(action, lambda: chosen.log_prob(action), {"action": action, "steps": carry["steps"] + 1})


def test_an_algorithm_of_another_package_is_exported_without_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ALGORITHMS._parts, "wobble", Wobble)
    made = make(tmp_path, Wobble(hidden_sizes=(8,)), "continuous")
    agree(made, steps=4)
    assert [part.dtype for part in made.exported.start(2)] == [np.float32, np.int32]
    assert made.exported.start(2)[0].tolist() == [[0.25, 0.25]] * 2


def test_what_cannot_be_exported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALGORITHMS._parts, "wobble", Wobble)
    with pytest.raises(SegueError, match="the JAX primitive sort of float32 has no translation to ONNX"):
        make(tmp_path / "sort", Wobble(sort=True), "continuous")
    for why in ("host", "counted"):
        with pytest.raises(SegueError, match="wobble: JAX cannot trace how it acts for any batch size"):
            make(tmp_path / why, Wobble(**{why: True}), "continuous")
    assert not list(tmp_path.glob("*/exported"))


def test_a_translation_that_acts_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segue.deployment import translate

    monkeypatch.setitem(translate._OPERATORS, "tanh", "Sin")
    with pytest.raises(SegueError, match="would not act as the checkpoint does"):
        make(tmp_path, "sac", "continuous")
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize("which", ["sac-continuous", "bcq-continuous", "dqn-discrete", "discrete-bcq-discrete"])
@pytest.mark.parametrize("value", [np.nan, pytest.param(-np.inf, marks=pytest.mark.slow)])
def test_what_is_not_finite_is_an_error_and_in_onnx_an_action_that_none_could_take(
    which: str, value: float, tmp_path: Path
) -> None:
    made = make(tmp_path, *POLICIES[which])
    x = observations(rows=20)
    x[4, 1] = value
    for act in (made.exported, lambda x: made.exported.act(x, (), None, True)):
        with pytest.raises(SegueError, match=r"number 1 of row 4 .*no action; expected finite numbers"):
            act(x)
    with pytest.raises(SegueError, match=r"at number 1 \(flattened\)"):
        made.exported(x[4])
    action = made.onnx(x)["action"]
    assert (np.isnan(action) if action.dtype.kind == "f" else action == 0).reshape(20, -1)[4].all(), "below the first"
    source = np.random.default_rng(0)
    if which != "bcq-continuous":
        same(np.delete(action, 4, 0), made.exported(np.delete(x, 4, 0), source=source))


def test_an_observation_so_large_that_float32_overflows_is_an_error(tmp_path: Path) -> None:
    made = make(tmp_path, "sac", "continuous")
    with pytest.raises(SegueError, match="too large for float32"):
        made.exported(np.full(3, 3e38, np.float32))


def test_the_models_are_sound_and_say_what_they_take_and_give(tmp_path: Path) -> None:
    made = make(tmp_path, small("fql", chunk=3), "continuous")
    for file in ("policy.onnx", "exploring.onnx"):
        model = onnx.load(made.directory / file)
        onnx.checker.check_model(model, full_check=True)
        assert model.opset_import[0].version == 17
        assert [value.name for value in model.graph.input] == ["observation", "carry_0", "carry_1", "normal_0"]
        names = [value.name for value in model.graph.output]
        assert names == ["action", "decision", "log_prob", "next_carry_0", "next_carry_1"]
