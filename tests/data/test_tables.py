"""Tables: which column means what, rows in order, and errors that name file, row and column."""

from __future__ import annotations

import decimal
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_logs import as_dict, episodes, make_episodes, same_log

import segue
from segue.data.problems import outlying_observations
from segue.data.table import Table
from segue.errors import DataError

LOG = """user,t,f_0,f_1,city,a,r,p
u2,1,0.3,3,Rome,right,1.5,0.25
u1,2,0.2,2,Bern,left,0.5,0.5
u1,1,0.1,1,Rome,right,0.0,0.5
u2,2,0.4,4,Bern,left,2.5,1
"""
FLAGS = ["--episode", "user", "--step", "t", "--action", "a", "--reward", "r", "--propensity", "p"]
FLAGS += ["--observation", "f_*,city"]
MAPPING = {"episode": "user", "step": "t", "action": "a", "reward": "r", "propensity": "p"}


def frame(made, **changes) -> pa.Table:
    """Episodes as a table under the usual names."""
    log = as_dict(made)
    length = [len(episode.rewards) for episode in made]
    columns = {
        "episode_id": np.repeat(np.arange(len(made)), length),
        "step": np.concatenate([np.arange(n) for n in length]),
        **{f"{to}_{i}": log[name][:, i] for name, to in (("observations", "obs"), ("next_observations", "next_obs"))
           for i in range(log[name].shape[1])},
        **{f"action_{i}": log["actions"][:, i] for i in range(2)},
        "reward": log["rewards"],
        "terminated": log["terminals"],
        "truncated": log["timeouts"],
    }  # fmt: skip
    return pa.table({**columns, **changes})


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.fixture
def log(tmp_path: Path) -> str:
    return write(tmp_path / "log.csv", LOG)


def test_parquet_in_parts_names_two_columns_of_one_name(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table([[0.0], [1.0]], names=["obs", "obs"]), tmp_path / "twice.parquet")
    with pytest.raises(DataError, match=r"twice\.parquet: two columns are named 'obs'; rename one"):
        next(segue.data.parts(f"parquet:{tmp_path / 'twice.parquet'}"))


def test_a_table_is_sorted_grouped_and_encoded_by_its_mapping(log: str) -> None:
    dataset = segue.load(segue.Table(log, observation=["f_*", "city"], terminal="end", **MAPPING))
    # u2 occurs first; within an episode the steps are in order.
    assert dataset.observations.tolist() == np.float32(
        [[0.3, 3, 0, 1], [0.4, 4, 1, 0], [0.1, 1, 0, 1], [0.2, 2, 1, 0]]
    ).tolist()  # fmt: skip
    assert dataset.episode_starts.tolist() == [0, 2]
    assert dataset.actions.tolist() == [1, 0, 1, 0]
    assert dataset.behaviour_log_prob == pytest.approx(np.log([0.25, 1, 0.5, 0.5]))
    assert dataset.encoding.observations == ("f_0", "f_1", "city=Bern", "city=Rome")
    assert dataset.encoding.actions == ("left", "right")
    assert any("sorted by episode and step: 2 of 4" in note for note in dataset.notes)


@given(made=episodes(), seed=st.integers(0, 2**32 - 1))
def test_rows_in_any_order_are_the_same_dataset(made, seed) -> None:
    rows = frame(made)
    mixed = rows.take(np.random.default_rng(seed).permutation(len(rows)))
    ours, expected = segue.load(mixed), segue.load(as_dict(made))
    theirs = sorted(zip(ours.episode_lengths, ours.episode_returns, strict=True))
    assert theirs == sorted(zip(expected.episode_lengths, expected.episode_returns, strict=True))
    assert sorted(ours.observations.tolist()) == sorted(expected.observations.tolist())
    assert same_log(segue.load(rows), expected)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "jsonl", "pandas", "polars", "folder"])
def test_every_kind_of_table_holds_the_same_dataset(kind: str, tmp_path: Path) -> None:
    made = make_episodes([(3, True), (4, False)])
    rows, path = frame(made), tmp_path / f"log.{kind}"
    source: object = path
    if kind.startswith("csv"):
        with pa.output_stream(path, compression="detect") as stream:
            pa.csv.write_csv(rows, stream)
    elif kind == "parquet":
        pa.parquet.write_table(rows, path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows.to_pylist()))
    elif kind == "folder":
        pa.csv.write_csv(rows.slice(0, 5), tmp_path / "part-1.csv")
        pa.csv.write_csv(rows.slice(5), tmp_path / "part-2.csv")
        source = f"csv:{tmp_path}/part-*.csv"
    else:
        source = rows.to_pandas() if kind == "pandas" else pl.from_arrow(rows)
    assert same_log(segue.load(source), segue.load(as_dict(made)))


def test_numbered_columns_are_ordered_by_their_numbers() -> None:
    columns = {f"obs_{i}": [float(i)] * 2 for i in (10, 2, 0)}
    dataset = segue.load(pa.table({**columns, "action": [0, 1], "reward": [0.0, 1.0], "terminal": [0, 1]}))
    assert dataset.encoding.observations == ("obs_0", "obs_2", "obs_10")


def test_a_pattern_that_one_column_without_a_number_fits_is_that_column() -> None:
    table = pd.DataFrame({"e": [0, 0, 1, 1], "speed_x": range(4), "a": [0.1, 0.2, 0.3, 0.4], "r": 1.0})
    read = segue.load(Table(table, episode="e", observation="speed_*", action="a", reward="r"))
    assert read.observations[:, 0].tolist() == [0, 2]


def test_a_column_that_is_named_for_one_role_is_found_for_no_other() -> None:
    table = pd.DataFrame(
        {"e": [0, 0, 1, 1], "obs": range(4), "a": [0.1, 0.2, 0.3, 0.4], "r": 1.0, "done": [0, 1, 0, 1]}
    )
    read = segue.load(Table(table, episode="e", observation="obs", action="a", reward="r", timeout="done"))
    assert not any("terminal = done" in note for note in read.notes)


@given(
    options=st.fixed_dictionaries(
        {},
        optional={name: st.text(min_size=1, max_size=8) for name in ("episode", "reward", "terminal", "observation")},
    ),
    categories=st.dictionaries(st.text(min_size=1), st.lists(st.text(), min_size=1, unique=True), max_size=2),
)
def test_a_mapping_reads_as_it_was_written(options, categories) -> None:
    written = Table(["log.csv"], **options, categories=categories)
    assert Table.parse(written.place) == written


@pytest.mark.parametrize(
    ("change", "mapping", "words"),
    [
        (("0.2,2", ",2"), {}, r"log\.csv, row 1 \(line 3\): column 'f_0' has no value"),
        (("u1,2", ",2"), {}, r"row 1 \(line 3\): column 'user' has no value"),
        (("Bern,left,0.5", ",left,0.5"), {}, r"row 1 \(line 3\): column 'city' has no value"),
        (("0.5,0.5", "0.5,0"), {}, r"row 1 \(line 3\): column 'p' is 0 .*above 0 and at most 1"),
        (("0.5,0.5", "0.5,1.5"), {}, r"row 1 \(line 3\): column 'p' is 1.5 .*above 0 and at most 1"),
        (("u1,2", "u1,1"), {}, r"row 2 \(line 4\): the same 'user' and 't' as .*row 1"),
        (("", ""), {"reward": "f_O"}, "no column 'f_O': did you mean 'f_"),
        (("", ""), {"observation": "x_*"}, r"--observation: no column 'x_\*'"),
        (("", ""), {"terminal": "f_1"}, "column 'f_1' is 3; expected 0 or 1"),
        (("", ""), {"observation": "city", "categories": {"city": ["Bern"]}}, "unknown category 'Rome'"),
        (("", ""), {"observation": None}, "which columns are the observation"),
        ((",t,", ",time,"), {"episode": None, "step": None}, "where does an episode end"),
        (("", ""), {"action": "f_0", "action_low": "0"}, "--action-low and --action-high"),
        (("", ""), {"action": ["f_0", "f_1"]}, r"every column of 'f_\*' has another meaning"),
        (("", ""), {"action": "f_0", "action_low": 0, "action_high": [1, 2, 3]}, "1 dimensions, a bound has 3"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_file_row_and_column(tmp_path: Path, change, mapping, words) -> None:
    path = write(tmp_path / "log.csv", LOG.replace(*change, 1))
    with pytest.raises(DataError, match=words):
        segue.load(Table(path, **{**MAPPING, "observation": ["f_*", "city"], **mapping}))


#: Two rows of one episode, under the usual names.
ROWS = {"obs": [0.0, 1.0], "action": [0, 1], "reward": [0.0, 1.0], "terminal": [0, 1]}


@pytest.mark.parametrize(
    ("columns", "mapping", "words"),
    [
        pytest.param(
            {"reward": [[0, 1], [1, 0]]}, {}, "'reward' holds lists; expected one reward per row", id="rewards"
        ),
        pytest.param({"terminal": [[0, 1], [1, 0]]}, {}, "'terminal' holds lists; expected 0 or 1", id="ends"),
        pytest.param({"p": [[0.5], [0.5, 1]]}, {"propensity": "p"}, "row 1: the list in column 'p' has", id="ragged"),
        pytest.param({"p": [[0.5, 1], [0.5, 1]]}, {"propensity": "p"}, "'p' holds lists; expected one prob", id="p"),
        pytest.param({"c": [[5, 6], [7, 8]]}, {"cost_column": "c"}, "'c' holds lists; expected one cost", id="costs"),
        pytest.param({"reward": [0.0, float("inf")]}, {}, "row 1: column 'reward' is missing or not finite", id="inf"),
        pytest.param(
            {"obs": [[0.0, 1.0], [None, 1.0]]}, {}, "row 1: column 'obs' is missing or not", id="gap in a list"
        ),
        pytest.param(
            {"obs": [pd.Timestamp(0)] * 2}, {}, "column 'obs' holds timestamp.*; expected numbers", id="times"
        ),
        pytest.param({"episode": [[1], [2]]}, {}, "'episode' holds list.*; expected numbers, times or text", id="ids"),
        pytest.param(
            {"next_obs_0": [1.0, 2.0], "next_obs_1": [1.0, 2.0]},
            {},
            "next observations have 2 numbers, observations 1; expected the same columns",
            id="too many next",
        ),
        pytest.param(
            {"action": [0.0, 1.5]},
            {"discrete": "yes"},
            "row 1: column 'action' is 1.5; expected a whole",
            id="fractions as discrete",
        ),
        pytest.param(
            {"action": [[0, 1], [1, 1]]},
            {"discrete": "yes"},
            "one value per row; there is 'action', which holds",
            id="lists as discrete",
        ),
        pytest.param(
            {"a": [0, 1]},
            {"action": ["action", "a"], "discrete": 2},
            "one column .*; there is action, a",
            id="columns as discrete",
        ),
        pytest.param(
            {"a": ["l", "r"]},
            {"action": ["action", "a"]},
            "column 'a' holds text; .* several columns, are num",
            id="text among columns of actions",
        ),
        pytest.param(
            {"action": ["l", "r"]},
            {"discrete": "no"},
            "'action' holds text; continuous actions, .* are num",
            id="text as continuous",
        ),
        pytest.param({}, {"discrete": "maybe"}, "--discrete is 'maybe'; expected yes, no, or the number", id="maybe"),
        pytest.param(
            {"action": [0.5, 0.1]},
            {"action_low": "low", "action_high": 1},
            "the bound 'low' of the actions is no",
            id="bound that is no number",
        ),
        pytest.param(
            {"allowed_actions": [[1, 1], [1, 2]]},
            {},
            "row 1: column 'allowed_actions' holds other numbers",
            id="mask of twos",
        ),
    ],
)
def test_what_a_column_cannot_mean_is_refused(columns, mapping, words) -> None:
    with pytest.raises(DataError, match=f"^Table.*{words}"):
        segue.load(Table(pa.table(ROWS | columns), **mapping))


def test_texts_that_are_all_different_are_an_identifier() -> None:
    rows = {"obs": [f"user {i}" for i in range(257)], "action": 0, "reward": 0.0, "terminal": 1}
    with pytest.raises(DataError, match="column 'obs' has 257 different texts, more than 256: that is an identifier"):
        segue.load(pd.DataFrame(rows))


HEADER = b"obs,action,reward,terminal\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("log.parquet", b"nonsense", "cannot be read as Parquet .*magic bytes"),
        ("log.ndjson", b'{"obs": 1\nnonsense', "cannot be read as one JSON object per line .*JSON parse error"),
        ("log.csv", HEADER + b"1,2,3,4,5\n", "cannot be read as CSV with a header .*Expected 4 columns, got 5"),
        ("log.csv", b"\n\n", "cannot be read as CSV with a header .*Empty CSV file"),
        ("log.csv.gz", gzip.compress(b""), "cannot be read as CSV with a header .*Empty CSV file"),
        (
            "log.csv.gz",
            gzip.compress(HEADER + b"0,1,1,1\n")[:-12],
            "cannot be read as CSV with a header .*[Tt]runcated",
        ),
        ("log.csv", HEADER, "the file has no rows"),
        ("log.csv", b"obs,obs,reward\n1,2,3\n", "two columns are named 'obs'; rename one"),
    ],
    ids=["parquet", "json", "ragged", "blank", "empty gzip", "cut gzip", "header only", "two of one name"],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: {words}"):
        segue.load(tmp_path / name)


class Broken:
    """A frame whose library fails."""

    def __arrow_c_stream__(self, requested_schema=None):
        raise RuntimeError("the connection was closed")


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (Broken(), "Broken: cannot be read as a table .the connection was closed"),
        (pd.DataFrame({name: [] for name in ROWS}), "DataFrame: the table has no rows"),
        (pa.table([*ROWS.values(), [0, 1]], names=[*ROWS, "obs"]), "Table: two columns are named 'obs'; rename one"),
    ],
    ids=["broken", "empty", "two of one name"],
)
def test_a_frame_that_is_no_dataset_is_refused(frame, words: str) -> None:
    with pytest.raises(DataError, match=words):
        segue.load(frame)


def test_files_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    parts = [ROWS, {"rew" if name == "reward" else name: column for name, column in ROWS.items()}]
    parts.append(ROWS | {"reward": ["high", "low"]})
    for number, part in enumerate(parts):
        pa.csv.write_csv(pa.table(part), tmp_path / f"{number}.csv")
    with pytest.raises(DataError, match=r"1\.csv: its columns are not those of .*0\.csv: only one .* has 'rew'"):
        segue.load(f"csv:{tmp_path}/0.csv,{tmp_path}/1.csv")
    with pytest.raises(DataError, match=r"0\.csv …: the files do not fit together .*reward"):
        segue.load(f"csv:{tmp_path}/0.csv,{tmp_path}/2.csv")
    with pytest.raises(DataError, match=r"csv:.*x-\*\.csv: no file matches; looked from "):
        segue.load(f"csv:{tmp_path}/x-*.csv")


@pytest.mark.parametrize("cost", [["low", "high"], [[1, 2], [3, 4]]], ids=["texts", "lists"])
def test_a_column_named_cost_that_is_none_is_left_out_and_noted(cost) -> None:
    read = segue.load(pa.table(ROWS | {"cost": cost}))
    assert read.cost is None
    assert any("'cost' is left out: it is no cost, which is a number in every row" in note for note in read.notes)


def test_decimals_and_whole_numbers_stored_as_fractions_are_numbers() -> None:
    rows = ROWS | {"reward": [decimal.Decimal("0.25"), decimal.Decimal("1.50")], "action": [0.0, 1.0]}
    read = segue.load(Table(pa.table(rows), discrete="yes"))
    assert read.rewards.tolist() == [0.25, 1.5]
    assert read.actions.tolist() == [0, 1]
    assert read.spaces.discrete


def test_texts_of_next_observations_are_numbered_as_those_of_observations() -> None:
    """Though the first does not occur among the next ones."""
    rows = {"obs": ["a", "b"], "next_obs": ["b", "b"], "action": [0, 1], "reward": [0.0, 1.0], "terminal": [0, 1]}
    read = segue.load(pa.table(rows))
    assert read.observations.tolist() == [[1, 0], [0, 1]]
    assert read.next_observations[0].tolist() == [0, 1]


def test_without_a_column_of_episodes_one_ends_where_steps_start_again_or_a_file_ends(tmp_path: Path) -> None:
    rows = {"obs": [0.0, 1.0, 2.0, 3.0, 4.0], "action": 0.5, "reward": 1.0, "step": [0, 1, 0, 1, 2]}
    steps = segue.load(Table(pd.DataFrame(rows), terminal="end"))
    assert steps.episode_lengths.tolist() == [2, 3]
    assert any("one ends where 'step' starts again" in note for note in steps.notes)
    for number, part in enumerate((slice(0, 2), slice(2, 5))):
        pd.DataFrame(rows).drop(columns="step")[part].to_csv(tmp_path / f"{number}.csv", index=False)
    files = segue.load(f"csv:{tmp_path}/*.csv?terminal=end")
    assert files.episode_lengths.tolist() == [2, 3]
    assert "every file is one episode" in files.notes
    for number, part in enumerate(([0, 1], [5, 6, 0])):
        pd.DataFrame({"obs": part, "action": 0.5, "reward": 1.0, "step": part}).to_csv(
            tmp_path / f"{number}.csv", index=False
        )
    assert segue.load(f"csv:{tmp_path}/*.csv?terminal=end").episode_lengths.tolist() == [2, 2, 1]


def test_every_row_may_be_an_episode_of_its_own(log: str) -> None:
    dataset = segue.load(Table(log, **{**MAPPING, "episode": "row"}, observation="f_*"))
    assert len(dataset.episode_starts) == 4
    assert dataset.terminals.all()


def test_the_same_episode_numbers_in_two_files_are_different_episodes(tmp_path: Path) -> None:
    made = make_episodes([(3, True), (2, True)])
    for number, one in enumerate(made):
        pa.csv.write_csv(frame([one]), tmp_path / f"{number}.csv")
    assert same_log(segue.load([f"{tmp_path}/0.csv", f"{tmp_path}/1.csv"]), segue.load(as_dict(made)))
    assert same_log(segue.load(Table([tmp_path / "0.csv", tmp_path / "1.csv"])), segue.load(as_dict(made)))


def test_rewards_by_a_rule_of_the_user(log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text(
        "def speed(episode):\n    return episode['f_0'] * 10\n\nwrong = len\n"
        "def typo(episode):\n    return episode['speeed']\n"
    )
    mapping = {**MAPPING, "observation": "f_*", "terminal": "end"}
    assert segue.load(Table(log, **mapping | {"reward": "my_rewards:speed"})).rewards == pytest.approx([3, 4, 1, 2])
    assert segue.load(Table(log, **mapping | {"reward": "success"})).rewards.tolist() == [0, 1, 0, 1]
    assert segue.load(Table(log, **mapping | {"reward": "none"})).rewards.tolist() == [0, 0, 0, 0]
    for rule, words in {
        "my_rewards:wrong": r"returned shape \(\)",
        "my_rewards:no": "no function 'no'",
        "my_rewards:typo": "my_rewards:typo raised KeyError in episode 0: 'speeed'",
    }.items():
        with pytest.raises(DataError, match=words):
            segue.load(Table(log, **mapping | {"reward": rule}))


def test_bounds_of_the_actions_are_given_or_taken_from_the_data(log: str) -> None:
    mapping = {**MAPPING, "action": "f_1", "observation": "f_0", "discrete": "no", "terminal": "end"}
    given_bounds = segue.load(Table(log, **mapping, action_low=0, action_high=10))
    assert given_bounds.actions[:, 0] == pytest.approx([-0.4, -0.2, -0.8, -0.6])
    assert segue.load(Table(log, **mapping, action_low="data", action_high="data")).actions.min() == -1


@pytest.mark.parametrize("made", [pl.DataFrame, pd.DataFrame, lambda rows: pd.DataFrame(rows, dtype="category")])
def test_the_texts_of_every_library_are_categories(made) -> None:
    rows = {"run": ["b", "b", "a"], "obs": ["x", "y", "x"], "act": ["l", "r", "l"]}
    dataset = segue.load(Table(made(rows), episode="run", reward="none", terminal="end"))
    assert dataset.encoding.observations == ("obs=x", "obs=y")
    assert dataset.actions.tolist() == [0, 1, 0]
    assert dataset.episode_starts.tolist() == [0, 2]


def test_a_list_column_is_a_vector() -> None:
    rows = pa.table(
        {"state": [[1.0, 2.0], [3.0, 4.0]], "action": [0, 1], "reward": [0.0, 1.0], "terminal": [False, True]}
    )
    dataset = segue.load(rows)
    assert dataset.observations.tolist() == [[1, 2], [3, 4]]
    assert dataset.encoding.observations == ("state[0]", "state[1]")
    with pytest.raises(DataError, match="row 1: the list in column 'state' has another length"):
        segue.load(rows.set_column(0, "state", [[[1.0, 2.0], [3.0]]]))


def test_scattered_numbers_of_actions_are_numbered_anew() -> None:
    rows = {"obs": [0.0, 1.0], "action": [1001, 70], "reward": [0.0, 1.0], "terminal": [0, 1]}
    dataset = segue.load(pa.table(rows))
    assert dataset.actions.tolist() == [1, 0]
    assert dataset.encoding.actions == ("70", "1001")


def test_done_is_asked_about_in_a_table_as_in_a_dict_of_arrays() -> None:
    rows = {"obs": [0.0, 1.0, 2.0], "action": [0, 1, 1], "reward": [0.0, 1.0, 1.0], "done": [0, 1, 1]}
    with pytest.raises(DataError, match="'done' does not tell terminal states from time limits; give --terminal done"):
        segue.load(pa.table(rows))
    assert segue.load(Table(pa.table(rows), terminal="done")).terminals.tolist() == [False, True, True]
    cut = rows | {"truncated": [0, 1, 0]}
    for source in (pa.table(cut), {name: np.array(column) for name, column in cut.items()}):
        assert segue.load(source).episode_terminals.tolist()[-1] is True
        assert segue.load(source).terminals.sum() == 1, "a time-out is no terminal"


@pytest.mark.parametrize("column", ["obs", "action", "reward"])
def test_numbers_with_decimal_commas_are_no_categories(tmp_path: Path, column: str) -> None:
    rows = {"obs": ["1", "2"], "action": ["0.5", "0.1"], "reward": ["1", "0"], "terminal": ["0", "1"]} | {
        column: ["3", "-3,14"]
    }
    lines = [";".join(rows), *(";".join(row) for row in zip(*rows.values(), strict=True))]
    file = write(tmp_path / "log.csv", "\n".join(lines) + "\n")
    with pytest.raises(DataError, match=rf"row 1 \(line 3\): column '{column}' is '-3,14', a number with a comma"):
        segue.load(file)


def test_episodes_of_one_step_that_vanish_are_counted() -> None:
    rows = {"obs": [0.0, 1.0, 2.0, 3.0], "action": [0, 1, 1, 0], "reward": [0.0] * 4, "episode": [0, 1, 1, 2]}
    (note,) = [note for note in segue.load(pa.table(rows)).notes if "no 'next_observations'" in note]
    assert "of 3 episodes" in note
    assert "2 of these episodes had but that step" in note


def test_outliers_are_named_by_their_column_and_a_rare_category_is_none() -> None:
    speed = np.random.default_rng(0).normal(size=1000)
    speed[7] = 1e4
    city = np.array(["Bern"] * 1000)
    city[0] = "Rome"
    table = {"speed": speed, "city": city, "a": speed, "r": speed, "terminal": np.arange(1000) % 50 == 49}
    named = {
        "observation": ["speed", "city"],
        "action": "a",
        "action_low": "data",
        "action_high": "data",
        "reward": "r",
    }
    found = outlying_observations(segue.load(Table(pd.DataFrame(table), **named)))
    assert found is not None
    assert "1 observation dimension with outliers: 'speed'; the worst, column 'speed', is" in found.found


@pytest.mark.parametrize(("header", "value"), [("größe", "1"), ("size", "größe")])
def test_a_file_in_a_code_page_of_windows_is_named(tmp_path: Path, header: str, value: str) -> None:
    (tmp_path / "log.csv").write_bytes(f"obs,action,reward,terminal,{header}\n1,0.5,1,1,{value}\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"log\.csv: .*not UTF-8 text; save the file as UTF-8"):
        segue.load(f"csv:{tmp_path / 'log.csv'}")
