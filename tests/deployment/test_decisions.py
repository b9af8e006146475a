"""What an exported policy is asked for by a live system and by off-policy evaluation, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from made import ENVS, Made, make

import segue
from segue.deployment.policy import Model
from segue.errors import SegueError
from segue.ope import FQE, evaluate_offline

QUICK = FQE(steps=20, hidden_sizes=(8,))


@pytest.fixture(scope="module", params=["continuous", "discrete"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    algorithm = {"continuous": "sac", "discrete": "dqn"}[request.param]
    return make(tmp_path_factory.mktemp(algorithm), algorithm, request.param)


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("switch"), "discrete-bcq", "discrete")


def test_one_run_of_the_model_gives_an_action_and_its_probability(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, run = [], Model.run
    monkeypatch.setattr(Model, "run", lambda self, *given: runs.append(1) or run(self, *given))
    x, policy = np.array([0.5, 1.0, 0.0], np.float32), made.exported
    decided = policy.decide(x, explore=True, source=np.random.default_rng(0))
    acted = policy.act(x[None], (), np.random.default_rng(0), True, log_prob=True)
    assert acted.log_prob() == decided.log_prob
    assert len(runs) == 2
    later = policy.act(x[None], (), np.random.default_rng(0), True)
    assert later.log_prob() == decided.log_prob
    assert len(runs) == 4, "asked for afterwards, it is computed afterwards"
    np.testing.assert_allclose(decided.action, made.units(decided.decision), rtol=1e-6)
    assert decided.log_prob.shape == ()
    assert np.shape(decided.action) == np.shape(policy(x))


def dataset(made: Made, episodes: int = 40) -> Any:
    """Random actions of episodes of one step, with their probabilities, in the spaces of the policy."""
    rng, discrete = np.random.default_rng(0), made.checkpoint.spaces.discrete
    observations = rng.normal(size=(episodes, 3))
    columns: dict[str, Any] = {
        "observations": observations,
        "next_observations": observations,
        "rewards": rng.normal(size=episodes),
        "terminals": np.ones(episodes),
        "timeouts": np.zeros(episodes),
    }
    if discrete:
        columns |= {"actions": rng.integers(0, 4, episodes), "discrete_actions": 4}
    else:
        columns["actions"] = rng.uniform(-1, 1, (episodes, 2))
    return segue.load({**columns, "behaviour_log_prob": np.full(episodes, -np.log(4.0))})


@pytest.mark.parametrize("explore", [False, True])
def test_off_policy_evaluation_says_of_it_what_it_says_of_the_checkpoint(made: Made, explore: bool) -> None:
    log = dataset(made)
    ours, theirs = (
        evaluate_offline(policy, log, explore=explore, fqe=QUICK)
        for policy in (made.exported, made.checkpoint.policy())
    )
    assert ours.discount == made.checkpoint.algorithm.discount
    assert [e.method for e in ours.estimates] == [e.method for e in theirs.estimates]
    assert ours.notes == theirs.notes
    for mine, other in zip(ours.estimates, theirs.estimates, strict=True):
        assert mine.value == pytest.approx(other.value, rel=1e-3, abs=1e-4, nan_ok=True)
        assert mine.verdict.answer == other.verdict.answer


def test_episodes_that_it_has_learnt_from_do_not_judge_it(made: Made) -> None:
    log = dataset(made)
    exported = segue.load_policy(made.directory)
    exported.seen = log.episode_fingerprints()[:30]
    result = evaluate_offline(exported, log, explore=True, fqe=QUICK)
    assert (result.seen_episodes, result.episodes) == (30, 10)


def test_a_model_acts_among_all_actions_unless_it_is_told_and_marks_a_row_that_allows_none(switch: Made) -> None:
    session = onnxruntime.InferenceSession(switch.directory / "policy.onnx")
    x = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    assert [value.name for value in session.get_inputs()] == ["observation"]
    assert [value.name for value in session.get_overridable_initializers()] == ["allowed"]
    (free,) = session.run(["action"], {"observation": x})
    assert free.tolist() == switch.exported(x).tolist()
    allowed = np.array([[False, False, True, False], [False] * 4, [True] * 4])
    (action,) = session.run(["action"], {"observation": x, "allowed": allowed})
    assert action.tolist() == [3, 0, free[2]]
    with pytest.raises(SegueError, match="row 1 of allowed allows no action"):
        switch.exported(x, allowed=allowed)


def test_what_it_cannot_answer_is_refused_in_words(made: Made, switch: Made) -> None:
    x, ours = np.zeros((2, 3), np.float32), made.exported
    good = np.zeros(2, int) if made.checkpoint.spaces.discrete else np.zeros((2, 2))
    with pytest.raises(SegueError, match=r"the actions are .*; expected shape"):
        ours.log_prob(x, good[:1], explore=True)
    for value in (7, -2, np.nan):
        if value is np.nan and good.dtype.kind == "i":
            continue
        with pytest.raises(SegueError, match=r"expected shape .* from"):
            ours.log_prob(x, np.full_like(good, value), explore=True)
    bad = x.copy()
    bad[1, 2] = np.inf
    with pytest.raises(SegueError, match=r"number 2 of row 1 .*expected finite numbers"):
        ours.log_prob(bad, good, explore=True)
    for allowed, expected in (
        (np.ones((2, 3), bool), r"allowed has shape \(2, 3\)"),
        (np.ones(4, bool), r"allowed has shape \(4,\)"),
        (np.zeros((2, 4), bool), "row 0 of allowed allows no action"),
        (True, r"allowed has shape \(\)"),
    ):
        for ask in (lambda m: switch.exported(x, allowed=m), lambda m: switch.exported.log_probs(x, allowed=m)):
            with pytest.raises(SegueError, match=expected):
                ask(allowed)
    if not made.checkpoint.spaces.discrete:
        everything = np.ones((2, 4), bool)
        for ask in (lambda: ours(x, allowed=everything), lambda: ours.log_prob(x, good, allowed=everything)):
            with pytest.raises(SegueError, match="sac has no probabilities of discrete actions, and cannot keep to"):
                ask()
        with pytest.raises(SegueError, match="its actions are continuous, so they cannot be listed; use log_prob"):
            ours.log_probs(x)


def test_the_density_is_in_the_directory_only_where_it_is_known(tmp_path: Path, switch: Made) -> None:
    assert (switch.directory / "density.onnx").exists()
    draws = make(tmp_path, "fql", "continuous", env=ENVS["continuous"])
    assert not (draws.directory / "density.onnx").exists()
    assert segue.load_policy(draws.directory).kind(True) == "draws"
