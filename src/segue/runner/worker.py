"""A worker process: `python -m segue.runner.worker CORES JOB` does one job and prints its events as JSON lines.

Exit codes: 0 done, 130 interrupted, 1 failed (the last line on standard error says why).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import TextIO


def main() -> int:
    """Pin to the cores first: XLA sizes its thread pool when it starts."""
    cores, job = json.loads(sys.argv[1]), sys.argv[2]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = str(len(cores))
    # Events own the real standard output; anything a library prints goes to standard error instead.
    events: TextIO = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        from segue.errors import SegueError
        from segue.runner.job import Job, execute

        try:
            execute(Job.from_json(job), lambda event: print(json.dumps(event), file=events))
        except SegueError as error:
            print(error, file=sys.stderr)
            return 1
        except Exception as error:
            traceback.print_exc()
            # Last, because the parent shows the last line.
            print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
