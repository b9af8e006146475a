"""`segue ab`: which of two policies is better, from the units that they shared or from a dataset."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import tyro

from segue.cli.parse import parse
from segue.errors import SegueError

DESCRIPTION = """Which of two policies is better?

  segue ab --db live.db                          the last trial of a live log
  segue ab POLICY POLICY --db live.db            all units that these two have shared
  segue ab DIR DIR --dataset live:live.db        two exported policies, judged off-policy from a dataset

Intervals and evidence hold at all times at once: look as often as you like."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """Which policies, and where they are compared."""

    one: tyro.conf.Positional[str | None] = None
    """With --db, the beginning of a hash, or a name; with --dataset, a directory that `segue export` wrote."""
    other: tyro.conf.Positional[str | None] = None
    """The same of the other one."""
    db: str | None = None
    """A live log: a file, sqlite:///FILE or postgresql://…"""
    dataset: str | None = None
    """A dataset with propensities that judges both."""
    window: float | None = None
    """With --db: seconds in which rewards count, by default as declared in the log."""
    alpha: float = 0.05
    """1 − α is the confidence of the interval."""
    json: bool = False
    """Print JSON."""


def main(arguments: list[str]) -> int:
    """Print the difference, its interval, the evidence, and a verdict in a sentence."""
    flags = parse(Flags, arguments, "ab", DESCRIPTION)
    if (flags.db is None) == (flags.dataset is None):
        raise SegueError("expected --db LOG (units that two policies shared) or --dataset (off-policy), one of both")
    if not 0 < flags.alpha < 1:
        raise SegueError(f"--alpha is {flags.alpha:g}; expected between 0 and 1")
    if flags.window is not None and flags.dataset is not None:
        raise SegueError("--window is of units of a live log (--db); a dataset has no reward window")
    if flags.window is not None and not 0 < flags.window < math.inf:
        raise SegueError(f"--window is {flags.window:g}; expected seconds above 0")
    if (flags.one is None) != (flags.other is None):
        raise SegueError("one policy is named; expected two, or none for the last trial of the log")
    return _live(flags) if flags.dataset is None else _offline(flags)


def _live(flags: Flags) -> int:
    import msgspec

    from segue.live.database import open_database
    from segue.live.promotion import find_policy
    from segue.live.trial import APPLICATION, Trial, between, read_rules

    assert flags.db is not None
    database = open_database(flags.db, create=False)
    try:
        pair = [None if word is None else find_policy(database, word) for word in (flags.one, flags.other)]
        course = between(database, *pair)
        rules = msgspec.structs.replace(read_rules(database, course.began), alpha=flags.alpha)
        if flags.window is not None:
            rules = msgspec.structs.replace(rules, window=flags.window)
        trial = Trial(database, course, rules)
        trial.follow(course)
        found = trial.comparison()
        names = {APPLICATION: "the application", **dict(database.read("SELECT policy, name FROM policies"))}
    finally:
        database.close()
    if flags.json:
        print(json.dumps(msgspec.to_builtins(found), indent=1))
        return 0
    _table(
        ("units", "mean return", "mean cost", "without reward", "mean delay", "waiting"),
        {
            f"{arm}: {names[policy]} {policy[:12]}".rstrip(): (
                str(of.units),
                _number(of.mean),
                _number(of.cost),
                "–" if of.missing is None else f"{of.missing:.1%}",
                "–" if of.lag is None else f"{of.lag:.3g} s",
                str(of.waiting),
            )
            for arm, policy in found.policies.items()
            for of in [found.arms[arm]]
        },
    )
    low, high = found.interval or (-math.inf, math.inf)
    print(f"difference: {_number(found.difference)} ({low:.4g} … {high:.4g} at {1 - flags.alpha:.0%}, at all times)")
    evidence = {"better": found.log_better, "worse": found.log_worse, "sample-ratio mismatch": found.log_mismatch}
    said = ", ".join(f"{name} {math.exp(min(value, 700)):.3g}" for name, value in evidence.items())
    print(f"largest evidence so far: {said}; each needs {math.exp(found.needed):.3g}")
    print(found.verdict)
    return 0


def _offline(flags: Flags) -> int:
    from segue.data import load
    from segue.deployment.policy import load_policy
    from segue.ope import evaluate_offline

    if flags.one is None or flags.other is None:
        raise SegueError("--dataset: expected two directories that `segue export` wrote")
    assert flags.dataset is not None
    dataset = load(flags.dataset)
    # Four one-sided bounds make the interval of the difference; together they may be wrong with probability alpha.
    confidence = 1 - flags.alpha / 4
    found: dict[str, Any] = {}
    for place in (flags.one, flags.other):
        policy = load_policy(Path(place))
        found[place] = evaluate_offline(policy, dataset, methods=["pdis"], confidence=confidence)
    one, other = (found[place].estimates[0] for place in (flags.one, flags.other))
    low = other.bounds.difference_lower - one.bounds.difference_upper
    high = other.bounds.difference_upper - one.bounds.difference_lower
    exact = not any("approximate" in estimate.validity for estimate in (one, other))
    if low > 0 or high < 0:
        better, worse = (flags.other, flags.one) if low > 0 else (flags.one, flags.other)
        size = low if low > 0 else -high
        verdict = f"{better} is better than {worse} by {size:.3g} or more"
        verdict = verdict if exact else f"not enough evidence: points to {verdict}, with estimated propensities"
    else:
        verdict = f"not enough evidence that they differ: the difference may be anywhere from {low:+.3g} to {high:+.3g}"
    if flags.json:
        estimates = {place: found[place].to_dict() for place in found}
        bounds = [value if math.isfinite(value) else None for value in (low, high)]
        plain = {"difference": other.value - one.value, "interval": bounds, "verdict": verdict, "policies": estimates}
        print(json.dumps(plain, indent=1))
        return 0
    _table(
        ("value", "at least", "effective episodes"),
        {
            place: (
                _number(estimate.value),
                _number(estimate.bounds.value_lower),
                "–" if estimate.support is None else f"{estimate.support.effective_episodes:.1f}",
            )
            for place, estimate in ((flags.one, one), (flags.other, other))
        },
    )
    print(f"difference: {other.value - one.value:+.4g} ({low:.4g} … {high:.4g} at {1 - flags.alpha:.0%})")
    print(verdict)
    return 0


def _table(headings: tuple[str, ...], rows: dict[str, tuple[str, ...]]) -> None:
    from rich.table import Table

    from segue.console import PlainConsole

    table = Table(box=None, pad_edge=False)
    table.add_column("policy", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    PlainConsole().print(table)


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"
