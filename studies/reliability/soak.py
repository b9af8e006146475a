"""Memory of a long online run, sampled while it trains; it should stay flat once everything is compiled."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
#: A run that would last for days; it is stopped when the time is up.
RUN = (
    *("--env", "Hopper-v5", "--dataset", "segue:hopper-mixed", "--offline", "td3-bc", "--offline-steps", "2000"),
    *("--online", "sac", "--online-steps", "100000000", "--eval-every", "5000", "--bridges", "q-filter"),
    *("--replay", "mixed", "--replay.capacity", "5000"),  # full in the first minutes: what grows after that is a leak
)


def resident(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def step_of(out: Path) -> int:
    """Online steps that are saved."""
    return max((int(path.name.removeprefix("step-")) for path in out.glob("states/run/seed-*/step-*")), default=0)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.reliability soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="of online training")
    parser.add_argument("--every", type=float, default=10, help="seconds between samples")
    parser.add_argument("--results", type=Path, default=HERE / "soak.json")
    flags = parser.parse_args(arguments)
    samples: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="segue-soak-") as scratch:
        out, log = Path(scratch) / "x", Path(scratch) / "log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "segue.cli.main", "run", *RUN, "--out", str(out)], stdout=stream, stderr=stream
            )
        while process.poll() is None and not step_of(out):
            time.sleep(1)
        start = time.monotonic()
        while process.poll() is None and (elapsed := time.monotonic() - start) < 60 * flags.minutes:
            sample = {"minutes": round(elapsed / 60, 2), "step": step_of(out), "MiB": round(resident(process.pid), 1)}
            samples.append(sample)
            time.sleep(flags.every)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        if process.wait() != 143:
            sys.exit(f"it ended by itself with {process.returncode}: {log.read_text()[-2000:]}")
    later = samples[len(samples) // 5 :]  # by then every program is compiled and every evaluation has been seen
    minutes, memory = (np.array([sample[name] for sample in later]) for name in ("minutes", "MiB"))
    result = {
        "run": " ".join(RUN),
        "minutes": samples[-1]["minutes"],
        "steps": samples[-1]["step"],
        "first_MiB": samples[0]["MiB"],
        "after_a_fifth_MiB": float(memory[0]),
        "last_MiB": float(memory[-1]),
        "most_MiB": float(memory.max()),
        "growth_MiB_per_hour": round(60 * float(np.polyfit(minutes, memory, 1)[0]), 2),
        "samples": samples,
    }
    flags.results.write_text(json.dumps(result, indent=1) + "\n")
    print({name: value for name, value in result.items() if name != "samples"})
