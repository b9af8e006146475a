"""Interrupts an environment that does not come back.

A thread looks at a clock that the main thread sets before each call and clears after it, which costs a step next to
nothing. What hangs in compiled code cannot be interrupted from within the process.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from types import FrameType

from segue.errors import SegueError


class Hangs(BaseException):
    """A call took too long. No `Exception`: an environment might catch that."""


def in_words(error: BaseException) -> str:
    """What an environment did wrong, in a line."""
    if isinstance(error, SegueError | Hangs):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class Watch:
    """Watches the calls of the main thread; elsewhere, and where there are no such signals, it does nothing.

    Attributes:
        since: when the running call began; 0 while none runs.
        seconds: that it may take.
    """

    def __init__(self) -> None:
        self.since, self.seconds = 0.0, 60.0
        self.users = 0
        self.stopping = threading.Event()

    def open(self, seconds: float) -> None:
        """Begin to watch, with this limit from now on."""
        self.seconds = seconds
        main = threading.main_thread()
        if threading.current_thread() is not main or not hasattr(signal, "pthread_kill"):
            return
        self.users += 1
        if self.users == 1:
            self.before = signal.signal(signal.SIGALRM, self._interrupt)
            self.stopping = threading.Event()
            threading.Thread(target=self._look, args=(self.stopping, main.ident), daemon=True).start()

    def close(self) -> None:
        """No longer needed by one of those that opened it."""
        if threading.current_thread() is not threading.main_thread() or not self.users:
            return
        self.users -= 1
        if not self.users:
            self.stopping.set()
            signal.signal(signal.SIGALRM, self.before)

    def _look(self, stopping: threading.Event, main: int) -> None:
        while not stopping.wait(min(self.seconds / 4, 1.0)):
            since = self.since
            if since and time.monotonic() - since > self.seconds:
                with contextlib.suppress(ProcessLookupError):
                    signal.pthread_kill(main, signal.SIGALRM)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.since:  # it may have come back just now
            raise Hangs(f"it did not come back for {self.seconds:g} seconds")


#: There is one main thread.
WATCH = Watch()
