"""Environments on the nodes of a Ray cluster: the same numbers as in this process, also when a node is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from ray_nodes import cluster_of_two_nodes, ray
from segue.compiled import visible_cores
from segue.envs import Environment, Episodes
from segue.envs.on_ray import Nodes
from segue.envs.process import elsewhere
from segue.errors import SegueError
from toys import PENDULUM, SMALL, pendulum

CORES = max(len(visible_cores()), 2)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes, each with as many cores as this machine."""
    with cluster_of_two_nodes(CORES) as made:
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        yield made


@pytest.mark.slow
def test_a_node_that_is_lost_in_the_middle_of_an_episode_changes_no_bit(cluster: Any) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 2, 1)).astype(np.float32)
    said: list[str] = []
    here = Episodes(PENDULUM, 2, 3, "test")
    there = Episodes(PENDULUM, 2, 3, "test", tell=said.append, apart=Nodes())
    before = [env.actor for env in there.envs]
    node = ray.get(before[1].__ray_call__.remote(lambda held: ray.get_runtime_context().get_node_id()))
    for step, action in enumerate(actions):
        if step == 25:
            cluster.remove_node(next(n for n in cluster.nodes if n.node_id == node), allow_graceful=False)
            with contextlib.suppress(ray.exceptions.RayActorError):
                while True:
                    ray.get(before[1].__ray_ready__.remote())
        for got, wanted in zip(there.step(action), here.step(action), strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert there.envs[1].actor is not before[1]
    assert said == []
    there.close()
    assert ray.is_initialized() is False
    again = Episodes(PENDULUM, 2, 3, "test", tell=said.append, apart=Nodes())
    again.restore(here.position())
    np.testing.assert_array_equal(again.step(actions[0])[0], here.step(actions[0])[0])
    assert said == [], "a run that is resumed goes on where it was"
    for episodes in (again, here):
        episodes.close()


@pytest.mark.slow
def test_a_run_whose_environments_are_on_nodes_is_the_run_of_this_process(cluster: Any, tmp_path: Path) -> None:
    recipe = pendulum(online=segue.TD3BC(**SMALL), online_steps=80, warmup_steps=20, eval_every=40, environments=2)
    found = {}
    for name, choice, on in [("here", "no", None), ("nodes", "ray", None), ("all", "ray", segue.Ray(cores=CORES))]:
        changed = dataclasses.replace(recipe, environment_processes=choice)
        assert segue.run(changed, tmp_path / name, workers=1, on=on).status == "complete"
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        found[name] = summary["arms"]["run"]["seeds"]["0"]["parameters_sha256"]
    assert found["here"] == found["nodes"] == found["all"], "also where the job itself is on a node"


@pytest.mark.slow
def test_environments_on_nodes_need_not_wait_for_each_other(cluster: Any, tmp_path: Path) -> None:
    recipe = pendulum(online=segue.TD3BC(**SMALL), online_steps=160, warmup_steps=20, eval_every=80, environments=2)
    recipe = dataclasses.replace(recipe, environment_processes="ray", max_lag=90)
    result = segue.run(recipe, tmp_path / "x", workers=1)
    assert result.status == "complete"
    events = result.summary["arms"]["run"]["seeds"]["0"]["events"]
    assert not [event for event in events if "quarantined" in event["message"]]
    assert "policy_lag_max" in (tmp_path / "x" / "metrics.csv").read_text()


@pytest.mark.slow
def test_an_environment_that_ends_its_process_twice_is_quarantined(cluster: Any) -> None:
    said: list[str] = []
    environment = Environment("envs.test_process:Bad", {"how": "dies"})
    episodes = Episodes(environment, 1, 0, "test", tell=said.append, apart=Nodes())
    action = np.zeros((1, 1), np.float32)
    episodes.step(action)
    episodes.step(action)
    assert episodes.lost.tolist() == [True]
    assert len(said) == 1
    assert "its process on Ray ended" in said[0]
    episodes.close()


def test_without_ray_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SegueError, match=r"pip install 'segue\[ray\]'"):
        elsewhere(Environment(PENDULUM), 2, "ray", print)
