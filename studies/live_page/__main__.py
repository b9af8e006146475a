"""A picture of the page of `segue serve`, with a canary in progress: `docs/live.png`.

    python -m studies.live_page --policy policies/x --candidate policies/y

It writes a simulated log of six hours, serves it, and photographs the page with Chromium (`pip install playwright`).
`--decisions 1000000` writes a long log instead; `--keep` leaves it for `segue serve --db`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from studies.live_page.log import write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="an exported policy that is live")
    parser.add_argument("--candidate", type=Path, required=True, help="another one for the same environment")
    parser.add_argument("--decisions", type=int, default=60_000, help="about so many in six hours")
    parser.add_argument("--keep", type=Path, help="where the log is left; no picture is taken")
    parser.add_argument("--out", type=Path, default=Path("docs/live.png"))
    flags = parser.parse_args()
    if flags.keep is not None:
        write(flags.keep, flags.policy, flags.candidate, flags.decisions)
        return
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "live.db"
        write(db, flags.policy, flags.candidate, flags.decisions)
        command = [sys.executable, "-m", "segue.cli.main", "serve", "--db", str(db), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as service:
            try:
                assert service.stdout is not None
                address = service.stdout.readline().split()[1]
                photograph(address, flags.out)
            finally:
                service.terminate()


def photograph(address: str, out: Path, width: int = 1200, scheme: str = "light") -> None:
    """The whole page, when everything is on it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(address)
        page.wait_for_selector("#charts polygon")
        time.sleep(1)  # the bars move
        page.screenshot(path=out, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
