"""What the page of a service shows, kept up with the log: each row is read once, however often the page is looked at.

Counts and returns are kept in time buckets of three grids: the last hour, the last day, and the whole log, whose
buckets double in width as it grows. So a look costs the same on an empty log and on one of millions of rows.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Float
from msgspec import Struct

from segue.errors import SegueError
from segue.live.database import Database
from segue.live.overview import LISTED, Happening, happened, naming
from segue.live.policies import Deployment, acted_one_after_the_other, latest_deployment
from segue.live.promotion import OFF_POLICY, Promoter, Verdict, last_verdict, statuses
from segue.live.trial import Evidence, Rules, clock, paused, read_rules
from segue.student_t import student_t

#: Seconds of a bucket at first, and buckets of a grid at most.
WIDTH, BUCKETS = 10.0, 120
#: Buckets of one mean return.
GROUP = 4
#: Row numbers that are read at once, and seconds that one look may read for.
AT_ONCE, PATIENCE = 20_000, 0.5
#: Seconds for which a look is answered with what the last one found.
FRESH = 2.0
#: Upper ends of the bins in which the seconds from a decision to its outcome are counted; beyond the last is one more.
LAGS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0, 604800.0)
#: Confidence of the intervals of mean returns.
CONFIDENCE = 0.95

RANGES = {"hour": 3600.0, "day": 86400.0, "all": math.inf}


class Late(Struct):
    """How long outcomes take; each number is the upper end of a bin, None beyond a week or where there are none."""

    median: float | None
    most: float | None
    """Nine of ten take less."""


class Series(Struct):
    """What came of one arm in a range of time; `traffic` has a value per bucket, the other lists one per GROUP."""

    episodes: int
    decisions: int
    outcomes: int
    counted: int
    """Episodes whose returns are known."""
    mean: float | None
    """Mean return per episode."""
    low: float | None
    """Of its 95 % interval."""
    high: float | None
    due: int
    """Decisions of these episodes."""
    missing: int
    """Those of them whose reward did not arrive in time."""
    late: Late
    traffic: list[int]
    """Decisions."""
    means: list[float | None]
    """Mean return of the episodes that were assigned in GROUP buckets."""
    lows: list[float | None]
    highs: list[float | None]
    counts: list[int]
    """Episodes that the means are of."""


class Answered(Struct):
    """How long decisions took in this process since it began."""

    count: int
    median: float | None
    """Seconds, within the bucket of the histogram."""
    most: float | None
    """Ninety-nine of a hundred took less."""


class Refusals(Struct):
    """What was refused with one code in the range."""

    code: str
    count: int
    at: float
    """When the last one was."""
    message: str
    """What it was answered."""


class Listed(Struct):
    """A policy."""

    policy: str
    name: str
    status: str
    parent: str | None
    trained_to: int | None
    at: float
    gate: str | None
    verdict: str | None
    """The last gate, and what it said."""


class Seen(Struct):
    """What the page shows."""

    at: float
    """Time of the service, in seconds since 1970."""
    read: float
    """Share of the log that has been read: below 1 while the service catches up with a long log."""
    begins: float
    """Start of the first bucket."""
    width: float
    """Seconds of a bucket."""
    deployment: Deployment
    acts: str
    """Who acts and who only watches, in words."""
    since: float
    who: str
    why: str
    previous: str | None
    """Who acts again after a rollback, if there is no candidate: a policy, or "" for the application."""
    trial: Evidence | None
    problem: str | None
    """Why the trial cannot be judged."""
    off_policy: Verdict | None
    """The off-policy gate's last verdict on the candidate."""
    rules: Rules
    arms: dict[str, Series]
    refused: list[Refusals]
    happened: list[Happening]
    """Oldest first."""
    policies: list[Listed]
    """Newest first."""
    answered: Answered
    waiting: int
    """Rows that wait to be written."""
    failure: str | None
    """Why nothing can be written, or the last review of the evidence failed."""


#: Where each sum is in a row of a grid: the bins of lags are the last.
EPISODES, DECISIONS, OUTCOMES, COUNTED, RETURNS, SQUARES, DUE, MISSING, BINS = range(9)
SUMS = BINS + len(LAGS) + 1


class _Grid:
    """Sums by bucket and by arm or code: of the last `span` seconds, or of everything."""

    def __init__(self, span: float) -> None:
        self.forever = math.isinf(span)
        self.width = WIDTH if self.forever else span / BUCKETS
        self.sums: dict[tuple[int, str], Float[np.ndarray, " sums"]] = {}

    def add(self, at: float, arm: str, sums: Float[np.ndarray, " sums"]) -> None:
        """Sums of what was at this time."""
        key = (math.floor(at / self.width), arm)
        self.sums[key] = self.sums[key] + sums if key in self.sums else sums

    def last(self, now: float) -> int:
        """The bucket of now, or of what came later by the clock of another machine."""
        return max(math.floor(now / self.width), max(self.sums)[0] if self.sums else 0)

    def tidy(self, now: float) -> None:
        """Forget what is too old, or make the buckets wider."""
        if not self.forever:
            oldest = self.last(now) - BUCKETS
            self.sums = {key: sums for key, sums in self.sums.items() if key[0] > oldest}
            return
        while self.sums and self.last(now) - min(self.sums)[0] >= BUCKETS:
            narrow, self.sums, self.width = self.sums, {}, self.width * 2
            for (bucket, arm), sums in narrow.items():
                self.add((bucket + 0.5) * self.width / 2, arm, sums)


class Board:
    """Follows a log. One thread uses it.

    Args:
        database: the log.
        promoter: knows the trial that goes on.
    """

    def __init__(self, database: Database, promoter: Promoter) -> None:
        self._database, self._promoter = database, promoter
        self._grids = {name: _Grid(span) for name, span in RANGES.items()}
        self._read_to = self._last = 0
        self._behind = False
        self._codes = {name: _Grid(span) for name, span in RANGES.items()}
        self._last_refused: dict[str, int] = {}
        self._returns = _Returns(None, 0.0)
        self._seen: dict[str, tuple[float, Seen]] = {}

    def see(self, span: str, answered: Answered, waiting: int, failure: str | None) -> Seen:
        """What is known now, or was FRESH seconds ago.

        Args:
            span: hour, day or all.
            answered: what the process knows of its latency.
            waiting: rows that wait to be written.
            failure: why the service cannot do all that it should.

        Raises:
            Unavailable: if the log cannot be read now.
        """
        before, seen = self._seen.get(span, (-math.inf, None))
        now = latest_deployment(self._database)
        assert now is not None  # the service has begun
        old = time.monotonic() - before > FRESH
        if seen is None or old or seen.read < 1 or seen.deployment.seq != now.seq:
            self._follow()
            seen = self._look(span, now, answered, waiting, failure)
            self._seen[span] = (time.monotonic(), seen)
        return msgspec.structs.replace(seen, at=time.time(), answered=answered, waiting=waiting, failure=failure)

    # Reading on.

    def _follow(self) -> None:
        """Read what is new, for PATIENCE seconds at most."""
        started, rules = time.monotonic(), read_rules(self._database)
        [(self._last,)] = self._database.read("SELECT seq FROM counter")
        if self._returns.window != rules.window or self._returns.missing != rules.missing:
            for sums in itertools.chain.from_iterable(grid.sums.values() for grid in self._grids.values()):
                sums[COUNTED : MISSING + 1] = 0
            self._returns = _Returns(rules.window, rules.missing)
        while self._read_to < self._last and time.monotonic() - started < PATIENCE:
            upto = min(self._read_to + AT_ONCE, self._last)
            self._count(self._read_to, upto)
            self._read_to = upto
        self._behind = True
        while self._behind and time.monotonic() - started < PATIENCE:
            self._behind = self._returns.follow(self._database, self._add, self._last)
        for grid in (*self._grids.values(), *self._codes.values()):
            grid.tidy(time.time())

    def _add(self, at: float, arm: str, sums: Float[np.ndarray, " sums"]) -> None:
        for grid in self._grids.values():
            grid.add(at, arm, sums.copy())

    def _count(self, after: int, upto: int) -> None:
        """Rows with these numbers, counted in the database."""
        for place, statement in (
            (EPISODES, f"SELECT {_bucket('at')}, arm, COUNT(*) FROM episodes WHERE seq > ? AND seq <= ? GROUP BY 1, 2"),
            (
                DECISIONS,
                f"SELECT {_bucket('d.at')}, e.arm, COUNT(*) FROM decisions d JOIN episodes e ON e.episode = d.episode "
                "WHERE d.seq > ? AND d.seq <= ? GROUP BY 1, 2",
            ),
        ):
            for bucket, arm, count in self._database.read(statement, after, upto):
                sums = np.zeros(SUMS)
                sums[place] = count
                self._add((bucket + 0.5) * WIDTH, arm, sums)
        cases = " ".join(f"WHEN o.at - d.at <= {end} THEN {place}" for place, end in enumerate(LAGS))
        for bucket, arm, lag, count in self._database.read(
            f"SELECT {_bucket('o.at')}, e.arm, CASE {cases} ELSE {len(LAGS)} END, COUNT(*) FROM outcomes o "
            "JOIN decisions d ON d.decision = o.decision JOIN episodes e ON e.episode = d.episode "
            "WHERE o.seq > ? AND o.seq <= ? GROUP BY 1, 2, 3",
            after,
            upto,
        ):
            sums = np.zeros(SUMS)
            sums[[OUTCOMES, BINS + lag]] = count
            self._add((bucket + 0.5) * WIDTH, arm, sums)
        for bucket, code, count, seq in self._database.read(
            f"SELECT {_bucket('at')}, code, COUNT(*), MAX(seq) FROM refused WHERE seq > ? AND seq <= ? GROUP BY 1, 2",
            after,
            upto,
        ):
            self._last_refused[code] = max(seq, self._last_refused.get(code, 0))
            for grid in self._codes.values():
                grid.add((bucket + 0.5) * WIDTH, code, np.array([count], float))

    # What it comes to.

    def _look(self, span: str, deployment: Deployment, answered: Answered, waiting: int, failure: str | None) -> Seen:
        now, grid = time.time(), self._grids[span]
        [(since, who, why)] = self._database.read("SELECT at, who, why FROM deployments WHERE seq = ?", deployment.seq)
        last = grid.last(now)
        first = min((key[0] for key in grid.sums), default=last) if grid.forever else last - BUCKETS + 1
        first -= first % GROUP  # the same groups at every look
        begins, count = first * grid.width, last - first + 1
        names = sorted({arm for _, arm in grid.sums})
        trial, problem = None, None
        try:
            trial = self._promoter.evidence()
        except SegueError as error:
            problem = str(error)
        return Seen(
            now,
            self._share_read(),
            begins,
            grid.width,
            deployment,
            deployment.describe(naming(self._database), deployment.seq in paused(self._database)),
            since,
            who,
            why,
            next((one.acts for one in acted_one_after_the_other(self._database)[-2:-1]), None),
            trial,
            problem,
            None if deployment.candidate is None else last_verdict(self._database, deployment.candidate, OFF_POLICY),
            read_rules(self._database),
            {arm: _series(grid, arm, first, count) for arm in names},
            self._refusals(span),
            happened(self._database, 0.0 if grid.forever else begins),
            self._policies(),
            answered,
            waiting,
            failure,
        )

    def _share_read(self) -> float:
        """Of the rows and of the returns."""
        returns = self._returns.read_to if self._behind else self._last
        return (self._read_to + returns) / (2 * self._last)

    def _policies(self) -> list[Listed]:
        status = statuses(self._database)
        rows = self._database.read(
            "SELECT p.policy, p.name, p.parent, p.trained_to, p.at, g.gate, g.verdict FROM policies p "
            "LEFT JOIN gates g ON g.seq = (SELECT MAX(seq) FROM gates WHERE candidate = p.policy) ORDER BY p.seq DESC"
        )
        found = [Listed(policy, name, status[policy], *rest) for policy, name, *rest in rows]
        return [one for place, one in enumerate(found) if place < LISTED or one.status not in ("staged", "retired")]

    def _refusals(self, span: str) -> list[Refusals]:
        counts: dict[str, int] = {}
        for (_, code), sums in self._codes[span].sums.items():
            counts[code] = counts.get(code, 0) + int(sums[0])
        found = []
        for code, count in sorted(counts.items(), key=lambda pair: -pair[1])[:LISTED]:
            [(at, message)] = self._database.read(
                "SELECT at, message FROM refused WHERE seq = ?", self._last_refused[code]
            )
            found.append(Refusals(code, count, at, message))
        return found


class _Returns:
    """Returns of episodes, each entered once.

    With a reward window: in order of assignment, when the window has closed, as promotion counts them. Without one:
    when an episode ends, with what has arrived by then.
    """

    def __init__(self, window: float | None, missing: float) -> None:
        self.window, self.missing, self.read_to = window, missing, 0

    def follow(self, database: Database, add: Any, last: int) -> bool:
        """Enter some; whether there may be more."""
        if self.read_to >= last:
            return False
        upto = min(self.read_to + AT_ONCE, last)
        if self.window is None:
            rows = database.read(
                "SELECT x.at, x.arm, COUNT(d.decision), COUNT(o.outcome), COALESCE(SUM(o.reward), 0.0) FROM ("
                "SELECT e.episode, e.at, e.arm, f.seq FROM outcomes f JOIN decisions g ON g.decision = f.decision "
                "JOIN episodes e ON e.episode = g.episode "
                "WHERE f.seq > ? AND f.seq <= ? AND (f.terminated = 1 OR f.truncated = 1)) x "
                "JOIN decisions d ON d.episode = x.episode LEFT JOIN outcomes o ON o.decision = d.decision "
                "AND o.seq <= x.seq GROUP BY x.episode, x.at, x.arm",
                self.read_to,
                upto,
            )
        else:
            open_ = database.read(
                "SELECT seq FROM episodes WHERE seq > ? AND seq <= ? AND at >= ? ORDER BY seq LIMIT 1",
                self.read_to,
                upto,
                clock(database) - self.window,
            )
            upto = open_[0][0] - 1 if open_ else upto
            rows = database.read(
                "SELECT e.at, e.arm, COUNT(d.decision), COUNT(o.outcome), COALESCE(SUM(o.reward), 0.0) FROM episodes e "
                "LEFT JOIN decisions d ON d.episode = e.episode AND d.at <= e.at + ? "
                "LEFT JOIN outcomes o ON o.decision = d.decision AND o.at <= e.at + ? "
                "WHERE e.seq > ? AND e.seq <= ? GROUP BY e.seq, e.at, e.arm",
                self.window,
                self.window,
                self.read_to,
                upto,
            )
        for at, arm, due, rewarded, total in rows:
            value = total + self.missing * (due - rewarded)
            sums = np.zeros(SUMS)
            sums[COUNTED : MISSING + 1] = 1, value, value**2, due, due - rewarded
            add(at, arm, sums)
        more = upto > self.read_to
        self.read_to = upto
        return more


def _series(grid: _Grid, arm: str, first: int, count: int) -> Series:
    rows = [grid.sums.get((bucket, arm), np.zeros(SUMS)) for bucket in range(first, first + count)]
    total = np.sum(rows, axis=0)
    mean, low, high = _interval(total)
    groups = [np.sum(rows[place : place + GROUP], axis=0) for place in range(0, count, GROUP)]
    intervals = [_interval(group) for group in groups]
    return Series(
        episodes=int(total[EPISODES]),
        decisions=int(total[DECISIONS]),
        outcomes=int(total[OUTCOMES]),
        counted=int(total[COUNTED]),
        mean=mean,
        low=low,
        high=high,
        due=int(total[DUE]),
        missing=int(total[MISSING]),
        late=Late(_upper(total[BINS:], 0.5), _upper(total[BINS:], 0.9)),
        traffic=[int(row[DECISIONS]) for row in rows],
        means=[one[0] for one in intervals],
        lows=[one[1] for one in intervals],
        highs=[one[2] for one in intervals],
        counts=[int(group[COUNTED]) for group in groups],
    )


def _interval(sums: Float[np.ndarray, " sums"]) -> tuple[float | None, float | None, float | None]:
    """Mean return and its interval, of two episodes or more."""
    number = float(sums[COUNTED])
    if not number:
        return None, None, None
    mean = float(sums[RETURNS]) / number
    if number < 2:
        return mean, None, None
    variance = max(float(sums[SQUARES]) - number * mean**2, 0.0) / (number - 1)
    half = student_t((1 + CONFIDENCE) / 2, number - 1) * math.sqrt(variance / number)
    return mean, mean - half, mean + half


def _upper(bins: Float[np.ndarray, " bins"], share: float) -> float | None:
    """Upper end of the bin in which this share of all is reached."""
    if not bins.sum():
        return None
    place = int(np.searchsorted(np.cumsum(bins), share * bins.sum() - 1e-9))
    return LAGS[place] if place < len(LAGS) else None


def _bucket(column: str) -> str:
    """⌊at / WIDTH⌋ of whole milliseconds: databases round fractions differently, and divide whole numbers alike."""
    return f"CAST({column} * 1000 AS BIGINT) / {1000 * WIDTH:.0f}"
