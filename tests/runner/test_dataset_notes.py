"""Notes on a dataset are printed when a run starts, kept in its summary and shown on its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from toys import SMALL

OFFLINE: dict[str, Any] = {"offline_steps": 4, "eval_episodes": 1}


def log(**changes: Any) -> dict[str, Any]:
    source = np.random.default_rng(0)
    columns = {
        "observations": source.normal(size=(200, 3)),
        "actions": 2 * source.normal(size=(200, 1)),
        "rewards": 1e6 * source.normal(size=200),
        "terminals": np.arange(200) % 50 == 39,
    } | changes
    return {name: value for name, value in columns.items() if value is not None}


def run(place: Path, dataset: Any) -> tuple[segue.runner.Result, list[str]]:
    said: list[str] = []
    recipe = segue.Recipe(dataset=dataset, clip_actions=True, offline=segue.BC(**SMALL), **OFFLINE)
    result = segue.run(recipe, place, on_event=lambda job, event: said.append(event.get("message", "")))
    return result, said


def test_notes_and_problems_are_in_the_events_the_summary_and_the_report(tmp_path: Path) -> None:
    result, said = run(tmp_path / "run", log())
    kept = json.loads((tmp_path / "run/summary.json").read_text())["arms"]["run"]["dataset"]["notes"]
    page = result.report.read_text()
    for words in (": clipped", "no 'timeouts'", "(from row 190) has no end", "rewards are large: "):
        assert sum(words in line for line in said) == 1
        assert sum(words in line for line in kept) == 1
        assert words.replace("'", "&#39;") in page


def test_imitation_needs_no_rewards_and_everything_else_refuses_their_absence(tmp_path: Path) -> None:
    dataset = segue.load(log(rewards=None), clip_actions=True)
    result, _ = run(tmp_path / "run", dataset)
    assert result.status == "complete"
    assert result.summary["arms"]["run"]["dataset"]["mean_return"] is None
    assert "no &#39;rewards&#39;" in result.report.read_text()
    imitation: dict[str, Any] = {"offline": segue.BC(**SMALL), "env": "Pendulum-v1", "online_steps": 2000}
    for words, parts in (
        ("iql learns from them", {"offline": segue.IQL(**SMALL)}),
        ("bc learns from them", {"offline": segue.BC(top_fraction=0.5, **SMALL)}),
        ("replay mixed learns from them", imitation | {"online": segue.SAC(**SMALL)}),
    ):
        with pytest.raises(segue.SegueError, match=f"has no rewards, and {words}"):
            segue.run(segue.Recipe(dataset=dataset, **OFFLINE | parts), tmp_path / "refused")


@pytest.mark.parametrize("env", ["CartPole-v1", None])
def test_the_environment_of_the_run_says_how_many_actions_there_are(tmp_path: Path, env: str | None) -> None:
    names = {} if env else {"env_id": "CartPole-v1"}
    dataset = log(observations=np.random.default_rng(0).normal(size=(200, 4)), actions=np.zeros(200, int), **names)
    recipe = segue.Recipe(dataset=dataset, env=env, offline=segue.BC(**SMALL), **OFFLINE)
    assert segue.run(recipe, tmp_path / "run").status == "complete"
