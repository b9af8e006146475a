"""A live log without a service: units arrive, the deployment that is in force draws their arms, rewards come late."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from segue.live.database import Sqlite
from segue.live.policies import latest_deployment
from segue.live.promotion import Promoter, canary
from segue.live.schema import CursorRow, DecisionRow, DeploymentRow, EpisodeRow, OutcomeRow, PolicyRow, Row
from segue.live.trial import READER, Evidence, declare

LIVE, CANDIDATE = "a" * 64, "b" * 64
#: Seconds between units.
GAP = 1.0


class World:
    """Units one after the other, and the promotion beside them.

    Args:
        file: where the log is begun.
        about: what the live policy's manifest says.
        rules: of promotion; `window` in seconds.
    """

    def __init__(self, file: Path, about: Mapping[str, object] | None = None, **rules: object) -> None:
        self.database = Sqlite(file)
        self.now, self.units = 0.0, itertools.count()
        self.promoter = Promoter(self.database)
        self._late: list[tuple[float, int, OutcomeRow]] = []
        self.add(LIVE, about)
        self.database.append([DeploymentRow(0.0, "live", LIVE, None, 0.0, "no", "study", "", 0)])
        declare(self.database, 0.0, "study", rules)

    def add(self, policy: str, about: Mapping[str, object] | None = None) -> None:
        """A policy without files."""
        self.database.append([PolicyRow(0.0, policy, policy[0], None, None, json.dumps(about or {}))])

    def candidate(self, policy: str = CANDIDATE) -> None:
        """A trial begins."""
        self.add(policy)
        canary(self.database, policy, "study", force=True)

    def arrive(
        self,
        returns: Sequence[float],
        better: float = 0.0,
        delay: Callable[[str, float], float | None] = lambda arm, value: 1.0,
        cost: Callable[[str], float | None] = lambda arm: None,
        lost: Callable[[str, int], bool] = lambda arm, number: False,
    ) -> Evidence | None:
        """As many units, then a review.

        Args:
            returns: what each would earn with the live policy.
            better: how much more with the candidate.
            delay: seconds until the reward arrives, from the arm and the return; None: it never does.
            cost: of a unit, by its arm.
            lost: whether a unit never gets into the log, from its arm and its number.
        """
        rows: list[Row] = []
        deployment = latest_deployment(self.database)
        assert deployment is not None
        for base in returns:
            self.now += GAP
            rows += self._arrived()
            number = next(self.units)
            name = f"u{number}"
            arm, policy, probability = deployment.arm(name)
            if lost(arm, number):
                continue
            value = float(base) + better * (arm == "candidate")
            rows.append(EpisodeRow(self.now, name, name, arm, policy, probability, deployment.seq))
            rows.append(DecisionRow(self.now, name, name, 0, b"", None, b"", 0.0, policy, deployment.mode, None))
            if (later := delay(arm, value)) is not None:
                outcome = OutcomeRow(self.now + later, name, name, value, cost(arm), None, 1, 0)
                heapq.heappush(self._late, (outcome.at, number, outcome))
        self.database.append(rows)
        return self.promoter.review()

    def settle(self, seconds: float = 1e4) -> Evidence | None:
        """Time passes: every reward arrives, every window closes."""
        self.now += seconds
        self.database.append([*self._arrived(), CursorRow(self.now, READER, 0, "")])
        return self.promoter.review()

    def _arrived(self) -> list[Row]:
        rows: list[Row] = []
        while self._late and self._late[0][0] <= self.now:
            rows.append(heapq.heappop(self._late)[2])
        return rows

    def outcome(self) -> str:
        """How it ended: promoted, stopped, or open."""
        gates = {verdict for (verdict,) in self.database.read("SELECT verdict FROM gates")}
        now = latest_deployment(self.database)
        assert now is not None
        return "stopped" if "alarm" in gates else "promoted" if now.live != LIVE else "open"

    def close(self) -> None:
        """Close the log."""
        self.database.close()


def follow(
    file: Path,
    units: int,
    draw: Callable[[np.random.Generator, int], np.ndarray],
    seed: int,
    better: float = 0.0,
    delay: Callable[[str, float], float | None] = lambda arm, value: 1.0,
    every: int = 50,
    shares: Sequence[float] = (0.1, 0.5),
    window: float = 20.0,
) -> tuple[str, int]:
    """A world until its candidate is promoted or stopped, or for so many units: how it ended, and after how many."""
    # A season and a drift are part of some worlds, so nobody looks for changes.
    world, rng = World(file, window=window, shares=shares, run_length=None), np.random.default_rng(seed)
    # The arm of a unit is a hash of the candidate and the unit: another candidate is another draw.
    world.candidate(f"{rng.integers(2**63):064x}")
    returns = draw(rng, units)
    try:
        for start in range(0, units, every):
            world.arrive(returns[start : start + every].tolist(), better, delay)
            if (ended := world.outcome()) != "open":
                return ended, min(start + every, units)
        return "open", units
    finally:
        world.close()
