"""How often the tests of `segue.evidence` err, and how soon they decide: `python -m studies.evidence`.

Five parts, all into results.json and as tables into README.md; `python -m studies.evidence speed` runs one of them:

1. `alarms`: arms that are alike, in worlds that drift, are heavy-tailed, or finish units late.
2. `speed`: units until a decision where the arms differ, beside the package ville on the same units.
3. `change`: false alarms and delays of the two detectors.
4. `limit`: a mean cost against a limit.
5. `promotion`: whole runs of the bridge, in which no candidate is better than what it was compared with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import ville
from scipy.stats import binomtest

from segue.bridges import Promotion
from segue.bridges.base import Report
from segue.bridges.promotion import CANDIDATE, FEWEST, INCUMBENT, LEARNER
from segue.core import Nets
from segue.evidence import (
    RECENT,
    FallDetector,
    LimitTest,
    MeanDifference,
    MeanUpper,
    RankComparison,
    SampleRatio,
    ShiftDetector,
)
from studies.page import put
from studies.parts import run

HERE = Path(__file__).parent
ALPHA, BAR = 0.05, np.log(20)
WORLDS, UNITS = 2_000, 2_000
DECISIONS = 1_000
STREAMS = 500
#: What may be wrong where the arms are alike.
KINDS = ("promoted", "worse", "interval", "ratio")
World = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def lengths(rng: np.random.Generator, arm: np.ndarray) -> np.ndarray:
    """Steps of each unit's episode."""
    return rng.geometric(1 / 50, len(arm))


def drift(rng: np.random.Generator, arm: np.ndarray) -> np.ndarray:
    """Seasons, a trend, a fall by three standard deviations at some time, and noise that remembers."""
    i = np.arange(len(arm))
    noise = rng.normal(size=len(arm))
    return (
        2 * np.sin(i / 30)
        + 3 * i / len(arm)
        - 3 * (i > rng.integers(len(arm)))
        + noise
        + np.convolve(noise, np.full(20, 0.1))[: len(arm)]
    )


def binary(rng: np.random.Generator, arm: np.ndarray) -> np.ndarray:
    """Success or none, with a rate that swings between 0.1 and 0.5."""
    return (rng.random(len(arm)) < 0.3 + 0.2 * np.sin(np.arange(len(arm)) / 50)).astype(float)


#: Returns of arms that are alike.
ALIKE: dict[str, World] = {
    "normal": lambda rng, arm: rng.normal(size=len(arm)),
    "heavy tails (Student, 3 degrees)": lambda rng, arm: rng.standard_t(3, len(arm)),
    "drift and seasons": drift,
    "binary, drifting": binary,
    "return = length of the episode": lambda rng, arm: lengths(rng, arm).astype(float),
}
SLOW = "the same, candidate three times slower"
SPLITS: dict[str, np.ndarray] = {
    "50/50": np.full(UNITS, 0.5),
    "10/90": np.full(UNITS, 0.1),
    "10/90, then 50/50": np.where(np.arange(UNITS) < UNITS // 4, 0.1, 0.5),
}


def rate(errors: int, of: int) -> dict[str, Any]:
    """A count, and the exact 95 % interval of its share."""
    low, high = binomtest(errors, of).proportion_ci(method="exact")
    return {"count": errors, "of": of, "share": errors / of, "low": float(low), "high": float(high)}


def verdicts(returns: np.ndarray, arm: np.ndarray, chance: np.ndarray, bounded: bool) -> np.ndarray:
    """Which of the four tests is ever wrong."""
    better, worse = RankComparison().update(returns, arm, chance)
    _, low, high = MeanDifference(ALPHA, (0.0, 1.0) if bounded else None).update(returns, arm, chance)
    ratio = SampleRatio().update(arm, chance)
    return np.array([better.max() >= BAR, worse.max() >= BAR, ((low > 0) | (high < 0)).any(), ratio.max() >= BAR])


def alarms() -> list[dict[str, Any]]:
    """False promotions and false alarms where the arms are alike."""
    rows: list[dict[str, Any]] = []
    for split, chance in SPLITS.items():
        for name in (*ALIKE, SLOW):
            for order in ("assignment", "completion") if name == SLOW else ("assignment",):
                wrong = np.zeros(4, int)
                for world in range(WORLDS):
                    rng = np.random.default_rng([world, len(rows)])
                    arm = rng.random(UNITS) < chance
                    returns = (lengths if name == SLOW else ALIKE[name])(rng, arm).astype(float)
                    counted = np.arange(UNITS)
                    if order == "completion":
                        # One unit starts per step of time. The test looks until the last one starts.
                        ends = counted + returns * np.where(arm, 3, 1)
                        counted = np.argsort(ends, kind="stable")
                        counted = counted[ends[counted] <= UNITS]
                    wrong += verdicts(returns[counted], arm[counted], chance[counted], name == "binary, drifting")
                rates = {kind: rate(int(count), WORLDS) for kind, count in zip(KINDS, wrong, strict=True)}
                rows.append({"split": split, "world": name, "order": order, **rates})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def first(crossed: np.ndarray) -> float:
    """The unit (from 1) at which it was decided; infinite where it was not."""
    return float(crossed.argmax() + 1) if crossed.any() else np.inf


def spread(times: Sequence[float]) -> dict[str, float | None]:
    """Median and 90th percentile; None where fewer were decided."""
    quantiles = [float(np.quantile(times, q, method="higher")) for q in (0.5, 0.9)]
    return {name: q if np.isfinite(q) else None for name, q in zip(("median", "p90"), quantiles, strict=True)}


def speed() -> list[dict[str, Any]]:
    """Units until a decision where the arms differ by so many standard deviations."""
    rows = []
    horizons = {0.5: (1_500, 3_000), 0.25: (4_000, 8_000), -1.0: (500, 1_000)}
    for tails, effects in (("normal", (0.5, 0.25, -1.0)), ("Student, 3 degrees", (0.5,))):
        for effect in effects:
            for chance, horizon in zip((0.5, 0.1), horizons[effect], strict=True):
                ours, warm, means, theirs = [list[float]() for _ in range(4)]
                for world in range(DECISIONS):
                    rng = np.random.default_rng([world, 7])
                    arm = rng.random(horizon) < chance
                    noise = rng.normal(size=RECENT + horizon)
                    if tails != "normal":
                        noise = rng.standard_t(3, RECENT + horizon) / 3**0.5
                    returns = noise[RECENT:] + effect * arm
                    for times, earlier in ((ours, 0), (warm, RECENT)):
                        test = RankComparison()
                        test.update(noise[:earlier], np.zeros(earlier), 0.0)
                        better, worse = test.update(returns, arm, chance)
                        times.append(first((better if effect > 0 else worse) >= BAR))
                    _, low, high = MeanDifference(ALPHA).update(returns, arm, chance)
                    means.append(first((low > 0) | (high < 0)))
                    oracle = ville.AsymptoticABTest(alpha=ALPHA, propensity=chance).fit(returns, arm).stopping_time()
                    theirs.append(np.inf if oracle is None else float(oracle))
                rows.append(
                    {
                        "tails": tails,
                        "effect": effect,
                        "candidate": chance,
                        "units": horizon,
                        "ranks": spread(ours),
                        "known": spread(warm),
                        "means": spread(means),
                        "ville": spread(theirs),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    return rows


def change() -> list[dict[str, Any]]:
    """Units per false alarm, and from a change to its alarm."""
    rows: list[dict[str, Any]] = []

    def observe(detector: str, case: str, length: int, before: int, make: Callable[[np.random.Generator], Any]) -> None:
        units, alarms, delays = 0, 0, []
        for stream in range(STREAMS):
            test, values = make(np.random.default_rng([stream, len(rows)]))
            alarm = first(test.update(values) >= test.threshold)
            units += int(min(alarm, before))
            alarms += alarm <= before
            if alarm > before and length > before:
                delays.append(alarm - before)
        rows.append(
            {
                "detector": detector,
                "case": case,
                "units": units,
                "false alarms": int(alarms),
                "delay": spread(delays) if delays else None,
            }
        )
        print(json.dumps(rows[-1]), flush=True)

    def fall(size: int, run_length: float, values: Callable[[np.random.Generator], np.ndarray]) -> Any:
        return lambda rng: (FallDetector(rng.standard_t(3, size), run_length), values(rng))

    def shift(run_length: float, values: Callable[[np.random.Generator], np.ndarray]) -> Any:
        return lambda rng: (ShiftDetector(np.zeros(10), np.ones(10), run_length), values(rng))

    for size in (200, 1_000):
        name = f"fall, {size:,} references"
        observe(name, "no change, 1,000 declared", UNITS, UNITS, fall(size, 1e3, lambda r: r.standard_t(3, UNITS)))
        for size_of_fall in (1.0, 0.5):
            drop = np.where(np.arange(UNITS) < 500, 0, size_of_fall * 3**0.5)
            observe(
                name,
                f"falls by {size_of_fall:g}σ, 10,000 declared",
                UNITS,
                500,
                fall(size, 1e4, partial(lambda drop, r: r.standard_t(3, UNITS) - drop, drop)),
            )
    name = "shift, 10 features"
    observe(name, "no change, 1,000 declared", UNITS, UNITS, shift(1e3, lambda r: r.normal(size=(UNITS, 10))))
    late = np.arange(UNITS)[:, None] >= 500
    moved = late & (np.arange(10) == 3)
    for case, altered in (
        ("one feature moves by 1σ, 10,000 declared", lambda x: x + moved),
        ("one feature in another unit (× 2.54), 10,000 declared", lambda x: np.where(moved, 2.54 * x, x)),
    ):
        observe(name, case, UNITS, 500, shift(1e4, partial(lambda f, r: f(r.normal(size=(UNITS, 10))), altered)))
    return rows


#: Costs with mean 1.
COSTS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "exponential": lambda rng, size: rng.exponential(size=size),
    "log-normal, σ = 1.5": lambda rng, size: np.exp(1.5 * rng.normal(size=size) - 1.125),
    "3.3 in 30 % of the units": lambda rng, size: (rng.random(size) < 0.3) / 0.3,
    "100 in 1 % of the units": lambda rng, size: (rng.random(size) < 0.01) / 0.01,
}
#: Units between two looks at the upper end, and the most there are.
LOOK, MOST = 50, 5_000


def limit() -> list[dict[str, Any]]:
    """Costs at the limit, at twice the limit, and at half of it, of units whose other arm costs as much."""
    rows: list[dict[str, Any]] = []
    for name, draw in COSTS.items():
        wrong, late, passed, soon = 0, [], 0, []
        for world in range(DECISIONS):
            rng = np.random.default_rng([world, len(rows)])
            costs, others = draw(rng, MOST), np.maximum.accumulate(draw(rng, MOST))
            wrong += bool(LimitTest(1.0).update(costs).max() >= BAR)
            late.append(first(LimitTest(0.5).update(costs) >= BAR))
            test, highs = MeanUpper(ALPHA, 1.0), []
            for start in range(0, MOST, LOOK):
                test.update(costs[start : start + LOOK], float(others[start + LOOK - 1]))
                highs.append(test.high)
            passed += min(highs) <= 1.0
            soon.append(LOOK * first(np.array(highs) <= 2.0))
        rows.append(
            {
                "costs": name,
                "alarm": rate(wrong, DECISIONS),
                "within": rate(passed, DECISIONS),
                "twice": spread(late),
                "half": spread(soon),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


#: Episodes of a run under promotion, and such runs.
EPISODES, RUNS = 200, 2_000


def promotion() -> list[dict[str, Any]]:
    """Runs whose incumbent and candidates all earn N(0, 1), while the exploring learner earns less."""
    bridge, rows = Promotion(), list[dict[str, Any]]()
    learner: Any = None  # its reviews look at what episodes earned alone
    for worse in (0, 1, 2, 3):
        false, tried = 0, 0
        for world in range(RUNS):
            rng = np.random.default_rng([world, worse])
            state = bridge.state(Nets(actor=jnp.zeros(())))
            for episode in range(EPISODES):
                challenger = CANDIDATE if state.evidence > 0 else LEARNER
                arm = challenger if episode >= FEWEST and rng.random() < bridge.share else INCUMBENT
                earned = np.array([rng.normal() - worse * (arm == LEARNER)])
                report = Report(episode, earned, np.ones(1, bool), np.zeros(0), learner, np.array([arm]))
                state = bridge.review(state, report).state
            false += int(state.promotions) > 0
            tried += int(state.candidates)
        rows.append({"worse": worse, "candidates": tried / RUNS, "promoted": rate(false, RUNS)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def percent(one: dict[str, Any]) -> str:
    return f"{one['share']:.1%} ({one['low']:.1%}–{one['high']:.1%})"


def units(one: dict[str, float | None]) -> str:
    return ", ".join("–" if one[name] is None else f"{one[name]:,.0f}" for name in ("median", "p90"))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def pages(results: dict[str, Any]) -> dict[str, str]:
    """The tables of the README by their names."""
    found = {}
    if "alarms" in results:
        rows = [
            [row["split"], row["world"], row["order"], *(percent(row[kind]) for kind in KINDS)]
            for row in results["alarms"]
        ]
        fair = [row for row in results["alarms"] if row["order"] == "assignment"]
        total = [rate(sum(row[kind]["count"] for row in fair), sum(row[kind]["of"] for row in fair)) for kind in KINDS]
        rows.append(["all", "all", "assignment", *map(percent, total)])
        head = ["split", "world", "order", "promoted", "called worse", "interval excludes 0", "sample ratio"]
        found["alarms"] = table(head, rows)
    if "speed" in results:
        tests = ("ranks", "known", "means", "ville")
        rows = [
            [row["tails"], f"{row['effect']:+g}σ", f"{row['candidate']:.0%}", *(units(row[test]) for test in tests)]
            for row in results["speed"]
        ]
        head = ["returns", "effect", "candidate", "ranks", "ranks, incumbent known", "means", "`ville`"]
        found["speed"] = table(head, rows)
    if "change" in results:
        rows = []
        for row in results["change"]:
            alarms = row["false alarms"]
            every = f"{row['units'] / alarms:,.0f}" if alarms else f"more than {row['units']:,}"
            rows.append([row["detector"], row["case"], every, units(row["delay"]) if row["delay"] else ""])
        found["change"] = table(["detector", "case", "units per false alarm", "delay"], rows)
    if "limit" in results:
        rows = [
            [row["costs"], percent(row["alarm"]), percent(row["within"]), units(row["twice"]), units(row["half"])]
            for row in results["limit"]
        ]
        head = ["costs", "false alarm", "falsely within", "alarm at twice the limit", "within at half of it"]
        found["limit"] = table(head, rows)
    if "promotion" in results:
        rows = [
            [f"{row['worse']}σ", f"{row['candidates']:.1f}", percent(row["promoted"])] for row in results["promotion"]
        ]
        found["promotion"] = table(["the learner earns less by", "candidates per run", "runs with a promotion"], rows)
    return found


PARTS = {"alarms": alarms, "speed": speed, "change": change, "limit": limit, "promotion": promotion}


def main() -> None:
    """Run it; the tables go into README.md."""
    results = run(__doc__, HERE / "results.json", PARTS)
    for name, text in pages(results).items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
