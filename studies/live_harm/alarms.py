"""`python -m studies.live_harm.alarms`: false alarms of the watch over observations; goes on where it stopped.

Nothing is wrong in these logs: the policy meets the traffic that it was trained on, or a better policy or other users
lead to other states. The log and the monitor are the real ones, with their limits as by default. Each repeat draws the
training sessions anew, and with them the range that the monitor compares with. Then the same with a broken sensor: how
many units it takes, from how many sessions.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from segue.files import write_atomically
from segue.live.monitor import AT_FIRST, FIRST, LATER, Monitor, tolerated
from segue.live.schema import DecisionRow, EpisodeRow, Row
from segue.live.trial import Rules
from segue.live.worlds import behaviour, make_world
from segue.live.worlds.glucose import BASAL_RATE, MOST, Glucose
from segue.live.worlds.recommendation import FEATURES, ITEMS, TASTES
from segue.seen import Observed
from studies.live_promotion.world import LIVE, World
from studies.page import put

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "alarms.json"
#: Units of one log, logs of one case, and full episodes that a policy's mean return is of.
UNITS, REPEATS, EPISODES = 2_500, 20, 500
#: Units with a broken sensor after which it counts as missed, and units from one review to the next.
FAULTY, BETWEEN = 500, 5

Act = Callable[[gym.Env, np.ndarray, np.random.Generator], Any]


def logged(world: gym.Env, seen: np.ndarray, source: np.random.Generator) -> Any:
    """What the dataset's policy does."""
    return behaviour(world, seen, source)[0]


def liked(world: gym.Env, seen: np.ndarray, source: np.random.Generator) -> int:
    """The item that is most probably clicked on, as far as the observation tells."""
    once = 1.0 / (1.0 + np.exp(1.0 - 3.0 * FEATURES @ seen[:TASTES]))
    return int(np.argmax((1.0 - 0.5 * seen[TASTES:-1]) * once))


def firm(world: gym.Env, seen: np.ndarray, source: np.random.Generator) -> np.ndarray:
    """More insulin for glucose above 100 mg/dL than the dataset's policy gives, less while some still acts."""
    rate = BASAL_RATE + 50.0 * (float(seen[0]) - 1.0) - 5.0 * float(seen[2])
    return np.array([rate], np.float32).clip(0.0, MOST)


def balanced(world: gym.Env, seen: np.ndarray, source: np.random.Generator) -> int:
    """Push to where the pole falls, and back to the middle."""
    return int(seen @ [0.1, 0.3, 1.0, 1.0] > 0)


def swung(world: gym.Env, seen: np.ndarray, source: np.random.Generator) -> int:
    """Push in the direction of motion."""
    return 2 if seen[1] >= 0 else 0


class Case(NamedTuple):
    """What is served where."""

    world: str
    what: str
    trained: int
    """Sessions of the dataset."""
    act: Act = logged
    users: tuple[int, int] = (0, 1_000)
    """From which units are drawn."""


CASES = {
    "clicks": Case("recommendation", "the dataset's policy", 2_000),
    "clicks, few": Case("recommendation", "the dataset's policy", 100),
    "clicks, very few": Case("recommendation", "the dataset's policy", 30),
    "clicks, ten": Case("recommendation", "the dataset's policy", 10),
    "clicks, better": Case("recommendation", "a better one", 2_000, liked),
    "clicks, others": Case("recommendation", "a better one, and other users", 2_000, liked, (1_000, 2_000)),
    "insulin": Case("glucose", "the dataset's policy", 100),
    "insulin, ten": Case("glucose", "the dataset's policy", 10),
    "insulin, better": Case("glucose", "a better one", 100, firm),
    "pole": Case("cartpole", "the dataset's policy", 500),
    "pole, better": Case("cartpole", "a better one", 500, balanced),
    "car, better": Case("env:MountainCar-v0", "a better one", 100, swung),
}

#: A number of the world `recommendation` that has another unit from the first unit of traffic on, and by how much.
BROKEN = {"one taste × 2.54": (0, 2.54), "progress × 2.54": (TASTES + ITEMS, 2.54), "one taste × 100": (0, 100.0)}
#: Sessions of the dataset.
TRAINED = (2_000, 100, 30, 10)


def session(
    world: gym.Env, act: Act, source: np.random.Generator, users: tuple[int, int], most: int
) -> tuple[np.ndarray, float]:
    """Observations, [steps + 1, observation], of at most so many steps, and what they earned."""
    options = {"unit": int(source.integers(*users))}
    seen, _ = world.reset(seed=int(source.integers(2**31)), options=options if _has_units(world) else None)
    rows, earned = [seen], 0.0
    for _ in range(most):
        seen, reward, terminated, truncated, _ = world.step(act(world, seen, source))
        rows.append(seen)
        earned += float(reward)
        if terminated or truncated:
            break
    return np.array(rows, np.float32), earned


def _has_units(world: gym.Env) -> bool:
    return isinstance(world.unwrapped, Glucose) or world.spec is None  # Gymnasium's own take other options


def outside(seen: np.ndarray, low: np.ndarray, high: np.ndarray, margin: float) -> np.ndarray:
    """Which numbers lie outside of their range by more than so much of it; none that is constant."""
    beyond = np.where(high > low, margin * (high - low), np.inf)
    return (seen < low - beyond) | (seen > high + beyond)


def trained(world: gym.Env, sessions: int, source: np.random.Generator) -> Observed:
    """What a policy has seen that was trained on so many sessions of the dataset's policy."""
    parts = [session(world, logged, source, (0, 1_000), 10**9)[0] for _ in range(sessions)]
    return Observed.of(np.concatenate(parts), sessions)


def rows_of(number: int, seen: np.ndarray) -> list[Row]:
    """The log's rows of one unit, whose observations are given."""
    name, at = f"u{number}", float(number)
    rows: list[Row] = [EpisodeRow(at, name, name, "live", LIVE, 1.0, 1)]
    for t, one in enumerate(seen):
        shown = (one.tobytes(), None, b"", 0.0, LIVE, "live", None)
        rows.append(DecisionRow(at, f"{name}-{t}", name, t, *shown))
    return rows


def stopped_after(sessions: int, broken: str, seed: int) -> int | None:
    """Units that met a broken sensor before the comparison with the training stopped it; None: it was missed."""
    world, source = make_world("recommendation"), np.random.default_rng([seed, sessions])
    number, factor = BROKEN[broken]
    unit = np.where(np.arange(TASTES + ITEMS + 1) == number, factor, 1.0).astype(np.float32)
    observed = trained(world, sessions, source)
    with tempfile.TemporaryDirectory() as folder:
        log = World(Path(folder) / "live.db")
        monitor, found = Monitor(log.database, 1, Rules(), observed), None
        for begun in range(0, FAULTY, BETWEEN):
            parts = [session(world, logged, source, (0, 1_000), FIRST - 1)[0][:FIRST] for _ in range(BETWEEN)]
            log.database.append([row for i, seen in enumerate(parts) for row in rows_of(begun + i, seen * unit)])
            if (found := monitor.review()) is not None:
                break
        log.close()
    return begun + BETWEEN if found is not None and found.what == "training" else None


def watched(case: Case, seed: int) -> dict[str, Any]:
    """Alarms in one log, and for the number that is strange most often, the share of units in which it is."""
    world, source = make_world(case.world), np.random.default_rng([seed, case.trained])
    observed = trained(world, case.trained, source)
    low, high = observed.low, observed.high
    counts = {place: np.zeros(len(low)) for place in ("first", "later", "later, as first")}
    with tempfile.TemporaryDirectory() as folder:
        log = World(Path(folder) / "live.db")
        rows: list[Row] = []
        for number in range(UNITS):
            seen = session(world, case.act, source, case.users, FIRST - 1)[0][:FIRST]
            rows += rows_of(number, seen)
            for place, part, margin in (
                ("first", seen[:1], AT_FIRST[0]),
                ("later", seen[1:], LATER[0]),
                ("later, as first", seen[1:], AT_FIRST[0]),
            ):
                counts[place] += outside(part, low, high, margin).any(0)
        log.database.append(rows)
        monitor, alarms = Monitor(log.database, 1, Rules(), observed), []
        while (found := monitor.review()) is not None:
            alarms.append({"what": found.what, "said": found.said})
        log.close()
    return {"alarms": alarms, **{place: float(count.max()) / UNITS for place, count in counts.items()}}


def mean_return(case: Case, act: Act) -> list[float]:
    """Mean return of EPISODES full episodes, and its standard error."""
    world, source = make_world(case.world), np.random.default_rng(0)
    earned = [session(world, act, source, case.users, 10**9)[1] for _ in range(EPISODES)]
    return [float(np.mean(earned)), float(np.std(earned, ddof=1) / np.sqrt(EPISODES))]


def table(results: dict[str, Any]) -> str:
    """Of all cases so far."""
    lines = [
        "| world | sessions of the dataset | live policy | mean return: dataset | live | units | alarms: training | "
        f"observations | outside at first (limit {AT_FIRST[1]:.0%}) | later (limit {LATER[1]:.0%}) | "
        "later, by a quarter |",
        "| :-- | --: | :-- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name, case in CASES.items():
        found = results["healthy"][name]
        runs = list(found["logs"].values())
        alarms = [alarm["what"] for run in runs for alarm in run["alarms"]]
        shares = [max(run[place] for run in runs) for place in ("first", "later", "later, as first")]
        returns = ["{:.2f} ± {:.2f}".format(*found[who]) for who in ("dataset", "live")]
        lines.append(
            f"| `{case.world}` | {case.trained:,} | {case.what} | {' | '.join(returns)} | {len(runs) * UNITS:,} | "
            f"{alarms.count('training')} | {alarms.count('observations')} | "
            f"{' | '.join(f'{share:.2%}' for share in shares)} |"
        )
    return "\n".join(lines)


def table_of_broken(results: dict[str, Any]) -> str:
    """How soon each broken sensor was stopped, by the sessions of the dataset."""
    lines = [
        "| sessions of the dataset | outside at first (limit) | later (limit) | "
        + " | ".join(f"{broken}: stopped | units, median | most" for broken in BROKEN)
        + " |",
        "| --: | --: | --: |" + " --: | --: | --: |" * len(BROKEN),
    ]
    for sessions in TRAINED:
        cells = []
        for margin, share in (AT_FIRST, LATER):
            cells.append(f"{max(share, tolerated(sessions, margin, TASTES + ITEMS + 1)):.1%}")
        for broken in BROKEN:
            units = list(results["broken"][f"{broken}, {sessions}"].values())
            stopped = sorted(one for one in units if one is not None)
            middle = np.median([FAULTY if one is None else one for one in units])
            cells += [f"{len(stopped)} of {len(units)}", f"{middle:.0f}" if middle < FAULTY else "–"]
            cells.append(str(stopped[-1]) if len(stopped) == len(units) else "–")
        lines.append(f"| {sessions:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and write alarms.json and the tables of README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redraw", action="store_true", help="only write the table again")
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"healthy": {}, "broken": {}}
    healthy, faults = results["healthy"], results["broken"]
    if not parser.parse_args().redraw:
        for name, case in CASES.items():
            if name not in healthy:
                healthy[name] = {"dataset": mean_return(case, logged), "live": mean_return(case, case.act), "logs": {}}
            for seed in range(REPEATS):
                if str(seed) not in healthy[name]["logs"]:
                    healthy[name]["logs"][str(seed)] = watched(case, seed)
                    write_atomically(RESULTS, json.dumps(results, indent=1) + "\n")
            print(f"{name}: {[run['alarms'] for run in healthy[name]['logs'].values() if run['alarms']]}", flush=True)
        for broken, sessions, seed in itertools.product(BROKEN, TRAINED, range(REPEATS)):
            logs = faults.setdefault(f"{broken}, {sessions}", {})
            if str(seed) not in logs:
                logs[str(seed)] = stopped_after(sessions, broken, seed)
                write_atomically(RESULTS, json.dumps(results, indent=1) + "\n")
    put(FOLDER / "README.md", "alarms", table(results))
    put(FOLDER / "README.md", "broken", table_of_broken(results))


if __name__ == "__main__":
    main()
