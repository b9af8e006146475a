"""A live log in PostgreSQL, which several services, learners and people share."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from segue.errors import SegueError
from segue.live.database import Database, Unavailable, behind, say_migrated
from segue.live.schema import MIGRATIONS, Row, insertion

#: Of the lock under which tables are made: "SgLv".
LOCK = 0x53674C76


class Postgres:
    """A log in a PostgreSQL database of its own, or in a schema of one (`?options=-csearch_path=NAME`).

    A transaction that was acknowledged is on the server's disk, whatever `durability` says: a server that dies may lose
    what is not. The row of the counter is locked from its first write to the commit, so that numbers are in the order
    of commits, also of several services.
    """

    def __init__(
        self, url: str, create: bool = True, check: Callable[[Database], None] = lambda database: None
    ) -> None:
        self.url = _without_password(url)
        self._url, self._local = url, threading.local()
        self._connections: list[psycopg.Connection[Any]] = []
        try:
            connection = self._connection()
        except Unavailable as error:
            raise SegueError(str(error)) from None
        try:
            self._prepare(connection, create, check)
        except psycopg.Error as error:
            raise SegueError(f"{self.url}: no live log can be made here ({_said(error)})") from None

    def append(self, rows: Sequence[Row]) -> list[int | None]:
        """See Database."""
        connection = self._connection()
        numbers: list[int | None] = []
        try:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute("UPDATE counter SET seq = seq + %s RETURNING seq", (len(rows),))
                first = cursor.fetchall()[0][0] - len(rows) + 1
                for kind, group in itertools.groupby(enumerate(rows, first), lambda place: type(place[1])):
                    values = [(seq, *row) for seq, row in group]
                    cursor.executemany(f"{insertion(kind, '%s')} RETURNING seq", values, returning=True)
                    for _ in cursor.results():
                        found = cursor.fetchone()
                        numbers.append(found[0] if found else None)
        except psycopg.Error as error:
            raise self._unavailable(connection, error, "nothing was written") from None
        return numbers

    def read(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """See Database."""
        connection = self._connection()
        try:
            return connection.execute(statement.replace("?", "%s"), values).fetchall()
        except psycopg.Error as error:
            raise self._unavailable(connection, error, "cannot be read") from None

    def close(self) -> None:
        """See Database."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _connection(self) -> psycopg.Connection[Any]:
        """One per thread, made again after it was lost."""
        connection: psycopg.Connection[Any] | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            try:
                connection = psycopg.connect(self._url, autocommit=True, connect_timeout=5, application_name="segue")
                # Of a server that may be set otherwise: what is acknowledged must outlive it.
                connection.execute("SET synchronous_commit = on")
                connection.execute("SET statement_timeout = '60s'")
            except psycopg.Error as error:
                raise Unavailable(f"{self.url}: no connection ({_said(error)})") from None
            self._connections = [one for one in self._connections if not one.closed] + [connection]
            self._local.connection = connection
        return connection

    def _unavailable(self, connection: psycopg.Connection[Any], error: psycopg.Error, what: str) -> Unavailable:
        if isinstance(error, psycopg.OperationalError):
            connection.close()  # whether it is broken is found out by a new one
        return Unavailable(f"{self.url}: {what} ({_said(error)})")

    def _prepare(self, connection: psycopg.Connection[Any], create: bool, check: Callable[[Database], None]) -> None:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            [(there,)] = connection.execute("SELECT to_regclass('segue_live')").fetchall()
            rows = [] if there is None else connection.execute("SELECT version FROM segue_live").fetchall()
            version = rows[0][0] if rows else 0
            if not behind(version, self.url, create):
                return
            if version:
                check(self)
            for script in MIGRATIONS[version:]:
                connection.execute(script.replace("BYTES", "BYTEA").replace("FLOAT", "DOUBLE PRECISION"))
            connection.execute("CREATE TABLE IF NOT EXISTS segue_live (version INTEGER NOT NULL)")
            connection.execute("DELETE FROM segue_live")
            connection.execute("INSERT INTO segue_live VALUES (%s)", (len(MIGRATIONS),))
        say_migrated(version, self.url)


def _without_password(url: str) -> str:
    """For messages."""
    return re.sub(r"(?<=://)([^:/@]*):[^@]*@", r"\1:…@", url)


def _said(error: psycopg.Error) -> str:
    return " ".join(str(error).split()) or type(error).__name__
