"""Costs: what an environment reports in `info`, through evaluations, runs and recorded datasets."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import segue
from segue.acting import Stateless
from segue.cli.main import main
from segue.data.inspection import inspect
from segue.errors import DataError, RecipeError
from segue.evaluation import roll_out
from toys import PENDULUM, RISK, SMALL, pendulum, pendulum_log


def push(observations: np.ndarray, source: Any, explore: bool) -> np.ndarray:
    return np.ones((len(observations), 1), np.float32)


def test_evaluations_sum_the_costs_of_whole_episodes_and_count_a_truth_value_as_0_or_1() -> None:
    assert roll_out(Stateless(push), RISK, 3, 0).costs is None
    assert roll_out(Stateless(push), RISK, 3, 0, cost_key="cost").costs == pytest.approx([10.0] * 3)
    assert roll_out(Stateless(push), RISK, 2, 0, cost_key="pushed").costs == pytest.approx([20.0] * 2)


def test_a_cost_that_is_not_reported_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for cost, env, message in (
        ("crashed", RISK, "unknown key of info 'crashed': .*there is .*cost.*pushed"),
        ("names", RISK, "'names'.*expected one finite number per step"),
        ("cost", PENDULUM, "unknown key of info 'cost'"),
    ):
        with pytest.raises(RecipeError, match=message):
            segue.run(pendulum(env=env, cost=cost), tmp_path / "x", workers=1)
    only_offline = {"online": None, "online_steps": 0, "warmup_steps": 0, "env": "none"}
    with pytest.raises(RecipeError, match="cost is 'cost', but there is no environment"):
        segue.run(pendulum(cost="cost", **only_offline), tmp_path / "x", workers=1)
    assert not (tmp_path / "x").exists()


def test_a_run_records_the_cost_beside_the_return(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = pendulum(env=RISK, cost="cost", offline=segue.BC(**SMALL))
    result = segue.run(recipe, tmp_path / "x", workers=1)
    seed = result.summary["arms"]["run"]["seeds"]["0"]
    for evaluation in (*seed["offline_evaluations"], *seed["online_evaluations"]):
        assert evaluation["mean_cost"] == 10.0
        assert evaluation["costs"] == [10.0, 10.0]
    assert list(result.table()["cost"]) == [10.0]
    with (tmp_path / "x/curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["mean_cost"], row["episode_costs"]) for row in rows} == {("10.0", "10.0 10.0")}
    assert "Cost: mean sum of an episode" in (tmp_path / "x/report.md").read_text()
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "x"), "--episodes", "2", "--cost", "cost", "--json"]) == 0
    assert {row["mean_cost"] for row in json.loads(capsys.readouterr().out)} == {10.0}


def test_recorded_datasets_have_the_cost_in_a_column_which_inspect_describes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    for to in (f"npz:{tmp_path / 'x.npz'}", "minari:risk/x-v0"):
        assert main(["collect", "random:50", "--env", RISK, "--cost", "pushed", "--to", to]) == 0
        assert "mean cost" in capsys.readouterr().out
        dataset = segue.load(to)
        assert dataset.cost == pytest.approx((dataset.actions[:, 0] > 0).astype(float))
        assert main(["inspect", to]) == 0
        assert any(line.split()[:1] == ["cost"] for line in capsys.readouterr().out.splitlines())
        costs = inspect(dataset).costs
        assert costs is not None
        assert costs.mean * 3 == pytest.approx(dataset.cost.sum())
    assert main(["collect", "random:50", "--env", RISK, "--cost", "Cost", "--to", f"npz:{tmp_path / 'y.npz'}"]) == 2
    assert "did you mean 'cost'" in capsys.readouterr().err


def with_cost(rows: int = 60) -> dict[str, np.ndarray]:
    return pendulum_log(rows) | {"cost": np.arange(rows) % 7.0}


def test_costs_of_files_are_kept_through_splits_mixtures_and_conversion(tmp_path: Path) -> None:
    log = with_cost()
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for name, column in log.items():
            file["infos/cost" if name == "cost" else name] = column
    np.savez(tmp_path / "x.npz", **{"costs" if name == "cost" else name: column for name, column in log.items()})
    whole = segue.load(log)
    assert whole.cost is not None
    # The last step of a cut episode has no next observation here.
    expected = log["cost"][np.arange(60) % 20 != 19]
    for uri in (f"d4rl:{tmp_path / 'x.hdf5'}", f"npz:{tmp_path / 'x.npz'}"):
        assert segue.load(uri).cost == pytest.approx(expected)
        mixed = segue.load(segue.Mixture([uri, uri]))
        assert mixed.cost == pytest.approx(np.tile(expected, 2))
    first = whole.episodes(np.array([1]))
    assert first.episode_costs == pytest.approx([expected[19:38].sum()])
    assert whole.fingerprint() != segue.load(pendulum_log()).fingerprint()
    for name in ("y.parquet", "y.csv", "y.npz"):
        assert main(["convert", f"npz:{tmp_path / 'x.npz'}", str(tmp_path / name)]) == 0
        assert segue.load(tmp_path / name).cost == pytest.approx(expected)


def test_the_column_of_costs_of_a_table_is_named_or_found(tmp_path: Path) -> None:
    rows = ["e,f_0,a,r,risk"] + [f"{i // 5},{i / 7},{i % 2},1,{i}" for i in range(20)]
    (tmp_path / "x.csv").write_text("\n".join(rows))
    named = {"episode": "e", "observation": "f_*", "action": "a", "reward": "r"}
    table = segue.Table(str(tmp_path / "x.csv"), **named, cost_column="risk")
    assert segue.load(table).episode_costs is not None
    assert segue.load(segue.Table(str(tmp_path / "x.csv"), **named)).cost is None
    with pytest.raises(DataError, match="--cost-column: no column 'rsik': did you mean 'risk'"):
        segue.load(segue.Table(str(tmp_path / "x.csv"), **named, cost_column="rsik"))
    (tmp_path / "y.csv").write_text("\n".join(rows).replace("risk", "cost"))
    assert segue.load(segue.Table(str(tmp_path / "y.csv"), **named)).cost is not None


@pytest.mark.parametrize("cost", [np.full(60, np.nan), np.zeros((60, 2)), np.zeros(3), np.array(["low"] * 60)])
def test_costs_that_are_no_numbers_are_left_out_with_a_note(cost: np.ndarray) -> None:
    dataset = segue.load(pendulum_log() | {"cost": cost})
    assert dataset.cost is None
    assert any(note.startswith("left out: 'cost'") for note in dataset.notes)


def test_a_recipe_with_a_cost_is_read_as_it_was_written() -> None:
    recipe = pendulum(dataset="npz:x", env=RISK, cost="cost")
    assert segue.Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
