"""The entry point and the command, and what is judged: Segue policies as they act."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mdps import MDP, random_policy, tabular
from rich.console import Console

import segue
from helpers import fresh_learner, random_learner, small
from segue.algorithms import Algorithm
from segue.bridges import PolicyExpansion
from segue.cli.main import main
from segue.data import npz
from segue.data.dataset import Dataset
from segue.errors import SegueError
from segue.ope import (
    FQE,
    BehaviourModel,
    ContinuousPolicy,
    DiscretePolicy,
    NoDensity,
    OfflineEvaluation,
    Propensities,
    evaluate_offline,
    judged,
    propensities,
)
from segue.policy import Policy

QUICK = FQE(hidden_sizes=(), steps=300, learning_rate=0.02, polyak=0.05, members=3)
WEIGHTS = ["pdis", "is", "wdr", "dr", "wpdis", "wis"]
OBSERVATIONS = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def bandit() -> tuple[MDP, np.ndarray]:
    """One step per episode, and uniform behaviour: good and bad policies are easy to tell."""
    return MDP.random(2, ending=1.0), np.full((4, 3), 1 / 3)


def test_a_better_policy_a_worse_one_and_the_same(bandit: tuple[MDP, np.ndarray]) -> None:
    mdp, behaviour = bandit
    log = mdp.log(behaviour, 1000, 0)
    best, worst = np.eye(3)[mdp.reward.argmax(1)], np.eye(3)[mdp.reward.argmin(1)]
    expected = [(best, "yes"), (worst, "no"), (behaviour, "not enough evidence")]
    for policy, answer in expected:
        result = evaluate_offline(tabular(policy), log, discount=mdp.discount, fqe=QUICK)
        assert result.verdict.answer == answer
        assert [estimate.method for estimate in result.estimates] == [*WEIGHTS, "fqe"]
        assert result.behaviour_value == pytest.approx(log.rewards.mean())
        assert result.behaviour_bounds[0] < result.behaviour_value < result.behaviour_bounds[1]
        for estimate in result.estimates:
            assert estimate.value == pytest.approx(mdp.value(policy), abs=0.08), estimate.method
            assert estimate.bounds.value_lower < estimate.value
            if estimate.method not in ("pdis", "is"):
                assert estimate.verdict.answer == "not enough evidence"
        assert [note for note in result.notes if "does not say which episodes it has learnt from" not in note] == []


def test_estimated_propensities_come_close_to_logged_ones(bandit: tuple[MDP, np.ndarray]) -> None:
    mdp, _ = bandit
    behaviour, target = random_policy(0, mdp, floor=0.5), random_policy(1, mdp, floor=0.5)
    logs = [mdp.log(behaviour, 2000, 0, logged=logged) for logged in (True, False)]
    model = BehaviourModel(steps=400, hidden_sizes=(16,), learning_rate=1e-2)
    known, estimated = (
        evaluate_offline(tabular(target), log, methods=["wis"], discount=0.9, behaviour=model) for log in logs
    )
    assert estimated["wis"].value == pytest.approx(known["wis"].value, abs=0.03)
    assert any("was estimated" in note for note in estimated.notes)


def test_the_same_seed_gives_the_same_result_which_json_can_hold(bandit: tuple[MDP, np.ndarray]) -> None:
    mdp, behaviour = bandit
    log = mdp.log(behaviour, 50, 0)
    impossible = tabular(np.eye(3)[np.zeros(4, int)])  # one resample or more has no episode with that action
    results = [evaluate_offline(impossible, log, methods=["wis", "pdis"], discount=0.9, seed=3) for _ in range(2)]
    assert results[0] == results[1]
    plain = json.loads(json.dumps(results[0].to_dict(), allow_nan=False))
    assert [estimate["method"] for estimate in plain["estimates"]] == ["wis", "pdis"]
    assert plain["verdict"]["answer"] == results[0].verdict.answer
    assert set(plain["estimates"][0]["bounds"]) == {"value_lower", "difference_lower", "difference_upper"}


def shown(result: OfflineEvaluation) -> str:
    console = Console(width=250, file=io.StringIO())
    with console.capture() as capture:
        console.print(result)
    return capture.get()


def test_what_is_shown(bandit: tuple[MDP, np.ndarray]) -> None:
    mdp, behaviour = bandit
    result = evaluate_offline(
        tabular(np.eye(3)[mdp.reward.argmax(1)]), mdp.log(behaviour, 1000, 0), methods=["pdis", "wis"], discount=0.9
    )
    text = shown(result)
    expected = ("at least (95%)", "effective episodes", "yes (by pdis: better by", "wis: not enough evidence")
    for word in (*expected, "bounds of pdis: betting: holds", "bounds of wis: bootstrap over episodes: approximate"):
        assert word in text


def cells(result: OfflineEvaluation, method: str) -> list[str]:
    """Value, lower bound and difference as the table shows them."""
    (row,) = [line for line in shown(result).splitlines() if line.startswith(f"{method} ")]
    return re.split(r"\s{2,}", row)[1:4]


def steps(actions: list[list[int]], rewards: Sequence[Sequence[float]]) -> Dataset:
    """Episodes of equal length, by a policy that does either of two actions half of the time."""
    length, rows = len(actions[0]), len(actions) * len(actions[0])
    return segue.load(
        {
            "observations": np.ones((rows, 1)),
            "actions": np.ravel(actions),
            "rewards": np.ravel(rewards),
            "next_observations": np.ones((rows, 1)),
            "terminals": np.arange(rows) % length == length - 1,
            "timeouts": np.zeros(rows),
            "discrete_actions": 2,
            "behaviour_log_prob": np.full(rows, np.log(0.5)),
        }
    )


ALWAYS_1 = DiscretePolicy(lambda observation: np.tile([0.0, 1.0], (len(observation), 1)))


def test_where_no_episode_does_what_the_policy_would_do_no_estimate_by_weights_has_a_value_or_a_bound() -> None:
    result = evaluate_offline(ALWAYS_1, steps([[0, 1]] * 10, [[5.0, 6.0]] * 10), discount=1.0, fqe=QUICK)
    for method in WEIGHTS:
        assert np.isnan(result[method].value)
        assert (
            result[method].verdict.reason == "it has no value: no episode of the dataset does what the policy would do"
        )
        assert cells(result, method) == ["–", "–", "–"]
    for plain in json.loads(json.dumps(result.to_dict(), allow_nan=False))["estimates"][:-1]:
        assert (plain["value"], set(plain["bounds"].values())) == (None, {None})
    assert np.isfinite(result["fqe"].value)


def test_where_the_dataset_stops_following_only_what_needs_no_later_weight_has_a_value() -> None:
    log = steps([[1, 0, 1], [0, 1, 1]] * 10, [[1.0, 2.0, 3.0]] * 20)
    result = evaluate_offline(ALWAYS_1, log, discount=1.0, fqe=QUICK)
    assert result["pdis"].value == 3, "1 by weights, for one step; but three steps earn at least 3"
    assert any(note.startswith("pdis: the value lay outside 3 to 9, the range") for note in result.notes)
    assert np.isfinite(result["dr"].value)
    for method in ("is", "wis", "wpdis", "wdr"):
        assert np.isnan(result[method].value)
        assert "it has no value: after step 1 of 3 no episode" in result[method].verdict.reason
        assert cells(result, method) == ["–", "–", "–"]
    assert result["wpdis"].support is not None
    assert result["wpdis"].support.effective_episodes > 0
    (note,) = [note for note in result.notes if note.startswith("after step 1 of 3 no episode")]
    assert note.endswith("pdis counts what it earns there as 0, dr leaves that to its critic")


@pytest.mark.parametrize(
    ("followed", "returns", "noted"),
    [
        # With 2 of 5 episodes, weighted by 2, the value is 81, but no return is below 100: nor is the bound.
        (80, (101.0, 100.0), True),
        # The value is −81, the dataset's −100; yet the policy is worse by 1, which only the bounds see.
        (80, (-101.0, -100.0), True),
        (100, (101.0, 100.0), False),
    ],
)
def test_bounds_that_contradict_their_value_are_explained(
    followed: int, returns: tuple[float, float], noted: bool
) -> None:
    actions = [[1]] * followed + [[0]] * (200 - followed)
    log = steps(actions, [returns[:1]] * followed + [returns[1:]] * (200 - followed))
    result = evaluate_offline(ALWAYS_1, log, methods=["is"], discount=1.0)
    assert result.verdict.answer == ("yes" if returns[0] > returns[1] else "no")
    assert any(note.startswith("is: its bounds contradict its value") for note in result.notes) == noted


def test_one_estimate_of_the_datasets_policy_serves_many_policies_and_is_made_only_if_needed() -> None:
    log = steps([[1], [0]] * 10, [[1.0], [3.0]] * 10)
    asked = []

    def known() -> Propensities:
        asked.append(1)
        return Propensities(np.full(len(log), np.log(0.25)), estimated=True, notes=("from elsewhere",))

    result = evaluate_offline(ALWAYS_1, log, methods=["is"], discount=1.0, behaviour=known)
    assert result["is"].value == pytest.approx(2), "half of the episodes with 1 / 0.25"
    assert "from elsewhere" in result.notes
    evaluate_offline(ALWAYS_1, log, methods=["fqe"], discount=1.0, fqe=QUICK, behaviour=known)
    assert len(asked) == 1


def test_cut_episodes_are_pointed_out() -> None:
    log = segue.load(
        {
            "observations": np.ones((40, 1)),
            "actions": np.zeros(40, int),
            "rewards": np.ones(40),
            "next_observations": np.ones((40, 1)),
            "terminals": np.zeros(40),
            "timeouts": np.arange(40) % 4 == 3,
            "discrete_actions": 1,
            "behaviour_log_prob": np.zeros(40),
        }
    )
    result = evaluate_offline(
        DiscretePolicy(lambda o: np.ones((len(o), 1))), log, discount=0.5, fqe=dataclasses.replace(QUICK, steps=1500)
    )
    assert result.behaviour_value == pytest.approx(1.875)
    assert result["pdis"].value == pytest.approx(1.875)
    assert any("10 of 10 episodes were cut" in note and "0.062" in note for note in result.notes)
    assert result["fqe"].value == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"methods": ["wsi"]}, "unknown method 'wsi': did you mean 'wis'"),
        ({"methods": []}, "methods are none; expected some of"),
        ({"methods": ["is", "is"]}, "methods are is, is; expected some of pdis"),
        ({"confidence": 1.0}, "confidence is 1.0; expected at least 0.5 and below 1"),
        ({"discount": 1.5}, "discount is 1.5; expected between 0 and 1"),
        ({"discount": None}, "no discount of its own; give one, between 0 and 1"),
        ({"policy": ContinuousPolicy(lambda o, s: o)}, "different kinds of actions"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object], expected: str) -> None:
    mdp = MDP.random(0)
    arguments = {"policy": tabular(random_policy(1, mdp)), "discount": 0.9, **changes}
    with pytest.raises(SegueError, match=expected):
        evaluate_offline(dataset=mdp.log(random_policy(0, mdp), 10, 0), **arguments)  # type: ignore[arg-type]


def test_one_episode_says_nothing_of_how_they_vary() -> None:
    mdp = MDP.random(0)
    with pytest.raises(SegueError, match="one episode; expected at least 2"):
        evaluate_offline(tabular(random_policy(1, mdp)), mdp.log(random_policy(0, mdp), 1, 0), discount=0.9)


@pytest.mark.parametrize("name", ["dqn", "discrete-bcq", "discrete-sac", "bc", "ppo"])
@pytest.mark.parametrize("explore", [False, True])
def test_probabilities_are_how_often_a_discrete_policy_acts_so(name: str, explore: bool) -> None:
    algorithm = segue.PPO(hidden_sizes=(8, 8)) if name == "ppo" else small(name)
    policy = Policy(algorithm, random_learner(algorithm, kind="discrete"))
    target = judged(policy, explore)
    assert isinstance(target, DiscretePolicy)
    repeats = 4000
    states = np.repeat(OBSERVATIONS[:3], repeats, axis=0)
    drawn = policy(states, np.random.default_rng(0), explore).reshape(3, repeats)
    often = np.stack([(drawn == action).mean(1) for action in range(4)], axis=1)
    np.testing.assert_allclose(target.probabilities(OBSERVATIONS[:3]), often, atol=4 * 0.5 / np.sqrt(repeats))
    with np.errstate(divide="ignore"):
        expected = np.log(target.probabilities(OBSERVATIONS[:3])[:, 1])
    np.testing.assert_allclose(target.log_prob(OBSERVATIONS[:3], np.ones(3, np.int32)), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["sac", "iql", "awac", "bc", "td3", "bcq"])
def test_a_policy_that_draws_from_its_actor_has_its_density(name: str) -> None:
    algorithm = small(name, loss="nll") if name == "bc" else small(name)
    policy = Policy(algorithm, random_learner(algorithm, kind="continuous"))
    action = np.tanh(OBSERVATIONS[:, :2])
    target = judged(policy, explore=True)
    assert isinstance(target, ContinuousPolicy)
    if name == "bcq":
        with pytest.raises(NoDensity, match="from no density that is known"):
            target.log_prob(OBSERVATIONS, action)
    elif name != "td3":
        expected = policy.nets.actor.log_prob(policy.normaliser(OBSERVATIONS), action)
        np.testing.assert_allclose(target.log_prob(OBSERVATIONS, action), expected, rtol=1e-5)
        certain = judged(policy, explore=False)
        assert isinstance(certain, ContinuousPolicy)
        assert certain.deterministic
        with pytest.raises(NoDensity, match="is deterministic"):
            certain.log_prob(OBSERVATIONS, action)


@pytest.mark.parametrize("algorithm", [small("iql"), small("td3", exploration_noise=0.7)], ids=lambda a: a.name)
def test_a_clipped_policy_has_a_density_inside_the_bounds_and_a_probability_at_each(algorithm: Algorithm) -> None:
    """Together they make 1, and the bounds have the share of the draws that are there."""
    policy = Policy(algorithm, random_learner(algorithm, kind="continuous"))
    target = judged(policy, explore=True)
    grid = np.linspace(-1, 1, 401, dtype=np.float32)
    pairs = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(target.log_prob(np.repeat(OBSERVATIONS[:1], len(pairs), axis=0), pairs)).reshape(401, 401)
    step = np.full(401, 2 / 400)
    step[[0, -1]] = 1  # a bound has a probability, not a density
    inside = np.where(np.isin(np.arange(401), [1, 399]), 1.5, 1.0)  # and half a cell more beside it
    assert (density * np.outer(step * inside, step * inside)).sum() == pytest.approx(1, abs=0.01)
    drawn = policy(np.repeat(OBSERVATIONS[:1], 20_000, axis=0), np.random.default_rng(0), True)
    corner = float((drawn == 1).all(1).mean())
    assert density[-1, -1] == pytest.approx(corner, abs=0.01)
    assert corner > 0.01


def test_a_policy_that_a_bridge_acts_for_is_refused() -> None:
    algorithm = small("sac")
    learner = fresh_learner(algorithm)
    bridge = PolicyExpansion()
    expanded = type(learner)(**{**vars(learner), "bridges": (learner.nets.actor,)})
    with pytest.raises(SegueError, match="the bridge policy-expansion has a say in the policy's actions"):
        judged(Policy(algorithm, expanded, (bridge,)), explore=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ends at the handover, on a continuous log."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    rows = 80
    columns = segue.data.Columns(
        observations=rng.normal(size=(rows, 3)),
        actions=rng.uniform(-1, 1, (rows, 1)),
        rewards=rng.normal(size=rows),
        terminals=np.zeros(rows),
        timeouts=np.arange(rows) % 10 == 9,
        env_id="Pendulum-v1",
        action_bounds=(np.array([-1.0]), np.array([1.0])),
    )
    npz.write(folder / "log.npz", columns)
    recipe = segue.Recipe(
        dataset=f"npz:{folder / 'log.npz'}",
        offline=segue.IQL(hidden_sizes=(8,), batch_size=16),
        offline_steps=4,
        eval_episodes=1,
    )
    segue.run(recipe, folder / "run")
    return folder / "run"


def test_a_deterministic_continuous_policy_is_judged_by_fqe_alone(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), "--offline", "--fqe-steps", "20", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["policy"].startswith("offline-iql")
    assert [estimate["method"] for estimate in row["estimates"]] == ["fqe"]
    assert any(note.startswith("left out: pdis, is") and "is deterministic" in note for note in row["notes"])
    assert main(["evaluate", str(run), "--offline", "--method", "wis"]) == 2
    assert "is deterministic" in capsys.readouterr().err


def of_few_steps(dataset: Any, model: Any, *seed: Any) -> Propensities:
    """An estimate that is quick instead of good."""
    return propensities(dataset, dataclasses.replace(model, steps=20), *seed)


def test_as_it_explores_it_has_weights_and_a_table_is_shown(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.ope.propensities", of_few_steps)
    final = next((run / "checkpoints").glob("*/seed-0/final"))
    assert main(["evaluate", str(final), "--offline", "--explore", "--method", "pdis,wis", "--confidence", "0.9"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in ("effective", "pdis", "wis", "better than the behaviour policy at 90%", "was estimated from"):
        assert word in text
    # A tenth of 8 episodes is fewer than 2, so none was held out.
    assert "judged on 8 episodes, 8 of which equal ones that the policy has learnt from" in text
    flags = ["evaluate", str(final), "--offline", "--explore", "--method", "pdis", "--fresh", "--json"]
    assert main(flags) == 0
    assert json.loads(capsys.readouterr().out)[0]["seen_episodes"] == 8


def test_all_policies_of_a_run_share_one_estimate_of_the_dataset_and_tell_their_phase(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (offline,) = (run / "checkpoints").iterdir()
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(offline, tmp_path / "run/checkpoints/tuned")  # stands for what an online phase ended with
    fits = []

    def counted(*arguments: Any) -> Propensities:
        fits.append(1)
        return of_few_steps(*arguments)

    monkeypatch.setattr("segue.ope.propensities", counted)
    flags = ["evaluate", str(tmp_path / "run"), "--offline", "--explore", "--method", "wis"]
    assert main([*flags, "--json"]) == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)
    names = ["tuned/seed-0", f"{offline.name}/seed-0"]
    assert [(row["policy"], row["phase"]) for row in rows] == list(zip(names, ["online", "offline"], strict=True))
    assert rows[0]["estimates"] == rows[1]["estimates"]
    assert len(fits) == 1
    assert said.err.splitlines() == [f"segue: judging {name} ({i} of 2)" for i, name in enumerate(names, 1)]
    assert main(flags) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "tuned/seed-0, judged from" in text
    assert f"{names[1]} (as an offline phase ended), judged from" in text


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--offline", "--episodes", "3"], "--episodes goes without --offline"),
        (["--method", "wis"], "--method goes with --offline"),
        (["--fqe-steps", "3"], "--fqe-steps goes with --offline"),
        (["--fresh"], "--fresh goes with --offline"),
        (["--offline", "--dataset", "segue:cartpole-mixed"], "the policy has 3 observation dimensions"),
        (["--offline", "--method", "wsi"], "unknown method 'wsi': did you mean 'wis'"),
    ],
)
def test_flags_that_do_not_go_together(
    run: Path, flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), *flags]) == 2
    assert expected in capsys.readouterr().err


def test_a_checkpoint_outside_a_run_needs_the_dataset_to_be_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = next((run / "checkpoints").glob("*/seed-0/final"))
    alone = tmp_path / "policy"
    alone.mkdir()
    for file in final.iterdir():
        (alone / file.name).write_bytes(file.read_bytes())
    assert main(["evaluate", str(alone), "--offline"]) == 2
    assert "no dataset that can be loaded again; expected one dataset: give --dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("probabilities", "said"),
    [([[0.5, 0.5, 0.5]], "sum to 1.5"), ([[-0.5, 1.0, 0.5]], "at least -0.5"), ([[0.5, 0.5]], "shape (20, 2)")],
)
def test_probabilities_that_are_no_distribution_over_the_actions_are_refused(
    bandit: tuple[MDP, np.ndarray], probabilities: list[list[float]], said: str
) -> None:
    mdp, behaviour = bandit
    policy = DiscretePolicy(lambda rows: np.repeat(probabilities, len(rows), axis=0))
    with pytest.raises(SegueError, match=re.escape(said)):
        evaluate_offline(policy, mdp.log(behaviour, 20, 0), methods=["pdis"])


def test_the_command_judges_a_function_from_the_log_of_a_bandit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(position, item, position * item, 0.25) for position in (1, 2) for item in range(4)]
    log = "position,item_id,click,pscore\n" + "\n".join(",".join(map(str, row)) for row in rows)
    (tmp_path / "log.csv").write_text(log)
    (tmp_path / "my_ranker.py").write_text("def item(rows):\n    return [[0, 0, 0, 1]] * len(rows)\n")
    monkeypatch.chdir(tmp_path)
    meaning = {"episode": "row", "observation": "position", "action": "item_id", "reward": "click", "terminal": "end"}
    columns = [word for option, column in meaning.items() for word in (f"--{option}", column)]
    rest = ["--offline", "--method", "is", "--json", "--dataset", "csv:log.csv", "--discrete", "4", *columns]
    assert main(["evaluate", "my_ranker:item", *rest]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["estimates"][0]["value"] == pytest.approx(3 * 1.5)
    assert main(["evaluate", "my_ranker:item"]) == 2
    assert "add --offline" in capsys.readouterr().err
    assert main(["evaluate", "my_ranker:nothing", *rest]) == 2
    assert "has no function 'nothing'" in capsys.readouterr().err
