"""A worker process: `python -m segue.runner.worker CORES JOB` does one job and prints its events as JSON lines.

Exit codes: 0 done, 130 stopped by Ctrl-C, 143 by SIGTERM, 1 failed (the last line on standard error says why). Its
standard input is a pipe from its parent: when that closes, the parent is gone, and so goes the worker.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from typing import TextIO

from segue.compiled import use_programs_of_these_cores


def main() -> int:
    """Pin to the cores first: XLA sizes its thread pool when it starts."""
    cores, job = json.loads(sys.argv[1]), sys.argv[2]
    if hasattr(signal, "pthread_sigmask"):  # Ray blocks SIGINT, also in what its processes start
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    use_programs_of_these_cores()
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = str(len(cores))
    # Events own the real standard output; anything a library prints goes to standard error instead.
    events: TextIO = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    from segue.runner.stopping import Stop, Stopped

    try:
        from segue.errors import SegueError
        from segue.runner.job import Inputs, execute
        from segue.runner.jobs import Job
        from segue.training.offline import alone

        try:
            with Stop().listening() as stop:
                todo = Job.from_json(job)
                alone(execute(todo, Inputs(todo), lambda event: print(json.dumps(event), file=events), stop))
        except SegueError as error:
            print(error, file=sys.stderr)
            return 1
        except Exception as error:
            traceback.print_exc()
            # Last, because the parent shows the last line.
            print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
    except Stopped as stopped:
        return stopped.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _leave_with_parent() -> None:
    """End this worker when its parent has ended: two writers would destroy a run directory."""
    os.read(0, 1)  # not sys.stdin: at exit Python would wait for its lock
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
