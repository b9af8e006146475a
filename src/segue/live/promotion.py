"""How a candidate becomes live, and how it is withdrawn: every step on evidence, in the log, and once.

    staged → shadow → off-policy gate → canary 10 % → 50 % → live

`Promoter` looks at the evidence beside a service and takes the steps. The functions take one step each, for people.
They need no service that runs: a service follows its log. Of two who decide upon the same deployment one is refused.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

import msgspec
from msgspec import Struct

from segue.errors import SegueError
from segue.live.database import Database
from segue.live.monitor import Change, Monitor, fails, reference_begins, trained_on
from segue.live.policies import (
    COLUMNS,
    Deployment,
    acted_one_after_the_other,
    latest_deployment,
    read_policy,
    require_exploration,
)
from segue.live.schema import AuditRow, DeploymentRow, GateRow
from segue.live.service import Service
from segue.live.trial import READER, Course, Evidence, Rules, Trial, courses, paused, read_rules
from segue.live.values import Refused

LOGGER = logging.getLogger("segue.live")
#: Who takes the steps that nobody took by hand.
ITSELF = "promotion"
#: The gate that off-policy evaluation keeps.
OFF_POLICY = "off-policy"
#: What the gate of each stage is called, before its share.
STAGE = "canary "
#: Verdicts of gates.
PASSED, OPEN, FAILED, ALARM = "passed", "not enough evidence", "failed", "alarm"


class Verdict(Struct):
    """What a gate said of a policy."""

    seq: int
    at: float
    gate: str
    verdict: str
    """passed, not enough evidence, failed or alarm."""
    evidence: dict[str, Any]


def find_policy(database: Database, word: str) -> str:
    """The hash of a policy of the log, by its hash, the beginning of it, or its name.

    Raises:
        Refused: if none is meant, or several.
    """
    rows = database.read("SELECT policy, name FROM policies ORDER BY seq")
    found = [policy for policy, name in rows if word and (policy.startswith(word) or name == word)]
    if word in found:
        return word
    if len(found) != 1:
        some = ", ".join(f"{name} ({policy[:12]})" for policy, name in rows if not found or policy in found)
        code, said = ("ambiguous", "several policies are") if found else ("unknown_policy", "the log has no policy")
        raise Refused(409 if found else 404, code, f"{said} {word!r}; expected the beginning of one hash, of {some}")
    return found[0]


def statuses(database: Database) -> dict[str, str]:
    """Each policy's part by its hash: staged, shadow, canary, paused, frozen, live or retired."""
    now = latest_deployment(database)
    found = {policy: "staged" for (policy,) in database.read("SELECT policy FROM policies ORDER BY seq")}
    for pair in database.read("SELECT DISTINCT live, candidate FROM deployments"):
        found.update((policy, "retired") for policy in pair if policy is not None)
    if now is not None:
        if now.mode != "apprentice":
            found[now.live] = "live"
        else:  # beside a candidate it does nothing, and decides on paper again after it
            found[now.live] = "shadow" if now.candidate is None else "staged"
        if now.candidate is not None:
            waits = "paused" if now.seq in paused(database) else "frozen" if now.mode == "frozen" else "shadow"
            found[now.candidate] = "canary" if now.on_trial else waits
    return found


def last_verdict(database: Database, candidate: str, gate: str | None = None) -> Verdict | None:
    """The last verdict on a policy, of one gate or of any."""
    rows = database.read(
        "SELECT seq, at, gate, verdict, evidence FROM gates WHERE candidate = ? AND gate = COALESCE(?, gate) "
        "ORDER BY seq DESC LIMIT 1",
        candidate,
        gate,
    )
    for seq, at, of, verdict, evidence in rows:
        return Verdict(seq, at, of, verdict, json.loads(evidence))
    return None


def deployed(database: Database) -> Deployment:
    """Who acts now.

    Raises:
        SegueError: if no policy has been deployed yet.
    """
    if (now := latest_deployment(database)) is None:
        raise SegueError(f"{database.url}: no policy acts yet; `segue serve --policy POLICY` begins")
    return now


def change(
    database: Database, before: Deployment, who: str, what: str, why: str, forced: bool = False, **to: Any
) -> Deployment:
    """Deploy `before` with some fields changed, unless it has been replaced; what was done is kept in `audit`.

    Raises:
        Refused: if somebody else changed the deployment since.
    """
    fields = {name: getattr(before, name) for name in ("mode", "live", "candidate", "share", "explore")} | to
    row = DeploymentRow(time.time(), **fields, who=who, why=why, forced=int(forced), replaces=before.seq)
    if database.append([row])[0] is None:
        raise Refused(409, "changed", "somebody else has just changed who acts; look at it, and decide again")
    after = deployed(database)
    detail = {"deployment": after.seq, "why": why, "forced": forced, "from": before.seq, **to}
    if (limit := read_rules(database).cost_limit) is not None:
        detail["cost_limit"] = limit
    database.append([AuditRow(time.time(), who, what, json.dumps(detail))])
    return after


def obstacle(database: Database, policy: str) -> str | None:
    """Why the off-policy gate cannot judge a policy from what happens now, and the way out; None: it can."""
    now = latest_deployment(database)
    if now is None or now.mode == "apprentice":
        return None
    if now.explore == "no":
        return (
            "the live policy does not explore, so no other policy can be judged from its log; `segue policies explore "
            "policy` (or a share of random actions) lets it explore from now on, and `canary --force` goes without"
        )
    [(manifest,)] = database.read("SELECT manifest FROM policies WHERE policy = ?", policy)
    acts = "exploring" if now.explore == "policy" else "greedy"
    if json.loads(manifest)["distribution"][acts] == "draws":
        return (
            "it does not know how probable its actions are, so the off-policy gate cannot judge it; `canary --force` "
            "goes without"
        )
    return None


# Steps that people take.


def explore(database: Database, how: str, who: str, why: str = "") -> Deployment:
    """Let policies explore from now on: no, policy (as in training), or a share of random actions.

    Raises:
        SegueError: for a way that the live policy does not have.
    """
    now = deployed(database)
    require_exploration(how, read_policy(database, now.live))
    return now if how == now.explore else change(database, now, who, "explore", why, explore=how)


def shadow(database: Database, word: str, who: str, why: str = "", force: bool = False) -> Deployment:
    """Let a policy decide on paper.

    Raises:
        Refused: if it acts already, or another candidate would be displaced (not with `force`).
    """
    now, policy = deployed(database), find_policy(database, word)
    _require_not_live(now, policy)
    _require_free(now, policy, force)
    if now.candidate == policy and now.mode in ("shadow", "apprentice") and not now.on_trial:
        return now
    mode = now.mode if now.mode in ("apprentice", "frozen") else "shadow"
    return change(database, now, who, "shadow", why, force, mode=mode, candidate=policy, share=0.0)


def canary(
    database: Database, word: str, who: str, why: str = "", force: bool = False, share: float | None = None
) -> Deployment:
    """Let a policy act for a share of the units; without `share`, for that of the first stage.

    Raises:
        Refused: unless the off-policy gate let it pass, and for more than its stage allows (not with `force`).
    """
    now, policy = deployed(database), find_policy(database, word)
    _require_not_live(now, policy)
    _require_free(now, policy, force)
    _require_thawed(now)
    rules = read_rules(database)
    if rules.window is None:
        raise Refused(
            409, "no_window", "no reward window is declared; first: segue policies rules --window SECONDS"
        )  # fmt: skip
    running = now.candidate == policy and (now.mode == "canary" or now.on_trial)
    share = (now.share if running and now.share else rules.shares[0]) if share is None else share
    if not 0 < share < 1:
        raise Refused(422, "share", f"share is {share:g}; expected above 0 and below 1 (`promote` gives it all units)")
    if running and share == now.share:
        return now
    if not force:
        allowed = _allowed_share(database, policy, rules) if running else rules.shares[0]
        if not running:
            _require_gate(database, now, policy, rules)
        if share > allowed:
            raise Refused(
                409, "no_verdict", f"share is {share:g}; the evidence so far allows {allowed:g} at most (or force it)"
            )
    mode = now.mode if now.mode == "apprentice" else "canary"
    return change(database, now, who, "canary", why, force, mode=mode, candidate=policy, share=share)


def promote(database: Database, word: str, who: str, why: str = "", force: bool = False) -> Deployment:
    """Let a policy act for all units.

    Raises:
        Refused: unless it has passed its trial without missing decisions, or, where the application acts, the
            off-policy gate (not with `force`).
    """
    now, policy = deployed(database), find_policy(database, word)
    if policy == now.live and now.mode == "live" and now.candidate is None:
        return now
    if not force:
        _require_thawed(now)
        if now.mode == "apprentice" and not now.on_trial:
            _require_gate(database, now, policy, Rules())  # nothing finds out later
        else:
            _require_trial(database, now, policy)
    return change(database, now, who, "promote", why, force, mode="live", live=policy, candidate=None, share=0.0)


def rollback(database: Database, who: str, why: str = "") -> Deployment:
    """Withdraw the candidate; if there is none, let the policy or the application act again that acted before.

    Raises:
        Refused: if there is nothing to roll back.
    """
    now = deployed(database)
    mode = now.mode if now.mode in ("apprentice", "frozen") else "live"
    if now.candidate is not None:
        return change(database, now, who, "rollback", why, mode=mode, candidate=None, share=0.0)
    if (before := _acted_before(database)) is None:
        raise Refused(
            409, "nothing", "there is nothing to roll back: no candidate, and no policy that was live before"
        )  # fmt: skip
    mode = "apprentice" if before.mode == "apprentice" else mode
    return change(database, now, who, "rollback", why, mode=mode, live=before.live)


def _acted_before(database: Database) -> Deployment | None:
    """Under which the policy, or the application, acted that a rollback lets act again."""
    stack = acted_one_after_the_other(database)
    return stack[-2] if len(stack) > 1 else None


def pause(database: Database, who: str, why: str = "") -> Deployment:
    """Give the candidate no new units; its trial can go on later.

    Raises:
        Refused: if there is no canary.
    """
    now = deployed(database)
    if now.mode != "canary" and not now.on_trial:
        raise Refused(409, "no_canary", f"there is nothing to pause: the mode is {now.mode}")
    return now if now.share == 0 else change(database, now, who, "pause", why, share=0.0)


def freeze(database: Database, who: str, why: str = "") -> Deployment:
    """Let the live policy act for everyone, running episodes of the candidate included, until `resume`.

    Raises:
        Refused: where the application acts (apprentice mode).
    """
    now = deployed(database)
    if now.mode == "apprentice":
        raise Refused(
            409,
            "apprentice",
            "there is nothing to freeze: the application acts, and no policy is live; `segue policies rollback` "
            "withdraws a candidate",
        )
    return now if now.mode == "frozen" else change(database, now, who, "freeze", why, mode="frozen")


def resume(database: Database, who: str, why: str = "") -> Deployment:
    """Go on as before `pause` or `freeze`.

    Raises:
        Refused: if neither is in force.
    """
    now = deployed(database)
    waits = now.seq in paused(database)
    if not waits and now.mode != "frozen":
        raise Refused(409, "not_paused", f"there is nothing to resume: the mode is {now.mode}")
    before = next(
        (
            row
            for row in _newest_first(database)
            if (row.on_trial if waits else row.mode != "frozen" and not (row.mode == "canary" and not row.share))
        ),
        now,
    )
    if before.candidate == now.candidate:
        mode, share = before.mode, before.share
    else:
        mode, share = "live" if now.candidate is None else "shadow", 0.0
    return change(database, now, who, "resume", why, mode=mode, share=share)


def _newest_first(database: Database) -> list[Deployment]:
    return [Deployment(*row) for row in database.read(f"SELECT {COLUMNS} FROM deployments ORDER BY seq DESC")]


def _require_not_live(now: Deployment, policy: str) -> None:
    if policy == now.live and now.mode != "apprentice":  # there it only watches, and may be the candidate
        raise Refused(409, "live", f"policy {policy[:12]} is live already; expected another one")


def _require_free(now: Deployment, policy: str, force: bool) -> None:
    if (now.mode in ("canary", "frozen") or now.on_trial) and now.candidate not in (None, policy) and not force:
        raise Refused(
            409,
            "other_candidate",
            f"policy {now.candidate[:12]} is on trial; roll it back first, or force it",
        )


def _require_thawed(now: Deployment) -> None:
    if now.mode == "frozen":
        raise Refused(409, "frozen", "the service is frozen; expected `resume` first")


def _lets_pass(gate: Verdict | None, rules: Rules) -> bool:
    """Whether the last verdict on a candidate is enough for a canary."""
    enough = (PASSED,) if rules.gate == "passed" else (PASSED, OPEN)
    return gate is not None and gate.gate == OFF_POLICY and gate.verdict in enough


def _require_gate(database: Database, now: Deployment, policy: str, rules: Rules) -> None:
    gate = last_verdict(database, policy)
    if gate is None or not _lets_pass(gate, rules):
        said = "none has been made" if gate is None else f"the last one is: {gate.gate}, {gate.verdict}"
        raise Refused(
            409,
            "no_verdict",
            f"policy {policy[:12]} needs the verdict of the off-policy gate ({said}); `segue policies evaluate "
            f"{policy[:12]}` makes one, and --force goes without",
        )
    if gate.evidence["live"] != now.live:
        raise Refused(
            409,
            "old_verdict",
            f"policy {policy[:12]} was judged against {gate.evidence['live'][:12]}, and {now.live[:12]} is live now; "
            f"judge it again: segue policies evaluate {policy[:12]}",
        )


def _allowed_share(database: Database, policy: str, rules: Rules) -> float:
    """The largest share that the verdicts of a running trial allow."""
    began = courses(database)[-1].began
    passed = database.read(
        "SELECT gate FROM gates WHERE candidate = ? AND verdict = ? AND seq > ?", policy, PASSED, began
    )
    furthest = max((float(gate.removeprefix(STAGE)) for (gate,) in passed if gate.startswith(STAGE)), default=0.0)
    return next((share for share in rules.shares if share > furthest), 1.0)


def _require_trial(database: Database, now: Deployment, policy: str) -> None:
    if (now.mode == "canary" or now.on_trial) and now.candidate == policy:
        course = courses(database)[-1]
        rules = read_rules(database, course.began)
        gate = last_verdict(database, policy)
        said = f"the last one is: {gate.gate}, {gate.verdict}" if gate is not None else "there is none yet"
        if _allowed_share(database, policy, rules) == 1:
            trial = Trial(database, course, rules)
            trial.follow(course)
            if not (said := trial.fails()):  # it may fail since it passed
                return
    else:
        said = "it is not on trial"
    raise Refused(
        409,
        "no_verdict",
        f"policy {policy[:12]} has not passed its trial ({said}); expected a canary that passes every stage, or force",
    )


def _stage_gate(share: float) -> str:
    return f"{STAGE}{share}"


class Promoter:
    """Follows the evidence and takes the steps that it allows; alarms withdraw a candidate at once.

    Args:
        database: the log.
        tick: notes the time in the log (`Service.tick`), so that windows close while nothing arrives; without it only
            traffic closes them.
    """

    def __init__(self, database: Database, tick: Any = None) -> None:
        self.database, self._tick = database, tick
        self._trial: Trial | None = None
        self._monitor: Monitor | None = None
        self._alarm: Change | None = None  # found by it, and not yet acted upon
        self._lock = threading.Lock()

    def evidence(self) -> Evidence | None:
        """What the trial that goes on has shown; None if there is none."""
        with self._lock:
            return self._evidence(latest_deployment(self.database))

    def review(self) -> Evidence | None:
        """Look at the evidence, and take the step that it allows.

        Raises:
            Unavailable: if the log cannot be read or written now. The next review goes on.
        """
        with self._lock:
            now = latest_deployment(self.database)
            evidence = self._evidence(now)
            try:
                if evidence is not None and now is not None:
                    self._step(now, evidence)
                elif now is not None and now.mode == "shadow":
                    self._begin(now)
                if now is not None and now.mode != "frozen":
                    self._watch(now)
            except Refused as error:  # somebody else was faster; the next review sees what they did
                LOGGER.info("promotion: %s", error)
            return evidence

    def _evidence(self, now: Deployment | None) -> Evidence | None:
        if now is None or now.candidate is None or now.mode not in ("canary", "frozen", "apprentice"):
            self._trial = None
            return None
        course = next((one for one in courses(self.database)[-1:] if one.last == now.seq), None)
        if course is None:
            return None
        if self._trial is None or self._trial.course.began != course.began:
            rules = read_rules(self.database, course.began)
            self._trial = Trial(self.database, course, rules)
        if self._tick is not None and self._trial.overdue(time.time()):
            self._tick(READER)
        self._trial.follow(course)
        return self._trial.evidence(_stage_share(course, now))

    def _step(self, now: Deployment, evidence: Evidence) -> None:
        assert self._trial is not None
        course, rules = self._trial.course, self._trial.rules
        gate = _stage_gate(evidence.share)
        if evidence.alarm is not None:
            self._note(course, gate, ALARM, evidence)
            if now.mode != "frozen":
                mode = "apprentice" if now.mode == "apprentice" else "live"
                self._change(now, "rollback", evidence.verdict, mode=mode, candidate=None, share=0.0)
        elif evidence.passed and now.mode != "frozen":
            self._note(course, gate, PASSED, evidence)
            if not rules.automatic or now.share < max(course.shares.values()):  # paused, or lowered by hand: held
                return
            following = [share for share in rules.shares if share > now.share]
            if following:
                self._change(now, "canary", evidence.verdict, share=following[0])
            else:
                self._change(
                    now, "promote", evidence.verdict, mode="live", live=now.candidate, candidate=None, share=0.0
                )

    def _watch(self, now: Deployment) -> None:
        """Freeze the service when what is seen or earned has changed; where the application acts, say so.

        A live policy that fails is rolled back instead, if another one or the application acted before it.
        """
        rules, begins = read_rules(self.database), reference_begins(self.database)
        pending = self._alarm is not None  # noted, and what follows from it was interrupted
        found = fails(self.database, begins, now.live) if now.acts else None
        if found is None and rules.run_length is not None:
            if self._monitor is None or self._monitor.begins != begins or self._monitor.rules != rules:
                self._monitor = Monitor(self.database, begins, rules, trained_on(self.database, now.live))
                self._alarm = None
                if self._monitor.widened is not None:
                    LOGGER.warning("promotion: watch: %s", self._monitor.widened)
            found = self._alarm = self._alarm or self._monitor.review()
        if found is None:
            return
        alarms = self.database.read("SELECT seq, detail FROM audit WHERE what = 'alarm' AND seq > ?", begins)
        noted = [seq for seq, detail in alarms if json.loads(detail)["changed"] == found.what]
        if not noted:
            detail = {"changed": found.what, "why": found.said, "row": found.seq}
            self.database.append([AuditRow(time.time(), ITSELF, "alarm", json.dumps(detail))])
            LOGGER.warning("promotion: alarm: %s", found.said)
        now = deployed(self.database)
        [(person,)] = self.database.read("SELECT COALESCE(MAX(seq), 0) FROM deployments WHERE who <> ?", ITSELF)
        # Who deployed something after an alarm knew of it; a policy that fails goes on failing, and is stopped again.
        decided = bool(noted) and noted[-1] < person and not pending and found.what != "actions"
        if now.mode not in ("frozen", "apprentice") and not decided:
            before = _acted_before(self.database) if found.what == "actions" else None
            if before is None:
                self._change(now, "freeze", found.said, mode="frozen")
            else:
                mode = "apprentice" if before.mode == "apprentice" else "live"
                self._change(
                    now, "rollback", f"alarm: {found.said}", mode=mode, live=before.live, candidate=None, share=0.0
                )
        self._alarm = None

    def _begin(self, now: Deployment) -> None:
        """From shadow to canary, once the off-policy gate lets the candidate pass."""
        rules, gate = read_rules(self.database), None
        if now.candidate is not None and rules.automatic and rules.window is not None:
            gate = last_verdict(self.database, now.candidate)
        if gate is not None and _lets_pass(gate, rules) and gate.evidence["live"] == now.live:
            self._change(now, "canary", f"the off-policy gate: {gate.verdict}", mode="canary", share=rules.shares[0])

    def _note(self, course: Course, gate: str, verdict: str, evidence: Evidence) -> None:
        """A verdict, once for each trial."""
        known = self.database.read(
            "SELECT 1 FROM gates WHERE candidate = ? AND gate = ? AND verdict = ? AND seq > ?",
            course.candidate,
            gate,
            verdict,
            course.began,
        )
        if not known:
            content = msgspec.json.encode(evidence).decode()
            self.database.append([GateRow(time.time(), course.candidate, gate, verdict, content)])

    def _change(self, now: Deployment, what: str, why: str, **to: Any) -> None:
        LOGGER.warning("promotion: %s of %s (%s)", what, (now.candidate or now.live)[:12], why)
        change(self.database, now, ITSELF, what, why, **to)


def _stage_share(course: Course, now: Deployment) -> float:
    """The share of this stage; of a paused or frozen trial, the last one that drew units."""
    if now.on_trial:
        return now.share
    return course.shares[max(course.shares)] if course.shares else 0.0


class Watch:
    """Reviews the evidence beside a service, in a thread of its own.

        with Service("live.db") as service, Watch(service):
            …

    Args:
        service: whose log is watched.
        every: seconds between reviews.
    """

    def __init__(self, service: Service, every: float = 5.0) -> None:
        self.promoter = Promoter(service.log, service.tick)
        self.failure: str | None = None
        """Why the last review failed; None if it did not."""
        self._service, self._every, self._stop = service, every, threading.Event()
        self._thread = threading.Thread(target=self._run, name="segue-live-promotion", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def review(self) -> Evidence | None:
        """Look at the evidence now, and let the service follow.

        Raises:
            Unavailable: if the log cannot be read or written now.
        """
        evidence = self.promoter.review()
        self._service.look()
        return evidence

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self.review()
                self.failure = None
            except SegueError as error:
                self.failure = str(error)
                LOGGER.warning("promotion: no review (%s); the next one is in %g seconds", error, self._every)
            except Exception:
                self.failure = "a fault of Segue's; the service's own log says more"
                LOGGER.exception("promotion: no review")
