"""How the policies of a deployment act: what each chooses, how probable that was, and who acts if one fails."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segue.deployment.policy import ExportedPolicy
from segue.deployment.spaces import DiscreteActions
from segue.errors import SegueError
from segue.live.database import Database
from segue.live.policies import Deployment, read_policy
from segue.live.schema import OnPaper, Row
from segue.live.values import Refused

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

LOGGER = logging.getLogger("segue.live")
#: A policy is given up when this share of so many decisions took longer than its budget, or gave no action.
MISSED_SHARE, MISSED_OF = 0.5, 20


class Choice(NamedTuple):
    """What was chosen."""

    action: np.ndarray
    """[action] in [-1, 1], or a number from 0."""
    log_prob: float | None
    """None: it is not known."""
    carry: Any
    """What the policy takes into the next step; None: nothing."""
    by: str
    """Who acted in the end."""


@dataclasses.dataclass
class _Record:
    """How a policy does, of which others can take the place."""

    seen: int = 0
    """Decisions since it was last judged; those below are among them."""
    slow: int = 0
    failed: int = 0
    failures: int = 0
    """Decisions without an action, of all."""


class Actors:
    """The policies of a log, loaded as they are needed. Not for several threads at once.

    Args:
        database: the log.
        budget: seconds that one decision may take.
        random: what policies draw from.
        note: keeps in `audit` what happened, with its detail.
    """

    def __init__(
        self,
        database: Database,
        budget: float,
        random: np.random.Generator,
        note: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.given_up: set[str] = set()
        """Policies that were too slow, or gave no action, too often."""
        self._database, self._budget, self._random, self._note = database, budget, random, note
        self._policies: dict[str, ExportedPolicy] = {}
        self._records: dict[str, _Record] = {}

    def policy(self, name: str) -> ExportedPolicy:
        """A policy of the log by its hash."""
        if name not in self._policies:
            self._policies[name] = read_policy(self._database, name)
        return self._policies[name]

    def forget_but(self, names: Collection[str | None]) -> None:
        """Only these can still act; what the others did does not count if they come back."""
        self._policies = {name: policy for name, policy in self._policies.items() if name in names}
        self._records = {name: record for name, record in self._records.items() if name in names}
        self.given_up.intersection_update(names)

    def act(
        self,
        by: str,
        deployment: Deployment,
        known: tuple[str, Any],
        observation: Float[np.ndarray, " observation"],
        allowed: Bool[np.ndarray, " actions"] | None,
    ) -> Choice | None:
        """What a policy does, or the live one in its place if it gives no action; None: the application has to act.

        Args:
            by: the policy.
            deployment: says how it explores, and who acts in its place.
            known: who acted in the step before, and what it remembers.
            observation: flattened.
            allowed: which discrete actions there are; None: all.

        Raises:
            Refused: if the live policy gives no action.
        """
        started = time.perf_counter()
        try:
            choice = self._choose(by, deployment.explore, known, observation, allowed)
        except SegueError as error:
            if by == deployment.acts:
                raise Refused(422, "no_action", str(error)) from None
            self._count(by, False, error)
            return self.act(deployment.acts, deployment, known, observation, allowed) if deployment.acts else None
        if by != deployment.acts:
            self._count(by, time.perf_counter() - started > self._budget, None)
        return choice

    def on_paper(
        self,
        decision: str,
        candidate: str,
        deployment: Deployment,
        observation: Float[np.ndarray, " observation"],
        allowed: Bool[np.ndarray, " actions"] | None,
    ) -> list[Row]:
        """What a candidate would have done, as it would begin an episode here.

        Nothing if it gives no action, or was given up: requests do not wait for it then.
        """
        if candidate in self.given_up:
            return []
        try:
            choice = self._choose(candidate, deployment.explore, ("", None), observation, allowed)
        except SegueError as error:
            LOGGER.warning("policy %s gave no action on paper (%s)", candidate[:12], error)
            return []
        return [OnPaper(decision, candidate, choice.action.tobytes(), choice.log_prob)]

    def _choose(
        self, by: str, explore: str, known: tuple[str, Any], observation: np.ndarray, allowed: np.ndarray | None
    ) -> Choice:
        policy = self.policy(by)
        carry = known[1] if known[0] == by and known[1] is not None else policy.start(1)
        mask = None if allowed is None else allowed[None]
        acted = policy.act(observation[None], carry, self._random, explore == "policy", mask, log_prob=True)
        action, log_prob = np.asarray(acted.action)[0], float(acted.log_prob()[0])
        if explore not in ("no", "policy"):
            epsilon = float(explore)
            among = np.arange(policy.actions.size) if allowed is None else np.flatnonzero(allowed)
            if self._random.random() < epsilon:
                drawn = action.dtype.type(self._random.choice(among))
                log_prob = 0.0 if drawn == action else -math.inf
                action = drawn
            log_prob = math.log((1 - epsilon) * math.exp(log_prob) + epsilon / len(among))
        if isinstance(policy.actions, DiscreteActions):
            action = np.asarray(action, np.int64)
        return Choice(action, None if math.isnan(log_prob) else log_prob, acted.carry or None, by)

    def _count(self, by: str, slow: bool, error: SegueError | None) -> None:
        """Note failures, and give a policy up that misses too many of its decisions."""
        record = self._records.setdefault(by, _Record())
        record.seen += 1
        record.slow += slow
        if error is not None:
            record.failed += 1
            record.failures += 1
            if record.failures & (record.failures - 1) == 0:  # the 1st, 2nd, 4th …: the log stays small
                self._note("no action", {"policy": by, "failures": record.failures, "why": str(error)})
        if record.seen < MISSED_OF:
            return
        if record.slow + record.failed >= MISSED_SHARE * MISSED_OF:
            self.given_up.add(by)
            why = (
                f"of {record.seen} decisions {record.slow} took more than {self._budget:g} s, and {record.failed} "
                "gave no action"
            )
            self._note("given up", {"policy": by, "why": why})
        record.seen = record.slow = record.failed = 0
