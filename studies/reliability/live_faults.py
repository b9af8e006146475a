"""What a live service does when its machine fails it: `python -m studies.reliability live-faults`.

A full disk (a limit on the size of files), a database that another process has locked, a reader that does not end, a
clock that jumps, and load for some minutes (`--minutes`), with a learner beside it, under which neither memory nor the
write-ahead log may grow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from segue.deployment.policy import load_policy
from segue.deployment.spaces import flat_size
from segue.live import Service
from segue.live.database import Unavailable
from segue.live.worlds.settings import Traffic
from segue.live.worlds.traffic import drive
from studies.reliability.live_kill import answering
from studies.reliability.live_load import policy

HERE = Path(__file__).parent


def decided(service: Service, names: list[str], size: int) -> list[str]:
    """The decisions that are acknowledged; those of five steps are an episode."""
    done = []
    for name in names:
        try:
            episode = f"e{int(name) // 5}"
            done.append(service.decide(decision_id=name, episode_id=episode, observation=[0.0] * size).decision_id)
        except Unavailable:
            pass
    return done


def logged(db: Path) -> list[str]:
    """Names of the decisions in the log, in its order."""
    with sqlite3.connect(db) as log:
        return [name for (name,) in log.execute("SELECT decision FROM decisions ORDER BY seq")]


def full_disk(db: Path, exported: Path) -> dict[str, Any]:
    """Nothing can be written behind the first 64 KiB of a file for a while; then what was refused is asked again."""
    size, names = flat_size(load_policy(exported).space), [str(number) for number in range(1500)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Service(db, exported) as service:
        before = decided(service, names[:500], size)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
        during = decided(service, names[500:1000], size)
        reason = service.healthy()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        again = decided(service, names[500:], size)
        healthy = service.healthy()
    rows = logged(db)
    return {
        "acknowledged": [len(before), len(during), len(again)],
        "reason": str(reason).removeprefix(f"{db.parent}/"),
        "ready again": healthy is None,
        "acknowledged and lost": len({*before, *during, *again} - set(rows)),
        "well": sorted(rows, key=int) == names and len(during) < 500 and bool(reason) and healthy is None,
    }


def locked(db: Path, exported: Path) -> dict[str, Any]:
    """Another process holds the lock for longer than a transaction waits for it."""
    size = flat_size(load_policy(exported).space)
    with Service(db, exported) as service:
        first = decided(service, ["0", "1"], size)
        other = sqlite3.connect(db, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        during = decided(service, ["2"], size)
        waited = time.monotonic() - start
        other.execute("ROLLBACK")
        other.close()
        again = decided(service, ["2", "3"], size)
    return {
        "seconds until the refusal": round(waited, 1),
        "well": (first, during, again, logged(db)) == (["0", "1"], [], ["2", "3"], ["0", "1", "2", "3"]),
    }


def long_reader(db: Path, exported: Path) -> dict[str, Any]:
    """A reader holds its view of the log while much is written; then it ends."""
    size, names = flat_size(load_policy(exported).space), [str(number) for number in range(36_000)]
    wal, found = Path(f"{db}-wal"), {}
    with Service(db, exported, durability="after") as service:
        decided(service, names[:2_000], size)
        found["MiB before"] = wal.stat().st_size / 2**20
        reader = sqlite3.connect(db, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM decisions").fetchone()
        for start in range(2_000, 34_000, 1_000):
            decided(service, names[start : start + 1_000], size)
        found["MiB under the reader"] = wal.stat().st_size / 2**20
        reader.close()
        decided(service, names[34_000:], size)
        while service.waiting():
            time.sleep(0.02)
        found["MiB after it"] = wal.stat().st_size / 2**20
    well = logged(db) == names and found["MiB under the reader"] > 20 and found["MiB after it"] <= 17
    return {**{name: round(value, 1) for name, value in found.items()}, "well": well}


def clocks(db: Path, exported: Path) -> dict[str, Any]:
    """The time of day jumps by up to a year, there and back."""
    size, source, real = flat_size(load_policy(exported).space), random.Random(0), time.time
    with Service(db, exported) as service, unittest.mock.patch("time.time") as now:
        for start in range(0, 500, 10):
            jump = source.uniform(-1, 1) * 365 * 86_400
            now.side_effect = lambda jump=jump: real() + jump
            decided(service, [str(number) for number in range(start, start + 10)], size)
    with sqlite3.connect(db) as log:
        times = [at for (at,) in log.execute("SELECT at FROM decisions ORDER BY seq")]
    return {"decisions": len(times), "well": len(times) == 500 and times == sorted(times)}


def soak(db: Path, exported: Path, minutes: float) -> dict[str, Any]:
    """The service under steady traffic of CartPole, with a learner: memory and the write-ahead log in the second half.

    In the first, the service fills what it keeps in memory of the last episodes and answers. The learner begins with
    the run beside the policy.
    """
    segue = [sys.executable, "-c", "import sys; from segue.cli.main import main; sys.exit(main())"]
    process = subprocess.Popen(
        [*segue, "serve", "--db", str(db), "--policy", str(exported), "--port", "0", "--explore", "0.1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().split()[1]
    answering(int(url.rpartition(":")[2]))
    learn = ["learn", "--db", db, "--run", exported.parent / "run", "--out", db.parent / "learn"]
    learn += ["--online", "discrete-sac", "--replay", "mixed", "--replay.capacity", 20_000]
    learner = subprocess.Popen([*segue, *map(str, learn)], stdout=subprocess.DEVNULL)
    samples: list[tuple[float, float, float, float]] = []

    def memory(of: int) -> float:
        return int(Path(f"/proc/{of}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    async def watched() -> Any:
        start = time.monotonic()
        traffic = asyncio.create_task(drive(url, "cartpole", Traffic(clients=100, think=0.2)))
        while (passed := time.monotonic() - start) < 60 * minutes:
            assert not traffic.done(), traffic.exception()
            assert learner.poll() is None
            wal = Path(f"{db}-wal").stat().st_size / 2**20
            samples.append((passed / 60, memory(process.pid), wal, memory(learner.pid)))
            await asyncio.sleep(minutes)
        traffic.cancel()

    try:
        asyncio.run(watched())
    finally:
        for one in (learner, process):
            one.send_signal(signal.SIGTERM)
        assert (learner.wait(), process.wait()) == (143, 0)
    later = np.array(samples[len(samples) // 2 :])
    with sqlite3.connect(db) as log:
        [(candidates,)] = log.execute("SELECT COUNT(*) FROM policies WHERE trained_to IS NOT NULL").fetchall()
    return {
        "minutes": minutes,
        "decisions": len(logged(db)),
        "candidates": candidates,
        "MiB after half": round(float(later[0, 1]), 1),
        "MiB at the end": round(float(later[-1, 1]), 1),
        "MiB of memory per hour": round(60 * float(np.polyfit(later[:, 0], later[:, 1], 1)[0]), 1),
        "most MiB of write-ahead log": round(float(later[:, 2].max()), 1),
        "MiB of the learner, after half and at the end": [round(float(later[place, 3]), 1) for place in (0, -1)],
        "well": float(later[:, 2].max()) <= 17,
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.reliability live-faults", description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of faults")
    parser.add_argument("--minutes", type=float, default=5.0, help="of the soak")
    parser.add_argument("--full", action="store_true", help="a soak of an hour")
    parser.add_argument(
        "--policy", type=Path, help="one for CartPole-v1, exported beside its run; by default one is made"
    )
    parser.add_argument("--results", type=Path, default=HERE / "live_faults.json")
    flags = parser.parse_args(arguments)
    faults: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
        "full disk": full_disk,
        "locked database": locked,
        "long reader": long_reader,
        "clocks": clocks,
        "soak": lambda db, exported: soak(db, exported, 60.0 if flags.full else flags.minutes),
    }
    results: dict[str, Any] = json.loads(flags.results.read_text()) if flags.results.exists() else {}
    with tempfile.TemporaryDirectory(prefix="segue-live-faults-") as scratch:
        exported = flags.policy or policy(Path(scratch))
        for name in flags.only or faults:
            results[name] = faults[name](Path(scratch) / f"{name}.db", exported)
            print(name, results[name], flush=True)
            flags.results.write_text(json.dumps(results, indent=1) + "\n")
    if not all(found["well"] for found in results.values()):
        sys.exit("not all is well")
