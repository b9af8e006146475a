"""A policy outside the training stack: what acts needs NumPy and onnxruntime only. See docs/deployment.md."""

from __future__ import annotations

import numpy as np

import segue

recipe = segue.Recipe(
    dataset="segue:cartpole-mixed",
    offline=segue.DiscreteCQL(hidden_sizes=(32, 32)),
    offline_steps=300,
    eval_episodes=2,
)
result = segue.run(recipe, "runs/to-export", progress=False)
checkpoint = next((result.directory / "checkpoints").glob("*/seed-0/final"))
segue.export_policy(checkpoint, "runs/exported")

policy = segue.load_policy("runs/exported")
print("action:", policy(np.zeros(4, np.float32)))
decision = policy.decide(np.zeros(4, np.float32), explore=True, source=np.random.default_rng(0))
print("action and log-probability:", decision.action, decision.log_prob)
