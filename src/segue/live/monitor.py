"""What goes on without a candidate: an alarm when what is seen, or what is earned, is no longer what it was.

A sensor whose unit was changed, a reward with the wrong sign, a world that moved: both arms suffer alike, so no
comparison of arms finds it. The monitor takes the first episodes under a policy as the reference, and looks for a
change in those that follow. What the policy was trained on is a reference, too, and is there from the first unit on.
It freezes the service, and the log says why.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from segue.errors import DataError
from segue.evidence import LUCKY, FallDetector, LimitTest, ShiftDetector
from segue.live.database import Database
from segue.live.trial import Rules, clock, given_up
from segue.seen import Observed

#: Units of the reference.
REFERENCE = 500
#: Standard deviations by which the mean of an observation may move: it was estimated, and traffic drifts.
TOLERANCE = 0.25
#: Decisions of a unit that are compared with what the policy was trained on.
FIRST = 20
#: By how much of its range in training a number may lie outside, and share of the units in which it may lie farther:
#: in the first observation of a unit; and in later ones, where another policy leads to other states. `tolerated` allows
#: a larger share where the range is known from few episodes.
AT_FIRST, LATER = (0.25, 0.01), (0.5, 0.1)
#: Row numbers, or episodes, that are read at once.
AT_ONCE = 5_000
#: Units that may still become strange.
OPEN = 10_000
#: An episode `e` that is the first of its unit since a row.
FIRST_OF_UNIT = "NOT EXISTS (SELECT 1 FROM episodes p WHERE p.unit = e.unit AND p.seq > ? AND p.seq < e.seq)"


class Change(NamedTuple):
    """What has changed."""

    what: str
    """training, observations, returns, costs or actions."""
    said: str
    """The same in a sentence."""
    seq: int
    """Number of the row of the episode or decision at which the alarm was raised."""


class Monitor:
    """Follows a log from where the reference begins.

    Each unit counts once, by its first episode: what comes of one unit depends on what came of it before.

    The reference is taken anew when another policy becomes live, and when the service goes on after `freeze`: what is
    the case then is taken as normal.

    Args:
        database: the log.
        begins: number of the deployment with which the reference begins.
        rules: without a window neither returns nor costs are watched. Their `run_length`, which has to be declared, is
            the mean number of units until a false alarm of each kind, at least.
        trained: the range of the observations in training; None: that is not known, or people go on after its alarm.
    """

    def __init__(self, database: Database, begins: int, rules: Rules, trained: Observed | None = None) -> None:
        assert rules.run_length is not None
        self.begins, self.rules = begins, rules
        self._database, self._run_length = database, rules.run_length
        self._read_to = self._earned_to = begins
        self._ranges: tuple[_Ranges, ...] = ()
        if trained is not None:
            self._ranges = tuple(_Ranges(trained, *limits, self._run_length) for limits in (AT_FIRST, LATER))
        self._told: set[str] = set()
        self._seen: list[np.ndarray] = []
        self._earned: list[float] = []
        self._shift: ShiftDetector | None = None
        self._varies: np.ndarray | None = None
        self._fall: FallDetector | None = None
        limit = rules.cost_limit
        self._over = None if limit is None else LimitTest(limit, self._run_length)

    @property
    def widened(self) -> str | None:
        """What the watch on the policy's training allows for because of few episodes; None if nothing."""
        limits = [ranges.limit for ranges in self._ranges]
        if not limits or limits == [AT_FIRST[1], LATER[1]]:
            return None
        return (
            "the range of observations is known from few episodes of training: an alarm takes more than "
            f"{limits[0]:.0%} of units outside of it at first, or {limits[1]:.0%} later, not {AT_FIRST[1]:.0%} or "
            f"{LATER[1]:.0%}"
        )

    def review(self) -> Change | None:
        """Look at what has come since the last review: the first change found of a kind not returned before."""
        found = self._decisions() or self._results()
        if found is not None:
            self._told.add(found.what)
        return found

    def _decisions(self) -> Change | None:
        """What units have shown first."""
        [(last,)] = self._database.read("SELECT seq FROM counter")
        while self._read_to < last:
            upto = min(self._read_to + AT_ONCE, last)
            rows = self._database.read(
                "SELECT d.seq, d.observation, d.episode, d.t, e.arm FROM decisions d "
                "JOIN episodes e ON e.episode = d.episode "
                f"WHERE d.seq > ? AND d.seq <= ? AND d.t < ? AND {FIRST_OF_UNIT} ORDER BY d.seq",
                self._read_to,
                upto,
                FIRST,
                self.begins,
            )
            self._read_to = upto
            first, later = ([row for row in rows if (row[3] == 0) == begins] for begins in (True, False))
            found = self._training(first, later)
            if (
                found is None and "observations" not in self._told
            ):  # the first observation: later ones depend on it, and on what was done
                found = self._observations([row[:2] for row in first])
            if found is not None:
                return found
        return None

    def _training(self, *parts: list[tuple[int, bytes, str, int, str]]) -> Change | None:
        """Whether too many units show what the policy has not been trained on, first or later."""
        if "training" in self._told:
            return None
        for ranges, part in zip(self._ranges, parts, strict=False):
            rows = [row[:3] for row in part if row[4] != "candidate"]
            if rows and (found := ranges.review(rows)):
                return found
        return None

    def _observations(self, rows: list[tuple[int, bytes]]) -> Change | None:
        """Unlike those of the reference?"""
        numbers, seen = [row[0] for row in rows], [np.frombuffer(row[1], np.float32) for row in rows]
        missing = REFERENCE - len(self._seen)
        if missing > 0:
            self._seen += seen[:missing]
            numbers, seen = numbers[missing:], seen[missing:]
            if len(self._seen) < REFERENCE:
                return None
            reference = np.array(self._seen, np.float64)
            self._varies = reference.std(0) > 0
            if self._varies.any():
                mean, std = reference.mean(0)[self._varies], reference.std(0)[self._varies]
                self._shift = ShiftDetector(mean, std, self._run_length, TOLERANCE)
        if self._shift is None or not seen:
            return None
        assert self._varies is not None
        path = self._shift.update(np.array(seen, np.float64)[:, self._varies])
        if not (above := np.flatnonzero(path >= self._shift.threshold)).size:
            return None
        feature = int(np.flatnonzero(self._varies)[self._shift.log_features.argmax()])
        said = f"observations have changed, most of all number {feature} (counted from 0, flattened)"
        return Change("observations", said, numbers[int(above[0])])

    def _results(self) -> Change | None:
        """Returns and costs of units that were not a candidate's, in order of assignment, once their windows closed."""
        window = self.rules.window
        if window is None:
            return None
        now = clock(self._database)
        while True:
            rows = self._database.read(
                "SELECT e.seq, e.at, e.arm, e.first, COUNT(d.decision) - COUNT(o.outcome), "
                "COALESCE(SUM(o.reward), 0.0), COALESCE(SUM(o.cost), 0.0) "
                f"FROM (SELECT seq, at, arm, episode, {FIRST_OF_UNIT} AS first FROM episodes e "
                "WHERE seq > ? ORDER BY seq LIMIT ?) e "
                "LEFT JOIN decisions d ON d.episode = e.episode AND d.at <= e.at + ? "
                "LEFT JOIN outcomes o ON o.decision = d.decision AND o.at <= e.at + ? "
                "GROUP BY e.seq, e.at, e.arm, e.first ORDER BY e.seq",
                self.begins,
                self._earned_to,
                AT_ONCE,
                window,
                window,
            )
            closed = [row for row in rows if row[1] + window < now]
            if closed:
                self._earned_to = closed[-1][0]
            mine = [row for row in closed if row[2] != "candidate" and row[3]]
            numbers = [row[0] for row in mine]
            found = self._costs(numbers, [row[6] for row in mine])
            if found is None:
                found = self._returns(numbers, [row[5] + self.rules.missing * row[4] for row in mine])
            if found is not None or len(closed) < AT_ONCE:
                return found

    def _costs(self, numbers: list[int], costs: list[float]) -> Change | None:
        """Above the limit?"""
        if self._over is None or not costs or "costs" in self._told:
            return None
        limit = self._over.limit
        try:
            path = self._over.update(costs)
        except DataError:
            place = numbers[int(np.argmin(costs))]
            return Change("costs", f"a unit costs {min(costs):g}, and no limit can be kept with negative costs", place)
        if not (above := np.flatnonzero(path >= np.log1p(self._run_length))).size:
            return None
        recent = np.mean(costs[: int(above[0]) + 1][-50:])
        said = f"costs are above the limit: {recent:.4g} per unit lately, and the limit is {limit:g}"
        return Change("costs", said, numbers[int(above[0])])

    def _returns(self, numbers: list[int], returns: list[float]) -> Change | None:
        """Below those of the reference?"""
        if "returns" in self._told:
            return None
        missing = max(REFERENCE - len(self._earned), 0)
        self._earned += returns[:missing]
        if len(self._earned) == REFERENCE and self._fall is None:
            self._fall = FallDetector(np.array(self._earned), self._run_length)
        if self._fall is None or not (later := returns[missing:]):
            return None
        path = self._fall.update(later)
        if not (above := np.flatnonzero(path >= self._fall.threshold)).size:
            return None
        recent = np.mean(later[: int(above[0]) + 1][-50:])
        said = f"returns have fallen: {np.mean(self._earned):.4g} on average at first, {recent:.4g} lately"
        return Change("returns", said, numbers[missing:][int(above[0])])


class _Ranges:
    """Counts, for each number of an observation, the units in which it lies too far outside of its range in training.

    That is by more than `margin` of that range. For one number more than a share of the units are an alarm: `share`, or
    what `tolerated` says. A number that never changed in training is not compared.
    """

    def __init__(self, trained: Observed, margin: float, share: float, run_length: float) -> None:
        self._low, self._high = trained.low.astype(np.float64), trained.high.astype(np.float64)
        varies = self._high > self._low
        self._margin, self._run_length = np.where(varies, margin * (self._high - self._low), np.inf), run_length
        #: Which numbers are outside, by the episodes of the last units, in the order of their first decisions.
        self._outside: dict[str, Bool[np.ndarray, " observation"]] = {}
        #: Of the units before: for numbers that have been outside, and for one that has not.
        self._tests: dict[int, LimitTest] = {}
        self.limit = max(share, tolerated(trained.episodes, margin, max(int(varies.sum()), 1)))
        self._never = LimitTest(self.limit, run_length)

    def review(self, rows: list[tuple[int, bytes, str]]) -> Change | None:
        """Look at further observations, each with the number of its row and its episode.

        A number counts as outside in a unit as soon as it is: a unit in which it still may be counts as if it were not,
        which makes alarms rarer and never more frequent.
        """
        low, high, margin = self._low, self._high, self._margin
        values = np.frombuffer(b"".join(row[1] for row in rows), np.float32).reshape(len(rows), -1)
        outside = np.logical_or(values < low - margin, values > high + margin)
        news = np.zeros(len(low), bool)
        for (_, _, episode), now in zip(rows, outside, strict=True):
            before = self._outside.setdefault(episode, np.zeros(len(low), bool))
            news |= now & ~before
            before |= now
        if (over := len(self._outside) - OPEN) > 0:
            self._close(np.stack([self._outside.pop(next(iter(self._outside))) for _ in range(over)]))
        for number in np.flatnonzero(news).tolist():
            test = LimitTest.restore(self._tests.get(number, self._never).state())
            path = test.update([float(unit[number]) for unit in self._outside.values()])
            if (path >= np.log1p(self._run_length * len(low))).any():
                of = np.flatnonzero(outside[:, number])
                said = (
                    f"observations are not like those that the policy was trained on, most of all number {number} "
                    f"(counted from 0, flattened): {values[of[-1], number]:.4g}, and {low[number]:.4g} to "
                    f"{high[number]:.4g} in training; more than {self.limit:.0%} of units lie outside"
                )
                return Change("training", said, rows[of[0]][0])
        return None

    def _close(self, units: Bool[np.ndarray, "units observation"]) -> None:
        """No more is to come of these units."""
        for number in np.flatnonzero(units.any(0)).tolist():
            self._tests.setdefault(number, LimitTest.restore(self._never.state()))
        for number, test in self._tests.items():
            test.update(units[:, number].astype(float))
        self._never.update(np.zeros(len(units)))


def tolerated(episodes: int, margin: float, numbers: int) -> float:
    """Share of healthy units in which a number may lie outside its range of so many episodes, by so much of that range.

    The chance w that a further episode leaves the range of n independent ones is above x with a probability of at most
    n (1 − x)^(n − 1) − (n − 1) (1 − x)^n, whatever the distribution (Wilks 1941 for single values; Campi & Garatti 2008
    for two bounds). Beyond a margin of m ranges that chance is at most w^(1 + m) if the density is log-concave (normal,
    uniform, exponential): log P(x > t) falls beyond the range at least as fast as within it. Returned is this for the
    w that is exceeded for any of the numbers by a share LUCKY of datasets.
    """
    if episodes < 2:
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-6:
        w = (low + high) / 2
        exceeded = episodes * (1 - w) ** (episodes - 1) - (episodes - 1) * (1 - w) ** episodes
        low, high = (w, high) if exceeded > LUCKY / numbers else (low, w)
    return high ** (1 + margin)


def trained_on(database: Database, live: str) -> Observed | None:
    """What Monitor compares with for this live policy; None if its alarm has been raised since it became live."""
    [(manifest,)] = database.read("SELECT manifest FROM policies WHERE policy = ?", live)
    if (observed := json.loads(manifest).get("observed")) is None:
        return None
    [(before,)] = database.read("SELECT COALESCE(MAX(seq), 0) FROM deployments WHERE live <> ?", live)
    alarms = database.read("SELECT detail FROM audit WHERE what = 'alarm' AND seq > ?", before)
    known = any(json.loads(detail)["changed"] == "training" for (detail,) in alarms)
    return None if known else Observed.read(observed)


def fails(database: Database, begins: int, live: str) -> Change | None:
    """Whether a service has found, since the reference began, that the live policy misses too many decisions."""
    seq, why = given_up(database, begins).get(live, (0, ""))
    return Change("actions", f"the live policy {why}", seq) if why else None


def reference_begins(database: Database) -> int:
    """Number of the deployment since which the same policy is live and the service was not frozen."""
    begins, live, mode = 0, "", ""
    for seq, now, how in database.read("SELECT seq, live, mode FROM deployments ORDER BY seq"):
        if now != live or (mode == "frozen") != (how == "frozen"):
            begins = seq
        live, mode = now, how
    return begins
