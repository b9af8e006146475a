"""`python -m benchmarks [GROUP …] [--quick] [--full]`: measure, print a table, and write `benchmarks/latest.json`.

It fails on nothing: what cannot be measured is a row that says why.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import HEADER, Row, line, write
from benchmarks.settings import Settings
from benchmarks.turns import ROOT, Failed

GROUPS = ("start", "updates", "limit", "ensemble", "seeds", "trials", "growth", "runs")


def measure(groups: list[str], settings: Settings) -> Iterator[Row]:
    """The rows of these groups, as they come."""
    for group in groups:
        try:
            yield from importlib.import_module(f"benchmarks.groups.{group}").rows(settings)
        except Failed as error:
            yield Row(name=group, note=f"stopped: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", default=list(GROUPS), help=", ".join(GROUPS))
    parser.add_argument("--turns", type=int, default=5, help="turns of each contestant (5)")
    parser.add_argument("--quick", action="store_true", help="a smoke test: everything runs, nothing is measured well")
    parser.add_argument("--full", action="store_true", help="whole runs in full length: half an hour more")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv/peers/bin/python", help="the peers' interpreter")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/latest.json", help="where the rows are written")
    flags = parser.parse_args()
    if unknown := set(flags.groups) - set(GROUPS):
        parser.error(f"unknown group {', '.join(unknown)}; expected {', '.join(GROUPS)}")
    settings = Settings(2 if flags.quick else flags.turns, flags.quick, flags.full, existing(flags.peers))

    start = time.perf_counter()
    about = machine()
    print(f"{about['processor']}, {about['cores']} cores, {about['device']}, jax {about['jax']}\n\n{HEADER}")
    rows = []
    for row in measure(flags.groups, settings):
        rows.append(row)
        print(line(row), flush=True)
    write(flags.out, about, rows)
    print(f"\n{time.perf_counter() - start:.0f} s; written to {flags.out}")


def existing(peers: Path) -> Path | None:
    """The interpreter as it was named (a link into a virtual environment loses it when resolved), if it is there."""
    return peers.absolute() if peers.exists() else None


def machine() -> dict[str, str | int]:
    """What the rows depend on."""
    import jax

    from segue.runner.machine import describe_machine

    described = describe_machine(1)
    return {
        **{name: described[name] for name in ("processor", "cores", "device")},
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
