"""A limit on cost, judged from a dataset: the bounds hold, and the verdict says what they decide."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mdps import MDP

import segue
from segue.cli.main import main
from segue.console import PlainConsole
from segue.data.dataset import Dataset
from segue.errors import SegueError
from segue.ope import FQE, BehaviourModel, DiscretePolicy, evaluate_offline
from toys import RISK, SMALL, pendulum

WORLD = MDP.random(0)
UNIFORM = np.full((4, 3), 1 / 3)
#: Action 0 is the dear one.
COSTS = np.array([1.0, 0.1, 0.0])
CHEAP = np.tile([0.2, 0.4, 0.4], (4, 1))


def log(episodes: int, seed: int = 0) -> Dataset:
    made = WORLD.log(UNIFORM, episodes, seed)
    return dataclasses.replace(made, cost=COSTS[made.actions])


def exact(policy: np.ndarray) -> float:
    """Mean cost of an episode, without a discount."""
    costly = dataclasses.replace(WORLD, reward=np.tile(COSTS, (4, 1)), discount=1.0)
    return costly.value(policy)


def judged(policy: np.ndarray, dataset: Dataset, limit: float, **how: Any) -> Any:
    target = DiscretePolicy(lambda observation: observation @ policy)
    return evaluate_offline(target, dataset, methods=["pdis"], discount=0.9, fresh=True, cost_limit=limit, **how).cost


def test_bounds_of_the_cost_enclose_the_exact_one_and_decide() -> None:
    truth = exact(CHEAP)
    found = judged(CHEAP, log(3000), 1.5 * truth)
    assert found.lower < truth < found.upper
    assert found.value == pytest.approx(truth, rel=0.1)
    assert found.behaviour_value == pytest.approx(exact(UNIFORM), rel=0.1)
    answers = {factor: judged(CHEAP, log(3000), factor * truth).verdict.answer for factor in (0.5, 1.0, 1.5)}
    assert answers == {0.5: "no", 1.0: "not enough evidence", 1.5: "yes"}


def test_few_episodes_and_estimated_propensities_decide_nothing() -> None:
    truth = exact(CHEAP)
    assert judged(CHEAP, log(20), 1.2 * truth).verdict.answer == "not enough evidence"
    unknown = dataclasses.replace(log(3000), behaviour_log_prob=None)
    verdict = judged(CHEAP, unknown, 1.5 * truth, behaviour=BehaviourModel(steps=100)).verdict
    assert verdict.answer == "not enough evidence"
    assert "propensities are estimated" in verdict.reason


def test_without_importance_weights_nothing_is_said_of_the_cost() -> None:
    target = DiscretePolicy(lambda observation: observation @ CHEAP)
    few = FQE(steps=20, members=2, hidden_sizes=())
    how: dict[str, Any] = {"methods": ["fqe"], "fqe": few, "fresh": True, "cost_limit": 1.0}
    found = evaluate_offline(target, log(300), **how, discount=0.9)
    assert (found.cost.verdict.answer, np.isnan(found.cost.value)) == ("not enough evidence", True)
    assert "no method by weights was asked for" in found.cost.verdict.reason
    assert found.cost.behaviour_value == pytest.approx(exact(UNIFORM), rel=0.2)


def test_the_page_says_whether_the_limit_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    target = DiscretePolicy(lambda observation: observation @ CHEAP)
    limit = 1.5 * exact(CHEAP)
    PlainConsole().print(
        evaluate_offline(target, log(3000), methods=["pdis"], discount=0.9, fresh=True, cost_limit=limit)
    )
    page = " ".join(capsys.readouterr().out.split())
    assert f"cost at most {limit:g} an episode at 95%: yes (by pdis: " in page


def test_a_dataset_without_costs_is_refused() -> None:
    with pytest.raises(SegueError, match="a limit on cost needs the cost of each step"):
        judged(CHEAP, WORLD.log(UNIFORM, 20, 0), 1.0)
    unpaid = dataclasses.replace(log(20), rewards=np.full(len(log(20)), np.nan, np.float32))
    with pytest.raises(SegueError, match="no 'rewards', so no policy has a value on it; add the column"):
        judged(CHEAP, unpaid, 1.0)


def test_the_command_says_whether_live_episodes_keep_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every episode of this environment costs 10."""
    alone = {"offline": segue.BC(**SMALL), "online": None, "online_steps": 0, "warmup_steps": 0}
    segue.run(pendulum(env=RISK, cost="cost", **alone), tmp_path / "x", workers=1)
    place = str(tmp_path / "x")
    for limit, answer in (("9.5", "no"), ("10", "yes")):
        capsys.readouterr()
        assert main(["evaluate", place, "--episodes", "2", "--cost", "cost", "--cost-limit", limit, "--json"]) == 0
        assert {row["within_limit"] for row in json.loads(capsys.readouterr().out)} == {answer}
    assert main(["evaluate", place, "--cost-limit", "1"]) == 2
    assert "give --cost KEY" in capsys.readouterr().err
