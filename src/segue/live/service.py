"""The decision service without HTTP: who acts, what it does, and what came of it, all in the log.

    service = Service("live.db", policy="policies/x")
    decided = service.decide(episode_id="e1", decision_id="e1-0", observation=[…])
    service.outcome(decision_id="e1-0", reward=1.0)

Everything that an application sends carries an id and may be sent again: the answer is the one that was given first.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from filelock import FileLock, Timeout

from segue.deployment.policy import ExportedPolicy, load_policy
from segue.errors import SegueError
from segue.live.actors import Actors
from segue.live.database import Database, Durability, Unavailable, is_file, open_database
from segue.live.messages import Activation, Begin, Begun, Decide, Decided, Noted, Outcome
from segue.live.outcomes import activation_row, noted_before, outcome_row
from segue.live.policies import (
    Deployment,
    acted_one_after_the_other,
    latest_deployment,
    read_policy,
    require_exploration,
    require_same_spaces,
    stage,
)
from segue.live.schema import (
    TABLES,
    ActivationRow,
    AuditRow,
    CursorRow,
    DecisionRow,
    DeploymentRow,
    EpisodeRow,
    OutcomeRow,
    RefusedRow,
    Row,
)
from segue.live.trial import courses, given_up
from segue.live.values import LiveSpaces, Refused
from segue.live.writer import Log, Writer, Written, numbers_of

LOGGER = logging.getLogger("segue.live")
#: Episodes and answers that are kept in memory; older ones are read from the log again.
KEPT = 50_000
#: Seconds between looks at what other processes have deployed.
LOOK = 0.2
#: How often a decision is made again when another process took its step of the episode.
ATTEMPTS = 5
#: What `audit` calls an episode of a candidate's in which the application has to act.
HANDED_BACK = "handed back"

Reply = Callable[[Any], None]
Answer = TypeVar("Answer")


@dataclasses.dataclass
class _Episode:
    """An episode that is going on."""

    unit: str
    arm: str
    policy: str
    probability: float
    t: int = 0
    carry: Any = None
    carried_by: str = ""
    ended: bool = False
    handed_back: bool = False
    """Whether the application acts in it, although it is a candidate's."""
    since: int | None = None
    """Decisions of this process before the episode began in it; None: it was read from the log."""


class Service:
    """Decides, and logs what it decides and what comes of it.

    Args:
        db: the live log: a path, `sqlite:///PATH` or `postgresql://…`.
        policy: an exported policy that acts, if the log has none yet; a log that has goes on with its own.
        durability: what an answer promises: `after`: nothing yet, the row is written soon; `process`: the row outlives
            the process; `power`: also a loss of power.
        mode: what a new log begins with: live, or apprentice.
        explore: what a new log begins with: no; policy (as in training); or a number, the share of actions drawn at
            random from all (discrete policies).
        budget: seconds that one decision may take; a candidate that is slower half of the time loses its episodes to
            the live policy, or to the application where that acts, and is withdrawn by the next review.
        seed: of the random numbers; by default none are repeatable.

    Raises:
        SegueError: if the log or the policy cannot be used, or another service has the log.
    """

    def __init__(
        self,
        db: str | Path,
        policy: str | Path | None = None,
        *,
        durability: Durability = "process",
        mode: str = "live",
        explore: str | float = "no",
        budget: float = 0.05,
        seed: int | None = None,
    ) -> None:
        self.durability = durability
        self._lock = threading.RLock()
        given = None if policy is None else load_policy(policy)  # before the log: one that fails leaves none behind
        check = functools.partial(_check, given, policy, mode, str(explore))
        self._owner = _owned(db)
        try:
            self.database: Database = open_database(db, durability, check=check)
            check(self.database)
            self._episodes: OrderedDict[str, _Episode] = OrderedDict()
            self._recent: OrderedDict[str, tuple[str, bytes, Decided | None, list[Reply]]] = OrderedDict()
            self._made = 0
            self._clock = self._last_at()
            self._writer = Writer(self.database, must_keep=durability == "after")
            self.log = Log(self.database, self._writer)
            self._actors = Actors(
                self.database, budget, np.random.default_rng(seed), functools.partial(self.note, "service")
            )
            self.deployment = self._begin(policy, mode, str(explore))
            self._take_over(self.deployment)
            self._looked = time.monotonic()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Write what waits, and leave the log to others."""
        if hasattr(self, "_writer"):
            self._writer.close()
        if hasattr(self, "database"):
            self.database.close()
        self._release()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What an application calls.

    def begin(self, **fields: Any) -> Begun:
        """Assign an episode (see `messages.Begin`). Raises Refused, Unavailable."""
        return self._wait(self.submit_begin, _made(Begin, fields))

    def decide(self, **fields: Any) -> Decided:
        """What to do (see `messages.Decide`). Raises Refused, Unavailable."""
        return self._wait(self.submit_decide, _made(Decide, fields))

    def outcome(self, **fields: Any) -> Noted:
        """Note what came of a decision (see `messages.Outcome`). Raises Refused, Unavailable."""
        return self._wait(self.submit_outcome, _made(Outcome, fields))

    def activation(self, **fields: Any) -> Noted:
        """Note whether a decision was executed (see `messages.Activation`). Raises Refused, Unavailable."""
        return self._wait(self.submit_activation, _made(Activation, fields))

    def _wait(self, submit: Callable[[Any, Reply], None], request: Any) -> Any:
        future: Future[Any] = Future()
        submit(request, future.set_result)
        answer = future.result()
        if isinstance(answer, Exception):
            raise answer
        return answer

    # The same for callers that must not wait: `reply` is called once, perhaps in another thread, with the answer or
    # the error.

    def submit_begin(self, request: Begin, reply: Reply) -> None:
        """Assign an episode."""
        with self._lock:
            self._guarded("episodes", request, reply, lambda: self._begin_episode(request, reply))

    def submit_decide(self, request: Decide, reply: Reply) -> None:
        """Decide; an answer is given when the row is as safe as `durability` says."""
        with self._lock:
            self._guarded("decisions", request, reply, lambda: self._decide(request, reply, ATTEMPTS))

    def submit_outcome(self, request: Outcome, reply: Reply) -> None:
        """Note an outcome."""
        with self._lock:
            self._guarded("outcomes", request, reply, lambda: self._outcome(request, reply))

    def submit_activation(self, request: Activation, reply: Reply) -> None:
        """Note an activation."""
        with self._lock:
            self._guarded("activations", request, reply, lambda: self._activation(request, reply))

    def refuse(self, place: str, content: str, error: Refused) -> None:
        """Keep what was sent and could not be taken."""
        row = RefusedRow(self._now(), place, error.code, str(error), content[:10_000].replace("\x00", "�"))
        try:
            self._writer.write([row], lambda written: None)
        except Unavailable:
            LOGGER.warning("a refused request was not kept: %s", error)

    def _guarded(self, place: str, request: Any, reply: Reply, work: Callable[[], None]) -> None:
        try:
            work()
        except Refused as error:
            self.refuse(place, msgspec.json.encode(request, enc_hook=str).decode(), error)
            reply(error)
        except SegueError as error:
            reply(error)

    # Episodes.

    def _begin_episode(self, request: Begin, reply: Reply) -> None:
        self._look()
        found = self._episode(request.episode_id)
        if found is not None:
            _same_unit(request.episode_id, request.unit_id, found)
            reply(_begun(request.episode_id, found))
            return
        episode, row = self._assign(request.episode_id, request.unit_id)

        def then(written: Written) -> None:
            if isinstance(written, SegueError):
                self._forget(request.episode_id)
                reply(written)
            elif written[0] is None:  # another process has assigned it
                self._forget(request.episode_id)
                self.submit_begin(request, reply)
            else:
                reply(_begun(request.episode_id, episode))

        self._write([row], then, request.episode_id)

    def _assign(self, name: str, unit: str | None) -> tuple[_Episode, EpisodeRow]:
        deployment = self.deployment
        unit = name if unit is None else unit
        arm, policy, probability = deployment.arm(unit)
        episode = _Episode(unit, arm, policy, probability, since=self._made)
        self._keep(self._episodes, name, episode)
        return episode, EpisodeRow(self._now(), name, unit, arm, policy, probability, deployment.seq)

    def _episode(self, name: str) -> _Episode | None:
        """From memory, or from the log."""
        if (episode := self._episodes.get(name)) is not None:
            return episode
        rows = self.database.read("SELECT unit, arm, policy, probability FROM episodes WHERE episode = ?", name)
        if not rows:
            return None
        episode = _Episode(*rows[0])
        done = self.database.read(
            "SELECT t, carry, policy FROM decisions WHERE episode = ? ORDER BY t DESC LIMIT 1", name
        )
        if done:
            [(t, carry, by)] = done
            episode.t, episode.carry, episode.carried_by = t + 1, _unpacked(carry), by
            episode.handed_back = episode.arm == "candidate" and not by
        if episode.arm == "candidate" and not episode.handed_back:
            episode.handed_back = self._was_handed_back(name)
        ended = self.database.read(
            "SELECT 1 FROM outcomes o JOIN decisions d ON d.decision = o.decision "
            "WHERE d.episode = ? AND (o.terminated = 1 OR o.truncated = 1) LIMIT 1",
            name,
        )
        episode.ended = bool(ended)
        self._keep(self._episodes, name, episode)
        return episode

    def _forget(self, name: str) -> None:
        """What is in memory of an episode may not be what is in the log."""
        with self._lock:
            self._episodes.pop(name, None)

    # Decisions.

    def _decide(self, request: Decide, reply: Reply, attempts: int) -> None:
        self._look()
        observation = self._spaces.flat(request.observation, "observation")
        key = observation.tobytes()
        if (known := self._recent.get(request.decision_id)) is not None:
            episode_id, asked, answer, others = known
            _same_question(request, episode_id, asked, key)
            if answer is None:
                others.append(reply)  # the first is on its way to the log
            else:
                reply(answer)
            return
        # An answer that goes out before its row is written must not differ from one that was given before.
        unsure = self.durability == "after" and not self._remembered(request.episode_id)
        if unsure and (stored := self._stored(request.decision_id)) is not None:
            reply(self._answer_again(request, key, stored))
            return
        rows: list[Row] = []
        episode = self._episode(request.episode_id)
        if episode is None:
            episode, assigned = self._assign(request.episode_id, request.unit_id)
            rows.append(assigned)
        else:
            _same_unit(request.episode_id, request.unit_id, episode)
            if episode.ended:
                raise Refused(409, "episode_ended", f"episode {request.episode_id!r} has ended; begin another")
        try:
            acted = self._act(request, episode, observation)
        except SegueError:
            if rows:
                self._forget(request.episode_id)
            raise
        if acted is None:
            self._hand_back(request, episode, rows, reply)
            return
        decided, row, paper = acted
        rows += [row, *paper]
        place, waiting = len(rows) - 1 - len(paper), [reply]
        self._made += 1
        self._keep(self._recent, request.decision_id, (request.episode_id, key, None, waiting))

        def then(written: Written) -> None:
            if isinstance(written, SegueError) or written[place] is None or (place and written[0] is None):
                with self._lock:
                    self._forget(request.episode_id)
                    self._recent.pop(request.decision_id, None)
                    if isinstance(written, SegueError):
                        for one in waiting:
                            one(written)
                    else:
                        self._again(request, key, waiting, attempts - 1)
                return
            if self.durability == "after":
                return  # it was answered
            with self._lock:
                if request.decision_id in self._recent:
                    self._recent[request.decision_id] = (request.episode_id, key, decided, [])
                for one in waiting:
                    one(decided)

        if self.durability == "after":
            self._recent[request.decision_id] = (request.episode_id, key, decided, [])
            waiting.clear()
            self._write(rows, then, request.episode_id, request.decision_id)
            reply(decided)
        else:
            self._write(rows, then, request.episode_id, request.decision_id)

    def _again(self, request: Decide, key: bytes, waiting: list[Reply], attempts: int) -> None:
        """Another process has this decision, or this step of the episode."""

        def all_of(answer: Any) -> None:
            for one in waiting:
                one(answer)

        try:
            if (stored := self._stored(request.decision_id)) is not None:
                all_of(self._answer_again(request, key, stored))
            elif attempts:
                self._decide(request, all_of, attempts)
            else:
                raise Unavailable(f"episode {request.episode_id!r} is being decided elsewhere; try again")
        except SegueError as error:
            if isinstance(error, Refused):
                self.refuse("decisions", msgspec.json.encode(request, enc_hook=str).decode(), error)
            all_of(error)

    def _hand_back(self, request: Decide, episode: _Episode, rows: list[Row], reply: Reply) -> None:
        """Let the application act in an episode of the candidate's, which stays in the candidate's arm.

        The log knows before the application does, so that any process takes what it did, also after a restart.
        """
        error = Refused(422, "no_action", "the candidate does not act any more in this episode: send what you do")
        episode.handed_back = True

        def then(written: Written) -> None:
            if isinstance(written, SegueError):
                self._forget(request.episode_id)
                reply(written)
                return
            if written[0] is None:  # another process has assigned it
                self._forget(request.episode_id)
            reply(error)

        mark = AuditRow(self._now(), "service", HANDED_BACK, _of_episode(request.episode_id))
        self._write([*rows, mark], then, request.episode_id)
        self.refuse("decisions", msgspec.json.encode(request, enc_hook=str).decode(), error)

    def _was_handed_back(self, name: str) -> bool:
        """What the log knows of it."""
        return bool(
            self.database.read(
                "SELECT 1 FROM audit WHERE seq > (SELECT seq FROM episodes WHERE episode = ?) AND what = ? "
                "AND detail = ? LIMIT 1",
                name,
                HANDED_BACK,
                _of_episode(name),
            )
        )

    def _remembered(self, episode: str) -> bool:
        """Whether all decisions of an episode are in memory: it began here lately, and nobody shares the log."""
        known = self._episodes.get(episode)
        return (
            self._owner is not None
            and known is not None
            and known.since is not None
            and self._made - known.since < KEPT
        )

    def _stored(self, decision: str) -> DecisionRow | None:
        rows = self.database.read(
            f"SELECT {', '.join(DecisionRow._fields)} FROM decisions WHERE decision = ?", decision
        )
        return DecisionRow(*rows[0]) if rows else None

    def _answer_again(self, request: Decide, key: bytes, stored: DecisionRow) -> Decided:
        _same_question(request, stored.episode, bytes(stored.observation), key)
        [(arm,)] = self.database.read("SELECT arm FROM episodes WHERE episode = ?", stored.episode)
        action = self._spaces.units(self._spaces.read_action(stored.action))
        return Decided(
            stored.decision, stored.episode, stored.t, action, stored.log_prob, arm, stored.policy, stored.mode
        )

    def _act(
        self, request: Decide, episode: _Episode, observation: np.ndarray
    ) -> tuple[Decided, DecisionRow, list[Row]] | None:
        """What is done, its row, and those of who decides on paper; None: the application has to act from now on."""
        deployment, allowed = self.deployment, self._spaces.mask(request.allowed)
        paper: list[Row] = []
        by, sent = self._acting(episode), request.action is not None or request.log_prob is not None
        if by and sent and not deployment.acts:  # another process may have handed it back since it was read
            episode.handed_back = self._was_handed_back(request.episode_id)
            by = self._acting(episode)
        if by and sent:
            raise Refused(
                422, "not_apprentice", "an action was sent, but the service decides; expected one only in "
                "apprentice mode, in episodes whose arm is application"
            )  # fmt: skip
        mode, known = deployment.mode, (episode.carried_by, episode.carry)
        choice = self._actors.act(request.decision_id, by, deployment, known, observation, allowed) if by else None
        if choice is not None:
            action, log_prob, carry, by = choice
        elif episode.arm == "candidate" and not episode.handed_back and request.action is None:
            return None
        else:
            action, log_prob, carry, by, mode = self._spaces.done(request), request.log_prob, None, "", "apprentice"
            episode.handed_back = episode.arm == "candidate"
        episode.carry, episode.carried_by = carry, by
        if deployment.mode in ("shadow", "apprentice") and (candidate := deployment.candidate or deployment.live) != by:
            paper = self._actors.on_paper(request.decision_id, candidate, deployment, observation, allowed)
        row = DecisionRow(
            self._now(),
            request.decision_id,
            request.episode_id,
            episode.t,
            observation.tobytes(),
            None if allowed is None else allowed.astype(np.uint8).tobytes(),
            action.tobytes(),
            log_prob,
            by,
            mode,
            _packed(carry),
        )
        decided = Decided(
            request.decision_id,
            request.episode_id,
            episode.t,
            self._spaces.units(action),
            log_prob,
            episode.arm,
            by,
            mode,
        )
        episode.t += 1
        return decided, row, paper

    def _acting(self, episode: _Episode) -> str:
        """The policy of an episode's arm, or "" for the application; who acts for all where the policy was withdrawn.

        An episode that the application has taken over is handed back to no candidate.
        """
        deployment = self.deployment
        if episode.arm == "application":
            return ""
        if deployment.mode == "frozen":
            return deployment.live
        standing: Collection[str | None]
        if episode.arm == "candidate":
            standing = (deployment.candidate, deployment.acts)
        else:
            standing = self._standing if deployment.acts else ()
        withdrawn = episode.policy not in standing or episode.policy in self._actors.given_up
        return deployment.acts if withdrawn or episode.handed_back else episode.policy

    # Outcomes and activations.

    def _outcome(self, request: Outcome, reply: Reply) -> None:
        row, name = outcome_row(request, self._spaces, self._now()), self._of_decision(request.decision_id)
        ends = row.terminated or row.truncated
        episode = self._episodes.get(name) if ends else None
        before = episode is not None and episode.ended
        if episode is not None:
            episode.ended = True

        def undo() -> None:
            if episode is not None:
                episode.ended = before

        self._note(request, row, name, reply, undo)

    def _activation(self, request: Activation, reply: Reply) -> None:
        row, name = activation_row(request, self._spaces, self._now()), self._of_decision(request.decision_id)
        self._note(request, row, name, reply, lambda: None)

    def _note(
        self,
        request: Any,
        row: OutcomeRow | ActivationRow,
        episode: str,
        reply: Reply,
        undo: Callable[[], None],
    ) -> None:
        def then(written: Written) -> None:
            if isinstance(written, SegueError):
                self._forget(episode)
                reply(written)
            elif written[0] is not None:
                reply(Noted(row.decision, "recorded"))
            else:
                undo()  # what was recorded before stands
                self._guarded(TABLES[type(row)], request, reply, lambda: reply(noted_before(self.database, row)))

        try:
            self._writer.write([row], then)
        except Unavailable:  # the episode's decisions may still be on their way to the log, so it is not forgotten
            undo()
            raise

    def _of_decision(self, decision: str) -> str:
        """The episode of a decision."""
        if (known := self._recent.get(decision)) is not None:
            return known[0]
        rows = self.database.read("SELECT episode FROM decisions WHERE decision = ?", decision)
        if not rows:
            raise Refused(404, "unknown_decision", f"there is no decision {decision!r}; send it again when there is")
        return rows[0][0]

    # Policies and deployments.

    def policy(self, name: str) -> ExportedPolicy:
        """A policy of the log by its hash."""
        return self._actors.policy(name)

    def note(self, who: str, what: str, detail: dict[str, Any]) -> None:
        """Keep what happened."""
        LOGGER.info("%s: %s %s", who, what, detail)
        self._writer.write([AuditRow(self._now(), who, what, json.dumps(detail))], lambda written: None)

    def tick(self, reader: str) -> None:
        """Note the time in the log: all that was sent before it is in front of it. Raises Unavailable."""
        future: Future[Written] = Future()
        with self._lock:
            self._writer.write([CursorRow(self._now(), reader, 0, "")], future.set_result)
        numbers_of(future)

    def look(self) -> Deployment:
        """Take over now what was deployed elsewhere; requests do so every LOOK seconds."""
        with self._lock:
            self._look(now=True)
            return self.deployment

    def deploy(self, row: DeploymentRow) -> Deployment:
        """Change who acts; at once here, and within LOOK seconds in other processes."""
        with self._lock:
            if row.candidate is not None:
                self.policy(row.candidate)
            self.policy(row.live)
        self.log.append([row])
        return self.look()

    def healthy(self) -> str | None:
        """None, or why nothing can be written now."""
        return self._writer.failure

    def waiting(self) -> int:
        """Rows that wait to be written."""
        return self._writer.waiting()

    def _begin(self, policy: str | Path | None, mode: str, explore: str) -> Deployment:
        name = None if policy is None else stage(self.database, policy)
        found = latest_deployment(self.database)
        if found is None:
            assert name is not None
            row = DeploymentRow(self._now(), mode, name, None, 0.0, explore, "service", "the log begins", 0)
            self.database.append([row])
            found = latest_deployment(self.database)
            assert found is not None
        policy_of = self.policy(found.live)
        self._spaces = LiveSpaces(policy_of.space, policy_of.actions)
        return found

    def _look(self, now: bool = False) -> None:
        """Take over what was deployed elsewhere."""
        if not now and time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        found = latest_deployment(self.database)
        if found is not None and found.seq != self.deployment.seq:
            self.policy(found.live)
            if found.candidate is not None:
                self.policy(found.candidate)
            self._take_over(found)

    def _take_over(self, found: Deployment) -> None:
        """Let these policies act from now on; a candidate that was given up in this trial stays so."""
        self.deployment = found
        #: The policies whose running episodes go on with them: those that were live and were not rolled back.
        self._standing = {one.acts for one in acted_one_after_the_other(self.database)}
        missed: set[str] = set()
        for trial in courses(self.database)[-1:]:
            if trial.last == found.seq and trial.candidate in given_up(self.database, trial.began):
                missed.add(trial.candidate)
        self._actors.begin({*self._standing, found.live, found.candidate}, missed)

    def _write(self, rows: list[Row], then: Callable[[Written], None], episode: str, decision: str = "") -> None:
        try:
            self._writer.write(rows, then)
        except Unavailable:
            self._forget(episode)
            self._recent.pop(decision, None)
            raise

    def _keep(self, where: OrderedDict[str, Any], name: str, value: Any) -> None:
        where[name] = value
        if len(where) > KEPT:
            where.popitem(last=False)

    def _now(self) -> float:
        """Seconds since 1970; a clock that jumps back is waited for, so that times never fall."""
        self._clock = max(self._clock, time.time())
        return self._clock

    def _last_at(self) -> float:
        tables = ("episodes", "decisions", "outcomes", "activations", "deployments", "audit", "refused", "cursors")
        rows = [self.database.read(f"SELECT at FROM {table} ORDER BY seq DESC LIMIT 1") for table in tables]
        return max((row[0][0] for row in rows if row), default=0.0)

    def _release(self) -> None:
        if self._owner is not None:
            self._owner.release()
            self._owner = None


def _check(
    given: ExportedPolicy | None, policy: str | Path | None, mode: str, explore: str, database: Database
) -> None:
    """Refuse what a service cannot begin with in this log; `given` is what lies at `policy`. Nothing is written."""
    found = latest_deployment(database)
    if found is not None:
        read_policy(database, found.live)
    elif given is None:
        raise SegueError("the log has no policy yet; expected one that `segue export` wrote (--policy)")
    elif mode not in ("live", "apprentice"):
        raise SegueError(f"mode is {mode!r}; a new log begins with live or apprentice")
    else:
        require_exploration(explore, given)
    if given is not None:
        require_same_spaces(database, given.about, str(policy))


def _owned(db: str | Path) -> FileLock | None:
    """A log in a file has one service at a time."""
    if not is_file(db):
        return None
    path = Path(str(db).removeprefix("sqlite:///"))
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise SegueError(
            f"{path}: another service has this log; stop it first, or use PostgreSQL for several services"
        ) from None
    except OSError as error:
        raise SegueError(
            f"{path}: cannot be opened as a live log ({error.filename}: {error.strerror}); expected a file in a folder "
            "that can be written"
        ) from None
    return lock


def _made(kind: type[Answer], fields: dict[str, Any]) -> Answer:
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Refused(400, "malformed", str(error)) from None


def _same_unit(name: str, unit: str | None, episode: _Episode) -> None:
    if unit is not None and unit != episode.unit:
        raise Refused(
            409, "other_unit", f"episode {name!r} is of unit {episode.unit!r}, not {unit!r}; it keeps its unit"
        )


def _same_question(request: Decide, episode: str, asked: bytes, key: bytes) -> None:
    if episode != request.episode_id or asked != key:
        raise Refused(
            409,
            "other_decision",
            f"decision {request.decision_id!r} was asked with another observation or episode; expected a new id",
        )


def _of_episode(name: str) -> str:
    return json.dumps({"episode": name})


def _begun(name: str, episode: _Episode) -> Begun:
    return Begun(name, episode.unit, episode.arm, episode.policy, episode.probability)


def _packed(carry: Any) -> bytes | None:
    if carry is None:
        return None
    content = io.BytesIO()
    np.savez(content, *carry)
    return content.getvalue()


def _unpacked(content: bytes | None) -> Any:
    if content is None:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return tuple(arrays[name] for name in arrays.files)
