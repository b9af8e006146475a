"""Being asked to stop: Ctrl-C and SIGTERM, while a job runs.

The first signal is a wish: the job saves where it next can and ends. A second Ctrl-C, or no such place in time, ends it
at once, which loses nothing but the work since the last save.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

#: Seconds after a signal at which the wait for a place to save is given up.
PATIENCE = {signal.SIGINT: 20.0, signal.SIGTERM: 5.0}
#: Seconds after SIGTERM after which the process ends at once: its sender may kill it after ten.
LAST_SECONDS = 9.0


class Stopped(KeyboardInterrupt):
    """The process was asked to stop, and has saved what it had."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


class StoppedAtOnce(Stopped):
    """The process was asked again, and has not saved anything."""


class Stop:
    """Whether somebody asked.

    Attributes:
        requested: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.requested: int | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Signals only set a flag. Outside the main thread this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._hear) for number in PATIENCE}
        self.theirs = before[signal.SIGTERM] not in (signal.SIG_DFL, self._hear)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.impatience.cancel()

    impatience = threading.Timer(0, lambda: None)

    def check(self) -> None:
        """End here if somebody asked.

        Raises:
            Stopped: if so.
        """
        if self.requested is not None:
            raise Stopped(self.requested)

    def _hear(self, number: int, frame: FrameType | None) -> Any:
        if self.requested is not None:
            raise StoppedAtOnce(number)
        self.requested = number
        if number == signal.SIGINT:
            say("stopping at the next place to save; Ctrl-C again stops at once")
        elif not self.theirs:
            leave_soon()
        main = threading.main_thread().ident
        assert main is not None
        self.impatience = _later(PATIENCE[signal.Signals(number)], lambda: signal.pthread_kill(main, number))


class Heard:
    """Signals are counted and not raised, so that none comes between an event and who hears of it.

    Attributes:
        came: the signals so far.
    """

    def __init__(self) -> None:
        self.came: list[int] = []
        self._raises = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[Heard]:
        """Outside the main thread, and for a signal that is ignored, this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in PATIENCE}
        self.theirs = before[signal.SIGTERM] != signal.SIG_DFL
        try:
            for number, handler in before.items():
                if handler not in (signal.SIG_IGN, None):
                    signal.signal(number, self._hear)
            yield self
        finally:
            for number, handler in before.items():
                if handler not in (signal.SIG_IGN, None):
                    signal.signal(number, handler)

    @contextlib.contextmanager
    def raising_the_second(self) -> Iterator[None]:
        """For a call that may take long: the second signal ends it.

        Raises:
            Stopped: if it comes meanwhile.
        """
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.came.append(number)
        if number == signal.SIGTERM and not self.theirs:
            leave_soon()
        if self._raises and len(self.came) > 1:
            self._raises = False
            raise Stopped(number)


@contextlib.contextmanager
def raising(soon: bool = True) -> Iterator[None]:
    """While this lasts, SIGTERM raises Stopped, as Ctrl-C raises KeyboardInterrupt.

    Python ignores what is raised while it collects garbage, which JAX has it do often; there the signal comes again.
    With `soon` the process also ends in LAST_SECONDS, unless someone else hears SIGTERM already.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hear(number: int, frame: FrameType | None) -> None:
        if soon and before == signal.SIG_DFL:
            leave_soon()
        raise Stopped(number)

    main = threading.get_ident()

    def ignored(what: Any) -> None:
        if isinstance(what.exc_value, KeyboardInterrupt):
            number = what.exc_value.number if isinstance(what.exc_value, Stopped) else signal.SIGINT
            _later(0.01, lambda: signal.pthread_kill(main, number))
        else:
            report(what)

    report, sys.unraisablehook = sys.unraisablehook, ignored
    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.unraisablehook = report


def leave_soon() -> None:
    """End the process in LAST_SECONDS, also from within compiled code that hears no signals."""
    _later(LAST_SECONDS, lambda: os._exit(128 + signal.SIGTERM))


def say(line: str) -> None:
    """A line on standard error, from where printing might interrupt another print."""
    with contextlib.suppress(OSError):
        os.write(2, f"\nsegue: {line}\n".encode())


def _later(seconds: float, call: Any) -> threading.Timer:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer
