"""A live log as a database: SQLite in one file by default, PostgreSQL where several services share it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from segue.errors import SegueError
from segue.live.schema import MIGRATIONS, Row, insertion

LOGGER = logging.getLogger("segue.live")
#: What an answer promises: nothing yet; that the row outlives the process; that it outlives a loss of power.
Durability = Literal["after", "process", "power"]


class Unavailable(SegueError):
    """The database does not take or give rows now: a full disk, a lock that is held, a server that is gone."""


class Database(Protocol):
    """Where rows are. One thread writes; any thread may read."""

    url: str

    def append(self, rows: Sequence[Row]) -> list[int | None]:
        """Write these rows in one transaction: their numbers, None for one whose key was taken (it is not written).

        Raises:
            Unavailable: if nothing was written.
        """

    def read(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a SELECT with `?` for each value.

        Raises:
            Unavailable: if it cannot be read now.
        """

    def close(self) -> None:
        """Close all connections."""


def open_database(
    place: str | Path,
    durability: Durability = "process",
    create: bool = True,
    check: Callable[[Database], None] = lambda database: None,
) -> Database:
    """Open a live log: a path or `sqlite:///PATH`, or `postgresql://…`.

    Args:
        place: where it is.
        durability: how much a row that `append` has written can outlive; `after` is as `process`.
        create: make a log that is not there, and bring one of an older version up to date. Only a service does so: its
            log may be in use by another version of Segue, which could not open it any more.
        check: reads a log of an older version before it is brought up to date, and raises if that must not happen.

    Raises:
        SegueError: if it cannot be opened, is something else, or of a version that cannot be used. Nothing has changed
            then.
    """
    text = str(place)
    if not is_file(text):
        try:
            from segue.live.postgres import Postgres
        except ImportError as error:
            raise SegueError(f"a log in PostgreSQL needs {error.name}: pip install 'segue[postgres]'") from None
        return Postgres(text, create, check)
    path = Path(text.removeprefix("sqlite:///"))
    if text.startswith("sqlite://") and not text.startswith("sqlite:///"):
        raise SegueError(f"{text}: expected sqlite:///PATH (three slashes; a fourth for an absolute path)")
    return Sqlite(path, durability, create, check)


def no_log(place: str | Path) -> SegueError:
    """The error for a place without a log."""
    return SegueError(f"{place}: no live log here; `segue serve --policy POLICY --db {place}` begins one")


def is_file(place: str | Path) -> bool:
    """Whether a log is SQLite's."""
    return not str(place).startswith(("postgresql://", "postgres://"))


#: Rows in one statement.
MOST_AT_ONCE = 64
#: Marks a file as a live log of Segue's: "SgLv".
APPLICATION_ID = 0x53674C76


class Sqlite:
    """A log in one file, with a write-ahead log beside it.

    A transaction outlives the death of the process in both modes; with `power`, each waits for the disk.
    """

    def __init__(
        self,
        path: Path,
        durability: Durability = "process",
        create: bool = True,
        check: Callable[[Database], None] = lambda database: None,
    ) -> None:
        self.url, self._path = f"sqlite:///{path}", path
        self._full = durability == "power"
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        if not create and not path.exists():
            raise no_log(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            version = self._version()
            if behind(version, str(path), create):
                if version:
                    check(self)
                self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise SegueError(
                f"{path}: cannot be opened as a live log ({error}); expected one of `segue serve`, or a new file"
            ) from None

    def append(self, rows: Sequence[Row]) -> list[int | None]:
        """See Database."""
        connection = self._connection()
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                [(last,)] = connection.execute(
                    "UPDATE counter SET seq = seq + ? RETURNING seq", (len(rows),)
                ).fetchall()
                first = last - len(rows) + 1
                numbers = self._insert_many(connection, first, rows) or self._insert_each(connection, first, rows)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise Unavailable(f"{self._path}: nothing was written ({error})") from None
        return numbers

    def _insert_many(self, connection: sqlite3.Connection, first: int, rows: Sequence[Row]) -> list[int | None] | None:
        """The numbers, if no key was taken; otherwise None, and nothing is written.

        The interpreter's lock is given up and waited for at every statement, so a statement takes many rows.
        """
        connection.execute("SAVEPOINT many")
        seq = first
        for kind, alike in itertools.groupby(rows, type):
            left = list(alike)
            while left:
                size = min(1 << (len(left).bit_length() - 1), MOST_AT_ONCE)  # powers of two: few statements to prepare
                values = [value for number, row in enumerate(left[:size], seq) for value in (number, *row)]
                if connection.execute(_insertion(kind, size), values).rowcount != size:
                    connection.execute("ROLLBACK TO many")
                    return None
                seq += size
                del left[:size]
        return list(range(first, seq))

    def _insert_each(self, connection: sqlite3.Connection, first: int, rows: Sequence[Row]) -> list[int | None]:
        numbers: list[int | None] = []
        for seq, row in enumerate(rows, first):
            kind: type = type(row)
            done = connection.execute(_insertion(kind, 1), (seq, *row))
            numbers.append(seq if done.rowcount else None)
        return numbers

    def read(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """See Database."""
        try:
            return self._connection().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise Unavailable(f"{self._path}: cannot be read ({error})") from None

    def close(self) -> None:
        """See Database."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _connection(self) -> sqlite3.Connection:
        if (connection := getattr(self._local, "connection", None)) is None:
            connection = sqlite3.connect(self._path, timeout=5, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._full else 'NORMAL'}")
            # What a burst has left of the write-ahead log is given back.
            connection.execute("PRAGMA journal_size_limit = 16777216")
            self._local.connection = connection
            self._connections.append(connection)
        return connection

    def _version(self) -> int:
        """0: there are no tables yet. The file is only read: `_connection` already writes."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=5)) as connection:
            tables = connection.execute("SELECT 1 FROM sqlite_master").fetchall()
            [(application,)] = connection.execute("PRAGMA application_id").fetchall()
            [(version,)] = connection.execute("PRAGMA user_version").fetchall()
        if tables and application != APPLICATION_ID:
            raise SegueError(f"{self._path}: a database of another application; choose another file")
        return int(version)

    def _prepare(self) -> None:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            [(version,)] = connection.execute("PRAGMA user_version").fetchall()
            for script in MIGRATIONS[version:]:
                for statement in script.replace("BYTES", "BLOB").replace("FLOAT", "REAL").split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        say_migrated(version, str(self._path))


def behind(version: int, place: str, create: bool) -> bool:
    """Whether the tables of a log have to be made (version 0), or brought up to date.

    Raises:
        SegueError: if it is of a newer version; or behind, and `create` is false.
    """
    known = len(MIGRATIONS)
    if version > known:
        raise SegueError(
            f"{place}: a live log of version {version}; this version of Segue knows up to {known}: use the version "
            "that wrote it"
        )
    if version < known and not create:
        if version == 0:
            raise no_log(place)
        raise SegueError(
            f"{place}: a live log of version {version}; this version of Segue needs {known}: `segue serve --db "
            f"{place}` brings it up to date, after which older versions of Segue cannot open it"
        )
    return version < known


def say_migrated(version: int, place: str) -> None:
    """Say that a log of this version was brought up to date, if it was."""
    if 0 < version < len(MIGRATIONS):
        LOGGER.warning(
            "%s: was brought from version %d to %d; older versions of Segue cannot open it any more",
            place,
            version,
            len(MIGRATIONS),
        )


@functools.cache
def _insertion(kind: type, rows: int) -> str:
    return insertion(kind, "?", rows)
