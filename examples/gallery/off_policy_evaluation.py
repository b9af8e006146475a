"""Is a new policy better than the one that recorded the log? Judged without acting. See docs/evaluation.md."""

from __future__ import annotations

import numpy as np

import segue
from segue.ope import DiscretePolicy

# A bandit's log: two actions, chosen at random with known probabilities; action 1 pays more often.
random = np.random.default_rng(0)
rows = 2_000
actions = (random.random(rows) < 0.3).astype(np.int32)
dataset = segue.load(
    {
        "observations": random.normal(size=(rows, 2)).astype(np.float32),
        "actions": actions,
        "rewards": (random.random(rows) < np.where(actions == 1, 0.7, 0.4)).astype(np.float32),
        "terminals": np.ones(rows, bool),
        "behaviour_log_prob": np.log(np.where(actions == 1, 0.3, 0.7)).astype(np.float32),
        "discrete_actions": 2,
    }
)

# The policy to judge takes action 1 in nine of ten cases.
policy = DiscretePolicy(lambda observations: np.tile([0.1, 0.9], (len(observations), 1)))
found = segue.evaluate_offline(policy, dataset, methods=["pdis", "wpdis"], discount=1.0, fresh=True)
for estimate in found.estimates:
    print(f"{estimate.method}: {estimate.value:.3f}; better than the old policy: {estimate.verdict.answer}")
