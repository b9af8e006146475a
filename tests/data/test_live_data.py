"""The log of a live service as a dataset."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue.cli.main import main
from segue.data.convert import convert
from segue.errors import DataError
from segue.live.database import Database, open_database
from segue.live.schema import ActivationRow, DecisionRow, EpisodeRow, OutcomeRow, PolicyRow

CONTINUOUS = {"type": "Box", "low": [-2.0, 0.0], "high": [2.0, 10.0]}
DISCRETE = {"type": "Discrete", "n": 3, "start": 1}


def log(where: Path, actions: dict[str, Any] = DISCRETE, env: Any = None) -> Database:
    """An empty log of one policy, for observations of one number."""
    about = {
        "observation_space": {"type": "Box", "shape": [1]},
        "action_space": actions,
        "env": env,
        "encoding": None,
    }
    database = open_database(where / "live.db")
    database.append([PolicyRow(0.0, "abc", "first", None, None, json.dumps(about))])
    return database


def bytes_of(value: float) -> bytes:
    return np.float32([value]).tobytes()


def episode(
    database: Database,
    name: str,
    length: int = 3,
    arm: str = "live",
    policy: str = "abc",
    action: bytes = np.int64(2).tobytes(),
    log_prob: float | None = math.log(0.5),
    mode: str = "live",
    cost: float | None = None,
) -> None:
    """One that ends in a terminal; observations count up."""
    database.append([EpisodeRow(0.0, name, name, arm, policy, 1.0, 1)])
    for t in range(length):
        decision = f"{name}-{t}"
        seen = bytes_of(sum(name.encode()) + t)
        database.append([DecisionRow(0.0, decision, name, t, seen, None, action, log_prob, policy, mode, None)])
    for t in reversed(range(length)):
        database.append([OutcomeRow(0.0, f"{name}-{t}", f"{name}-{t}", t, cost, None, int(t == length - 1), 0)])


def test_steps_of_an_episode_stay_together_in_order_of_time_with_what_followed(tmp_path: Path) -> None:
    database = log(tmp_path)
    episode(database, "b"), episode(database, "a")
    dataset = segue.load(f"live:{tmp_path}/live.db")
    assert dataset.episode_lengths.tolist() == [3, 3]
    assert dataset.observations[:, 0].tolist() == [98, 99, 100, 97, 98, 99], "in order of assignment"
    assert dataset.next_observations[:2, 0].tolist() == [99, 100]
    assert dataset.rewards.tolist() == [0, 1, 2, 0, 1, 2]
    assert dataset.terminals.tolist() == [False, False, True] * 2
    assert (dataset.spaces.discrete, dataset.spaces.action_size, set(dataset.actions)) == (True, 3, {2})
    assert np.exp(dataset.behaviour_log_prob) == pytest.approx(0.5)


def test_continuous_actions_are_in_the_units_of_the_environment_and_so_are_their_densities(tmp_path: Path) -> None:
    episode(log(tmp_path, CONTINUOUS), "a", action=np.float32([0.5, -1]).tobytes(), log_prob=0.25)
    dataset = segue.load(f"live:{tmp_path}/live.db")
    columns = dataset.in_units()
    assert columns.actions[0].tolist() == [1.0, 0.0]
    assert dataset.actions[0] == pytest.approx([0.5, -1])
    assert columns.behaviour_log_prob == pytest.approx(0.25 - math.log(2 * 5))
    assert dataset.behaviour_log_prob == pytest.approx(0.25), "as the service logged it, over [-1, 1]"


def test_what_is_not_complete_is_left_out_and_reported(tmp_path: Path) -> None:
    database = log(tmp_path)
    episode(database, "a")
    database.append([EpisodeRow(0.0, "b", "b", "live", "abc", 1.0, 1)])
    for t in range(3):
        action = np.int64(0).tobytes()
        database.append([DecisionRow(0.0, f"b-{t}", "b", t, bytes_of(t), None, action, 0.0, "abc", "live", None)])
    database.append([OutcomeRow(0.0, "b-0", "b-0", 7.0, None, None, 0, 0)])
    database.append([OutcomeRow(0.0, "b-2", "b-2", 9.0, None, None, 0, 1)])
    dataset = segue.load(f"live:{tmp_path}/live.db")
    assert dataset.rewards.tolist() == [0, 1, 2, 7]
    assert "2 decisions have no outcome or no next observation (yet): left out" in dataset.notes


@pytest.mark.parametrize(("replacement", "lengths"), [(np.int64(0).tobytes(), [3, 3]), (None, [3, 1, 1])])
def test_an_overridden_decision_counts_with_what_was_done_or_ends_the_trajectory(
    tmp_path: Path, replacement: bytes | None, lengths: list[int]
) -> None:
    database = log(tmp_path)
    episode(database, "a"), episode(database, "b")
    database.append([ActivationRow(0.0, "b-1", 0, replacement, "a human")])
    dataset = segue.load(f"live:{tmp_path}/live.db")
    assert dataset.episode_lengths.tolist() == lengths
    if replacement is None:
        assert any("1 decisions were not executed, and what was done is unknown" in note for note in dataset.notes)
        assert dataset.behaviour_log_prob is not None
    else:
        assert dataset.actions.tolist() == [2, 2, 2, 2, 0, 2]
        assert dataset.behaviour_log_prob is None
        assert any("1 of 6 transitions have no propensity" in note for note in dataset.notes)
        known = segue.load(f"live:{tmp_path}/live.db?propensities=known")
        assert (len(known), known.behaviour_log_prob is None) == (3, False)


def test_costs_are_kept_where_every_step_has_one(tmp_path: Path) -> None:
    database = log(tmp_path)
    episode(database, "a", cost=0.5)
    assert segue.load(f"live:{tmp_path}/live.db").cost.tolist() == [0.5] * 3
    episode(database, "b")
    dataset = segue.load(f"live:{tmp_path}/live.db")
    assert dataset.cost is None
    assert "3 of 6 transitions have no cost, so there is no 'cost'" in dataset.notes


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ("arm=candidate", [98]),
        ("policy=de", [98]),
        ("mode=shadow", [99]),
        ("from=9", [99]),
        ("to=15", [97, 98]),
        ("from=3&to=15", [98]),
    ],
)
def test_options_choose_a_part_of_the_log(tmp_path: Path, options: str, first: list[int]) -> None:
    database = log(tmp_path)
    episode(database, "a")  # rows 2 to 8
    episode(database, "b", arm="candidate", policy="def")  # rows 9 to 15
    episode(database, "c", mode="shadow")  # rows 16 to 22
    dataset = segue.load(f"live:sqlite:///{tmp_path}/live.db?{options}")
    assert dataset.observations[dataset.episode_starts, 0].tolist() == first


def test_a_log_as_of_a_row_stays_the_same_while_it_grows(tmp_path: Path) -> None:
    database = log(tmp_path)
    episode(database, "a"), episode(database, "b")
    uri = f"live:{tmp_path}/live.db?to=14"
    before = segue.load(uri)
    database.append([ActivationRow(0.0, "a-1", 0, None, "late")])
    episode(database, "c")
    assert segue.load(uri).fingerprint() == before.fingerprint()
    assert before.notes == segue.load(uri).notes


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("none.db", "none.db: no live log here"),
        ("live.db?arn=live", "unknown option 'arn': did you mean 'arm'"),
        ("live.db?from=x", "from is 'x'; expected the number of a row of the log"),
        ("live.db?propensities=all", "propensities is 'all'; expected known"),
        ("live.db", "none of 1 decisions is complete"),
        ("other.db", "cannot be opened as a live log"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(
    tmp_path: Path, place: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = log(tmp_path)
    database.append([EpisodeRow(0.0, "a", "a", "live", "abc", 1.0, 1)])
    database.append([DecisionRow(0.0, "a-0", "a", 0, bytes_of(1), None, bytes(8), 0.0, "abc", "live", None)])
    Path("other.db").write_bytes(b"something else, and long enough to be no empty database" * 9)
    with pytest.raises(DataError, match=said) as raised:
        segue.load(f"live:{place}")
    assert str(raised.value).startswith("live:")


def test_it_is_inspected_and_converted_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = log(tmp_path, env="CartPole-v1")
    for name in "abcd":
        episode(database, name)
    uri = f"live:{tmp_path}/live.db"
    assert main(["inspect", uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["transitions"] == 12
    convert(segue.load(uri), f"parquet:{tmp_path}/log.parquet")
    again = segue.load(f"{tmp_path}/log.parquet")
    assert again.fingerprint() == segue.load(uri).fingerprint()
    assert segue.load(uri).env_id == "CartPole-v1"


def test_reading_a_log_needs_no_service(tmp_path: Path) -> None:
    """Neither its packages nor a lock: the service may be running."""
    script = "import sys, segue.data; assert not {'starlette', 'uvicorn', 'msgspec'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
