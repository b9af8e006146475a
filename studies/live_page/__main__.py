"""A picture of the page of `segue serve`, with a canary in progress: `docs/live.png`.

    python -m studies.live_page --policy policies/x --candidate policies/y

It writes a simulated log of six hours, serves it, and photographs the page with Chromium (`pip install playwright`).
`--measure` says how long decisions take beside the page instead; with `--decisions 1000000` on a long log.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np

from segue.live import Client
from studies.live_page.log import write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="an exported policy that is live")
    parser.add_argument("--candidate", type=Path, required=True, help="another one for the same environment")
    parser.add_argument("--decisions", type=int, default=60_000, help="about so many in six hours")
    parser.add_argument("--measure", action="store_true", help="measure; no picture is taken")
    parser.add_argument("--out", type=Path, default=Path("docs/live.png"))
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "live.db"
        write(db, flags.policy, flags.candidate, flags.decisions)
        if flags.measure:
            measure(db)
            return
        with serving(db) as address:
            with Client(address) as client:  # so that there is a latency to show
                for number in range(300):
                    client.decide(f"visit-{number}", [0.1, 0.0, -0.2, 0.3])
            photograph(address, flags.out)


@contextlib.contextmanager
def serving(db: Path) -> Iterator[str]:
    """`segue serve` on a log, and its address."""
    command = [sys.executable, "-m", "segue.cli.main", "serve", "--db", str(db), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as service:
        try:
            assert service.stdout is not None
            yield service.stdout.readline().split()[1]
        finally:
            service.terminate()


def photograph(address: str, out: Path) -> None:
    """The upper part of the page, once the log has been read."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        page = browser.new_page(viewport={"width": 1200, "height": 1480}, reduced_motion="reduce")
        page.goto(address)
        page.wait_for_selector("#charts .line")
        page.wait_for_selector("#alerts:empty", state="attached")
        page.screenshot(path=out)
        browser.close()


def measure(db: Path) -> None:
    """How long decisions take without the page, while it reads the log, and while it is open."""
    with serving(db) as address, Client(address) as client:
        decide(client, 12)  # the promotion reads the log first
        print("without the page   ", decide(client, 10))
        began, share = time.monotonic(), 0.0
        while share < 1:
            share, took = look(address)
            print(f"{share:8.0%} read      ", decide(client, 0.5), f"look {took:.2f} s")
        print(f"the log was read in {time.monotonic() - began:.0f} s")
        for _ in range(5):
            print(f"page open           {decide(client, 3)} look {look(address)[1]:.3f} s")


def look(address: str) -> tuple[float, float]:
    """Share of the log that has been read, and the seconds that a look took."""
    began = time.monotonic()
    share = httpx.get(f"{address}/v1/board", timeout=60).json()["read"]
    return float(share), time.monotonic() - began


def decide(client: Client, seconds: float) -> str:
    """One decision after another."""
    took, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        client.decide(secrets.token_hex(8), [0.1, 0.0, -0.2, 0.3])
        took.append(1000 * (time.perf_counter() - began))
        time.sleep(0.005)
    return f"p50 {np.quantile(took, 0.5):.1f} ms, p99 {np.quantile(took, 0.99):.1f} ms of {len(took)}"


if __name__ == "__main__":
    main()
