"""Processes of the studies and examples, which end with the command that started them, even if that is killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import IO, Any

from segue.errors import SegueError


def follow_driver() -> None:
    """In a worker: leave Ctrl-C to the driver, and end when it ends."""
    os.setsid()  # a Ctrl-C reaches the driver alone, which passes on SIGTERM: a run saves and stops
    driver = multiprocessing.parent_process()
    assert driver is not None
    _stop_after(driver.join)


class _Pool(ProcessPoolExecutor):
    """Python's own waits for the death of those workers only that had started before it last woke up."""

    def submit(self, *task: Any, **named: Any) -> Any:
        """Submit, which may start a worker, and then wake up who waits: the death of the last one counts, too."""
        future = super().submit(*task, **named)
        with self._shutdown_lock:
            self._executor_manager_thread_wakeup.wakeup()
        return future


@contextlib.contextmanager
def pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes; an error or an interrupt ends them at once.

    Raises:
        SegueError: if one of them was killed.
    """
    others = set(multiprocessing.active_children())
    with _Pool(workers, multiprocessing.get_context("spawn"), initializer=follow_driver) as executor:
        try:
            yield executor
        except BaseException as error:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            executor.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise SegueError(
                    "a worker process was killed; if memory was short, end other programs or give fewer workers. "
                    "The same command goes on"
                ) from None
            raise


@contextlib.contextmanager
def running(words: Sequence[str], errors: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """`segue WORDS` in a process of its own, which is asked to stop when this ends; `errors` is its standard error."""
    process = subprocess.Popen(
        [sys.executable, "-m", "studies.processes", *words],
        stdin=subprocess.PIPE,  # it closes with this process, whatever ends that
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,  # a Ctrl-C reaches this process alone
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _stop_after(wait: Callable[[], object]) -> None:
    """Have SIGTERM sent to this process once this has returned."""

    def follow() -> None:
        wait()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()


if __name__ == "__main__":
    from segue.cli.main import main

    _stop_after(lambda: os.read(0, 1))  # standard input is a pipe from the driver
    sys.exit(main())
