"""`python -m examples.robotics`: pushing in a changed world, a hand from human demonstrations, a humanoid's log.

Needs `pip install 'segue[robotics,export]'`. Pushing makes its own demonstrations. The other two parts read data that
you have: --adroit names D4RL's HDF5 file of the human door demonstrations, --lerobot a LeRobot folder. Runs that are
there under --out are not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.robotics import hand, humanoid, page, pushing
from studies.command import claim, ended, parsed, positive

from segue.files import write_atomically

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """The command, which ends with this exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.robotics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--adroit", type=Path, metavar="FILE", help="human door demonstrations, HDF5 in D4RL's layout")
    parser.add_argument("--lerobot", type=Path, metavar="FOLDER", help="a LeRobot dataset, version 2 or 3")
    parser.add_argument("--skip-pushing", action="store_true", help="only the parts that read data")
    parser.add_argument("--seeds", type=positive, help="seeds of pushing")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--short", action="store_true", help="two minutes of pushing; its numbers mean nothing")
    sizes.add_argument("--full", action="store_true", help="larger networks and budgets: about a day of one core")
    parser.add_argument("--workers", type=positive, default=min(os.cpu_count() or 1, 2), help="processes")
    parser.add_argument("--out", type=Path, default=Path("runs/robotics"), help="runs and results.json")
    parser.add_argument("--page", action="store_true", help="write the tables and the figure of README.md too")
    options = parsed(parser, arguments)
    if options.skip_pushing and not (options.adroit or options.lerobot):
        parser.error("--skip-pushing leaves nothing to do; give --adroit or --lerobot too")
    if options.page and options.short:
        parser.error("--page with --short: its numbers mean nothing; leave one of them out")
    return ended(lambda: go(options))


def go(options: argparse.Namespace) -> int:
    """Run the parts whose data there is, and write results and page."""
    out: Path = options.out.resolve()
    claim(out, {"size": "full" if options.full else "short" if options.short else "usual"})
    file = out / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    size = pushing.FULL if options.full else pushing.SHORT if options.short else pushing.Size()
    size = size if options.seeds is None else dataclasses.replace(size, seeds=options.seeds)
    parts = {
        "humanoid": options.lerobot and (lambda: humanoid.run(options.lerobot, out / "humanoid", options.full)),
        "hand": options.adroit and (lambda: hand.run(options.adroit, out / "hand", options.full, options.workers)),
        "pushing": not options.skip_pushing and (lambda: pushing.run(out / "pushing", size, options.workers)),
    }
    for name, run in parts.items():
        if not run:
            continue
        print(f"{name} …", flush=True)
        results[name] = run()
        write_atomically(file, json.dumps(results, indent=1) + "\n")
        print(page.tables(results)[name], flush=True)
    page.draw(results, out / "robotics.png")
    if options.page:
        page.write(results, HERE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
