"""Who drives: a style or a learnt policy, in the traffic that all are judged in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from examples.driving.drivers import SLOWER, STYLES, Style, decide
from examples.driving.journeys import Drive, Journey, drive

from segue.files import write_atomically
from segue.policy import Policy
from segue.runner.directory import slug
from segue.runner.result import Result

#: Seeds of the traffic of evaluations, which nobody has learnt from.
FIRST_SEED = 1_000_000
STILL = "standing still"
#: Who drives by a rule: the styles, and what a reward must not pay for.
RULES = (STILL, *STYLES)


def stand_still(seen: np.ndarray, roads: Any) -> np.ndarray:
    """Brakes, and stays."""
    return np.full(len(roads), SLOWER)


def by_style(style: Style, seed: int) -> Drive:
    """Drivers of this style, each with slips of its own."""
    sources: list[np.random.Generator] = []

    def act(seen: np.ndarray, roads: Any) -> np.ndarray:
        sources.extend(np.random.default_rng((seed, i)) for i in range(len(sources), len(roads)))
        return np.array([decide(one.driven, style, source) for one, source in zip(roads, sources, strict=True)])

    return act


def by_policy(policy: Policy) -> Drive:
    """A policy as it would be deployed, without exploration."""
    source = np.random.default_rng(0)
    return lambda seen, roads: np.asarray(policy.act(seen, policy.start(len(seen)), source, False).action)


def judge(run: Path, driver: str, seed: int, episodes: int) -> list[Journey]:
    """Episodes of a driver of the run, or by a rule, in the traffic that all are judged in; kept beside the run."""
    file = run.parent / "journeys" / f"{slug(driver)}-{seed}-{episodes}.json"
    if file.exists():
        return [Journey(*one) for one in json.loads(file.read_text())]
    if driver in RULES:
        drives = stand_still if driver == STILL else by_style(STYLES[driver], seed)
    else:
        drives = by_policy(Result.load(run).policy(driver, seed))
    journeys = drive(drives, range(FIRST_SEED, FIRST_SEED + episodes))
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, json.dumps(journeys) + "\n")
    return journeys
