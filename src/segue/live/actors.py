"""How the policies of a deployment act: what each chooses, how probable that was, and who acts if one fails."""

from __future__ import annotations

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
#: A policy is slow when this share of its last decisions took longer than its budget.
SLOW_SHARE, SLOW_OF = 0.5, 20


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


class Actors:
    """The policies of a log, loaded as they are needed. Not for several threads at once.

    Args:
        database: the log.
        budget: seconds that one decision may take.
        random: what policies draw from.
        too_slow: called with a policy that is given up, how many of its last decisions were too slow, and of how many.
    """

    def __init__(
        self,
        database: Database,
        budget: float,
        random: np.random.Generator,
        too_slow: Callable[[str, int, int], None],
    ) -> None:
        self.budget = budget
        self.given_up: set[str] = set()
        """Policies that were too slow."""
        self._database, self._random, self._too_slow = database, random, too_slow
        self._policies: dict[str, ExportedPolicy] = {}
        self._paces: dict[str, tuple[int, int]] = {}

    def policy(self, name: str) -> ExportedPolicy:
        """A policy of the log by its hash."""
        if name not in self._policies:
            self._policies[name] = read_policy(self._database, name)
        return self._policies[name]

    def forget_but(self, names: Collection[str | None]) -> None:
        """Only these can still act."""
        self._policies = {name: policy for name, policy in self._policies.items() if name in names}

    def act(
        self,
        by: str,
        deployment: Deployment,
        known: tuple[str, Any],
        observation: Float[np.ndarray, " observation"],
        allowed: Bool[np.ndarray, " actions"] | None,
    ) -> Choice:
        """What a policy does, or the live one in its place if it gives no action.

        Args:
            by: the policy.
            deployment: says how it explores, and which policy is live.
            known: who acted in the step before, and what it remembers.
            observation: flattened.
            allowed: which discrete actions there are; None: all.

        Raises:
            Refused: if the live policy gives no action.
        """
        try:
            started = time.perf_counter()
            choice = self._choose(by, deployment.explore, known, observation, allowed)
            self._time(by, deployment.live, time.perf_counter() - started)
            return choice
        except SegueError as error:
            if by == deployment.live:
                raise Refused(422, "no_action", str(error)) from None
            LOGGER.warning("policy %s gave no action (%s); the live policy acts", by[:12], error)
        return self._choose(deployment.live, deployment.explore, known, observation, allowed)

    def on_paper(
        self,
        decision: str,
        candidate: str,
        deployment: Deployment,
        observation: Float[np.ndarray, " observation"],
        allowed: Bool[np.ndarray, " actions"] | None,
    ) -> list[Row]:
        """What a candidate would have done, as it would begin an episode here; nothing if it gives no action."""
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

    def _time(self, by: str, live: str, seconds: float) -> None:
        slow, seen = self._paces.get(by, (0, 0))
        slow, seen = slow + (seconds > self.budget), seen + 1
        if seen >= SLOW_OF:
            if slow >= SLOW_SHARE * seen and by != live and by not in self.given_up:
                self.given_up.add(by)
                self._too_slow(by, slow, seen)
            slow = seen = 0
        self._paces[by] = slow, seen
