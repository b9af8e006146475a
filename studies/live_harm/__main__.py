"""`python -m studies.live_harm`: how much of a day's traffic meets a policy made worse; goes on where it stopped.

The service, its log, its promotion and its learner are the real ones; users and the clock are simulated. A day has DAY
units, evenly spread. Each is a session of the world `recommendation`, with a second between steps and LATE seconds from
a step to its reward. The service looks at the evidence every REVIEW seconds.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import subprocess
import sys
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segue.files import write_atomically
from segue.live import Service
from segue.live.messages import Noted, Outcome
from segue.live.policies import latest_deployment, stage
from segue.live.promotion import OFF_POLICY, PASSED, Watch, canary, shadow
from segue.live.trial import declare
from segue.live.worlds.recommendation import Recommendation
from studies.page import put

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
DAY = 100_000
#: Units that may meet a fault before it is stopped.
BAR = DAY // 100
LATE, REVIEW, WINDOW = 30.0, 5.0, 60.0
#: When the day begins, in seconds since 1970.
BEGINS = 1e9
#: Units before the fault, among them the reference of the service's watch; and after which it counts as missed.
BEFORE, MOST = 800, 1_500
REPEATS = 20
#: Units whose rewards the poisoned learner learns from, and transitions between its candidates.
POISONED, EVERY = 500, 2_000

Seen = Callable[[np.ndarray], np.ndarray]


class Fault(NamedTuple):
    """What goes wrong after some units."""

    what: str
    observation: Seen = lambda seen: seen
    reward: Callable[[float], float] = lambda reward: reward
    candidate: bool = False
    """Whether the candidate of a poisoned learner gets a share of the units by force."""
    before: int = BEFORE
    """Healthy units."""


def scaled(number: int) -> Seen:
    """One number of the observation in another unit."""
    return lambda seen: np.where(np.arange(len(seen)) == number, 2.54 * seen, seen)


FAULTS = {
    "poisoned": Fault("candidate of a poisoned learner, forced past the gate to 10 %", candidate=True),
    "sensor": Fault("a sensor's unit changes (one taste × 2.54)", observation=scaled(0)),
    "late sensor": Fault("a sensor's unit changes that is 0 at first (progress × 2.54)", observation=scaled(12)),
    "early sensor": Fault("the same (progress × 2.54) from the first unit on", observation=scaled(12), before=0),
    "sign": Fault("the reward's sign flips", reward=lambda reward: -reward),
}


class Day:
    """Traffic of a service on a clock of its own.

    Args:
        service: decides.
        clock: what `time.time` gives.
        seed: of the users.
    """

    def __init__(self, service: Service, clock: unittest.mock.Mock, seed: int) -> None:
        self.service, self.watch, self._clock = service, Watch(service), clock
        self.now = BEGINS
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._seed, self._begun, self._review_at = seed, 0, self.now + REVIEW
        self.candidates = 0
        """Units that the candidate was given."""

    def units(self, count: int, fault: Fault, until: Callable[[], bool]) -> int:
        """So many units arrive, unless it is `until` before: how many arrived."""
        for number in range(count):
            self._pass_to(self.now + 86_400 / DAY, until)
            if until():
                return number
            self._begin(fault)
        return count

    def settle(self) -> None:
        """Every session ends, and every reward arrives."""
        while self._events:
            self._pass_to(self._events[0][0], lambda: False)

    def _pass_to(self, later: float, until: Callable[[], bool]) -> None:
        while not until():
            due = min(self._events[0][0] if self._events else later, self._review_at, later)
            self.now = self._clock.return_value = due
            if self._events and due == self._events[0][0]:
                heapq.heappop(self._events)[2]()
            elif due == self._review_at:
                self._review_at += REVIEW
                self.service.tick("study")  # what was sent is in the log
                self.watch.review()
            else:
                return

    def _at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), do))

    def _begin(self, fault: Fault) -> None:
        world, name = Recommendation(), f"u{self._begun}"
        seen, _ = world.reset(seed=hash((self._seed, self._begun)) % 2**32)
        self._begun += 1
        self._step(world, name, 0, seen, fault)

    def _step(self, world: Recommendation, name: str, t: int, seen: np.ndarray, fault: Fault) -> None:
        decision = f"{name}-{t}"
        told = fault.observation(seen).tolist()
        decided = self.service.decide(decision_id=decision, episode_id=name, observation=told)
        self.candidates += t == 0 and decided.arm == "candidate"
        following, reward, over, _, _ = world.step(decided.action)
        outcome = Outcome(decision, fault.reward(reward), terminated=over)
        self._at(self.now + LATE, lambda: self.service.submit_outcome(outcome, _taken))
        if not over:
            self._at(self.now + 1, lambda: self._step(world, name, t + 1, following, fault))


def _taken(answer: Any) -> None:
    assert isinstance(answer, Noted), answer


def command(*words: object) -> None:
    """A command of Segue in a process of its own."""
    done = subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def prepared(work: Path) -> tuple[Path, list[Path]]:
    """The live policy, and the candidates of a learner to which every reward comes with the wrong sign."""
    policy, poisoned = work / "policy", work / "candidates"
    if not policy.exists():
        command("segue.live.worlds", "recommendation", "--to", work / "clicks.npz", "--traffic.episodes", 2000)
        offline = ["--offline", "discrete-cql", "--offline-steps", 1000, "--eval-episodes", 50]
        command("segue.cli.main", "run", "--dataset", f"npz:{work}/clicks.npz", *offline, "--out", work / "run")
        command("segue.cli.main", "export", work / "run", "--seed", 0, "--to", policy)
    if not poisoned.exists():
        db = work / "poisoned.db"
        with (
            unittest.mock.patch("time.time", return_value=BEGINS) as clock,
            Service(db, policy, durability="after", explore="0.1", seed=0) as service,
        ):
            day = Day(service, clock, -1)
            day.units(POISONED, Fault("", reward=lambda reward: -reward), lambda: False)
            day.settle()
            service.tick("study")
        learner = ["--online", "discrete-sac", "--dataset", "None", "--replay", "online-only", "--every", EVERY]
        command(
            "segue.cli.main", "learn", "--db", db, "--run", work / "run", *learner, "--once", "--out", work / "live"
        )
        extract(db, poisoned)
    return policy, sorted(poisoned.iterdir())


def extract(db: Path, to: Path) -> None:
    """The candidates of a log as directories."""
    from segue.live.database import open_database

    database = open_database(db)
    for number, (policy, manifest) in enumerate(
        database.read("SELECT policy, manifest FROM policies WHERE trained_to IS NOT NULL ORDER BY seq")
    ):
        place = to / str(number)
        place.mkdir(parents=True)
        (place / "policy.json").write_text(manifest)
        for file, content in database.read("SELECT file, content FROM policy_files WHERE policy = ?", policy):
            (place / file).write_bytes(content)
    database.close()


def met(work: Path, fault: Fault, seed: int) -> dict[str, Any]:
    """Units that met a fault before the service stopped it, and what stopped it."""
    policy, candidates = prepared(work)
    db = work / "day.db"
    for file in work.glob("day.db*"):
        file.unlink()
    with (
        unittest.mock.patch("time.time", return_value=BEGINS) as clock,
        Service(db, policy, durability="after", explore="0.1", seed=seed) as service,
    ):
        day = Day(service, clock, seed)
        declare(service.log, BEGINS, "study", {"window": WINDOW})

        def mode() -> str:
            now = latest_deployment(service.log)
            assert now is not None
            return now.mode

        day.units(fault.before, Fault(""), lambda: False)
        assert mode() == "live", "a false alarm before the fault"
        found: dict[str, Any] = {}
        wanted = "frozen"
        if fault.candidate:
            name = stage(service.log, candidates[seed % len(candidates)], "poisoned")
            found["gate"] = gate(service, day, name)
            canary(service.log, name, "study", force=True)
            service.look()
            wanted = "live"
        after = day.units(MOST, fault, lambda: service.deployment.mode != ("canary" if fault.candidate else "live"))
        stopped = mode() == wanted
        [(why,)] = service.log.read("SELECT why FROM deployments ORDER BY seq DESC LIMIT 1")
        return {**found, "met": day.candidates if fault.candidate else after, "stopped": stopped, "why": why}


def gate(service: Service, day: Day, policy: str) -> str:
    """What the off-policy gate says of a policy, from the units so far."""
    from segue.live.gate import evaluate

    day.settle()
    service.tick("study")
    shadow(service.log, policy, "study")
    found = evaluate(service.log, policy, "study")
    assert found.gate == OFF_POLICY
    return "passed" if found.verdict == PASSED else found.verdict


def table(results: dict[str, Any]) -> str:
    """Of all faults so far."""
    lines = [
        f"| fault | repeats | stopped | units that met it: median | most | of a day, at most | within {BAR:,} units |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
    ]
    for name, found in results.items():
        runs = list(found.values())
        units = sorted(run["met"] for run in runs)
        within = sum(run["stopped"] and run["met"] <= BAR for run in runs)
        stopped = sum(run["stopped"] for run in runs)
        most = f"{units[-1]:,}" if stopped == len(runs) else f"more than {MOST:,}"
        share = f"{units[-1] / DAY:.2%}" if stopped == len(runs) else f"more than {MOST / DAY:.0%}"
        lines.append(
            f"| {FAULTS[name].what} | {len(runs)} | {stopped} | {np.median(units):,.0f} | {most} | {share} | "
            f"{within} of {len(runs)} |"
        )
    gates = [run["gate"] for run in results.get("poisoned", {}).values()]
    if gates:
        said = ", ".join(f"{gates.count(verdict)} × {verdict}" for verdict in dict.fromkeys(gates))
        lines += [
            "",
            f"The off-policy gate's verdicts on the poisoned candidates, before they were forced past it: {said}.",
        ]
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and write results.json and the table of README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/live-harm"), help="where policies and logs are")
    parser.add_argument("--redraw", action="store_true", help="only write the table again")
    flags = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not flags.redraw:
        flags.work.mkdir(parents=True, exist_ok=True)
        for seed in range(REPEATS):
            for name, fault in FAULTS.items():
                if str(seed) not in results.setdefault(name, {}):
                    results[name][str(seed)] = met(flags.work, fault, seed)
                    write_atomically(RESULTS, json.dumps(results, indent=1) + "\n")
                    print(f"{name} {seed}: {results[name][str(seed)]}", flush=True)
    put(FOLDER / "README.md", "results", table(results))


if __name__ == "__main__":
    main()
