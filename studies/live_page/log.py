"""A live log without a service: a policy, a candidate that is a little better, and what happened to them."""

from __future__ import annotations

import heapq
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from segue.live.database import open_database
from segue.live.policies import Deployment, latest_deployment, stage
from segue.live.schema import (
    AuditRow,
    DecisionRow,
    DeploymentRow,
    EpisodeRow,
    GateRow,
    OutcomeRow,
    RefusedRow,
    Row,
    RulesRow,
)

HOURS = 6
#: Decisions of an episode.
STEPS = 3
#: Rows in a transaction.
AT_ONCE = 2_000


def write(file: Path, policy: Path, candidate: Path, decisions: int, seed: int = 0) -> None:
    """Six hours that end now: traffic rises and falls, outcomes come late, some never; a canary is in progress."""
    database, draw = open_database(file), np.random.default_rng(seed)
    live, tried = stage(database, policy, "cart-12"), stage(database, candidate, "cart-13")
    end = time.time()
    start = end - HOURS * 3600
    database.append(
        [
            DeploymentRow(start, "live", live, None, 0.0, "0.1", "service", "the log begins", 0),
            RulesRow(start, "ana", json.dumps({"window": 600.0})),
        ]
    )

    def deploy(at: float, what: str, mode: str, share: float, who: str, why: str) -> list[Row]:
        before = latest_deployment(database)
        assert before is not None
        row = DeploymentRow(at, mode, live, tried, share, "0.1", who, why, 0, before.seq)
        [seq] = database.append([row])
        return [AuditRow(at, who, what, json.dumps({"deployment": seq, "why": why}))]

    verdict = {"reason": "its lower bound is above the live policy's value", "live": live, "effective_episodes": 61.2}
    steps: list[tuple[float, Callable[[float], list[Row]]]] = [
        (1.0, lambda at: deploy(at, "shadow", "shadow", 0.0, "ana", "cart-13 was fine-tuned on this week's log")),
        (1.9, lambda at: [GateRow(at, tried, "off-policy", "passed", json.dumps(verdict | {"needed": 30.0}))]),
        (2.0, lambda at: deploy(at, "canary", "canary", 0.1, "promotion", "the off-policy gate let it pass")),
        (3.4, lambda at: [AuditRow(at, "learner", "late", json.dumps({"why": "4,210 rows behind"}))]),
        (4.0, lambda at: [GateRow(at, tried, "canary 0.1", "passed", "{}")]),
        (4.0, lambda at: deploy(at, "canary", "canary", 0.5, "promotion", "the candidate is better (evidence 45.1)")),
    ]
    late: list[tuple[float, int, OutcomeRow]] = []
    rows: list[Row] = []
    number = itertools.count()
    hours = np.linspace(0, HOURS, 400)
    rate = 1 + 0.5 * np.sin(hours * 1.1) + 0.1 * draw.random(400)
    many = decisions // STEPS
    arrivals = np.sort(draw.choice(hours, many, p=rate / rate.sum()) + draw.random(many) / 70)
    deployment: Deployment | None = latest_deployment(database)
    for hour in arrivals:
        at = min(start + 3600 * float(hour), end)
        while steps and steps[0][0] < hour:
            when, step = steps.pop(0)
            rows += step(start + 3600 * when)
            deployment = latest_deployment(database)
        assert deployment is not None
        while late and late[0][0] < at:
            rows.append(heapq.heappop(late)[2])
        unit = f"u{next(number)}"
        arm, acts, chance = deployment.arm(unit)
        rows.append(EpisodeRow(at, unit, unit, arm, acts, chance, deployment.seq))
        for t in range(STEPS):
            name, now = f"{unit}-{t}", at + t
            observation = draw.normal(size=4).astype(np.float32).tobytes()
            action = np.int64(t % 2).tobytes()
            rows.append(DecisionRow(now, name, unit, t, observation, None, action, -0.7, acts, deployment.mode, None))
            if draw.random() < 0.985:
                reward = float(draw.normal(1.0 + 0.035 * (arm == "candidate"), 1.0))
                came = now + float(draw.lognormal(2.5, 1.2))
                heapq.heappush(late, (came, next(number), OutcomeRow(came, name, name, reward, None, None, t == 2, 0)))
        if draw.random() < 30 / decisions:
            rows.append(RefusedRow(at, "outcomes", "unknown_decision", f"there is no decision '{unit}x-0'", "{}"))
        if draw.random() < 20 / decisions:
            rows.append(RefusedRow(at, "decisions", "malformed", "Object missing required field `observation`", "{}"))
        if len(rows) > AT_ONCE:
            database.append(rows)
            rows = []
    database.append(rows)
    database.close()
