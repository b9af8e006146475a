"""Runs from tables and mixtures: recipe.json names them, so that a repeated run is the same one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

import segue
from segue.cli.main import main
from segue.recipe import read_recipes
from segue.runner import compare, load_checkpoint
from segue.runner import run as run_recipe
from toys import pendulum, pendulum_log


def frame() -> pa.Table:
    log = pendulum_log()
    columns = {f"obs_{i}": log["observations"][:, i] for i in range(3)}
    episode, step = np.divmod(np.arange(60), 20)
    return pa.table({**columns, "a": log["actions"][:, 0], "reward": log["rewards"], "episode": episode, "step": step})


def test_a_run_from_a_mixture_in_memory_repeats_from_its_files_to_the_bit(tmp_path: Path) -> None:
    table = segue.Table(frame(), action="a", action_low=-1, action_high=1)
    mixture = segue.Mixture([table, pendulum_log()], [1, 3])
    first = run_recipe(pendulum(dataset=mixture), tmp_path / "a", workers=1)
    plain = json.loads((tmp_path / "a/recipe.json").read_text())
    assert plain["dataset"].count("npz:{run}/log-") == 2
    assert "@1 + " in plain["dataset"]
    again = compare(read_recipes(tmp_path / "a"), tmp_path / "b", workers=1)
    ours, theirs = (run.summary["arms"]["run"]["seeds"]["0"]["parameters_sha256"] for run in (first, again))
    assert ours == theirs
    saved = load_checkpoint(tmp_path / "a/checkpoints/run/seed-0/final")
    assert saved.encoding.observations == ("obs_0", "obs_1", "obs_2")


def test_the_flags_of_columns_reach_the_recipe_with_the_categories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = frame().append_column("mode", [["slow", "fast"] * 30])
    pa.csv.write_csv(rows, "log.csv")
    columns = ["--observation", "obs_*,mode", "--action", "mode", "--terminal", "end"]
    learn = ["--offline", "bc", "--offline-steps", "2", "--offline.hidden-sizes", "8", "8", "--workers", "1"]
    assert main(["run", "--dataset", "csv:log.csv", *columns, *learn, "--out", "a"]) == 0
    uri = json.loads(Path("a/recipe.json").read_text())["dataset"]
    assert uri == ("csv:log.csv?observation=obs_*,mode&action=mode&terminal=end&category.mode=fast&category.mode=slow")
    saved = load_checkpoint(next(Path("a").glob("checkpoints/offline*/seed-0/final")))
    assert saved.encoding.actions == ("fast", "slow")
    # Another file with fewer categories is read as the run's own.
    pa.csv.write_csv(rows.filter(pa.compute.equal(rows["mode"], "slow")), "other.csv")
    capsys.readouterr()
    judged = ["evaluate", "a", "--offline", "--dataset", "csv:other.csv", "--method", "wis", "--json"]
    assert main(judged) == 0
    assert "category.mode=fast" in json.loads(capsys.readouterr().out)[0]["dataset"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--episode", "user"], "--episode: no dataset is named"),
        (["--dataset", "segue:hopper-mixed", "--episode", "user"], "--episode: only for columns of a table"),
        (["--dataset", "npz:a", "--dataset", "npz:b", "--dataset-weights", "1"], "2 datasets and 1 weights"),
    ],
)
def test_flags_that_do_not_fit_are_a_line(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *flags, "--offline", "bc", "--offline-steps", "2"]) == 2
    assert words in capsys.readouterr().err


def test_weights_are_refused_where_the_replay_strategy_decides_rows_itself() -> None:
    with pytest.raises(segue.SegueError, match="replay balanced decides itself"):
        pendulum(dataset="npz:a@1 + npz:b@2", replay=segue.Balanced())
