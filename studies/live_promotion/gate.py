"""`python -m studies.live_promotion.gate LOG`: what the off-policy gate finds of each candidate, and what is true.

LOG is of a service in the world `recommendation` with `--explore SHARE`, as docs/practitioner.md makes one. The
true return of a policy is the mean of its own sessions in that world, explored as in the log.
"""

from __future__ import annotations

import sys

import numpy as np

from segue.deployment.policy import ExportedPolicy
from segue.live.database import open_database
from segue.live.gate import evaluate
from segue.live.policies import latest_deployment, read_policy
from segue.live.worlds.recommendation import Recommendation
from segue.student_t import student_t

SESSIONS, USERS = 3_000, 10_000


def returns(policy: ExportedPolicy, explore: float, seed: int = 0) -> np.ndarray:
    """Of sessions with a policy, [sessions]."""
    draw, world, found = np.random.default_rng(seed), Recommendation(), []
    for session in range(SESSIONS):
        seen, _ = world.reset(seed=session, options={"unit": int(draw.integers(USERS))})
        total, over = 0.0, False
        while not over:
            item = int(draw.integers(8)) if draw.random() < explore else int(policy(seen))
            seen, reward, over, _, _ = world.step(item)
            total += reward
        found.append(total)
    return np.array(found)


def main(place: str) -> None:
    """Print a table; the verdicts are in the log, too."""
    database = open_database(place, create=False)
    now = latest_deployment(database)
    assert now is not None
    live = returns(read_policy(database, now.live), float(now.explore))
    print(f"live: {live.mean():.2f}\n")
    print("| candidate | truly better by | off-policy: better by (95 %) | effective episodes | verdict |")
    print("| :-- | --: | --: | --: | :-- |")
    for policy, name in database.read("SELECT policy, name FROM policies ORDER BY seq"):
        if policy == now.live:
            continue
        better = returns(read_policy(database, policy), float(now.explore)) - live
        half = student_t(0.975, SESSIONS - 1) * better.std(ddof=1) / SESSIONS**0.5
        gate = evaluate(database, policy, "study")
        bounds, support = (gate.evidence["estimates"][0][key] for key in ("bounds", "support"))
        low, high = (bounds[f"difference_{side}"] for side in ("lower", "upper"))
        print(
            f"| {name} | {better.mean():.2f} ± {half:.2f} | {low:.2f} … {high:.2f} | "
            f"{support['effective_episodes']:.0f} of {gate.evidence['episodes']:,} | {gate.verdict} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1])
