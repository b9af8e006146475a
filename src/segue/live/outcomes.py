"""What came of a decision, and whether it was executed: from the request to the row of the log."""

from __future__ import annotations

import math

from segue.live.database import Database
from segue.live.messages import Activation, Noted, Outcome
from segue.live.schema import TABLES, ActivationRow, OutcomeRow
from segue.live.values import LiveSpaces, Refused

#: Columns of which a log has each value once.
KEYS = ("outcome", "decision")


def outcome_row(request: Outcome, spaces: LiveSpaces, at: float) -> OutcomeRow:
    """What came of a decision. Raises Refused."""
    if not math.isfinite(request.reward) or not math.isfinite(request.cost or 0.0):
        raise Refused(422, "not_finite", f"reward {request.reward}, cost {request.cost}; expected finite numbers")
    if request.terminated and request.truncated:
        raise Refused(422, "two_ends", "terminated and truncated; expected one of them at most")
    following = request.next_observation
    following = None if following is None else spaces.flat(following, "next_observation").tobytes()
    name = request.outcome_id or request.decision_id
    ends = (int(request.terminated), int(request.truncated))
    return OutcomeRow(at, name, request.decision_id, request.reward, request.cost, following, *ends)


def activation_row(request: Activation, spaces: LiveSpaces, at: float) -> ActivationRow:
    """Whether a decision was executed. Raises Refused."""
    if request.executed and request.action is not None:
        raise Refused(422, "executed", "the decision was executed, and another action was sent; expected one of both")
    action = None if request.action is None else spaces.to_decision(request.action).tobytes()
    return ActivationRow(at, request.decision_id, int(request.executed), action, request.who)


def noted_before(database: Database, row: OutcomeRow | ActivationRow) -> Noted:
    """The answer to a row whose key the log has: the same again is fine.

    Raises:
        Refused: if the log has something else; that stays.
        Unavailable: if the log cannot be read now.
    """
    table, keys = TABLES[type(row)], [key for key in KEYS if key in row._fields]
    condition = " OR ".join(f"{key} = ?" for key in keys)
    stored = database.read(
        f"SELECT {', '.join(row._fields[1:])} FROM {table} WHERE {condition}", *(getattr(row, key) for key in keys)
    )
    if any(_plain(one) == row[1:] for one in stored):
        return Noted(row.decision, "already recorded")
    raise Refused(
        409,
        "contradiction",
        f"{table}: another one of decision {row.decision!r} is recorded; what was recorded stands",
    )


def _plain(values: tuple[object, ...]) -> tuple[object, ...]:
    """Databases give bytes in several ways."""
    return tuple(bytes(value) if isinstance(value, memoryview) else value for value in values)
