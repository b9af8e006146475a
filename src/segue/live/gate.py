"""The off-policy gate: what the log says of a candidate before it acts.

It imports JAX, so the service does not import it: `segue policies evaluate` and the learner do.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time

import numpy as np

from segue.data import load
from segue.deployment.policy import ExportedPolicy
from segue.errors import DataError, SegueError
from segue.live.database import Database
from segue.live.policies import read_policy
from segue.live.promotion import FAILED, OFF_POLICY, OPEN, PASSED, Verdict, deployed, find_policy, last_verdict
from segue.live.schema import AuditRow, GateRow
from segue.live.trial import read_rules
from segue.ope import DiscretePolicy, evaluate_offline
from segue.ope.policy import Judged


def evaluate(database: Database, word: str, who: str, why: str = "", confidence: float = 0.95) -> Verdict:
    """Judge a policy on the live policy's episodes that it has not learnt from; the verdict is kept in the log.

    Passed: the lower bound of its value is above the live policy's, enough episodes count, and the upper bound of its
    cost is within the limit, if one is declared. Where the application acts (apprentice mode), it is judged against the
    application.

    Args:
        database: the log.
        word: the policy: its hash, the beginning of it, or its name.
        who: asks.
        why: it is asked.
        confidence: of the lower bound.

    Raises:
        SegueError: if the log has no episodes of the live policy with known propensities, or the policy does not say
            how probable its actions are.
    """
    now, policy = deployed(database), find_policy(database, word)
    rules, exported = read_rules(database), read_policy(database, policy)
    [(trained_to,)] = database.read("SELECT trained_to FROM policies WHERE policy = ?", policy)
    acted = "arm=application" if now.mode == "apprentice" else f"arm=live&policy={now.live}"
    try:
        dataset = load(f"live:{database.url}?{acted}&from={trained_to or 0}&propensities=known")
    except DataError as error:
        learnt = "" if trained_to is None else f" after row {trained_to}, up to which it has learnt"
        raise SegueError(
            f"policy {policy[:12]} cannot be judged: no episode of what acts now with known propensities is complete"
            f"{learnt} ({error}); let the service act for a while, exploring, and judge it again"
        ) from None
    target, explore = _as_deployed(exported, now.explore)
    judge = functools.partial(
        evaluate_offline,
        target,
        methods=["pdis"],  # the one whose bounds hold for every number of episodes
        confidence=confidence,
        explore=explore,
    )
    result = judge(dataset, discount=exported.about["algorithm"]["discount"])
    first = result.estimates[0]
    effective = 0.0 if first.support is None else first.support.effective_episodes
    verdict = {"yes": PASSED, "no": FAILED}.get(first.verdict.answer, OPEN)
    reason = first.verdict.reason
    if verdict == PASSED and effective < rules.effective:
        verdict, reason = OPEN, f"{reason}, but {effective:.3g} effective episodes; expected {rules.effective:g}"
    cost = None
    if verdict == PASSED and rules.cost_limit is not None:
        if dataset.cost is None:
            verdict, reason = OPEN, f"{reason}, but not every outcome has a cost, and the limit is {rules.cost_limit:g}"
        else:
            # What an episode costs is what it loses: the lower bound of that value is the upper bound of the cost.
            lost = judge(dataclasses.replace(dataset, rewards=-dataset.cost), discount=1.0)
            cost = -lost.estimates[0].bounds.value_lower
            if cost > rules.cost_limit:
                verdict = OPEN
                reason = f"{reason}, but its cost may be {cost:.3g} per episode, and the limit is {rules.cost_limit:g}"
    evidence = {
        "live": now.live,
        "reason": reason,
        "effective_episodes": effective,
        "needed": rules.effective,
        "cost_upper": cost if cost is None or math.isfinite(cost) else None,
        "cost_limit": rules.cost_limit,
        "trained_to": trained_to,
        **result.to_dict(),
    }
    at = time.time()
    detail = {"policy": policy, "verdict": verdict, "reason": reason, "why": why}
    database.append(
        [
            GateRow(at, policy, OFF_POLICY, verdict, json.dumps(evidence)),
            AuditRow(at, who, "evaluate", json.dumps(detail)),
        ]
    )
    found = last_verdict(database, policy, OFF_POLICY)
    assert found is not None
    return found


def _as_deployed(policy: ExportedPolicy, explore: str) -> tuple[ExportedPolicy | Judged, bool]:
    """The policy as it would act, and whether it explores."""
    if explore in ("no", "policy"):
        return policy, explore == "policy"
    epsilon = float(explore)

    def probabilities(observation: np.ndarray) -> np.ndarray:
        greedy = np.exp(policy.log_probs(observation, explore=False))
        return (1 - epsilon) * greedy + epsilon / greedy.shape[1]

    return DiscretePolicy(probabilities, policy.seen), False
