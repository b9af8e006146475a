"""A limit on cost: the policy keeps it where one without a limit breaks it, and what has no costs is refused."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import segue
from segue.algorithms import ALGORITHMS, Algorithm
from segue.core import Learner
from segue.data import Columns, Dataset
from segue.errors import SegueError
from segue.policy import Policy
from segue.replay import Replay
from segue.training.update import init_learner, run_updates
from toys import RISK, SMALL, pendulum, pendulum_log

ROWS, STEPS, LIMIT = 512, 4, 1.0
#: Every step pays its action a in [−1, 1] and costs a²: at best a = 1, and with a limit of 0.25 a step a = 0.5.
ACTION = np.random.default_rng(0).uniform(-1, 1, (ROWS, 1)).astype(np.float32)


def log(ends: str) -> Dataset:
    """Random actions in one state, in episodes of four steps that a terminal or a time limit ends."""
    last = np.arange(ROWS) % STEPS == STEPS - 1
    here = np.tile([-1.0, 1.0], ROWS // 2)[:, None].astype(np.float32)
    columns = Columns(
        observations=here,
        actions=ACTION,
        rewards=ACTION[:, 0],
        next_observations=-here,
        terminals=last & (ends == "terminal"),
        timeouts=last & (ends == "time limit"),
        cost=ACTION[:, 0] ** 2,
    )
    return Dataset.from_columns(columns, "toll")


@partial(jax.jit, static_argnames="blocks", compiler_options={"xla_backend_optimization_level": 1})
def learn(learner: Learner, replay: Replay, algorithm: Algorithm, blocks: int) -> Learner:
    return run_updates(learner, replay, jax.random.key(1), jnp.zeros(()), algorithm, blocks=blocks)[0]


def costs_of_an_episode(name: str, ends: str, blocks: int = 2500, **options: Any) -> tuple[float, float]:
    """Of the policy as it is deployed and as it explores, after learning from that dataset: the mean a² of many draws,
    times the steps."""
    fast = {"actor_learning_rate": 2e-3, "critic_learning_rate": 5e-3, "polyak": 0.05, "target_entropy_scale": 2.0}
    algorithm = ALGORITHMS[name](hidden_sizes=(32, 32), batch_size=64, discount=0.9, **fast, **options)
    data = log(ends)
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), data.spaces), data.normaliser())
    replay = Replay.create(algorithm.transitions(data, data.normaliser()), 0, data.spaces)
    policy = Policy(algorithm, learn(learner, replay, algorithm, blocks))
    states = np.tile([[-1.0], [1.0]], (500, 1)).astype(np.float32)
    deployed, exploring = (policy(states, np.random.default_rng(0), explore) for explore in (False, True))
    return float(STEPS * (deployed**2).mean()), float(STEPS * (exploring**2).mean())


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["terminal", "time limit"])
@pytest.mark.parametrize(("limited", "free"), [("sac-lagrangian", "sac"), ("cql-lagrangian", "cql")])
def test_with_a_limit_an_episode_costs_at_most_that_and_without_one_more(limited: str, free: str, ends: str) -> None:
    assert costs_of_an_episode(free, ends)[1] > 1.4 * LIMIT
    limits = {
        "cost_limit": LIMIT,
        "cost_horizon": STEPS,
        "cost_critic_learning_rate": 5e-3,
        "cost_multiplier_learning_rate": 5e-3,
    }
    deployed, exploring = costs_of_an_episode(limited, ends, **limits)
    assert deployed <= LIMIT
    assert 0.8 * LIMIT < exploring < 1.05 * LIMIT  # what is constrained: gradient steps hover around the limit


def recipe(**changes: Any) -> segue.Recipe:
    parts = {"offline": segue.CQLLagrangian(**SMALL), "online": segue.SACLagrangian(**SMALL), "cost_limit": 5.0}
    costs = {"cost": np.linspace(0, 1, 60)}
    return pendulum(**{"env": RISK, "cost": "cost", "dataset": pendulum_log() | costs, **parts, **changes})


def test_a_run_learns_from_the_costs_of_dataset_and_environment(tmp_path: Path) -> None:
    """The limit is the recipe's, the length of an episode the environment's, and the cost critic is handed over."""
    segue.run(recipe(), tmp_path / "x", workers=1)
    assert (tmp_path / "x/recipe.json").read_text().count('"cost_horizon": 20') == 2
    assert (tmp_path / "x/recipe.json").read_text().count('"cost_limit": 5.0') == 3
    assert "Within limit: share of online evaluations" in (tmp_path / "x/report.md").read_text()
    metrics = [path.read_text() for path in (tmp_path / "x").rglob("*.csv")]
    assert any("cost_excess" in text and "cost_multiplier" in text for text in metrics)
    results = [json.loads(path.read_text()) for path in (tmp_path / "x").rglob("result.json")]
    handed = [line for result in results for line in result["handover"]]
    assert "cost_critic: carried over from cql-lagrangian" in handed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cost": None, "cost_limit": None}, "sac-lagrangian learns from the cost .* give --cost KEY"),
        ({"dataset": pendulum_log()}, "cql-lagrangian needs the cost of each step, and the dataset has none"),
    ],
)
def test_what_has_no_costs_is_refused_before_anything_is_written(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SegueError, match=message):
        segue.run(recipe(**changes), tmp_path / "x", workers=1)
    assert not (tmp_path / "x").exists()


def test_the_limit_of_an_episode_is_spread_over_its_steps() -> None:
    own = segue.SACLagrangian(cost_limit=5.0)
    assert own.for_episodes(20, None).allowed_per_step == 0.25
    assert dataclasses.replace(own, cost_horizon=10).for_episodes(20, 1.0).allowed_per_step == 0.5
    assert segue.SACLagrangian().for_episodes(20, 10.0).allowed_per_step == 0.5
    with pytest.raises(SegueError, match=r"cost_horizon is None.*expected the steps"):
        own.for_episodes(None, None)
    with pytest.raises(SegueError, match=r"cost_limit is None.*expected the largest mean cost"):
        segue.SACLagrangian().for_episodes(20, None)
