"""A dataset on disk gives the rows, statistics and updates of the dataset that was written."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from segue.conformance import KINDS, dataset
from segue.core import Spaces
from segue.data import load, mapped, parts, tabular, uri_of
from segue.data.dataset import Dataset
from segue.data.inspection import inspect
from segue.errors import DataError


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    """Episodes of any lengths, in which any next observation may be that of the next row."""
    made = dataset(KINDS[draw(st.sampled_from(sorted(KINDS)))])
    starts = np.array([0, *sorted(draw(st.sets(st.integers(1, len(made) - 1), max_size=8)))])
    joined = np.array(draw(st.lists(st.booleans(), min_size=len(made) - 1, max_size=len(made) - 1)))
    following = made.next_observations.copy()
    following[:-1][joined] = made.observations[1:][joined]
    terminals = np.zeros(len(made), bool)
    terminals[starts[1:] - 1] = True
    mask = None
    if made.spaces.discrete:
        mask = np.random.default_rng(0).random((len(made), made.spaces.action_size)) < 0.5
    return dataclasses.replace(
        made,
        next_observations=following,
        terminals=terminals,
        episode_starts=starts,
        behaviour_log_prob=made.rewards if draw(st.booleans()) else None,
        allowed_actions=mask,
    )


def same(one: Dataset, other: Dataset) -> bool:
    if one.fingerprint() != other.fingerprint() or one.observed().plain() != other.observed().plain():
        return False
    return all(
        np.array_equal(getattr(one, what), getattr(other, what))
        for what in ("episode_returns", "episode_costs", "episode_terminals", "episode_lengths")
    )


@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(before=datasets(), data=st.data())
def test_every_row_episode_and_statistic_is_that_of_the_dataset_written(
    before: Dataset, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "BLOCK", data.draw(st.sampled_from([1, 20, 1000])))
        patch.setattr(mapped, "ROWS_PER_RELEASE", 5)
        after = mapped.write(tmp_path_factory.mktemp("written") / "log", [before])
        assert same(after, before)
        assert same(after.in_memory(), before)
        rows = np.array(data.draw(st.lists(st.integers(0, len(before) - 1), max_size=20)), int)
        stop = data.draw(st.integers(0, len(before)))
        for name in ("observations", "actions", "rewards", "next_observations", "terminals", "allowed_actions"):
            column, expected = getattr(after, name), getattr(before, name)
            if expected is not None:
                assert np.array_equal(column[rows], expected[rows])
                assert np.array_equal(column[3:stop], expected[3:stop])
                assert np.array_equal(column[::7], expected[::7])
                assert np.array_equal(column[-1], expected[-1])
        chosen = np.array(data.draw(st.permutations(range(len(before.episode_starts)))))[: max(len(rows), 1)]
        assert same(after.episodes(chosen), before.episodes(chosen))
        assert same(after.episodes(chosen).best_episodes(0.5), before.episodes(chosen).best_episodes(0.5))
        assert np.array_equal(after.episode_fingerprints(), before.episode_fingerprints())
        ours, theirs = after.normaliser(), before.normaliser()
        np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.std, theirs.std, rtol=1e-5)


def table(rows: int = 60, length: int = 7) -> dict[str, np.ndarray]:
    rng, row = np.random.default_rng(0), np.arange(rows)
    return {
        "episode": row // length,
        "step": row % length,
        "obs_0": rng.normal(size=rows),
        "obs_1": rng.normal(size=rows),
        "action": rng.uniform(-1, 1, rows),
        "reward": rng.normal(size=rows),
        "terminated": row % length == length - 1,
    }


def parquet(path: Path, columns: dict[str, np.ndarray]) -> str:
    pa.parquet.write_table(pa.table(columns), path, row_group_size=11)
    return f"parquet:{path}"


@pytest.mark.parametrize("without", [(), ("episode", "step")], ids=["by their column", "by their flags"])
@pytest.mark.parametrize("rows", [1, 13, 1000])
def test_parquet_files_read_in_parts_are_the_dataset_read_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, without: tuple[str, ...]
) -> None:
    monkeypatch.setattr(tabular, "PART_ROWS", rows)
    columns = {name: column for name, column in table().items() if name not in without}
    uri = parquet(tmp_path / "log.parquet", columns)
    made = list(parts(uri))
    assert len(made) > 1 or rows == 1000
    assert same(mapped.write(tmp_path / "log", made), load(uri))


def test_where_every_row_is_an_episode_parts_end_at_any_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "PART_ROWS", 13)
    columns = {name: column for name, column in table().items() if name != "terminated"}
    uri = parquet(tmp_path / "log.parquet", columns) + "?episode=row"
    made = list(parts(uri))
    assert [len(part) for part in made] == [13, 13, 13, 13, 8]
    assert same(mapped.write(tmp_path / "log", made), load(uri))


def test_a_parquet_file_that_is_damaged_or_empty_is_named_before_anything_is_written(tmp_path: Path) -> None:
    file = tmp_path / "log.parquet"
    parquet(file, {name: column[:0] for name, column in table().items()})
    with pytest.raises(DataError, match=r"log\.parquet: the file has no rows"):
        mapped.write(tmp_path / "log", parts(f"parquet:{file}"))
    parquet(file, table())
    content = bytearray(file.read_bytes())
    content[4:200] = b"\xff" * 196  # the first pages; the footer is whole
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"log\.parquet: cannot be read as Parquet"):
        mapped.write(tmp_path / "log", parts(f"parquet:{file}"))
    with pytest.raises(DataError, match="parquet:: nothing follows the colon"):
        next(parts("parquet:"))
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_parts_of_a_mixture_follow_each_other_and_have_no_weights(tmp_path: Path) -> None:
    uris = [parquet(tmp_path / f"{name}.parquet", table()) for name in "ab"]
    assert same(mapped.write(tmp_path / "log", parts(" + ".join(uris))), load(" + ".join(uris)))
    with pytest.raises(DataError, match="weights are not kept when parts become one dataset; leave them out"):
        next(parts(f"{uris[0]}@0.7 + {uris[1]}@0.3"))


def test_what_cannot_be_read_in_parts_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "PART_ROWS", 13)
    columns = table()
    scattered = {**columns, "episode": np.where(columns["episode"] == 5, 0, columns["episode"])}
    for wrong, expected in (
        (scattered, "rows of the episode 0 stand here and further up; expected the rows of an episode next to each"),
        ({**columns, "reward": np.where(np.arange(60) == 50, np.nan, 0.0)}, "row 50: column 'reward' has no value"),
        ({n: c for n, c in columns.items() if n not in ("episode", "terminated")}, "--episode COLUMN, or --terminal"),
    ):
        file = tmp_path / "wrong.parquet"
        with pytest.raises(DataError, match=expected):
            mapped.write(tmp_path / "log", parts(parquet(file, wrong)))
        assert [path.name for path in tmp_path.iterdir()] == ["wrong.parquet"]  # nothing half-written is left


def test_parts_that_are_not_of_one_dataset_are_refused(tmp_path: Path) -> None:
    one, other = dataset(Spaces(3, 2)), dataset(Spaces(4, 2))
    for wrong, what in (
        (other, "spaces"),
        (dataclasses.replace(one, cost=None), "columns"),
        (dataclasses.replace(one, env_id="Hopper-v5"), "environments"),
    ):
        with pytest.raises(DataError, match=f"different {what}"):
            mapped.write(tmp_path / "log", [one, wrong])
    with pytest.raises(DataError, match="nothing to write"):
        mapped.write(tmp_path / "log", [])


def test_a_damaged_folder_ends_in_a_sentence(tmp_path: Path) -> None:
    place = tmp_path / "log"
    mapped.write(place, [dataset(Spaces(3, 2))])
    about = json.loads((place / mapped.ABOUT).read_text())
    with pytest.raises(DataError, match="already exists"):
        mapped.write(place, [dataset(Spaces(3, 2))])
    for name, content, expected in (
        (mapped.ROWS, (place / mapped.ROWS).read_bytes()[:-1], r"rows.bin has .* bytes, not what dataset.json says"),
        (mapped.ROWS, b"\xff" * (place / mapped.ROWS).stat().st_size, "rows.bin has changed .* in the episodes 0 to"),
        (mapped.ABOUT, json.dumps({**about, "version": 2}).encode(), "of version 2, this Segue reads 1"),
        (mapped.ABOUT, b"{", "convert it again"),
        (mapped.INDEX, b"", "index.npz has changed"),
    ):
        whole = (place / name).read_bytes()
        (place / name).write_bytes(content)
        with pytest.raises(DataError, match=expected):
            load(f"mapped:{place}")
        (place / name).write_bytes(whole)
    assert load(f"mapped:{place}").fingerprint() == dataset(Spaces(3, 2)).fingerprint()


def test_a_folder_needs_no_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mapped.write("log", [dataset(Spaces(3, 2))])
    assert load("log").source == "mapped:log"


def test_anything_that_changes_in_dataset_json_is_found(tmp_path: Path) -> None:
    place = tmp_path / "log"
    mapped.write(place, [dataset(Spaces(3, 2))])
    about = json.loads((place / mapped.ABOUT).read_text())
    assert load(f"mapped:{place}").env_id != "Other-v0"
    for name in about.keys() - {"version"}:
        (place / mapped.ABOUT).write_text(json.dumps({**about, name: "Other-v0"}))
        with pytest.raises(DataError, match=r"dataset\.json has changed since it was written"):
            load(f"mapped:{place}")


def test_a_changed_byte_of_a_large_dataset_is_found_when_its_block_is_read_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "BLOCK_BYTES", 256)
    place = tmp_path / "log"
    whole = mapped.write(place, [dataset(Spaces(3, 2))])
    monkeypatch.setattr(mapped, "MOST_VERIFIED", 0)
    size = whole.view.records.kind.itemsize
    for record in range(len(whole.view.records.pairs) + 1):  # the last one ends a run
        content = bytearray((place / mapped.ROWS).read_bytes())
        content[record * size] ^= 1
        (place / mapped.ROWS).write_bytes(content)
        block = record // (256 // size) * (256 // size)
        with pytest.raises(DataError, match=rf"rows.bin has changed .*bytes {block * size:,} to") as refused:
            load(f"mapped:{place}").normaliser()
        first, last = re.findall(r"episodes? (\d+)(?: to (\d+))?", str(refused.value))[0]
        changed = np.searchsorted(whole.view.place(whole.episode_starts), record, side="right") - 1
        assert int(first) <= changed <= int(last or first)
        content[record * size] ^= 1
        (place / mapped.ROWS).write_bytes(content)
    log = load(f"mapped:{place}")
    log.normaliser()
    assert log.view.records.verified.all()


def test_what_needs_more_memory_than_is_meant_is_refused_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = mapped.write(tmp_path / "log", [dataset(Spaces(3, 2))])
    assert uri_of(log) == log.source == f"mapped:{tmp_path}/log"
    assert uri_of(log.episodes(np.arange(2))) is None
    assert log.rewards.mean() == dataset(Spaces(3, 2)).rewards.mean()
    monkeypatch.setattr(mapped, "EXCERPT", 20)
    shown = inspect(log)
    assert shown.transitions == 64
    assert "2 random episodes (16 transitions)" in shown.notes[-1]
    monkeypatch.setattr(mapped, "MOST_IN_MEMORY", 100)
    with pytest.raises(DataError, match="of the dataset in memory at once"):
        log.in_memory()
    with pytest.raises(DataError, match="of the dataset in memory at once"):
        log.observations.mean()
    assert len(log.observations[:5]) == 5


def test_what_every_run_asks_of_a_dataset_needs_no_whole_column_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(parquet(tmp_path / "log.parquet", table(700)))
    after = mapped.write(tmp_path / "log", [before])
    monkeypatch.setattr(mapped, "BLOCK", 1)
    monkeypatch.setattr(mapped, "MOST_IN_MEMORY", before.observations.nbytes // 2)
    with pytest.raises(DataError, match="in memory at once"):
        after.observations.min(0)
    assert after.observed().plain() == before.observed().plain()
    assert np.array_equal(after.episode_returns, before.episode_returns)
    assert np.array_equal(after.episode_fingerprints(), before.episode_fingerprints())
    np.testing.assert_allclose(after.normaliser().mean, before.normaliser().mean, rtol=1e-5, atol=1e-6)
