"""The policies of a live log, and which of them acts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segue.deployment.policy import MANIFEST, ExportedPolicy, assemble, load_policy
from segue.deployment.spaces import DiscreteActions
from segue.errors import SegueError
from segue.live.database import Database
from segue.live.schema import PolicyFile, PolicyRow

MODES = ("apprentice", "shadow", "canary", "live", "frozen")


@dataclasses.dataclass(frozen=True)
class Deployment:
    """Who acts: a row of `deployments`."""

    seq: int
    mode: str
    live: str
    candidate: str | None
    share: float
    explore: str

    def arm(self, unit: str) -> tuple[str, str, float]:
        """Arm, policy, and the arm's probability for a unit: the same for as long as the candidate is.

        A larger share keeps the units that the candidate has.
        """
        left = 1.0
        if self.on_trial:
            assert self.candidate is not None
            digest = hashlib.blake2b(f"{self.candidate}/{unit}".encode(), digest_size=8).digest()
            if int.from_bytes(digest) < self.share * 2**64:
                return "candidate", self.candidate, self.share
            left = 1 - self.share
        if self.mode == "apprentice":
            return "application", "", left
        return ("fallback" if self.mode == "frozen" else "live"), self.live, left

    @property
    def on_trial(self) -> bool:
        """Whether units are drawn for the candidate, beside the live policy or the application."""
        return self.candidate is not None and self.share > 0 and self.mode in ("canary", "apprentice")

    @property
    def acts(self) -> str:
        """Who acts where the candidate does not: a policy, or "" for the application."""
        return "" if self.mode == "apprentice" else self.live

    def describe(self, name: Callable[[str], str], paused: bool) -> str:
        """Who acts and who only watches, in words.

        Args:
            name: gives a policy's name by its hash.
            paused: whether a trial of the candidate goes on that gets no new units (`trial.paused`).
        """
        live = name(self.live)
        candidate = live if self.candidate is None else name(self.candidate)
        if self.on_trial:
            beside = f"{candidate} for {self.share:.0%} of the units"
        else:
            beside = f"the trial of {candidate} is paused" if paused else f"{candidate} decides on paper"
        return {
            "apprentice": f"the application acts, {beside}",
            "shadow": f"{live} acts, {beside}",
            "canary": f"{live} acts, {beside}",
            "live": f"{live} acts for everyone",
            "frozen": f"{live} alone acts until `resume`",
        }[self.mode]


#: A Deployment in its table.
COLUMNS = ", ".join(field.name for field in dataclasses.fields(Deployment))


def stage(
    database: Database,
    policy: str | Path,
    name: str | None = None,
    parent: str | None = None,
    trained_to: int | None = None,
) -> str:
    """Put an exported policy into the log, once, and return its hash.

    Raises:
        SegueError: if it cannot be read, or its spaces are not those of the log.
    """
    directory = Path(policy)
    about = load_policy(directory).about
    digest = about["sha256"]
    if database.read("SELECT 1 FROM policies WHERE policy = ?", digest):
        return digest
    require_same_spaces(database, about, str(directory))
    row = PolicyRow(time.time(), digest, name or directory.name, parent, trained_to, json.dumps(about))
    database.append([row, *(PolicyFile(digest, file, (directory / file).read_bytes()) for file in about["files"])])
    return digest


def require_same_spaces(database: Database, about: dict[str, Any], where: str) -> None:
    """Refuse a manifest whose spaces are not those of the log's policies; `where` names it in the error.

    Raises:
        SegueError: with both sides' spaces.
    """
    for (manifest,) in database.read("SELECT manifest FROM policies ORDER BY seq LIMIT 1"):
        first = json.loads(manifest)
        for part in ("observation_space", "action_space", "encoding"):
            if first[part] != about[part]:
                raise SegueError(
                    f"{where}: its {part.replace('_', ' ')} is {about[part]}, the log's policies have {first[part]}; "
                    "expected the same: export it for the same environment, or begin another log"
                )


def read_policy(database: Database, name: str) -> ExportedPolicy:
    """A policy of the log by its hash.

    Raises:
        SegueError: if there is none, or it is damaged.
    """
    rows = database.read("SELECT manifest FROM policies WHERE policy = ?", name)
    if not rows:
        raise SegueError(f"the log has no policy {name[:12]}; `segue policies` lists those it has")
    files = dict(database.read("SELECT file, content FROM policy_files WHERE policy = ?", name))
    document = json.loads(rows[0][0])
    for file, digest in document["files"].items():
        if file not in files or hashlib.sha256(files[file]).hexdigest() != digest:
            raise SegueError(f"policy {name[:12]} of the log is damaged ({file}; hashes are in {MANIFEST})")
    return assemble(document, files, f"policy {name[:12]} of the log")


def latest_deployment(database: Database) -> Deployment | None:
    """Who acts now."""
    rows = database.read(f"SELECT {COLUMNS} FROM deployments ORDER BY seq DESC LIMIT 1")
    return Deployment(*rows[0]) if rows else None


def acted_one_after_the_other(database: Database) -> list[Deployment]:
    """The first deployment of each policy that became live, or of the application; the last one acts now.

    Those that were rolled back are not among them.
    """
    stack: list[Deployment] = []
    for row in database.read(f"SELECT {COLUMNS} FROM deployments ORDER BY seq"):
        found = Deployment(*row)
        if [one.acts for one in stack[-2:-1]] == [found.acts]:
            stack.pop()
        elif [one.acts for one in stack[-1:]] != [found.acts]:
            stack.append(found)
    return stack


def require_exploration(explore: str, policy: ExportedPolicy) -> None:
    """Refuse a way of exploring that the policy does not have.

    Raises:
        SegueError: saying which there are.
    """
    if explore in ("no", "policy"):
        return
    try:
        share = float(explore)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise SegueError(f"explore is {explore!r}; expected no, policy, or a share above 0 and at most 1")
    if not isinstance(policy.actions, DiscreteActions):
        raise SegueError(
            f"explore is {explore}: a share of random actions is for discrete policies; expected no or policy"
        )
