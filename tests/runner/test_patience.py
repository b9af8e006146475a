"""A run whose pretraining ends when held-out episodes say so: its records, its resumption, its seeds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue.errors import RecipeError
from segue.recipe import Recipe, read_recipes
from segue.runner import checkpointer, compare, executor
from segue.runner.longer import lengthen
from segue.training import offline
from toys import SMALL, pendulum, pendulum_log

pytestmark = pytest.mark.usefixtures("no_reports")


def recipe(**changes: Any) -> Recipe:
    """Cloning of a noisy policy from ten episodes: what can be learnt is learnt soon."""
    log = pendulum_log(600)
    log["actions"] = np.clip(0.6 * log["observations"][:, :1] + 0.6 * log["actions"], -1, 1)
    values: dict[str, Any] = {
        "dataset": log,
        "env": "none",
        "held_out": 0.67,
        "offline": segue.BC(**SMALL, actor_learning_rate=0.02),
        "offline_steps": 1000,
        "patience": 2,
        "eval_every": 10,
        "online": None,
        "online_steps": 0,
        "warmup_steps": 0,
        "seed": 1,
        "seeds": 2,
    }
    return pendulum(**(values | changes))


def seeds(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "summary.json").read_text())["arms"]["run"]["seeds"]


def stopped(directory: Path) -> list[int]:
    return [seed["steps"]["offline"] for seed in seeds(directory).values()]


def essence(directory: Path) -> tuple[Any, ...]:
    """What a run computed and recorded."""
    kept = ("parameters_sha256", "steps", "events", "status")
    found = {name: {field: seed[field] for field in kept} for name, seed in seeds(directory).items()}
    return found, (directory / "metrics.csv").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    return segue.run(recipe(), tmp_path_factory.mktemp("whole") / "x", workers=1).directory


def test_each_seed_ends_where_its_held_out_loss_no_longer_falls(whole: Path):
    rows = list(csv.DictReader((whole / "metrics.csv").open()))
    for name, seed in seeds(whole).items():
        at = {
            int(row["step"]): float(row["held_out_loss"]) for row in rows if row["seed"] == name if row["held_out_loss"]
        }
        end = seed["steps"]["offline"]
        assert seed["status"] == "complete"
        assert end < 1000
        assert list(at) == list(range(10, end + 1, 10)), "measured at every evaluation up to the last"
        assert min(at, key=lambda step: at[step]) < end
        [event] = seed["events"]
        assert (event["phase"], event["step"]) == ("offline", end)
        assert event["message"].startswith("pretraining ends here: held_out_loss was ")


def test_killed_at_every_save_it_ends_to_the_bit_where_it_would_have(whole: Path, tmp_path: Path, monkeypatch):
    class Killed(BaseException):
        pass

    save, ends = checkpointer.JobCheckpointer.save, []

    def fatal(self: Any, position: Any) -> None:
        save(self, position)
        ends.append(position.step)
        raise Killed

    monkeypatch.setattr(checkpointer.JobCheckpointer, "save", fatal)
    (tmp_path / "x").mkdir()
    status = ""
    for _ in range(300):
        try:
            status = segue.run(recipe(), tmp_path / "x", workers=1, checkpoint_every=0).status
            break
        except Killed:
            continue
    assert status == "complete"
    assert len(ends) >= 6
    assert essence(tmp_path / "x") == essence(whole)


def test_a_larger_budget_changes_nothing_for_a_phase_that_had_ended(whole: Path, tmp_path: Path, monkeypatch):
    longer = segue.run(recipe(offline_steps=1500), tmp_path / "y", workers=1)
    run = segue.run(recipe(), tmp_path / "x", workers=1)
    monkeypatch.setattr(offline, "train", None)  # an update would fail
    result = compare(lengthen(run.directory, offline_steps=1500), run.directory, workers=1)
    assert result.status == "complete"
    assert essence(run.directory) == essence(longer.directory) == essence(whole)


def test_seeds_that_are_one_program_end_each_at_its_own_update(whole: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(executor, "has_accelerator", lambda: True)
    result = segue.run(recipe(), tmp_path / "x", workers=1)
    assert len(set(stopped(whole))) == 2, "or this shows nothing"
    assert stopped(result.directory) == stopped(whole)


def test_what_is_handed_over_is_the_policy_of_the_update_where_it_ended(tmp_path: Path):
    live = {"env": pendulum().env, "online": segue.SAC(**SMALL), "online_steps": 20, "warmup_steps": 10}
    result = segue.run(recipe(seeds=1, eval_every=20, **live), tmp_path / "x", workers=1)
    seed = result.summary["arms"]["run"]["seeds"]["1"]
    assert seed["offline_evaluations"][-1]["step"] == seed["steps"]["offline"] < 1000
    assert read_recipes(result.directory)["run"].offline_steps == 1000


def test_the_policy_counts_as_having_seen_the_episodes_that_chose_it_but_not_the_others(whole: Path):
    dataset = segue.load(recipe().dataset)
    learnt, held_out = dataset.split(0.67, 0)
    seen = segue.load_checkpoint(whole / "checkpoints/offline-bc/seed-1/final").seen
    assert set(learnt.episode_fingerprints()) < set(seen)
    assert len(set(held_out.episode_fingerprints()) & set(seen)) == 10, "half of the twenty"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": 0.0}, "patience is 2, and held_out is 0: it needs held-out episodes"),
        (
            {"held_out": 0.1},
            r"and as many that judge the policy. There are 3 of 30 in .*: raise held_out \(it is 0.1\)",
        ),
        ({"patience": -1}, "patience is -1; expected at least 0"),
        ({"offline": segue.TD3BC(**SMALL)}, "patience needs 10 held-out episodes that can judge td3-bc, and 0 of 10"),
        ({"offline": segue.FQL(**SMALL, chunk=2)}, "patience compares Q of single actions .* fql rates chunks of 2"),
        (
            {
                "offline": None,
                "offline_steps": 0,
                "online": segue.SAC(**SMALL),
                "online_steps": 9,
                "env": "Pendulum-v1",
            },
            "patience is 2, and there is no offline phase for it to end",
        ),
    ],
)
def test_a_rule_that_could_not_judge_is_refused_before_anything_is_written(tmp_path: Path, changes: Any, message: str):
    with pytest.raises(RecipeError, match=message):
        segue.run(recipe(**changes), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_evaluations_are_closer_together_by_default_where_they_may_end_the_phase():
    assert recipe(eval_every=None).offline_eval_every == 50
    assert recipe(eval_every=None, patience=0).offline_eval_every == 200
