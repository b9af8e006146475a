"""`python paused_pool.py`: two workers of a pool, each of which says its number and then waits for a signal.

With the argument `first` or `last`, that one ends at once instead, as if it had been killed for memory.
"""

from __future__ import annotations

import os
import signal
import sys

from studies.processes import pool


def work(killed: bool) -> None:
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)
    os.write(1, f"{os.getpid()}\n".encode())
    signal.pause()


def main() -> int:
    with pool(2) as workers:
        list(workers.map(work, ("first" in sys.argv, "last" in sys.argv)))
    return 0


if __name__ == "__main__":
    from studies.command import ended  # the workers need none of what it imports

    sys.exit(ended(main))
