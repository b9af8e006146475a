"""A candidate on trial: the returns of its units and of the live policy's, in order of assignment, and what they show.

A **unit** (a user, a patient, a robot) is what is randomised. It counts once for each candidate, by its first episode
that could have been the candidate's, for the arm that it was assigned, whoever acted later. Its return is the sum of
the rewards that arrive within the reward window. It enters the tests when the window has closed, in order of
assignment: whatever finishes first would otherwise count first, and arms that differ in their delays would differ.

All of it is a function of the log, so a restart, and another process that reads the same log, find the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Bool, Float
from msgspec import Meta, Struct

from segue.errors import SegueError
from segue.evidence import LimitTest, MeanDifference, MeanUpper, RankComparison, SampleRatio, required_evidence
from segue.live.database import Database
from segue.live.schema import AuditRow, RulesRow

#: The reader of the log whose ticks close reward windows while nothing else arrives.
READER = "promotion"
#: Episodes that are read at once.
AT_ONCE = 5_000
ARMS = ("live", "candidate")
#: What stands for the live policy in a trial beside the application.
APPLICATION = ""
#: What `audit` calls it when a service finds that a policy misses too many of its decisions.
GIVEN_UP = "given up"
#: A candidate is not promoted when others made more than this share of its units' decisions in its place.
MOST_STOOD_IN = 0.01


class Rules(Struct, frozen=True, forbid_unknown_fields=True):
    """What promotion asks of a candidate. A trial keeps the rules that it began with."""

    window: Annotated[float, Meta(gt=0)] | None = None
    """Seconds after an episode's assignment in which its rewards count; no trial begins before it is declared."""
    missing: float = 0.0
    """What a decision counts whose reward did not arrive in the window."""
    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    """Expected share of false promotions among all, at most; and probability that a candidate which is as good as the
    live policy is ever stopped by an alarm."""
    shares: tuple[Annotated[float, Meta(gt=0, lt=1)], ...] = (0.1, 0.5)
    """Share of the units that the candidate gets, stage by stage, before it gets all."""
    cost: float | None = None
    """How much more cost per unit than the live policy's is tolerated; None: that decides nothing."""
    cost_limit: Annotated[float, Meta(gt=0)] | None = None
    """Mean cost per unit that no policy may exceed; None: there is no limit. Costs are then 0 or more."""
    gate: Literal["passed", "open"] = "passed"
    """What the off-policy gate has to say before a canary: that the candidate is better (passed); or anything but that
    it is worse (open), and the canary finds out."""
    effective: Annotated[float, Meta(ge=1)] = 30.0
    """Effective episodes that the off-policy gate needs."""
    run_length: Annotated[float, Meta(ge=100)] | None = 100_000.0
    """Mean number of units until a false alarm that observations or returns have changed, at least; None: nobody
    looks."""
    automatic: bool = True
    """Whether the service takes the steps itself. Alarms always withdraw a candidate."""

    def __post_init__(self) -> None:
        if not self.shares or list(self.shares) != sorted(set(self.shares)):
            raise ValueError(f"shares are {list(self.shares)}; expected at least one, each larger than the one before")
        for name in ("missing", "cost", "cost_limit"):
            if not math.isfinite(value := getattr(self, name) or 0.0):
                raise ValueError(f"{name} is {value}; expected a finite number")


def read_rules(database: Database, before: int | None = None) -> Rules:
    """The rules that hold now, or that held when the row with this number was written."""
    bound = 2**62 if before is None else before
    rows = database.read("SELECT rules FROM rules WHERE seq < ? ORDER BY seq DESC LIMIT 1", bound)
    return msgspec.json.decode(rows[0][0], type=Rules) if rows else Rules()


def declare(database: Database, at: float, who: str, changes: Mapping[str, Any]) -> Rules:
    """Change rules; those that are not named stay.

    Raises:
        SegueError: for a rule that does not exist, or a value that makes no sense. Nothing has changed then.
    """
    try:
        rules = msgspec.convert(msgspec.structs.asdict(read_rules(database)) | dict(changes), Rules)
    except msgspec.ValidationError as error:
        raise SegueError(f"rules: {error}") from None
    content = msgspec.json.encode(rules).decode()
    detail = {"rules": dict(changes), "why": ", ".join(f"{name} = {value}" for name, value in changes.items())}
    database.append([RulesRow(at, who, content), AuditRow(at, who, "rules", json.dumps(detail))])
    return rules


def given_up(database: Database, since: int) -> dict[str, tuple[int, str]]:
    """Policies that a service has given up since a row: number of the first row that says so, and why."""
    found: dict[str, tuple[int, str]] = {}
    for seq, detail in database.read(
        "SELECT seq, detail FROM audit WHERE seq > ? AND what = ? ORDER BY seq", since, GIVEN_UP
    ):
        about = json.loads(detail)
        found.setdefault(about["policy"], (seq, about["why"]))
    return found


class Course(NamedTuple):
    """A trial as the deployments tell it: from the candidate's first canary until it is promoted or withdrawn."""

    candidate: str
    live: str
    """The policy beside it, or APPLICATION."""
    number: int
    """Which of the log's trials it is, from 1."""
    promotions: int
    """Candidates that passed their trial before."""
    began: int
    """Number of its first deployment."""
    last: int
    """Number of its last one so far."""
    shares: dict[int, float]
    """The candidate's share under each deployment that draws units for both."""
    earlier: frozenset[int]
    """Deployments of the same candidate's earlier trials: their units do not count again."""
    paused: list[int]
    """Deployments in which it goes on and gets no new units."""


def courses(database: Database) -> list[Course]:
    """All trials of a log, the last one last."""
    found: list[Course] = []
    shares: dict[str, list[int]] = {}
    candidate: str | None = None  # whose trial goes on
    promotions = 0
    rows = database.read("SELECT seq, mode, live, candidate, share, forced FROM deployments ORDER BY seq")
    for seq, mode, live, tried, share, forced in rows:
        if candidate is not None and mode == "live" and live == candidate and not forced:
            promotions += 1
        draws = tried is not None and 0 < share < 1 and mode in ("canary", "apprentice")
        if tried != candidate or mode not in ("canary", "frozen", "apprentice"):
            candidate = None
        if candidate is None and tried is not None and (draws or mode == "canary"):
            candidate, beside = tried, APPLICATION if mode == "apprentice" else live
            earlier = frozenset(shares.setdefault(tried, []))
            found.append(Course(tried, beside, len(found) + 1, promotions, seq, seq, {}, earlier, []))
        if candidate is None:
            continue
        found[-1] = found[-1]._replace(last=seq)
        if draws:
            found[-1].shares[seq] = share
            shares[tried].append(seq)
        elif mode != "frozen":
            found[-1].paused.append(seq)
    return found


def paused(database: Database) -> set[int]:
    """Deployments in which a trial goes on that gets no new units."""
    return {seq for course in courses(database) for seq in course.paused}


def between(database: Database, one: str | None = None, other: str | None = None) -> Course:
    """Everything that two policies shared, or the last trial.

    Args:
        database: the log.
        one: hash of a policy; with `other`, which is named as the candidate if it was one.
        other: hash of another.

    Raises:
        SegueError: if no units were ever drawn for both.
    """
    found = courses(database)
    if one is not None and other is not None:
        found = [course for course in found if {course.candidate, course.live} == {one, other}]
        if not found:
            raise SegueError(
                f"policies {one[:12]} and {other[:12]} never shared units in this log; expected a canary of one beside "
                "the other, or --dataset to judge both off-policy"
            )
        candidates = {course.candidate for course in found}
        candidate = other if other in candidates else one
        found = [course for course in found if course.candidate == candidate]
    if not found:
        raise SegueError(f"{database.url}: no two policies have shared units yet; `segue policies canary` begins")
    if one is None:
        return found[-1]
    shares = {seq: share for course in found for seq, share in course.shares.items()}
    return found[0]._replace(shares=shares, earlier=frozenset())


class Arm(Struct):
    """What came of the units of one arm."""

    units: int = 0
    mean: float | None = None
    """Mean return per unit."""
    cost: float | None = None
    """Mean cost per unit; None if no outcome had one."""
    missing: float | None = None
    """Share of decisions whose reward did not arrive in the window."""
    lag: float | None = None
    """Mean seconds from a decision to its reward."""
    waiting: int = 0
    """Units whose window is open."""

    @classmethod
    def of(
        cls,
        units: float,
        decisions: float,
        rewarded: float,
        returns: float,
        costs: float | None,
        lags: float,
    ) -> Arm:
        """The means of these sums."""
        return cls(
            int(units),
            _ratio(returns, units),
            None if costs is None else _ratio(costs, units),
            _ratio(decisions - rewarded, decisions),
            _ratio(lags, rewarded),
        )


class Compared(Struct, kw_only=True):
    """What two arms have shown. Evidence is an e-value: it reaches 1/α with probability α at most by chance."""

    arms: dict[str, Arm]
    difference: float | None
    """Mean return of the candidate less the live policy's, per unit."""
    interval: tuple[float, float] | None
    """Of the difference, at 1 − α, at all times at once, for many units; None before there are enough."""
    log_better: float
    """The largest natural logarithm so far of the evidence that the candidate is better; of a trial, in this stage."""
    log_worse: float
    """The same that it is worse."""
    log_mismatch: float
    """The same that units are not assigned with the stated probabilities."""
    verdict: str
    """What follows, in a sentence."""


class Evidence(Compared, kw_only=True):
    """What a trial has shown so far."""

    candidate: str
    live: str
    trial: int
    """Which of the log's trials it is, from 1: each one needs more evidence than the one before."""
    share: float
    """Of the units, in this stage."""
    stage: dict[str, int]
    """Units of this stage by arm."""
    needed: dict[str, float]
    """What each has to reach: better, worse, mismatch."""
    cost: tuple[float, float] | None
    """Interval of the difference of costs per unit, if a bound on it is declared."""
    cost_upper: float | None
    """Upper end of the candidate's mean cost per unit, if a limit is declared and there are enough units."""
    cost_limit: float | None
    log_over: float
    """The largest natural logarithm so far of the evidence that the candidate's mean cost is above the limit."""
    stood_in: float | None
    """Share of the decisions of the candidate's units that the live policy, or the application, made in its place."""
    alarm: str | None
    """Why the candidate has to be withdrawn."""
    passed: bool
    """Whether this stage is passed."""


class Comparison(Compared, kw_only=True):
    """Two policies that shared units, over all units that they shared."""

    policies: dict[str, str]
    """Hash by arm."""
    needed: float
    """What each has to reach."""


class _Stage:
    """Tests that only units of one share enter."""

    def __init__(self) -> None:
        self.ranks, self.means, self.units = RankComparison(), MeanDifference(), dict.fromkeys(ARMS, 0)
        self.log_better = 0.0


class Trial:
    """The tests of one trial, kept up with the log.

    Args:
        database: the log.
        course: the trial.
        rules: what is asked; its window must be declared.
    """

    def __init__(self, database: Database, course: Course, rules: Rules) -> None:
        if rules.window is None:
            raise SegueError(
                "the trial began before a reward window was declared; roll it back, declare it (segue policies rules "
                "--window SECONDS), and begin it again"
            )
        self.course, self.rules, self.window = course, rules, rules.window
        self._database = database
        self._read_to = self._counting()[0]
        self._stages: dict[float, _Stage] = {}
        self._ranks, self._ratio = RankComparison(), SampleRatio()
        self._means = MeanDifference(alpha=rules.alpha)
        # One α for all alarms together: ½ worse, ¼ mismatch, and ¼ costs, which is halved where both are bounded.
        both = rules.cost is not None and rules.cost_limit is not None
        self._costs = MeanDifference(alpha=rules.alpha / (4 if both else 2))
        self._upper = MeanUpper(rules.alpha, rules.cost_limit or 0.0)
        self._over = None if rules.cost_limit is None else LimitTest(rules.cost_limit)
        self._log_better = self._log_worse = self._log_mismatch = self._log_over = 0.0
        self._cost_alarm = ""
        self._costs_sent = self._stood_in = 0
        self._given_up = ""
        self._sums = {arm: np.zeros(6) for arm in ARMS}

    def follow(self, course: Course) -> None:
        """Enter every unit whose window has closed since; `course` is the trial as it is known now."""
        self.course = course
        _, self._given_up = given_up(self._database, course.began).get(course.candidate, (0, ""))
        now = clock(self._database)
        while True:
            rows = self._database.read(
                f"SELECT seq, at, arm, probability, deployment, {self._first()} FROM episodes e "
                "WHERE seq > ? ORDER BY seq LIMIT ?",
                *self._counting(),
                self._read_to,
                AT_ONCE,
            )
            closed = next((i for i, row in enumerate(rows) if not row[1] + self.window < now), len(rows))
            if closed:
                self._enter(rows[:closed])
            if closed < AT_ONCE:
                return

    def overdue(self, now: float) -> bool:
        """Whether the next window has closed by now, and nothing in the log says so yet."""
        rows = self._database.read("SELECT at FROM episodes WHERE seq > ? ORDER BY seq LIMIT 1", self._read_to)
        return bool(rows) and rows[0][0] + self.window < now

    def _enter(self, rows: list[tuple[Any, ...]]) -> None:
        """Units in order of assignment."""
        first, last = self._read_to, rows[-1][0]
        counted = {seq: (arm, chance, share) for seq, arm, chance, share in self._counted(rows)}
        self._read_to = last
        if not counted:
            return
        seconds = self.window
        results = self._database.read(
            "SELECT e.seq, COUNT(d.decision), COUNT(o.outcome), COALESCE(SUM(o.reward), 0.0), "
            "COALESCE(SUM(o.cost), 0.0), COALESCE(SUM(o.at - d.at), 0.0), COUNT(o.cost), "
            # A service that people froze lets the live policy act in all episodes: that is no failure.
            "COUNT(CASE WHEN d.policy <> e.policy AND d.mode <> 'frozen' THEN 1 END) FROM episodes e "
            "LEFT JOIN decisions d ON d.episode = e.episode AND d.at <= e.at + ? "
            "LEFT JOIN outcomes o ON o.decision = d.decision AND o.at <= e.at + ? "
            "WHERE e.seq > ? AND e.seq <= ? GROUP BY e.seq ORDER BY e.seq",
            seconds,
            seconds,
            first,
            last,
        )
        kept = np.array([row for row in results if row[0] in counted], float)
        candidate = np.array([arm == "candidate" for arm, _, _ in counted.values()])
        chance, share = (np.array([value[i] for value in counted.values()]) for i in (1, 2))
        _, decisions, rewarded, rewards, costs, lags, costs_sent, others = kept.T
        returns = rewards + self.rules.missing * (decisions - rewarded)
        for arm, own in (("live", ~candidate), ("candidate", candidate)):
            columns = [np.ones(len(kept)), decisions, rewarded, returns, costs, lags]
            self._sums[arm] += np.array([column[own].sum() for column in columns])
        better, worse = self._ranks.update(returns, candidate, chance)
        self._log_better = max(self._log_better, float(better.max()))
        self._log_worse = max(self._log_worse, float(worse.max()))
        self._log_mismatch = max(self._log_mismatch, float(self._ratio.update(candidate, chance).max()))
        self._means.update(returns, candidate, chance)
        self._costs_sent += int(costs_sent.sum())
        self._stood_in += int(others[candidate].sum())
        self._bound(costs, candidate, chance)
        for one in np.unique(share):
            own = share == one
            stage = self._stages.setdefault(float(one), _Stage())
            better, _ = stage.ranks.update(returns[own], candidate[own], chance[own])
            stage.log_better = max(stage.log_better, float(better.max()))
            stage.means.update(returns[own], candidate[own], chance[own])
            for arm, of_arm in (("live", ~candidate), ("candidate", candidate)):
                stage.units[arm] += int((own & of_arm).sum())

    def _bound(
        self, costs: Float[np.ndarray, " units"], candidate: Bool[np.ndarray, " units"], chance: np.ndarray
    ) -> None:
        """Enter costs into the tests that are asked for."""
        lowest, rules = self._costs.update(costs, candidate, chance)[1], self.rules
        if rules.cost is not None and (lowest > rules.cost).any():
            self._cost_alarm = f"the candidate costs more than {rules.cost:g} above the live policy per unit"
        if self._over is None:
            return
        if (costs < 0).any():
            self._cost_alarm = f"a unit costs {costs.min():g}, and no limit can be kept with negative costs"
            return
        own = costs[candidate]
        self._upper.update(own, float(costs.max()))
        if own.size:
            self._log_over = max(self._log_over, float(self._over.update(own).max()))

    def _counted(self, rows: list[tuple[Any, ...]]) -> Iterator[tuple[int, str, float, float]]:
        """Number, arm, the candidate's probability and share of the episodes that count."""
        for seq, _, arm, probability, deployment, first in rows:
            share = self.course.shares.get(deployment)
            if first and share is not None:
                yield seq, arm, probability if arm == "candidate" else 1 - probability, share

    def _first(self) -> str:
        """Whether an episode `e` is the first of its unit that could have been the candidate's; takes `_counting`."""
        marks = ", ".join("?" * (len(self._counting()) - 1)) or "NULL"
        return (
            "NOT EXISTS (SELECT 1 FROM episodes p WHERE p.unit = e.unit AND p.seq > ? AND p.seq < e.seq "
            f"AND p.deployment IN ({marks}))"
        )

    def _counting(self) -> list[int]:
        """After which row, and under which deployments, units could have been the candidate's."""
        return [min([self.course.began, *self.course.earlier]) - 1, *self.course.earlier, *self.course.shares]

    def evidence(self, share: float) -> Evidence:
        """What is known now, for the stage with this share."""
        rules, course = self.rules, self.course
        stage = self._stages.get(share) or _Stage()
        needed = {
            "better": math.log(required_evidence(rules.alpha, course.number, course.promotions)),
            # One α for the three alarms together.
            "worse": math.log(2 / rules.alpha),
            "mismatch": math.log(4 / rules.alpha),
            "over": math.log((4 if rules.cost is None else 8) / rules.alpha),
        }
        costs = None if rules.cost is None else self._costs.interval
        alarm = self._alarm(needed)
        lacking = [
            _short_of(stage.log_better, needed["better"]),
            "" if stage.means.interval.effect > 0 else "its mean return is not above the live policy's",
            ""
            if costs is None or costs.high <= (rules.cost or 0.0)
            else f"its cost may be {costs.high:.3g} above the live policy's per unit",
            self._lacks_limit(),
            self.fails(),
        ]
        counts = f"{stage.units['candidate']} and {stage.units['live']} units at {share:.0%}"
        verdict = _verdict("the candidate is better", stage.log_better, lacking, counts)
        return Evidence(
            **self._compared(stage.log_better, verdict if alarm is None else f"alarm: {alarm}"),
            candidate=course.candidate,
            live=course.live,
            trial=course.number,
            share=share,
            stage=stage.units,
            needed=needed,
            cost=None if costs is None or not math.isfinite(costs.low) else (costs.low, costs.high),
            cost_upper=None if self._over is None else _finite(self._upper.high),
            cost_limit=rules.cost_limit,
            log_over=self._log_over,
            stood_in=self._share_of_others(),
            alarm=alarm,
            passed=alarm is None and not any(lacking),
        )

    def _alarm(self, needed: Mapping[str, float]) -> str | None:
        """Why the candidate has to be withdrawn."""
        if self._given_up:
            return f"the candidate {self._given_up}"
        if self._log_mismatch >= needed["mismatch"]:
            return "sample-ratio mismatch: units are not assigned with the stated probabilities"
        if self._log_worse >= needed["worse"]:
            return "the candidate's returns are worse"
        if self._cost_alarm:
            return self._cost_alarm
        if self._log_over >= needed["over"]:
            return f"the candidate costs more than the limit of {self.rules.cost_limit:g} per unit"
        return None

    def fails(self) -> str:
        """Why a candidate that misses decisions must not be promoted; empty: it does not, or rarely."""
        if self._given_up:
            return f"it {self._given_up}"
        share = self._share_of_others()
        if share is None or share <= MOST_STOOD_IN:
            return ""
        return f"others made {share:.1%} of its decisions in its place, and {MOST_STOOD_IN:.0%} is the most"

    def _share_of_others(self) -> float | None:
        return _ratio(self._stood_in, self._sums["candidate"][1])

    def _lacks_limit(self) -> str:
        """What is missing to say that the candidate's mean cost is within the limit; empty: nothing."""
        limit = self.rules.cost_limit
        if limit is None or (self._costs_sent and self._upper.high <= limit):
            return ""
        if not self._costs_sent:
            return f"no outcome has a cost, and the limit is {limit:g}"
        return f"its cost may be {self._upper.high:.3g} per unit, and the limit is {limit:g}"

    def comparison(self) -> Comparison:
        """What is known of the two policies, whatever was decided on."""
        needed, most = math.log(2 / self.rules.alpha), max(self._log_better, self._log_worse)
        if self._log_mismatch >= needed:
            verdict = "units are not assigned with the stated probabilities, so nothing can be compared"
        elif min(self._log_better, self._log_worse) >= needed:
            verdict = "each was better for a time: the difference changes"
        else:
            word = "better" if self._log_better > self._log_worse else "worse"
            claim = "they differ" if most < needed else f"the candidate is {word}"
            verdict = _verdict(claim, most, [_short_of(most, needed)])
        return Comparison(
            **self._compared(self._log_better, verdict),
            policies={"live": self.course.live, "candidate": self.course.candidate},
            needed=needed,
        )

    def _compared(self, log_better: float, verdict: str) -> dict[str, Any]:
        """The fields of Compared, of the whole trial but for `log_better`."""
        means = self._means.interval
        return {
            "arms": self._arms(),
            "difference": _finite(means.effect),
            "interval": (means.low, means.high) if math.isfinite(means.low) else None,
            "log_better": log_better,
            "log_worse": self._log_worse,
            "log_mismatch": self._log_mismatch,
            "verdict": verdict,
        }

    def _arms(self) -> dict[str, Arm]:
        marks = ", ".join("?" * len(self.course.shares)) or "NULL"
        rows = self._database.read(
            f"SELECT arm, COUNT(*) FROM episodes e WHERE seq > ? AND deployment IN ({marks}) AND {self._first()} "
            "GROUP BY arm",
            self._read_to,
            *self.course.shares,
            *self._counting(),
        )
        arms = {arm: Arm.of(*sums) for arm, sums in self._sums.items()}
        if not self._costs_sent:
            for arm in arms.values():
                arm.cost = None
        for name, waiting in rows:
            arms["candidate" if name == "candidate" else "live"].waiting += waiting
        return arms


def clock(database: Database) -> float:
    """Time of the log: what is written later has this time or a later one."""
    latest = [database.read(f"SELECT at FROM {table} ORDER BY seq DESC LIMIT 1") for table in ("episodes", "outcomes")]
    latest.append(database.read("SELECT at FROM cursors WHERE reader = ? ORDER BY seq DESC LIMIT 1", READER))
    return max((rows[0][0] for rows in latest if rows), default=-math.inf)


def _verdict(claim: str, log_e: float, lacking: list[str], *about: str) -> str:
    """A claim with its evidence, or what is lacking to make it."""
    missing = [*filter(None, lacking)]
    said = "; ".join([*(missing or [f"evidence {_shown(log_e)}"]), *about])
    return f"{f'not enough evidence that {claim}' if missing else claim} ({said})"


def _short_of(log_e: float, needed: float) -> str:
    return "" if log_e >= needed else f"evidence {_shown(log_e)} of {_shown(needed)}"


def _shown(log_e: float) -> str:
    return f"{math.exp(min(log_e, 700)):.3g}"


def _ratio(total: float, number: float) -> float | None:
    return float(total / number) if number else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
