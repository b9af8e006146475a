"""`python -m studies.live_promotion`: trials in simulated live logs; goes on where it stopped."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segue.files import write_atomically
from studies.live_promotion.world import follow
from studies.page import put

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
#: Worlds between two times that the results are stored.
BLOCK = 50


class Case(NamedTuple):
    """One kind of world."""

    better: float
    """How much better the candidate is, in standard deviations."""
    shares: tuple[float, ...]
    worlds: int
    units: int
    every: int
    """Units between reviews."""


def hard(rng: np.random.Generator, units: int) -> np.ndarray:
    """Heavy tails, a season, and a drift by four standard deviations."""
    t = np.arange(units)
    return rng.standard_t(3, units) / np.sqrt(3) + np.sin(t / 50) + 4 * t / units


def easy(rng: np.random.Generator, units: int) -> np.ndarray:
    """Normal, with a standard deviation of 1."""
    return rng.normal(size=units)


def late(arm: str, value: float) -> float:
    """Better episodes last longer, and the candidate's three times as long, within the window of 20 units."""
    return min(19.0, (3 if arm == "candidate" else 1) * (1.0 + 2.0 * max(value, 0.0)))


STAGES, HALF, TENTH = (0.1, 0.5), (0.5,), (0.1,)
CASES = {
    "as good, 10 % → 50 %": Case(0.0, STAGES, 2000, 1000, 50),
    "as good, 50 %": Case(0.0, HALF, 2000, 1000, 50),
    "better by 0.5σ, 10 % → 50 %": Case(0.5, STAGES, 200, 4000, 10),
    "better by 0.5σ, 50 %": Case(0.5, HALF, 200, 4000, 10),
    "better by 0.5σ, 10 %": Case(0.5, TENTH, 200, 4000, 10),
    "better by 0.25σ, 50 %": Case(0.25, HALF, 200, 6000, 20),
    "worse by 1σ, 10 % → 50 %": Case(-1.0, STAGES, 200, 2000, 10),
    "worse by 1σ, 50 %": Case(-1.0, HALF, 200, 2000, 10),
}


def main() -> None:
    """Run what is missing, and write results.json and the table of README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redraw", action="store_true", help="only write the table again")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not parser.parse_args().redraw:
        for name, case in CASES.items():
            _run(results, name, case)
    put(FOLDER / "README.md", "results", _table(results))


def _run(results: dict[str, Any], name: str, case: Case) -> None:
    about = {**case._asdict(), "shares": list(case.shares)}
    if results.get(name, {}).get("case") != about:
        results[name] = {"case": about, "ends": []}
    ends: list[Any] = results[name]["ends"]
    draw: Callable[[np.random.Generator, int], np.ndarray] = easy if case.better else hard
    while len(ends) < case.worlds:
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(len(ends), min(len(ends) + BLOCK, case.worlds)):
                place = Path(folder) / f"{seed}.db"
                ends.append(
                    follow(place, case.units, draw, seed, case.better, late, every=case.every, shares=case.shares)
                )
        write_atomically(RESULTS, json.dumps(results))
        print(f"{name}: {len(ends)} of {case.worlds}", flush=True)


def _table(results: dict[str, Any]) -> str:
    lines = [
        "| candidate, share | worlds | promoted | stopped | open | units until decided: median | 90 % |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
    ]
    for name, of in results.items():
        ends = of["ends"]
        counts = {end: sum(one[0] == end for one in ends) for end in ("promoted", "stopped", "open")}
        decided = [units if end != "open" else np.inf for end, units in ends]
        median, ninth = (np.quantile(decided, q, method="higher") for q in (0.5, 0.9))
        cells = [f"{counts[end] / len(ends):.1%}" for end in counts]
        shown = [f"{value:,.0f}" if np.isfinite(value) else "–" for value in (median, ninth)]
        lines.append(f"| {name} | {len(ends):,} | {' | '.join(cells + shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
