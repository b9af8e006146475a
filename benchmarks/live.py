"""Decisions per second of the live service beside a Starlette route that only echoes: `python -m benchmarks.live`.

The server has one core, the load another. Servers take turns, so that a machine that gets slower slows all of them;
figures are medians over the turns, and ratios are taken within a turn.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
import uvloop

HERE = Path(__file__).parent
#: Servers that take turns: the echo, and the service by what its answers promise.
SERVERS = ("echo", "after", "process", "power")
#: Decisions of one episode.
STEPS = 50
TOKEN = "benchmark"
#: Hot swaps under load, and rollbacks of them.
SWAPS, ROLLBACKS = 100, 20


def serve(kind: str, policy: str, place: str) -> None:
    """In a process of its own, on the first core: print the address, then serve until SIGTERM."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    from segue.cli import serve

    if kind == "echo":
        listening = serve._listen("127.0.0.1", 0)
        print(f"segue: http://127.0.0.1:{listening.getsockname()[1]} echoes", flush=True)
        uvicorn.Server(uvicorn.Config(echo(), **serve.QUIET)).run([listening])
    else:
        where = ["--db", f"{place}/live.db", "--port", "0", "--token", TOKEN]
        serve.main([*where, "--policy", policy, "--durability", kind])


def echo() -> Any:
    """What HTTP alone costs: a route that gives back what it was sent."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def endpoint(request: Request) -> Response:
        return Response(await request.body(), media_type="application/json")

    return Starlette(routes=[Route("/v1/decisions", endpoint, methods=["POST"])])


class Server:
    """One of SERVERS, for one turn."""

    def __init__(self, kind: str, policy: Path) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="segue-live-", dir=HERE)
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.live",
                "--serve",
                kind,
                "--policy",
                str(policy),
                "--place",
                self._place.name,
            ],
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parent,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[1]
        self.port = int(self.url.rpartition(":")[2])
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.02)

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it as an operator would."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self._place.cleanup()


class Connection(asyncio.Protocol):
    """Asks, waits for the answer, asks again."""

    def __init__(self, load: Load, number: int) -> None:
        self._load, self._number, self._asked, self._answer = load, number, 0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return
        policy = body.partition(b'"policy":"')[2][:64].decode()
        self._load.answered(time.perf_counter() - self._since, head.startswith(b"HTTP/1.1 200"), policy)
        self._answer = b""
        self.ask()

    def ask(self) -> None:
        if self._load.over:
            self._transport.close()
            return
        episode, step = divmod(self._asked, STEPS)
        self._asked += 1
        body = b'{"decision_id":"%d-%d-%d","episode_id":"%d-%d","observation":%b}' % (
            self._number, episode, step, self._number, episode, self._load.observation,
        )  # fmt: skip
        self._since = time.perf_counter()
        self._transport.write(self._load.head % len(body) + body)  # type: ignore[attr-defined]


class Load:
    """What one turn measures."""

    head = (
        b"POST /v1/decisions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n"
    )

    def __init__(self, size: int) -> None:
        self.observation = json.dumps(np.random.default_rng(0).normal(size=size).round(4).tolist()).encode()
        self.over, self.counting = False, False
        self.seconds: list[float] = []
        self.failed = 0
        self.last: dict[str, float] = {}
        """When each policy acted for the last time."""

    def answered(self, seconds: float, well: bool, policy: str) -> None:
        self.last[policy] = time.perf_counter()
        if self.counting:
            self.seconds.append(seconds)
            self.failed += not well

    async def run(self, server: Server, connections: int, warm: float, seconds: float) -> dict[str, float]:
        """Decisions per second, milliseconds to an answer, and microseconds of the server's processor a decision."""
        loop = asyncio.get_running_loop()
        # A busy server takes up one new connection per turn of its event loop, so all are there before the load begins.
        protocols = [
            (await loop.create_connection(functools.partial(Connection, self, number), "127.0.0.1", server.port))[1]
            for number in range(connections)
        ]
        await asyncio.sleep(0.5)
        for protocol in protocols:
            protocol.ask()
        await asyncio.sleep(warm)
        self.counting, start, before = True, time.perf_counter(), server.cpu()
        await asyncio.sleep(seconds)
        took, used, self.over = time.perf_counter() - start, server.cpu() - before, True
        await asyncio.sleep(0.2)
        p50, p99 = (np.percentile(self.seconds, [50, 99]) * 1000).tolist()
        count = len(self.seconds)
        return {"rate": count / took, "p50": p50, "p99": p99, "cpu": used / count * 1e6, "failed": self.failed}


async def swapped(server: Server, load: Load, other: Path) -> dict[str, float]:
    """What 100 promotions and 20 rollbacks under load do to it."""

    def ask(path: str, body: dict[str, Any], method: str = "POST") -> Any:
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        content = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(f"{server.url}{path}", content, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    first = ask("/v1/policies", {}, "GET")[0]["policy"]
    files = {file.name: base64.b64encode(file.read_bytes()).decode() for file in other.iterdir()}
    second = ask("/v1/policies", {"files": files, "name": "other"})["policy"]
    running = asyncio.create_task(load.run(server, 16, 1.0, 3600.0))
    await asyncio.sleep(1.5)
    late: list[float] = []
    for number in range(SWAPS):
        policy = (second, first)[number % 2]
        await asyncio.to_thread(ask, f"/v1/policies/{policy}/promote", {"force": True})
    for _ in range(ROLLBACKS):
        await asyncio.to_thread(ask, f"/v1/policies/{second}/promote", {"force": True})
        await asyncio.sleep(0.2)
        start = time.perf_counter()
        await asyncio.to_thread(ask, "/v1/rollback", {})
        await asyncio.sleep(0.5)
        late.append(max(load.last.get(second, 0.0) - start, 0.0))
    load.over = True
    running.cancel()
    return {
        "swaps": SWAPS,
        "rollbacks": ROLLBACKS,
        "requests": len(load.seconds),
        "failed": load.failed,
        "slowest request, ms": round(1000 * max(load.seconds), 1),
        "seconds from the order to the last decision of the policy, at most": round(max(late), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="an exported 256-256 policy")
    parser.add_argument("--turns", type=int, default=5, help="turns of each server")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--other", type=Path, help="a second policy: it is swapped with the first under load")
    parser.add_argument("--out", type=Path, default=HERE / "live.json", help="where the rows are written")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.serve:
        serve(flags.serve, str(flags.policy), flags.place)
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    from segue.deployment.policy import load_policy
    from segue.deployment.spaces import flat_size

    size = flat_size(load_policy(flags.policy).space)
    rows = []
    for connections in flags.connections:
        turns: dict[str, list[dict[str, float]]] = {kind: [] for kind in flags.servers}
        for _ in range(flags.turns):
            for kind in flags.servers:
                server = Server(kind, flags.policy)
                try:
                    turns[kind].append(uvloop.run(Load(size).run(server, connections, 1.0, flags.seconds)))
                finally:
                    server.close()
        for kind, taken in turns.items():
            row: dict[str, Any] = {"server": kind, "connections": connections}
            row |= {
                name: round(statistics.median(turn[name] for turn in taken), 2)
                for name in ("rate", "p50", "p99", "cpu")
            }
            row["failed"] = sum(turn["failed"] for turn in taken)
            if "echo" in turns:
                ratios = [one["rate"] / other["rate"] for one, other in zip(taken, turns["echo"], strict=True)]
                row["of echo"] = round(statistics.median(ratios), 3)
                row["of echo, lowest and highest"] = [round(min(ratios), 3), round(max(ratios), 3)]
            rows.append(row)
            print(row, flush=True)
    if flags.other:
        server = Server("process", flags.policy)
        try:
            rows.append(uvloop.run(swapped(server, Load(size), flags.other)))
        finally:
            server.close()
        print(rows[-1], flush=True)
    flags.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
