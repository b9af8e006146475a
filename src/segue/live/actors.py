"""How the policies of a deployment act: what each chooses, how probable that was, and who acts if one fails."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segue.deployment.policy import ExportedPolicy
from segue.deployment.spaces import DiscreteActions
from segue.errors import SegueError
from segue.live.database import Database
from segue.live.policies import Deployment, read_policy
from segue.live.schema import OnPaper, Row
from segue.live.trial import GIVEN_UP
from segue.live.values import Refused

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

LOGGER = logging.getLogger("segue.live")
#: A policy is given up when so many of its last RECENT decisions gave no action, or, of a candidate, took too long.
MOST_FAILED, MOST_SLOW, RECENT = 2, 10, 20


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
    """How a policy does."""

    recent: deque[tuple[str, bool, bool]] = dataclasses.field(default_factory=lambda: deque(maxlen=RECENT))
    """Its last decisions: id, whether it was slow, and whether it gave no action."""
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
        """Policies that were too slow, or gave no action, too often. The log says for how long."""
        self._database, self._budget, self._random, self._note = database, budget, random, note
        self._policies: dict[str, ExportedPolicy] = {}
        self._records: dict[str, _Record] = {}

    def policy(self, name: str) -> ExportedPolicy:
        """A policy of the log by its hash."""
        if name not in self._policies:
            self._policies[name] = read_policy(self._database, name)
        return self._policies[name]

    def begin(self, names: Collection[str | None], given_up: set[str]) -> None:
        """Under a new deployment only these can act, without those; what was counted before counts no more."""
        self._policies = {name: policy for name, policy in self._policies.items() if name in names}
        self._records, self.given_up = {}, given_up

    def act(
        self,
        decision: str,
        by: str,
        deployment: Deployment,
        known: tuple[str, Any],
        observation: Float[np.ndarray, " observation"],
        allowed: Bool[np.ndarray, " actions"] | None,
    ) -> Choice | None:
        """What a policy does, or the live one in its place if it gives no action; None: the application has to act.

        Args:
            decision: its id; one that is asked again after a failure counts once.
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
            self._count(decision, by, False, error)
            if by == deployment.acts:
                raise Refused(422, "no_action", str(error)) from None
            if not deployment.acts:
                return None
            return self.act(decision, deployment.acts, deployment, known, observation, allowed)
        # Nobody takes the place of a live policy because it is slow.
        slow = by != deployment.acts and time.perf_counter() - started > self._budget
        self._count(decision, by, slow, None)
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

    def _count(self, decision: str, by: str, slow: bool, error: SegueError | None) -> None:
        """Note failures, and give a policy up that misses too many of its decisions."""
        record = self._records.setdefault(by, _Record())
        if any(decision == known for known, _, _ in record.recent):
            return
        record.recent.append((decision, slow, error is not None))
        if error is not None:
            record.failures += 1
            if record.failures & (record.failures - 1) == 0:  # the 1st, 2nd, 4th …: the log stays small
                self._note("no action", {"policy": by, "failures": record.failures, "why": str(error)})
        seen = len(record.recent)
        late, failed = sum(slow for _, slow, _ in record.recent), sum(failed for _, _, failed in record.recent)
        if by in self.given_up or (failed < MOST_FAILED and (late < MOST_SLOW or seen < RECENT)):
            return
        self.given_up.add(by)
        if failed >= MOST_FAILED:
            why = f"gave no action in {failed} of its last {seen} decisions"
        else:
            why = f"took more than {self._budget:g} s in {late} of its last {seen} decisions"
        self._note(GIVEN_UP, {"policy": by, "why": why})
