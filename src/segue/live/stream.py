"""A live log as a learner reads it: steps in the order in which they became complete, each episode's in order of time.

Everything here follows from the log alone: not from when it is read, in which pages, or how often reading was stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from segue.live.database import Database

COLUMNS = (
    "seq, episode, assigned, t, observation, decided, "
    "CASE WHEN executed = 0 AND activated <= seq + ? THEN 1 ELSE 0 END, "
    "replaced_by, reward, next_observation, terminated, truncated"
)
#: Numbers per query that restores waiting steps; SQLite takes 32,766.
MANY = 500


class Step(NamedTuple):
    """A row of the view `steps`, with the action that was taken as far as that was known when it became complete."""

    seq: int
    episode: str
    assigned: int
    """Number of the row that assigned its episode."""
    t: int
    observation: bytes
    action: bytes | None
    """None: something else was done than decided, and it is not known what."""
    reward: float
    next_observation: bytes | None
    """None: it is not known, or the episode has ended for good."""
    terminated: bool
    truncated: bool

    @property
    def learnable(self) -> bool:
        """Whether it is a whole transition."""
        return self.action is not None and (self.terminated or self.next_observation is not None)


class Told(NamedTuple):
    """A transition to learn from; the next one of its trajectory comes in the same slot."""

    slot: int
    step: Step


class Lost(NamedTuple):
    """The trajectory in this slot goes no further; the next one in it is another."""

    slot: int


@dataclasses.dataclass
class _Episode:
    slot: int
    assigned: int
    t: int = 0
    """The step that comes next."""
    seq: int = 0
    """Of the last row that was seen of it."""
    value: float = 0.0
    whole: bool = True
    """Whether none of its steps so far is missing."""
    waiting: dict[int, Step] = dataclasses.field(default_factory=dict)
    """Steps after one that is missing, by t."""

    def position(self) -> list[Any]:
        """As JSON has it; steps by their numbers."""
        *plain, waiting = (getattr(self, field.name) for field in dataclasses.fields(self))
        return [*plain, [step.seq for step in waiting.values()]]


class Stream:
    """Reads steps in order of `seq`, and puts those of each episode in order.

    Args:
        database: the log.
        arm: only episodes of this arm; None: all.
        overdue: rows of the log for which a missing step is waited for, and for which an episode of which nothing
            comes is remembered. After that its trajectory is cut there.
        settle: rows that the log must have after a step before it is read; what is heard in them of another action
            than was decided counts.

    Attributes:
        read_to: number of the last row that was taken in.
        slots: places for trajectories that were needed at once so far.
        passed_over: steps that were left out, because they were no whole transitions or came too late.
    """

    def __init__(self, database: Database, arm: str | None = None, overdue: int = 100_000, settle: int = 0) -> None:
        self._database, self._arm, self._overdue, self._settle = database, arm, overdue, settle
        self.read_to = self.slots = self.passed_over = 0
        self._free: list[int] = []
        #: Episodes that are going on; the one of which nothing was seen for longest is first.
        self._episodes: dict[str, _Episode] = {}
        self._ended: list[tuple[int, float]] = []

    def last(self) -> int:
        """Number of the last row of the log now."""
        [(last,)] = self._database.read("SELECT seq FROM counter")
        return last

    def read(self, page: int) -> list[Step]:
        """The next steps, in order, from so many rows; none if the log goes no further. Each is to be given to `take`.

        Rows that have none are passed over.
        """
        last = self.last() - self._settle
        while self.read_to < last:
            until = min(self.read_to + page, last)
            steps = self._steps("seq > ? AND seq <= ?", self.read_to, until)
            if steps:
                return steps
            self.read_to = until
        return []

    def take(self, step: Step) -> Iterator[Told | Lost]:
        """What follows from this step: transitions to learn from, and trajectories that end without an end."""
        self.read_to = step.seq
        yield from self._give_up(step.seq)
        episode = self._episodes.pop(step.episode, None)
        if episode is None:
            episode = _Episode(self._slot(), step.assigned)
        episode.seq = step.seq
        self._episodes[step.episode] = episode
        if step.t < episode.t:
            self.passed_over += 1
            return
        episode.waiting[step.t] = step
        yield from self._in_order(step.episode, episode)

    def ended(self) -> list[float]:
        """Returns of the episodes that have ended since the last call, in order of assignment.

        An episode is held back while one that was assigned before it is going on: those that end early are not like
        the others.
        """
        oldest = min((episode.assigned for episode in self._episodes.values()), default=self.read_to + 1)
        ready = sorted(one for one in self._ended if one[0] < oldest)
        self._ended = [one for one in self._ended if one[0] >= oldest]
        return [value for _, value in ready]

    def waiting(self) -> int:
        """Steps that wait for one before them."""
        return sum(len(episode.waiting) for episode in self._episodes.values())

    def overridden_late(self) -> int:
        """Decisions of which it was heard too late that something else was done."""
        [(count,)] = self._database.read(
            "SELECT COUNT(*) FROM activations a JOIN outcomes o ON o.decision = a.decision "
            "WHERE a.executed = 0 AND a.seq > o.seq + ? AND a.seq <= ?",
            self._settle,
            self.read_to,
        )
        return count

    def position(self) -> dict[str, Any]:
        """Where it stands, as JSON has it; steps by their numbers."""
        return {
            "read_to": self.read_to,
            "slots": self.slots,
            "passed_over": self.passed_over,
            "free": self._free,
            "ended": self._ended,
            "episodes": {name: one.position() for name, one in self._episodes.items()},
        }

    def restore(self, position: dict[str, Any]) -> None:
        """Go back to a position; steps are read from the log again."""
        self.read_to, self.slots = position["read_to"], position["slots"]
        self.passed_over, self._free = position["passed_over"], position["free"]
        self._ended = [(assigned, value) for assigned, value in position["ended"]]
        numbers = [seq for *_, waiting in position["episodes"].values() for seq in waiting]
        steps = self.numbered(numbers)
        for name, (slot, assigned, t, seq, value, whole, waiting) in position["episodes"].items():
            after = {steps[number].t: steps[number] for number in waiting}
            self._episodes[name] = _Episode(slot, assigned, t, seq, value, whole, after)

    def numbered(self, numbers: Sequence[int]) -> dict[int, Step]:
        """Steps by their numbers."""
        found: dict[int, Step] = {}
        for start in range(0, len(numbers), MANY):
            part = numbers[start : start + MANY]
            condition = f"seq IN ({', '.join('?' * len(part))})"
            found |= {step.seq: step for step in self._steps(condition, *part)}
        return found

    def _steps(self, condition: str, *values: int) -> list[Step]:
        arm = "" if self._arm is None else " AND arm = ?"
        given = (*values, *(() if self._arm is None else (self._arm,)))
        select = f"SELECT {COLUMNS} FROM steps WHERE {condition}{arm} ORDER BY seq"
        rows = self._database.read(select, self._settle, *given)
        return [
            Step(*known, taken if replaced else decided, reward, following, bool(terminated), bool(truncated))  # type: ignore[call-arg]
            for *known, decided, replaced, taken, reward, following, terminated, truncated in rows
        ]

    def _in_order(self, name: str, episode: _Episode) -> Iterator[Told | Lost]:
        """The steps that nothing is missing before."""
        while (step := episode.waiting.pop(episode.t, None)) is not None:
            episode.t += 1
            episode.value += step.reward
            if step.learnable:
                yield Told(episode.slot, step)
            else:
                self.passed_over += 1
                yield Lost(episode.slot)
            if step.terminated or step.truncated:
                if episode.whole:
                    self._ended.append((episode.assigned, episode.value))
                episode.value, episode.whole = 0.0, False
                if not episode.waiting:
                    self._forget(name)

    def _give_up(self, now: int) -> Iterator[Told | Lost]:
        """What was waited for long enough does not come."""
        while self._episodes:
            name, episode = next(iter(self._episodes.items()))
            if episode.seq + self._overdue >= now:
                return
            yield Lost(episode.slot)
            if not episode.waiting:
                self._forget(name)
                continue
            episode.t, episode.whole, episode.seq = min(episode.waiting), False, now
            self._episodes[name] = self._episodes.pop(name)
            yield from self._in_order(name, episode)

    def _slot(self) -> int:
        if self._free:
            return self._free.pop()
        self.slots += 1
        return self.slots - 1

    def _forget(self, name: str) -> None:
        self._free.append(self._episodes.pop(name).slot)
