"""A service inside your own process: decide, report what came of it, read the log as a dataset. See docs/live.md."""

from __future__ import annotations

import numpy as np

import segue
from segue.live import Service

recipe = segue.Recipe(
    dataset="segue:cartpole-mixed", offline=segue.BC(hidden_sizes=(32, 32)), offline_steps=200, eval_episodes=1
)
result = segue.run(recipe, "runs/to-serve", progress=False)
segue.export_policy(next((result.directory / "checkpoints").glob("*/seed-0/final")), "runs/served")

random = np.random.default_rng(0)
with Service("live.db", policy="runs/served", explore="0.1") as service:
    for user in range(5):
        for step in range(4):
            seen = random.normal(size=4).round(3).tolist()
            name = f"user-{user}-step-{step}"
            decided = service.decide(
                decision_id=name, episode_id=f"visit-{user}", unit_id=f"user-{user}", observation=seen
            )
            service.outcome(decision_id=decided.decision_id, reward=1.0, terminated=step == 3)
print(segue.load("live:live.db"))
