"""Recommendation, from logged clicks to a recommender that learns live.

    python -m examples.recommendation --open-bandit FOLDER

`README.md` beside this file says what is done, what was found, and where the data comes from.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from examples.recommendation import figures, open_bandit, shop, tables
from studies.command import claim, ended, not_negative, parsed
from studies.page import put

from segue.errors import SegueError
from segue.files import write_atomically

HERE = Path(__file__).parent
#: What draws each part, and what tells it as a table, by its name in results.json and on the page.
PARTS: dict[str, tuple[Callable[[Any, Path], None], Callable[[Any], str]]] = {
    "open bandit": (figures.clicks, tables.clicks),
    "shop": (figures.shop, tables.shop),
}
#: Name in results.json of the seed and the size that each part was made with.
MADE = "made with"
SHORT = shop.Sizes(log=60, updates=50, before=10, trial=20, learn=10, every=100, truth=20)
FULL = shop.Sizes(log=5_000, updates=10_000, before=500, trial=5_000, learn=4_000, every=10_000, truth=5_000)


def main(given: Sequence[str] | None = None) -> int:
    """The command, which ends with this exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.recommendation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--open-bandit", type=Path, help="a folder with bts-men.csv and random-men.csv")
    parser.add_argument("--out", type=Path, default=Path("runs/recommendation"), help="where everything lands")
    parser.add_argument("--seed", type=not_negative, default=0, help="of logs, users and training")
    parser.add_argument("--page", action="store_true", help="write README.md's tables, figures and results.json too")
    parser.add_argument("--redraw", action="store_true", help="only do that, from results.json beside README.md")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", action="store_true", help="a minute; its numbers mean nothing")
    size.add_argument("--full", action="store_true", help="more sessions: about an hour")
    flags = parsed(parser, given)
    if flags.page and flags.short:
        parser.error("--page with --short: its numbers mean nothing; leave one of them out")
    return ended(lambda: go(flags))


def go(flags: argparse.Namespace) -> int:
    """Both parts; the first one where its data is."""
    stored = HERE / "results.json"
    results: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    if flags.redraw:
        if not results:
            raise SegueError(f"{stored} is not there; a run with --page writes it")
        page(results)
        return 0
    settings = {"seed": flags.seed, "size": "full" if flags.full else "short" if flags.short else "default"}
    claim(flags.out, settings)
    results = alike(results, settings)
    if flags.open_bandit is None:
        print("Open Bandit is left out: give --open-bandit FOLDER (README.md says where it comes from)", flush=True)
    else:
        steps = 10_000 if flags.full else 10 if flags.short else 1_000
        answers = open_bandit.go(flags.open_bandit, flags.out, steps, flags.seed)
        figures.clicks(answers, flags.out)
        print(tables.clicks(answers), flush=True)
        results["open bandit"], results[MADE]["open bandit"] = answers, settings
    sizes = FULL if flags.full else SHORT if flags.short else shop.Sizes()
    found = shop.go(flags.out / "shop", sizes, flags.seed)
    figures.shop(found, flags.out)
    print(tables.shop(found))
    results["shop"], results[MADE]["shop"] = found, settings
    if flags.page:
        write_atomically(stored, json.dumps(results, indent=1) + "\n")
        page(results)
    return 0


def alike(results: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The parts of earlier results with this seed and size, so that one page holds no others."""
    made = {name: of for name, of in results.get(MADE, {}).items() if of == settings}
    return {**{name: results[name] for name in made}, MADE: made}


def page(results: dict[str, Any]) -> None:
    """Tables and figures of README.md, of the parts that there are results of."""
    for name, (draw, tell) in PARTS.items():
        if name in results:
            draw(results[name], HERE)
            put(HERE / "README.md", name, tell(results[name]))


if __name__ == "__main__":
    raise SystemExit(main())
