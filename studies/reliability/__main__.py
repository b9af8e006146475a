"""What docs/reliability.md says, measured: `python -m studies.reliability STUDY`."""

from __future__ import annotations

import argparse
import importlib

STUDIES = ("kill", "peers", "fuzz", "soak", "cost", "live-kill", "live-faults", "live-fuzz")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of this study; -h lists them")
    options = parser.parse_args()
    importlib.import_module(f"studies.reliability.{options.study.replace('-', '_')}").main(options.arguments)
