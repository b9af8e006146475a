"""One thread that writes: what waits together is written in one transaction (group commit)."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from segue.errors import SegueError
from segue.live.database import Database, Unavailable
from segue.live.schema import TABLES, Row

#: Numbers of the rows, or why nothing was written.
Written = list[int | None] | SegueError
#: Seconds that administrators wait for what they write.
PATIENCE = 10.0
#: Most pieces of work in one transaction.
GROUP = 512
#: Seconds between attempts to write what was answered already, and how many more there are once it is closed.
RETRY, LAST_ATTEMPTS = 0.2, 50
#: Seconds for which rows that nobody waits for are gathered.
GATHER = 0.01
LOGGER = logging.getLogger("segue.live")
ORDER = {kind: place for place, kind in enumerate(TABLES)}


class Writer:
    """Writes rows in the order in which they are given.

    Args:
        database: where to.
        must_keep: rows were acknowledged before they are written, so what cannot be written is tried again.
        capacity: pieces of work that may wait.
    """

    def __init__(self, database: Database, must_keep: bool = False, capacity: int = 10_000) -> None:
        self._database, self._must_keep = database, must_keep
        self._waiting: queue.SimpleQueue[tuple[Sequence[Row], Callable[[Written], None]] | None] = queue.SimpleQueue()
        self._capacity = capacity
        self._closed, self._lock = False, threading.Lock()
        self.failure: str | None = None
        """Why the last attempt failed; None if it did not."""
        self._thread = threading.Thread(target=self._run, name="segue-live-writer", daemon=True)
        self._thread.start()

    def write(self, rows: Sequence[Row], then: Callable[[Written], None]) -> None:
        """Write these rows together; `then` is called in the writer's thread, once.

        Raises:
            Unavailable: if too much waits already, or the writer is closed.
        """
        with self._lock:  # or what is given while it is closed is never answered
            if self._closed:
                raise Unavailable("the log is closed")
            if self._waiting.qsize() >= self._capacity:
                raise Unavailable(f"{self._capacity} writes wait already; try again later")
            self._waiting.put((rows, then))

    def waiting(self) -> int:
        """Pieces of work that are not written yet."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Write what waits, then stop."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            group, last = [first], False
            if self._must_keep and not self._closed:
                time.sleep(GATHER)
            while len(group) < GROUP:
                try:
                    following = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    last = True
                    break
                group.append(following)
            self._commit(group)
            if last:
                return

    def _commit(self, group: list[tuple[Sequence[Row], Callable[[Written], None]]]) -> None:
        # Rows of one kind at a time, so that many go into a statement, and what refers to a row comes after it.
        rows = [row for some, _ in group for row in some]
        order = sorted(range(len(rows)), key=lambda place: ORDER[type(rows[place])])
        attempts = LAST_ATTEMPTS
        while True:
            try:
                numbers = self._database.append([rows[place] for place in order])
                self.failure = None
            except SegueError as error:
                self.failure = str(error)
                if self._must_keep and attempts:
                    attempts -= self._closed
                    time.sleep(RETRY)
                    continue
                if self._must_keep:
                    LOGGER.critical("%d rows that were answered are lost: %s", len(rows), error)
                for _, then in group:
                    then(error)
                return
            break
        written: list[int | None] = [None] * len(rows)
        for place, number in zip(order, numbers, strict=True):
            written[place] = number
        first = 0
        for some, then in group:
            then(written[first : first + len(some)])
            first += len(some)


class Log:
    """The log of a service that runs: writes go through its one thread, so that they wait for no lock of its own.

    It is used as a Database, and closed by the service.
    """

    def __init__(self, database: Database, writer: Writer) -> None:
        self.url, self.read, self._writer = database.url, database.read, writer

    def append(self, rows: Sequence[Row]) -> list[int | None]:
        """See Database; behind all that was sent before."""
        future: Future[Written] = Future()
        self._writer.write(rows, future.set_result)
        return numbers_of(future)

    def close(self) -> None:
        """Nothing: the service closes it."""


def numbers_of(future: Future[Written]) -> list[int | None]:
    """Numbers of the rows, once they are written. Raises Unavailable."""
    try:
        written = future.result(PATIENCE)
    except TimeoutError:
        raise Unavailable(f"not written within {PATIENCE:g} seconds; look at the log before you try again") from None
    if isinstance(written, SegueError):
        raise written
    return written
