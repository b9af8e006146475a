"""`segue policies`: which policies a live log has, which of them acts, and what to do about it."""

from __future__ import annotations

import dataclasses
import getpass
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from segue.cli.parse import parse
from segue.errors import SegueError, unknown

if TYPE_CHECKING:
    from segue.live.policies import Deployment

OF_A_POLICY = ("stage", "evaluate", "shadow", "canary", "promote", "explore")
ACTIONS = (*OF_A_POLICY, "list", "rollback", "pause", "freeze", "resume", "rules")
#: Flags of some actions only.
OF_ACTIONS: dict[str, tuple[str, ...]] = {
    "name": ("stage",),
    "parent": ("stage",),
    "trained_to": ("stage",),
    "share": ("canary",),
    "force": ("shadow", "canary", "promote"),
    "json": ("list",),
    "window": ("rules",),
    "missing": ("rules",),
    "alpha": ("rules",),
    "shares": ("rules",),
    "cost": ("rules",),
    "cost_limit": ("rules",),
    "gate": ("rules",),
    "effective": ("rules",),
    "run_length": ("rules",),
    "automatic": ("rules",),
}
RULES = [name for name, actions in OF_ACTIONS.items() if actions == ("rules",)]

DESCRIPTION = """The policies of a live log: how they stand, and steps from candidate to live and back.

  segue policies --db live.db                          what there is
  segue policies rules --window 600 --db live.db       declare the reward window, and other rules
  segue policies stage DIR --db live.db                put an exported policy into the log
  segue policies evaluate POLICY --db live.db          the off-policy gate: judge it from the log
  segue policies shadow | canary | promote POLICY …    decide on paper, act for a share of the units, act for all
  segue policies explore no | policy | 0.1 …           greedily, as in training, or with a share of random actions
  segue policies rollback | pause | freeze | resume …  withdraw the candidate, give it no new units, live policy alone

It works with or without a service that runs; one that runs follows with its next request, 0.2 s later at most."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to do, to which policy, and why."""

    db: str
    """The live log: a file, sqlite:///FILE or postgresql://…"""
    action: tyro.conf.Positional[str] = "list"
    """list, stage, evaluate, shadow, canary, promote, explore, rollback, pause, freeze, resume or rules."""
    policy: tyro.conf.Positional[str | None] = None
    """The beginning of its hash, or its name; to stage it, the directory that `segue export` wrote; to explore, how."""
    why: str = ""
    """Kept in the log beside the change."""
    force: bool = False
    """shadow, canary, promote: without the verdict that the step needs; kept in the log."""
    share: float | None = None
    """canary: share of the units, by default that of the first stage."""
    name: str | None = None
    """stage: name of the policy, by default that of the directory."""
    parent: str | None = None
    """stage: the policy that it was trained from."""
    trained_to: int | None = None
    """stage: number of the last row of the log that it was trained on."""
    window: float | None = None
    """rules: seconds after an episode's assignment in which its rewards count."""
    missing: float | None = None
    """rules: what a decision counts whose reward did not arrive in the window (0)."""
    alpha: float | None = None
    """rules: expected share of false promotions at most, and of false alarms (0.05)."""
    shares: str | None = None
    """rules: share of the units stage by stage, joined by commas (0.1,0.5)."""
    cost: float | None = None
    """rules: how much more cost per unit than the live policy's is tolerated; by default that decides nothing."""
    cost_limit: float | None = None
    """rules: mean cost per unit, such as an episode's, that no policy may exceed; by default there is no limit."""
    gate: Literal["passed", "open"] | None = None
    """rules: what the off-policy gate has to say before a canary: passed; or open, anything but failed (passed)."""
    effective: float | None = None
    """rules: effective episodes that the off-policy gate needs (30)."""
    run_length: float | None = None
    """rules: mean number of units until a false alarm that observations or returns have changed (100,000)."""
    automatic: bool | None = None
    """rules: whether the service takes the steps itself (yes)."""
    json: bool = False
    """list: print JSON, with every verdict's evidence."""


def main(arguments: list[str]) -> int:
    """Take one step, and say what holds now."""
    flags = parse(Flags, arguments, "policies", DESCRIPTION)
    if flags.action not in ACTIONS:
        raise SegueError(unknown("action", flags.action, ACTIONS))
    for name, actions in OF_ACTIONS.items():
        if flags.action not in actions and getattr(flags, name) not in (None, False):
            raise SegueError(f"--{name.replace('_', '-')} goes with {' or '.join(actions)}, not with {flags.action}")
    needs_policy = flags.action in OF_A_POLICY
    if needs_policy != (flags.policy is not None):
        value = "no, policy or a share of random actions (0.1)" if flags.action == "explore" else "a policy"
        expected = f"expected {value} after it" if needs_policy else f"expected nothing after it, not {flags.policy!r}"
        raise SegueError(f"segue policies {flags.action}: {expected}")
    from segue.live.database import open_database

    database = open_database(flags.db, create=False)
    try:
        return DO.get(flags.action, _step)(database, flags)
    finally:
        database.close()


def _list(database: Any, flags: Flags) -> int:
    import msgspec
    from rich.table import Table

    from segue.console import PlainConsole
    from segue.live.overview import policies
    from segue.live.policies import latest_deployment

    found = policies(database)
    if flags.json:
        print(json.dumps(msgspec.to_builtins(found), indent=1))
        return 0
    table, console = Table(box=None, pad_edge=False), PlainConsole()
    for heading in ("policy", "hash", "status", "from", "trained to", "last verdict"):
        table.add_column(heading, overflow="fold")
    for one in found:
        gate = one.gates[-1] if one.gates else None
        table.add_row(
            one.name,
            one.policy[:12],
            one.status,
            "–" if one.parent is None else one.parent[:12],
            "–" if one.trained_to is None else str(one.trained_to),
            "–" if gate is None else f"{gate.gate}: {gate.verdict}",
        )
    console.print(table)
    if (now := latest_deployment(database)) is not None:
        console.print(_now(database, now), soft_wrap=True)
    return 0


def _stage(database: Any, flags: Flags) -> int:
    from segue.live.policies import stage
    from segue.live.promotion import find_policy, obstacle

    assert flags.policy is not None
    parent = None if flags.parent is None else find_policy(database, flags.parent)
    known = {policy for (policy,) in database.read("SELECT policy FROM policies")}
    policy = stage(database, Path(flags.policy), flags.name, parent, flags.trained_to)
    print(f"policy {policy[:12]} {'was staged before' if policy in known else 'is staged'}")
    if (why := obstacle(database, policy)) is not None:
        print(f"warning: {why}")
    return 0


def _evaluate(database: Any, flags: Flags) -> int:
    from segue.live.gate import evaluate

    assert flags.policy is not None
    gate = evaluate(database, flags.policy, _who(), flags.why)
    print(f"off-policy gate: {gate.verdict} ({gate.evidence['reason']})")
    return 0


def _rules(database: Any, flags: Flags) -> int:
    import msgspec

    from segue.live.trial import declare, read_rules

    changes: dict[str, Any] = {name: value for name in RULES if (value := getattr(flags, name)) is not None}
    if flags.shares is not None:
        try:
            changes["shares"] = tuple(float(share) for share in flags.shares.split(","))
        except ValueError:
            raise SegueError(f"--shares is {flags.shares!r}; expected numbers joined by commas: 0.1,0.5") from None
    rules = declare(database, time.time(), _who(), changes) if changes else read_rules(database)
    print(json.dumps(msgspec.to_builtins(rules)))
    return 0


def _explore(database: Any, flags: Flags) -> int:
    from segue.live.promotion import explore

    assert flags.policy is not None
    print(_now(database, explore(database, flags.policy, _who(), flags.why)))
    return 0


def _step(database: Any, flags: Flags) -> int:
    from segue.live import promotion

    who, policy = _who(), flags.policy
    if policy is None:
        after = getattr(promotion, flags.action)(database, who, flags.why)
    else:
        more = {"share": flags.share} if flags.action == "canary" else {}
        after = getattr(promotion, flags.action)(database, policy, who, flags.why, flags.force, **more)
    print(_now(database, after))
    if flags.action == "shadow" and after.mode == "apprentice":
        print(
            f"beside an application a canary begins only by hand: `segue policies evaluate {policy}` judges the policy "
            f"against it, then `segue policies canary {policy}` lets the policy act"
        )
    return 0


DO: dict[str, Callable[[Any, Flags], int]] = {
    "list": _list,
    "stage": _stage,
    "evaluate": _evaluate,
    "explore": _explore,
    "rules": _rules,
}


def _now(database: Any, deployment: Deployment) -> str:
    from segue.live.trial import paused

    acts = deployment.describe(_short, deployment.seq in paused(database))
    return f"mode {deployment.mode}: {acts}; explore {deployment.explore}"


def _short(policy: str) -> str:
    return f"policy {policy[:12]}"


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return "command line"
