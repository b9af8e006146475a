"""States on disk: the newest whole one counts, whatever happened to the others."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segue.core import Spaces, Transition
from segue.errors import SegueError
from segue.replay import Replay, append
from segue.replay.replay_log import COLUMNS, ReplayLog, refill
from segue.runner.state_store import StateStore, _digest

SPACES = Spaces(2, 1)
ON_DISK = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def anything(plain: dict[str, Any]) -> None:
    """Every state is usable."""


def batch(first: int, count: int) -> Transition:
    """Transitions that carry their numbers."""
    numbers = np.arange(first, first + count, dtype=np.float32)
    pair = np.stack([numbers, -numbers], axis=1)
    unknown = np.full(count, -np.inf, np.float32)
    return Transition(pair, numbers[:, None], numbers, pair + 1, np.ones(count, np.float32), unknown, numbers[:, None])


def filled(directory: Path, saves: int = 3, capacity: int | None = None, size: int = 4) -> StateStore:
    """A store after so many saves of `size` transitions each."""
    store = StateStore(directory, capacity)
    for number in range(1, saves + 1):
        replay_log = ReplayLog()
        replay_log.append(batch((number - 1) * size, size))
        store.save(number * 10, {"number": number}, {"a b": np.full(3, number)}, replay_log.take())
    return store


def found(directory: Path, capacity: int | None = None) -> tuple[int | None, list[str]]:
    """The number of the state that is found, checked to be what was saved; and what is said."""
    state, notes = StateStore(directory, capacity).newest(anything)
    if state is None:
        return None, notes
    number = state.plain["number"]
    assert state.step == 10 * number
    assert state.arrays["a b"].tolist() == [number] * 3
    count = 4 * number
    assert state.rows["reward"][-min(count, capacity or count) :].tolist() == list(
        range(max(count - (capacity or count), 0), count)
    )
    return number, notes


def test_the_newest_state_is_found_and_only_one_before_it_is_kept(tmp_path: Path):
    filled(tmp_path / "s", 5)
    assert found(tmp_path / "s") == (5, [])
    assert [path.name for path in sorted((tmp_path / "s").glob("step-*"))] == ["step-000000000040", "step-000000000050"]


def test_nothing_is_found_where_nothing_was_saved(tmp_path: Path):
    assert found(tmp_path / "none") == (None, [])


@ON_DISK
@given(data=st.data())
def test_any_flipped_bit_of_the_newest_state_is_noticed_and_the_one_before_is_used(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("s")
    filled(directory)
    files = [*sorted((directory / "step-000000000030").iterdir()), sorted((directory / "rows").iterdir())[-1]]
    file = data.draw(st.sampled_from(files), label="file")
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, 8 * len(content) - 1), label="bit")
    content[place // 8] ^= 1 << place % 8
    file.write_bytes(content)
    number, notes = found(directory)
    if number == 3:  # white space or a key's case in the manifest, which says the same
        assert file.name == "manifest.json"
        return
    assert number == 2
    assert len(notes) == 1
    assert "is damaged" in notes[0]
    assert "step-000000000030" in notes[0]
    assert (directory / "damaged-1-step-000000000030").exists()
    assert found(directory) == (2, []), "it is said once"


@ON_DISK
@given(share=st.floats(0, 1, exclude_max=True), which=st.integers(0, 3))
def test_a_truncated_or_missing_file_is_noticed_and_the_one_before_is_used(tmp_path_factory, share, which):
    directory = tmp_path_factory.mktemp("s")
    filled(directory)
    files = [*sorted((directory / "step-000000000030").iterdir()), sorted((directory / "rows").iterdir())[-1]]
    content = files[which].read_bytes()
    kept = int(share * len(content))
    if kept:
        files[which].write_bytes(content[:kept])
    else:
        files[which].unlink()
    assert found(directory)[0] == 2


def test_where_no_state_is_whole_the_transitions_are_set_aside_too(tmp_path: Path):
    filled(tmp_path, 2)
    for file in tmp_path.glob("step-*/state.json"):
        file.write_text("{}")
    number, notes = found(tmp_path)
    assert number is None
    assert len(notes) == 2
    assert len(list((tmp_path / "damaged-1-rows").iterdir())) == 2


def test_a_state_of_another_format_is_refused_not_set_aside(tmp_path: Path):
    filled(tmp_path)
    file = tmp_path / "step-000000000030/manifest.json"
    digests = {name: _digest(99, (file.parent / name).read_bytes()) for name in ("state.json", "arrays.safetensors")}
    file.write_text(json.dumps({"format": 99, "sha256": digests}))
    with pytest.raises(SegueError, match="state format 99; this version of Segue reads 2"):
        found(tmp_path)
    assert file.exists()


def test_a_state_that_cannot_be_gone_on_from_is_passed_over(tmp_path: Path):
    filled(tmp_path)

    def usable(plain: dict[str, Any]) -> None:
        if plain["number"] == 3:
            raise SegueError("its records are gone")

    state, notes = StateStore(tmp_path).newest(usable)
    assert state is not None
    assert state.plain["number"] == 2
    assert "its records are gone" in notes[0]


@ON_DISK
@given(stop_at=st.integers(0, 30), full=st.booleans())
def test_whatever_operation_a_save_ends_in_a_whole_state_is_left(tmp_path_factory, stop_at, full):
    """The process dies there, or the disk refuses: afterwards it is the state before or the new one."""
    directory = tmp_path_factory.mktemp("s")
    filled(directory, 2, capacity=6)
    error: BaseException = OSError(errno.ENOSPC, "No space left on device") if full else KeyboardInterrupt()
    calls = [0]

    def fragile(call: Any) -> Any:
        def maybe(*given: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == stop_at:
                raise error
            return call(*given, **options)

        return maybe

    with pytest.MonkeyPatch.context() as patch:
        store = StateStore(directory, 6)
        store.newest(anything)
        for name in ("replace", "fsync", "open", "mkdir", "unlink"):
            patch.setattr(os, name, fragile(getattr(os, name)))
        replay_log = ReplayLog()
        replay_log.append(batch(8, 4))
        try:
            store.save(30, {"number": 3}, {"a b": np.full(3, 3)}, replay_log.take())
            done = True
        except KeyboardInterrupt:
            done = False
        except SegueError as said:
            done = False
            assert "No space left on device" in str(said)  # noqa: PT017
    number, notes = found(directory, 6)
    assert notes == []
    assert number in ((3,) if done else (2, 3))


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    capacity=st.integers(1, 20),
    amended=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=6),
)
@ON_DISK
def test_the_ring_comes_back_as_it_was(tmp_path_factory, sizes, capacity, amended):
    """Transitions come in and become known later, in parts; what was overwritten need not come back."""
    store = StateStore(tmp_path_factory.mktemp("s"), capacity)
    total = sum(sizes)
    replay = Replay.create(None, min(capacity, total), SPACES)
    replay_log, count = ReplayLog(), 0
    known: dict[int, float] = {}
    for number, size in enumerate(sizes):
        arrived = batch(count, size)
        replay = append(replay, arrived)
        replay_log.append(arrived)
        count += size
        late = {n: 100.0 + n for n, when in amended if when == number and n < count}
        if late:
            known |= late
            replay_log.amend("return_to_go", np.array(list(late)), np.array(list(late.values()), np.float32))
        store.save(number, {}, {}, replay_log.take())
    state, _ = StateStore(store.directory, capacity).newest(anything)
    assert state is not None
    again = refill(Replay.create(None, min(capacity, total), SPACES), state.rows)
    assert int(again.count) == count
    for name in COLUMNS:
        before = np.array(getattr(replay.online, name))
        if name == "return_to_go":
            for n, value in known.items():
                if n >= count - again.capacity:
                    before[n % again.capacity] = value
        assert np.array_equal(np.asarray(getattr(again.online, name)), before), name
    kept = sum(
        int(file.name.split("-")[1]) - int(file.name.split("-")[0]) for file in (store.directory / "rows").iterdir()
    )
    assert kept <= capacity + 2 * max(sizes) + max(sizes), "what the ring has lost is not kept on disk"


def test_transitions_of_a_save_that_was_not_finished_are_not_there_twice(tmp_path: Path):
    filled(tmp_path, 2)
    store = StateStore(tmp_path)
    store.newest(anything)
    replay_log = ReplayLog()
    replay_log.append(batch(8, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "segue.runner.state_store.write_directory", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            store.save(30, {"number": 3}, {}, replay_log.take())
    again = StateStore(tmp_path)
    again.newest(anything)
    replay_log.append(batch(8, 4))
    again.save(30, {"number": 3}, {"a b": np.full(3, 3)}, replay_log.take())
    assert found(tmp_path) == (3, [])


def lost(rows: Path) -> None:
    sorted(rows.iterdir())[1].unlink()


def nonsense(rows: Path) -> None:
    content, first = b"no tensors", min(rows.iterdir())
    first.unlink()
    place, digest = first.stem.rsplit("-", 1)[0], hashlib.sha256(content).hexdigest()[:16]
    (rows / f"{place}-{digest}.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "said"),
    [(lost, "transition 4 of 12 is missing in .*rows"), (nonsense, r"rows/0+-0+4-\w+\.safetensors: ")],
)
def test_transitions_that_are_lost_or_nonsense_leave_no_state_that_needs_them(damage: Any, said: str, tmp_path: Path):
    filled(tmp_path / "s", 3)
    damage(tmp_path / "s" / "rows")
    state, notes = StateStore(tmp_path / "s").newest(anything)
    assert state is None
    assert re.search(said, notes[0])
    assert list(tmp_path.rglob("damaged-*")), "what is left is kept"


def test_what_a_save_left_half_written_is_removed(tmp_path: Path):
    filled(tmp_path, 2)
    (tmp_path / "rows" / ".8-12.tmp").write_bytes(b"half")
    (tmp_path / ".step-30.partial").mkdir()
    assert found(tmp_path) == (2, [])
    assert not [path.name for path in tmp_path.rglob(".*")]


def test_a_place_where_no_state_can_be_saved_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SegueError, match=r"file/s.*: cannot be created: Not a directory"):
        filled(tmp_path / "file" / "s", 1)
