"""Clients of a live service that dies: each asks, says what came of it, sends again, and remembers every answer."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from segue.live.database import is_file
from segue.live.worlds.wire import Wire

#: Of CartPole-v1: what a small exported policy is made with.
RUN = "run --env CartPole-v1 --dataset segue:cartpole-mixed --offline discrete-cql --offline-steps 20 --eval-episodes 1"


def policy(where: Path) -> Path:
    """An exported 256-256 policy for CartPole-v1, made in other processes: JAX would not outlive a fork."""
    for arguments in (f"{RUN} --out {where / 'run'}", f"export {where / 'run'} --to {where / 'policy'}"):
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from segue.cli.main import main; sys.exit(main())", *arguments.split()],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    return where / "policy"


def added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What was found in several logs."""
    both: dict[str, Any] = {}
    for name, value in other.items():
        before = one.get(name)
        if isinstance(value, dict):
            both[name] = dict(Counter(before) + Counter(value))
        elif name == "integrity":
            both[name] = before if value == "ok" else value
        else:
            both[name] = before and value if name == "well" else before + value
    return both


class Record:
    """What the service has acknowledged, and what was wrong with it."""

    def __init__(self) -> None:
        self.decisions: dict[str, dict[str, Any]] = {}
        self.outcomes: dict[str, float] = {}
        self.retried = 0
        self.wrong: list[str] = []

    def decided(self, answer: dict[str, Any]) -> None:
        """A first answer is kept; every other one is compared with it."""
        name = answer["decision_id"]
        if name in self.decisions:
            self.retried += 1
            if answer != self.decisions[name]:
                self.wrong.append(f"decision {name}: {self.decisions[name]}, then {answer}")
        self.decisions[name] = answer

    def check(self, db: str, first_action: int = 0) -> dict[str, Any]:
        """Compare with the log, read by its database's own client alone; the log counts actions from 0."""
        with _connected(db) as log:
            whole = "ok"
            if isinstance(log, sqlite3.Connection):
                (whole,) = log.execute("PRAGMA integrity_check").fetchone()
            rows = {
                row[0]: row[1:] for row in log.execute("SELECT decision, episode, t, log_prob, action FROM decisions")
            }
            rewards = dict(log.execute("SELECT decision, reward FROM outcomes").fetchall())
            steps = log.execute("SELECT episode, MIN(t), MAX(t), COUNT(*) FROM decisions GROUP BY episode").fetchall()
            orphans = log.execute(
                "SELECT COUNT(*) FROM decisions WHERE episode NOT IN (SELECT episode FROM episodes)"
            ).fetchone()[0]
        wrong = list(self.wrong)
        lost = [name for name in self.decisions if name not in rows]
        lost_outcomes = [name for name in self.outcomes if name not in rewards]
        for name, answer in self.decisions.items():
            if name in rows:
                episode, t, log_prob, action = rows[name]
                stored = (episode, t, log_prob, int.from_bytes(action, "little") + first_action)
                if stored != (answer["episode_id"], answer["t"], answer["log_prob"], answer["action"]):
                    wrong.append(f"decision {name}: answered {answer}, logged {stored}")
        wrong += [
            f"outcome {name}: {value}" for name, value in self.outcomes.items() if rewards.get(name, value) != value
        ]
        return {
            "decisions_acknowledged": len(self.decisions),
            "outcomes_acknowledged": len(self.outcomes),
            "answers_compared_with_a_first": self.retried,
            "decisions_lost": len(lost),
            "outcomes_lost": len(lost_outcomes),
            "rows_that_nobody_was_told_of": len(set(rows) - set(self.decisions))
            + len(set(rewards) - set(self.outcomes)),
            "different": len(wrong),
            "episodes_with_a_gap": sum(first != 0 or last + 1 != count for _, first, last, count in steps),
            "decisions_without_episode": orphans,
            "integrity": whole,
            "examples": (wrong + lost + lost_outcomes)[:5],
        }


def _connected(db: str) -> Any:
    if is_file(db):
        return sqlite3.connect(db)
    import psycopg

    return psycopg.connect(db)


async def _post(wire: Wire, path: str, content: bytes, stop: asyncio.Event) -> dict[str, Any] | None:
    """The answer, however often it takes; None if the load has to end before there is one."""
    while True:
        try:
            status, answer = await wire.post(path, content)
            if status == 200:
                return msgspec.json.decode(answer)
            if status != 503:
                raise AssertionError(f"{path}: {status} {answer!r}")
        except OSError:
            if stop.is_set():
                return None
        await asyncio.sleep(0.02)


async def client(wire: Wire, name: str, size: int, record: Record, over: asyncio.Event, stop: asyncio.Event) -> None:
    """Episodes of ten steps until it is over; one answer in ten is asked for again, one outcome in ten sent again.

    Args:
        wire: where the service is.
        name: of the client, in its ids.
        size: of an observation.
        record: of what is acknowledged.
        over: no new decision is asked for.
        stop: nothing is sent again.
    """
    source, number = random.Random(name), 0
    while not over.is_set():
        number += 1
        for step in range(10):
            decision: dict[str, Any] = {"decision_id": f"{name}-{number}-{step}", "episode_id": f"{name}-{number}"}
            decision["observation"] = [source.uniform(-0.05, 0.05) for _ in range(size)]
            asked = msgspec.json.encode(decision)
            for _ in range(1 + (source.random() < 0.1)):
                if (answer := await _post(wire, "/v1/decisions", asked, stop)) is None:
                    return
                record.decided(answer)
            reward = source.random()
            outcome = {"decision_id": decision["decision_id"], "reward": reward, "terminated": step == 9}
            for _ in range(1 + (source.random() < 0.1)):
                if await _post(wire, "/v1/outcomes", msgspec.json.encode(outcome), stop) is None:
                    return
                record.outcomes[decision["decision_id"]] = reward
            if over.is_set():
                return


async def load(url: str, clients: int, size: int, over: asyncio.Event, stop: asyncio.Event) -> Record:
    """So many clients until it is over."""
    record, wire = Record(), Wire(url, connections=clients, timeout=5.0)
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(wire, f"c{number}", size, record, over, stop))
    wire.close()
    return record
