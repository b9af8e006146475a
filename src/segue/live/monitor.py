"""What goes on without a candidate: an alarm when what is seen, or what is earned, is no longer what it was.

A sensor whose unit was changed, a reward with the wrong sign, a world that moved: both arms suffer alike, so no
comparison of arms finds it. The monitor takes the first episodes under a policy as the reference, and looks for a
change in those that follow. It freezes the service, and the log says why.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from segue.evidence import FallDetector, ShiftDetector
from segue.live.database import Database
from segue.live.trial import clock

#: Units of the reference.
REFERENCE = 500
#: Standard deviations by which the mean of an observation may move: it was estimated, and traffic drifts.
TOLERANCE = 0.25
#: Episodes that are read at once.
AT_ONCE = 5_000


class Change(NamedTuple):
    """What has changed."""

    what: str
    """observations or returns."""
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
        window: seconds after an episode's assignment in which its rewards count; None: returns are not watched.
        missing: what a decision counts whose reward did not arrive.
        run_length: mean number of units until a false alarm of either kind, at least.
    """

    def __init__(
        self, database: Database, begins: int, window: float | None, missing: float, run_length: float
    ) -> None:
        self.begins = begins
        self._database, self._window, self._missing, self._run_length = database, window, missing, run_length
        self._seen_to = self._earned_to = begins
        self._known: dict[str, set[str]] = {"seen": set(), "earned": set()}
        self._seen: list[np.ndarray] = []
        self._earned: list[float] = []
        self._shift: ShiftDetector | None = None
        self._varies: np.ndarray | None = None
        self._fall: FallDetector | None = None

    def review(self) -> Change | None:
        """Look at what has come since the last review: the first change found."""
        return self._observations() or self._returns()

    def _observations(self) -> Change | None:
        """The first observation of each unit: later ones depend on it, and on what was done."""
        while True:
            rows = self._database.read(
                "SELECT d.seq, d.observation, e.unit FROM decisions d JOIN episodes e ON e.episode = d.episode "
                "WHERE d.seq > ? AND d.t = 0 ORDER BY d.seq LIMIT ?",
                self._seen_to,
                AT_ONCE,
            )
            if not rows:
                return None
            self._seen_to = rows[-1][0]
            new = [row for row in rows if self._is_new("seen", row[2])]
            numbers, seen = [row[0] for row in new], [np.frombuffer(row[1], np.float32) for row in new]
            missing = REFERENCE - len(self._seen)
            if missing > 0:
                self._seen += seen[:missing]
                numbers, seen = numbers[missing:], seen[missing:]
                if len(self._seen) < REFERENCE:
                    continue
                reference = np.array(self._seen, np.float64)
                self._varies = reference.std(0) > 0
                if self._varies.any():
                    mean, std = reference.mean(0)[self._varies], reference.std(0)[self._varies]
                    self._shift = ShiftDetector(mean, std, self._run_length, TOLERANCE)
            if self._shift is None or not seen:
                continue
            assert self._varies is not None
            path = self._shift.update(np.array(seen, np.float64)[:, self._varies])
            if (above := np.flatnonzero(path >= self._shift.threshold)).size:
                feature = int(np.flatnonzero(self._varies)[self._shift.log_features.argmax()])
                place = numbers[int(above[0])]
                said = f"observations have changed, most of all number {feature} (counted from 0, flattened)"
                return Change("observations", said, place)

    def _returns(self) -> Change | None:
        """Returns of units that were not a candidate's, in order of assignment, once their windows have closed."""
        if self._window is None:
            return None
        now = clock(self._database)
        while True:
            rows = self._database.read(
                "SELECT e.seq, e.at, e.arm, e.unit, COUNT(d.decision) - COUNT(o.outcome), COALESCE(SUM(o.reward), 0.0) "
                "FROM (SELECT seq, at, arm, unit, episode FROM episodes WHERE seq > ? ORDER BY seq LIMIT ?) e "
                "LEFT JOIN decisions d ON d.episode = e.episode AND d.at <= e.at + ? "
                "LEFT JOIN outcomes o ON o.decision = d.decision AND o.at <= e.at + ? "
                "GROUP BY e.seq, e.at, e.arm, e.unit ORDER BY e.seq",
                self._earned_to,
                AT_ONCE,
                self._window,
                self._window,
            )
            closed = [row for row in rows if row[1] + self._window < now]
            if closed:
                self._earned_to = closed[-1][0]
            mine = [
                (seq, total + self._missing * late)
                for seq, _, arm, unit, late, total in closed
                if arm != "candidate" and self._is_new("earned", unit)
            ]
            missing = max(REFERENCE - len(self._earned), 0)
            self._earned += [one for _, one in mine[:missing]]
            if len(self._earned) == REFERENCE and self._fall is None:
                self._fall = FallDetector(np.array(self._earned), self._run_length)
            if self._fall is not None and (later := mine[missing:]):
                path = self._fall.update([one for _, one in later])
                if (above := np.flatnonzero(path >= self._fall.threshold)).size:
                    recent = np.mean([one for _, one in later][: int(above[0]) + 1][-50:])
                    said = f"returns have fallen: {np.mean(self._earned):.4g} on average at first, {recent:.4g} lately"
                    return Change("returns", said, later[int(above[0])][0])
            if len(closed) < AT_ONCE:
                return None

    def _is_new(self, what: str, unit: str) -> bool:
        known = self._known[what]
        if unit in known:
            return False
        known.add(unit)
        return True


def reference_begins(database: Database) -> int:
    """Number of the deployment since which the same policy is live and the service was not frozen."""
    begins, live, mode = 0, "", ""
    for seq, now, how in database.read("SELECT seq, live, mode FROM deployments ORDER BY seq"):
        if now != live or (mode == "frozen") != (how == "frozen"):
            begins = seq
        live, mode = now, how
    return begins
