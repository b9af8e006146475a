"""What docs/reliability.md says, measured: `python -m studies.reliability STUDY`."""

from __future__ import annotations

import importlib
import sys

STUDIES = ("kill", "peers", "fuzz", "soak", "cost", "live-kill", "live-faults", "live-fuzz")

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in STUDIES:
        sys.exit(f"usage: python -m studies.reliability {' | '.join(STUDIES)}")
    importlib.import_module(f"studies.reliability.{sys.argv[1].replace('-', '_')}").main(sys.argv[2:])
