"""`segue serve`: a policy as a service that decides and logs."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import ipaddress
import json
import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from segue.cli.parse import parse
from segue.errors import SegueError
from segue.live.database import is_file
from segue.live.worlds import make_world
from segue.live.worlds.settings import Traffic


@dataclasses.dataclass(frozen=True)
class Flags:
    """What decides, where it is logged, and where it listens."""

    db: str
    """The live log: a file, sqlite:///FILE or postgresql://…; it is made if there is none."""
    policy: Path | None = None
    """A policy that `segue export` wrote: it acts if the log is new, and joins the log's policies otherwise."""
    host: str = "127.0.0.1"
    """Address to listen at; beyond this machine every request needs the token."""
    port: int = 8008
    """Port to listen at; 0: any that is free."""
    allow_host: tuple[str, ...] = ()
    """Names besides localhost under which requests reach the service, such as a proxy's. Beyond this machine any name
    is taken unless some are given."""
    durability: Literal["after", "process", "power"] = "process"
    """What an answer promises: nothing yet (written soon after); that the row outlives the process; or a loss of
    power."""
    mode: Literal["live", "apprentice"] = "live"
    """How a new log begins: the policy acts, or the application acts and the service watches."""
    explore: str = "no"
    """How a new log begins: no (greedy); policy (as in training); or a share of actions drawn at random (discrete)."""
    budget: float = 0.05
    """Seconds that one decision may take; a candidate that is slower half of the time is withdrawn."""
    review: float = 5.0
    """Seconds between looks at the evidence about a candidate."""
    token: str | None = None
    """By default the environment variable SEGUE_TOKEN, or one that is made and kept in DB.token."""
    workers: int = 1
    """Processes that serve; more than one with PostgreSQL only."""
    seed: int | None = None
    """Of the policy's random numbers; by default they cannot be repeated."""
    simulate: str | None = None
    """A simulated world that asks for decisions, in a process of its own: recommendation, glucose, cartpole, or env:ID
    with any Gymnasium id."""
    traffic: Traffic = dataclasses.field(default_factory=Traffic)
    """How the clients of the simulated world behave."""


#: The service writes its own log.
QUIET: dict[str, Any] = {"log_config": None, "access_log": False, "timeout_graceful_shutdown": 10}


def main(arguments: list[str]) -> int:
    """Serve until Ctrl-C or SIGTERM; what was answered is written first."""
    flags = parse(Flags, arguments, "serve", "A policy as a service: decides, logs, and serves a page at /.")
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    from segue.live.admin import SETTINGS, whole
    from segue.live.http import LOOPBACK
    from segue.live.service import Service
    from segue.live.trial import paused

    logging.basicConfig(level=logging.INFO, handlers=[_JsonLines(sys.stderr)])
    if flags.workers < 1 or (flags.workers > 1 and is_file(flags.db)):
        raise SegueError(
            f"--workers is {flags.workers}; expected 1, or more with a log in PostgreSQL: a file has one service"
        )
    for name in flags.allow_host:
        if re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]", name) is None:
            raise SegueError(
                f"--allow-host is {name!r}; expected a name without scheme and port, such as policy.example"
            )
    if flags.simulate is not None:
        make_world(flags.simulate).close()  # a world that does not exist is found before the log is opened
    if not (flags.token or os.environ.get("SEGUE_TOKEN") or is_file(flags.db)):
        raise SegueError("no token: expected --token, or the environment variable SEGUE_TOKEN")
    everywhere, hosts = not _is_loopback(flags.host), [*flags.allow_host]
    if not everywhere and flags.host not in LOOPBACK:  # another address of the loopback, 127.0.0.2
        hosts.append(f"[{flags.host}]" if ":" in flags.host else flags.host)
    listening = _listen(flags.host, flags.port)
    try:
        settings: dict[str, Any] = {
            "db": flags.db,
            "durability": flags.durability,
            "budget": flags.budget,
            "seed": flags.seed,
        }
        with Service(**settings, policy=flags.policy, mode=flags.mode, explore=flags.explore) as service:
            token, where = _token(flags.token, flags.db)
            address = f"http://{flags.host}:{listening.getsockname()[1]}"
            now = service.deployment
            acts = now.describe(lambda policy: f"policy {policy[:12]}", now.seq in paused(service.database))
            print(f"segue: {address} serves (mode {now.mode}: {acts}; explore {now.explore})")
            print(f"segue: log {service.database.url}, durability {flags.durability}; token {where}", flush=True)
            if flags.workers == 1:
                # The server hands the signal that stopped it on, which would end the process as if it had failed.
                for stop in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(stop, lambda *_: None)
                app = whole(service, token, everywhere, flags.review, hosts)
                with _simulation(flags, address, token):
                    uvicorn.Server(uvicorn.Config(app, **QUIET)).run([listening])
                return 0
        common = {"service": settings, "token": token, "everywhere": everywhere, "review": flags.review, "hosts": hosts}
        os.environ[SETTINGS] = json.dumps(common)
        shared = uvicorn.Config("segue.live.admin:from_environment", factory=True, workers=flags.workers, **QUIET)
        listening.set_inheritable(True)
        with _simulation(flags, address, token):
            Multiprocess(shared, [listening]).run()
    finally:
        listening.close()
    return 0


@contextlib.contextmanager
def _simulation(flags: Flags, address: str, token: str) -> Iterator[None]:
    """While this lasts, the simulated world asks for decisions; what it says is printed."""
    if flags.simulate is None:
        yield
        return
    settings = dataclasses.asdict(flags.traffic).items()
    asked = [f"--traffic.{name}={value}" for name, value in settings]
    command = [sys.executable, "-m", "segue.live.worlds", flags.simulate, "--url", address, *asked]
    process = subprocess.Popen(command, env={**os.environ, "SEGUE_TOKEN": token})
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _listen(host: str, port: int) -> socket.socket:
    """The port is taken before anything else begins."""
    if not 0 <= port <= 65_535:
        raise SegueError(f"--port is {port}; expected 1 to 65535, or 0 (any that is free)")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SegueError(
                f"--port {port}: another program listens there, on {host}; choose another port (--port 0: any free one)"
            ) from None
        raise SegueError(f"cannot listen at --host {host} --port {port}: {error.strerror}; choose others") from None
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(given: str | None, db: str) -> tuple[str, str]:
    """The token, and where it comes from in words."""
    if given is not None:
        return given, "given by --token"
    if os.environ.get("SEGUE_TOKEN"):
        return os.environ["SEGUE_TOKEN"], "from SEGUE_TOKEN"
    file = Path(f"{db.removeprefix('sqlite:///')}.token")
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(24))
    return file.read_text().strip(), f"in {file}"


class _JsonLines(logging.StreamHandler):
    """One JSON object per line on standard error."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"at": round(time.time(), 3), "level": record.levelname.lower(), "what": record.getMessage()}
        if record.exc_info:
            line["trace"] = logging.Formatter().formatException(record.exc_info)
        return msgspec.json.encode(line).decode()
