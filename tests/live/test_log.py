"""The live log as a file."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest
from made import Made

from segue.errors import SegueError
from segue.live import Service
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


def older(place: str) -> None:
    """Make a log as version 1 left it, with a row."""
    if place.startswith("postgresql"):
        import psycopg

        with psycopg.connect(place) as log:
            log.execute(MIGRATIONS[0].replace("BYTES", "BYTEA").replace("FLOAT", "DOUBLE PRECISION"))
            log.execute("CREATE TABLE segue_live (version INTEGER NOT NULL)")
            log.execute("INSERT INTO segue_live VALUES (1)")
            log.execute("INSERT INTO audit VALUES (1, 0.0, 'me', 'x', '{}')")
        return
    with contextlib.closing(sqlite3.connect(place)) as log:
        log.execute("PRAGMA journal_mode = WAL")
        log.executescript(MIGRATIONS[0].replace("BYTES", "BLOB").replace("FLOAT", "REAL"))
        log.execute("INSERT INTO audit VALUES (1, 0.0, 'me', 'x', '{}')")
        log.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        log.execute("PRAGMA user_version = 1")
        log.commit()


def state(place: str) -> tuple[int, bool]:
    """Version of a log, and whether it has what the second one brought."""
    if place.startswith("postgresql"):
        import psycopg

        with psycopg.connect(place) as log:
            [(version,)] = log.execute("SELECT version FROM segue_live").fetchall()
            [(index,)] = log.execute("SELECT to_regclass('episodes_unit')").fetchall()
            return version, index is not None
    with contextlib.closing(sqlite3.connect(place)) as log:
        [(version,)] = log.execute("PRAGMA user_version").fetchall()
        return version, bool(log.execute("SELECT 1 FROM sqlite_master WHERE name = 'episodes_unit'").fetchall())


def test_a_service_brings_a_log_of_an_older_version_up_to_date_and_says_so(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    older(place)
    database = open_database(place)
    assert state(place) == (len(MIGRATIONS), True)
    assert database.read("SELECT what FROM audit") == [("x",)]
    database.close()
    assert "from version 1 to 2; older versions of Segue cannot open it" in caplog.text
    caplog.clear()
    open_database(place).close()
    assert caplog.text == ""


def test_a_migration_that_fails_leaves_the_older_log_as_it_was(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    older(place)
    for where in ("database", "postgres"):
        monkeypatch.setattr(f"segue.live.{where}.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE audit (seq BIGINT)"))
    with pytest.raises(SegueError, match="already exists"):
        open_database(place)
    assert state(place) == (1, False)
    monkeypatch.undo()
    database = open_database(place)
    assert database.read("SELECT what FROM audit") == [("x",)]
    database.close()


@pytest.mark.parametrize("policy", ["none", "missing", "explores"])
def test_a_service_that_cannot_begin_leaves_an_older_log_as_it_was(place: str, policy: str, switch: Made) -> None:
    older(place)
    given, said = {
        "none": (None, "the log has no policy yet"),
        "missing": ("nothing-here", "no exported policy here"),
        "explores": (switch.directory, "expected no, policy, or a share"),
    }[policy]
    with pytest.raises(SegueError, match=said):
        Service(place, given, explore="much")
    assert state(place) == (1, False)


def test_a_policy_of_other_spaces_leaves_an_older_log_as_it_was(tmp_path: Path, switch: Made, crane: Made) -> None:
    file = str(tmp_path / "a.db")
    Service(file, switch.directory).close()
    with contextlib.closing(sqlite3.connect(file)) as log:
        log.executescript("DROP INDEX episodes_unit; PRAGMA user_version = 1")
    with pytest.raises(SegueError, match="observation space"):
        Service(file, crane.directory)
    assert state(file) == (1, False)
    Service(file, switch.directory).close()
    assert state(file) == (2, True)


def test_who_is_no_service_changes_no_log_of_an_older_version(place: str) -> None:
    older(place)
    with pytest.raises(SegueError, match="of version 1; this version of Segue needs 2: `segue serve --db"):
        open_database(place, create=False)
    assert state(place) == (1, False)


@pytest.mark.parametrize("service", [True, False])
def test_opening_a_log_writes_nothing(tmp_path: Path, service: bool) -> None:
    file = tmp_path / "a.db"
    Sqlite(file).close()
    before = file.read_bytes()
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")  # who writes is not waited for
        database = open_database(file, create=service)
        assert database.read("SELECT seq FROM counter") == [(0,)]
    database.close()
    assert file.read_bytes() == before


@pytest.mark.parametrize("service", [True, False])
def test_a_log_of_a_newer_version_is_not_touched(place: str, service: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    open_database(place).close()
    for where in ("database", "postgres"):
        monkeypatch.setattr(f"segue.live.{where}.MIGRATIONS", MIGRATIONS[:1])
    with pytest.raises(SegueError, match="version 2; this version of Segue knows up to 1: use the version that wrote"):
        open_database(place, create=service)
    assert state(place) == (2, True)


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
