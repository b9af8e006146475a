"""The live log as a file."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest

from segue.errors import SegueError
from segue.live.database import APPLICATION_ID, Sqlite, Unavailable, open_database
from segue.live.schema import MIGRATIONS, AuditRow, CursorRow, OnPaper
from segue.live.writer import Writer, Written


def test_numbers_go_on_where_a_log_is_opened_again(place: str) -> None:
    for i in range(3):
        log = open_database(place)
        assert log.append([AuditRow(0.0, "me", "x", "{}"), CursorRow(0.0, "me", 1, "c")]) == [2 * i + 1, 2 * i + 2]
        log.close()


def test_a_key_that_is_taken_keeps_its_row(place: str) -> None:
    log = open_database(place)
    one, two = OnPaper("d", "p", b"1", None), OnPaper("d", "p", b"2", None)
    assert log.append([one, two]) == [1, None]
    assert log.append([two]) == [None]
    assert log.read("SELECT action FROM on_paper") == [(b"1",)]


def test_a_transaction_is_whole_or_not_there(place: str) -> None:
    log = open_database(place)
    with pytest.raises(Unavailable, match=r"(?i)not.null"):
        log.append([AuditRow(0.0, "me", "x", "{}"), AuditRow(0.0, "me", "x", None)])  # type: ignore[arg-type]
    assert log.read("SELECT * FROM audit") == []
    assert log.append([AuditRow(0.0, "me", "x", "{}")]) == [1]


def test_what_is_no_log_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, and long enough to be read as one " * 30)
    with pytest.raises(SegueError, match="cannot be opened as a live log"):
        open_database(tmp_path / "text.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "theirs.db")) as theirs:
        theirs.execute("CREATE TABLE orders (id INTEGER)")
    before = (tmp_path / "theirs.db").read_bytes()
    with pytest.raises(SegueError, match="another application"):
        open_database(tmp_path / "theirs.db")
    assert (tmp_path / "theirs.db").read_bytes() == before
    with pytest.raises(SegueError, match="no live log here"):
        open_database(tmp_path / "missing.db", create=False)
    assert not (tmp_path / "missing.db").exists()
    (tmp_path / "empty.db").touch()
    with pytest.raises(SegueError, match="no live log here"):
        open_database(tmp_path / "empty.db", create=False)
    assert (tmp_path / "empty.db").read_bytes() == b""
    with pytest.raises(SegueError, match="three slashes"):
        open_database("sqlite://a.db")


def test_a_schema_without_a_log_is_left_alone(shared: str) -> None:
    import psycopg

    with pytest.raises(SegueError, match="no live log here"):
        open_database(shared, create=False)
    with psycopg.connect(shared) as theirs:
        assert theirs.execute("SELECT to_regclass('segue_live')").fetchall() == [(None,)]
    open_database(shared).close()
    open_database(shared, create=False).close()


def test_a_log_of_an_older_version_becomes_one_of_now(tmp_path: Path) -> None:
    log = sqlite3.connect(tmp_path / "a.db")
    log.executescript(MIGRATIONS[0].replace("BYTES", "BLOB").replace("FLOAT", "REAL"))
    log.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    log.execute("PRAGMA user_version = 1")
    log.close()
    database = open_database(tmp_path / "a.db")
    assert database.read("PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert database.read("SELECT name FROM sqlite_master WHERE name = 'episodes_unit'")
    database.close()


def test_a_log_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    Sqlite(tmp_path / "a.db").close()
    with sqlite3.connect(tmp_path / "a.db") as log:
        log.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(SegueError, match=f"version {len(MIGRATIONS) + 1}; this version of Segue knows up to"):
        open_database(tmp_path / "a.db")


def test_what_waits_together_is_written_together(tmp_path: Path) -> None:
    log, sizes, go_on = Sqlite(tmp_path / "a.db"), [], threading.Event()
    append = log.append

    def counted(rows: list[AuditRow]) -> list[int | None]:
        go_on.wait()
        sizes.append(len(rows))
        return append(rows)

    log.append = counted  # type: ignore[method-assign, assignment]
    writer, written = Writer(log), list[Written]()
    for i in range(20):
        writer.write([AuditRow(0.0, "me", str(i), "{}")], written.append)
    go_on.set()
    writer.close()
    assert sum(sizes) == 20
    assert len(sizes) <= 2
    assert sorted(number for one in written for number in one) == list(range(1, 21))  # type: ignore[union-attr, type-var]
    assert [what for (what,) in log.read("SELECT what FROM audit ORDER BY seq")] == [str(i) for i in range(20)]


def test_a_writer_that_is_full_or_closed_says_so(tmp_path: Path) -> None:
    log, go_on = Sqlite(tmp_path / "a.db"), threading.Event()
    append = log.append
    log.append = lambda rows: go_on.wait() and append(rows)  # type: ignore[method-assign]
    writer = Writer(log, capacity=1)
    row, nothing = [AuditRow(0.0, "me", "x", "{}")], lambda written: None

    def three() -> None:  # one is being written, one waits
        for _ in range(3):
            writer.write(row, nothing)

    with pytest.raises(Unavailable, match="wait already"):
        three()
    go_on.set()
    writer.close()
    with pytest.raises(Unavailable, match="closed"):
        writer.write(row, nothing)


def test_a_lost_connection_is_made_again(server: str, tmp_path: Path) -> None:
    import psycopg

    log = open_database(f"{server}&application_name=x")
    log.append([AuditRow(0.0, "me", "x", "{}")])
    with psycopg.connect(server, autocommit=True) as other:
        mine = "pid <> pg_backend_pid() AND datname IS NOT NULL"
        other.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}")
    with pytest.raises(Unavailable, match="nothing was written"):
        log.append([AuditRow(0.0, "me", "lost", "{}")])
    log.append([AuditRow(0.0, "me", "y", "{}")])
    assert [what for (what,) in log.read("SELECT what FROM audit ORDER BY seq")] == ["x", "y"]
    log.close()


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(SegueError, match="no connection") as refused:
        open_database("postgresql://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(refused.value)
