"""What there is to see of a log's policies: the table of `segue policies`, and what the service answers about them."""

from __future__ import annotations

import collections
from collections.abc import Callable

import msgspec
from msgspec import Struct

from segue.live.database import Database
from segue.live.policies import Deployment, latest_deployment
from segue.live.promotion import OFF_POLICY, Promoter, Verdict, last_verdict, statuses
from segue.live.service import HANDED_BACK
from segue.live.trial import GIVEN_UP, Arm, Evidence, Rules, paused, read_rules

#: Episodes that `Overview.recent` is about.
RECENT = 1_000
#: Happenings, policies and refusal codes that are listed.
LISTED = 200


class PolicyAbout(Struct):
    """A policy of the log."""

    policy: str
    """Its hash."""
    name: str
    status: str
    """staged, shadow, canary, paused, frozen, live or retired."""
    parent: str | None
    trained_to: int | None
    """Number of the last row of the log that it was trained on."""
    at: float
    """When it was staged, in seconds since 1970."""
    gates: list[Verdict]
    """Oldest first."""


class Happening(Struct):
    """Something on the time axis."""

    seq: int
    at: float
    kind: str
    """deployment, gate, alarm or note."""
    what: str
    who: str
    why: str


class Overview(Struct):
    """What a page or a person needs to see of promotion."""

    deployment: Deployment | None
    trial: Evidence | None
    """Of the trial that goes on."""
    off_policy: Verdict | None
    """The off-policy gate's last verdict on the candidate, with its effective episodes."""
    rules: Rules
    """Which hold for the next trial."""
    recent: dict[str, Arm]
    """Of the last episodes, by arm, rewards that are still to come not counted."""
    events: list[Happening]
    """The last ones, oldest first."""


def policies(database: Database) -> list[PolicyAbout]:
    """All policies of a log, in the order in which they were staged."""
    status, gates = statuses(database), collections.defaultdict[str, list[Verdict]](list)
    for candidate, seq, at, gate, verdict, evidence in database.read(
        "SELECT candidate, seq, at, gate, verdict, evidence FROM gates ORDER BY seq"
    ):
        gates[candidate].append(Verdict(seq, at, gate, verdict, msgspec.json.decode(evidence)))
    rows = database.read("SELECT policy, name, parent, trained_to, at FROM policies ORDER BY seq")
    return [
        PolicyAbout(policy, name, status[policy], parent, trained_to, at, gates[policy])
        for policy, name, parent, trained_to, at in rows
    ]


def overview(database: Database, promoter: Promoter) -> Overview:
    """What is known now. Raises Unavailable."""
    now = latest_deployment(database)
    return Overview(
        now,
        promoter.evidence(),
        None if now is None or now.candidate is None else last_verdict(database, now.candidate, OFF_POLICY),
        read_rules(database),
        _recent(database),
        happened(database),
    )


def happened(database: Database, begins: float = 0.0) -> list[Happening]:
    """What happened since then, oldest first: the last ones."""
    found = []
    name, waits = naming(database), paused(database)
    for *fields, at, who, why, forced in database.read(
        "SELECT seq, mode, live, candidate, share, explore, at, who, why, forced FROM deployments WHERE at >= ? "
        "ORDER BY seq DESC LIMIT ?",
        begins,
        LISTED,
    ):
        one = Deployment(*fields)
        what = f"{one.mode}: {one.describe(name, one.seq in waits)}{' (forced)' if forced else ''}"
        found.append(Happening(one.seq, at, "deployment", what, who, why))
    for seq, at, candidate, gate, verdict in database.read(
        "SELECT seq, at, candidate, gate, verdict FROM gates WHERE at >= ? ORDER BY seq DESC LIMIT ?",
        begins,
        LISTED,
    ):
        kind = "alarm" if verdict == "alarm" else "gate"
        found.append(Happening(seq, at, kind, f"{gate} gate of {name(candidate)}: {verdict}", "", ""))
    for seq, at, who, what, detail in database.read(
        "SELECT seq, at, who, what, detail FROM audit WHERE at >= ? AND what <> ? ORDER BY seq DESC LIMIT ?",
        begins,
        HANDED_BACK,  # there may be many; what led to them is listed
        LISTED,
    ):
        about = msgspec.json.decode(detail)
        if "deployment" in about or what == "evaluate":
            continue  # its row of deployments or gates says it
        kind = "alarm" if what in ("alarm", "no action", GIVEN_UP) else "note"
        of = f": {name(about['policy'])}" if "policy" in about else ""
        found.append(Happening(seq, at, kind, f"{what}{of}", who, str(about.get("why", ""))))
    return sorted(found, key=lambda one: one.seq)[-LISTED:]


def naming(database: Database) -> Callable[[str], str]:
    """Gives a policy's name by its hash; of one that the log does not have, the beginning of the hash."""
    names: dict[str, str] = dict(database.read("SELECT policy, name FROM policies"))
    return lambda policy: names.get(policy, policy[:12])


def _recent(database: Database) -> dict[str, Arm]:
    rows = database.read(
        "SELECT e.arm, COUNT(DISTINCT e.episode), COUNT(d.decision), COUNT(o.outcome), COALESCE(SUM(o.reward), 0.0), "
        "SUM(o.cost), COALESCE(SUM(o.at - d.at), 0.0) "
        "FROM (SELECT * FROM episodes ORDER BY seq DESC LIMIT ?) e "
        "LEFT JOIN decisions d ON d.episode = e.episode LEFT JOIN outcomes o ON o.decision = d.decision "
        "GROUP BY e.arm ORDER BY e.arm",
        RECENT,
    )
    return {row[0]: Arm.of(*row[1:]) for row in rows}
