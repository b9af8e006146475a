"""The tables of a live log, the same for SQLite and PostgreSQL.

Rows are appended and never changed. Each has a number `seq` from one counter, taken in the transaction that writes it:
in the order of the numbers is in the order of the commits, so a reader that has seen number n has seen all before it.
`BYTES` and `FLOAT` stand for the database's types.

The view `steps` has a row for each decision of which nothing more is awaited: its outcome is there, and its next
observation, or its episode has ended. Its `seq` is that of the row with which that became so, and but for the
activation nothing in it depends on later rows: who reads it in order of `seq` has seen, at number n, what anyone has
seen there. The first SELECT is of those that the outcome made complete, the second of those that the next decision did;
both are read by the index of the number. `transitions` are the steps that can be learnt from.
"""

from __future__ import annotations

from typing import NamedTuple

#: How the tables came to be: a log of version n has had the first n of these. Append; never edit.
MIGRATIONS = (
    """
    CREATE TABLE counter (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), seq BIGINT NOT NULL);
    INSERT INTO counter VALUES (1, 0);
    CREATE TABLE policies (
        seq BIGINT NOT NULL, at FLOAT NOT NULL, policy TEXT PRIMARY KEY, name TEXT NOT NULL, parent TEXT,
        trained_to BIGINT, manifest TEXT NOT NULL
    );
    CREATE TABLE policy_files (
        seq BIGINT NOT NULL, policy TEXT NOT NULL, file TEXT NOT NULL, content BYTES NOT NULL,
        PRIMARY KEY (policy, file)
    );
    CREATE TABLE episodes (
        seq BIGINT NOT NULL, at FLOAT NOT NULL, episode TEXT PRIMARY KEY, unit TEXT NOT NULL, arm TEXT NOT NULL,
        policy TEXT NOT NULL, probability FLOAT NOT NULL, deployment BIGINT NOT NULL
    );
    CREATE INDEX episodes_seq ON episodes (seq);
    CREATE TABLE decisions (
        seq BIGINT NOT NULL, at FLOAT NOT NULL, decision TEXT PRIMARY KEY, episode TEXT NOT NULL, t BIGINT NOT NULL,
        observation BYTES NOT NULL, allowed BYTES, action BYTES NOT NULL, log_prob FLOAT, policy TEXT NOT NULL,
        mode TEXT NOT NULL, carry BYTES, UNIQUE (episode, t)
    );
    CREATE INDEX decisions_seq ON decisions (seq);
    CREATE TABLE on_paper (
        seq BIGINT NOT NULL, decision TEXT NOT NULL, policy TEXT NOT NULL, action BYTES NOT NULL, log_prob FLOAT,
        PRIMARY KEY (decision, policy)
    );
    CREATE TABLE outcomes (
        seq BIGINT NOT NULL, at FLOAT NOT NULL, outcome TEXT PRIMARY KEY, decision TEXT NOT NULL UNIQUE,
        reward FLOAT NOT NULL, cost FLOAT, next_observation BYTES, terminated INTEGER NOT NULL,
        truncated INTEGER NOT NULL
    );
    CREATE INDEX outcomes_seq ON outcomes (seq);
    CREATE TABLE activations (
        seq BIGINT NOT NULL, at FLOAT NOT NULL, decision TEXT PRIMARY KEY, executed INTEGER NOT NULL, action BYTES,
        who TEXT NOT NULL
    );
    CREATE INDEX activations_seq ON activations (seq);
    CREATE TABLE deployments (
        seq BIGINT PRIMARY KEY, at FLOAT NOT NULL, mode TEXT NOT NULL, live TEXT NOT NULL, candidate TEXT,
        share FLOAT NOT NULL, explore TEXT NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL, forced INTEGER NOT NULL,
        replaces BIGINT UNIQUE
    );
    CREATE TABLE gates (
        seq BIGINT PRIMARY KEY, at FLOAT NOT NULL, candidate TEXT NOT NULL, gate TEXT NOT NULL, verdict TEXT NOT NULL,
        evidence TEXT NOT NULL
    );
    CREATE TABLE audit (
        seq BIGINT PRIMARY KEY, at FLOAT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, detail TEXT NOT NULL
    );
    CREATE TABLE refused (
        seq BIGINT PRIMARY KEY, at FLOAT NOT NULL, place TEXT NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL,
        content TEXT NOT NULL
    );
    CREATE TABLE cursors (
        seq BIGINT PRIMARY KEY, at FLOAT NOT NULL, reader TEXT NOT NULL, read_to BIGINT NOT NULL,
        checkpoint TEXT NOT NULL
    );
    CREATE VIEW steps AS
    SELECT
        o.seq, d.episode, e.seq AS assigned, e.arm, d.t, d.decision, d.policy, d.mode, d.observation, d.allowed,
        d.action AS decided, d.log_prob AS decided_log_prob, a.seq AS activated, a.executed, a.action AS replaced_by,
        o.reward, o.cost, o.terminated, o.truncated,
        COALESCE(o.next_observation, CASE WHEN n.seq < o.seq THEN n.observation END) AS next_observation
    FROM outcomes o
    JOIN decisions d ON d.decision = o.decision
    JOIN episodes e ON e.episode = d.episode
    LEFT JOIN activations a ON a.decision = d.decision
    LEFT JOIN decisions n ON n.episode = d.episode AND n.t = d.t + 1
    WHERE o.terminated = 1 OR o.truncated = 1 OR o.next_observation IS NOT NULL OR n.seq < o.seq
    UNION ALL
    SELECT
        n.seq, d.episode, e.seq AS assigned, e.arm, d.t, d.decision, d.policy, d.mode, d.observation, d.allowed,
        d.action AS decided, d.log_prob AS decided_log_prob, a.seq AS activated, a.executed, a.action AS replaced_by,
        o.reward, o.cost, o.terminated, o.truncated, n.observation AS next_observation
    FROM decisions n
    JOIN decisions d ON d.episode = n.episode AND d.t = n.t - 1
    JOIN outcomes o ON o.decision = d.decision
    JOIN episodes e ON e.episode = d.episode
    LEFT JOIN activations a ON a.decision = d.decision
    WHERE o.seq < n.seq AND o.terminated = 0 AND o.truncated = 0 AND o.next_observation IS NULL;
    CREATE VIEW transitions AS
    SELECT
        episode, t, decision, arm, policy, mode, observation, allowed,
        CASE WHEN executed = 0 THEN replaced_by ELSE decided END AS action,
        CASE WHEN executed = 0 THEN NULL ELSE decided_log_prob END AS log_prob,
        reward, cost, next_observation, terminated, truncated, seq, assigned
    FROM steps
    WHERE (terminated = 1 OR next_observation IS NOT NULL)
      AND (executed IS NULL OR executed = 1 OR replaced_by IS NOT NULL);
    CREATE TABLE rules (
        seq BIGINT PRIMARY KEY, at FLOAT NOT NULL, who TEXT NOT NULL, rules TEXT NOT NULL
    );
    CREATE INDEX gates_candidate ON gates (candidate, seq);
    """,
    "CREATE INDEX episodes_unit ON episodes (unit, seq)",
)


class PolicyRow(NamedTuple):
    """An exported policy; its files are in `policy_files`."""

    at: float
    policy: str
    """Its hash, which names it."""
    name: str
    parent: str | None
    trained_to: int | None
    """Number of the last row that it was trained on."""
    manifest: str


class PolicyFile(NamedTuple):
    """One file of an exported policy."""

    policy: str
    file: str
    content: bytes


class EpisodeRow(NamedTuple):
    """Who acts in an episode; it never changes."""

    at: float
    episode: str
    unit: str
    arm: str
    """live, candidate, fallback or application."""
    policy: str
    probability: float
    """Of this arm, when the unit was assigned."""
    deployment: int
    """Number of the deployment that it was assigned under."""


class DecisionRow(NamedTuple):
    """What was done in step t of an episode."""

    at: float
    decision: str
    episode: str
    t: int
    observation: bytes
    """Flattened, float32."""
    allowed: bytes | None
    """A byte per action, 1 if it was allowed; None: all were."""
    action: bytes
    """float32 in [-1, 1], or one int64 counted from 0."""
    log_prob: float | None
    """log b(a|s), a density over [-1, 1] or a probability; None if it is not known."""
    policy: str
    mode: str
    carry: bytes | None
    """What the policy takes into the next step, if it remembers anything: an .npz file."""


class OnPaper(NamedTuple):
    """What a candidate would have done."""

    decision: str
    policy: str
    action: bytes
    log_prob: float | None


class OutcomeRow(NamedTuple):
    """What came of a decision."""

    at: float
    outcome: str
    decision: str
    reward: float
    cost: float | None
    next_observation: bytes | None
    terminated: int
    truncated: int


class ActivationRow(NamedTuple):
    """Whether a decision was executed, and what was done instead."""

    at: float
    decision: str
    executed: int
    action: bytes | None
    who: str


class DeploymentRow(NamedTuple):
    """Who acts from now on."""

    at: float
    mode: str
    live: str
    candidate: str | None
    share: float
    """Of the units that the candidate gets."""
    explore: str
    """no, policy, or the share of random actions."""
    who: str
    why: str
    forced: int
    replaces: int | None = None
    """Number of the deployment that it was decided upon; each is replaced once, so that of two changes at the same time
    one is refused."""


class RulesRow(NamedTuple):
    """What promotion asks of a candidate from now on."""

    at: float
    who: str
    rules: str
    """JSON of segue.live.trial.Rules."""


class GateRow(NamedTuple):
    """What a test said of a candidate."""

    at: float
    candidate: str
    gate: str
    verdict: str
    evidence: str
    """JSON."""


class AuditRow(NamedTuple):
    """What happened, and who did it."""

    at: float
    who: str
    what: str
    detail: str
    """JSON."""


class RefusedRow(NamedTuple):
    """What was sent and could not be taken."""

    at: float
    place: str
    code: str
    message: str
    content: str


class CursorRow(NamedTuple):
    """How far a reader has read."""

    at: float
    reader: str
    read_to: int
    checkpoint: str


Row = (
    PolicyRow
    | PolicyFile
    | EpisodeRow
    | DecisionRow
    | OnPaper
    | OutcomeRow
    | ActivationRow
    | DeploymentRow
    | RulesRow
    | GateRow
    | AuditRow
    | RefusedRow
    | CursorRow
)

#: Table of each kind of row, in the order in which rows of one transaction are written.
TABLES: dict[type, str] = {
    PolicyRow: "policies",
    PolicyFile: "policy_files",
    DeploymentRow: "deployments",
    RulesRow: "rules",
    EpisodeRow: "episodes",
    DecisionRow: "decisions",
    OnPaper: "on_paper",
    OutcomeRow: "outcomes",
    ActivationRow: "activations",
    GateRow: "gates",
    AuditRow: "audit",
    RefusedRow: "refused",
    CursorRow: "cursors",
}


def insertion(kind: type, mark: str, rows: int = 1) -> str:
    """The statement that appends rows of this kind unless their key is taken; `mark` stands for a value."""
    columns = ("seq", *kind._fields)  # type: ignore[attr-defined]
    marks = ", ".join([f"({', '.join([mark] * len(columns))})"] * rows)
    return f"INSERT INTO {TABLES[kind]} ({', '.join(columns)}) VALUES {marks} ON CONFLICT DO NOTHING"
