"""Your own arrays as a dataset: check it, clone its better half, and ask the policy."""

from __future__ import annotations

import numpy as np

import segue

# Replace these by your own arrays, with one row per step.
random = np.random.default_rng(0)
episodes, length = 40, 25
observations = random.normal(size=(episodes * length, 3)).astype(np.float32)
actions = np.clip(0.5 * observations[:, :1] + 0.1 * random.normal(size=(len(observations), 1)), -1, 1)
rewards = -np.abs(observations[:, 0] - actions[:, 0])
last = np.arange(len(observations)) % length == length - 1

dataset = segue.load(
    {
        "observations": observations,
        "actions": actions.astype(np.float32),
        "rewards": rewards.astype(np.float32),
        "terminals": np.zeros(len(observations), bool),  # 1 where nothing can be earned afterwards
        "timeouts": last,  # 1 where an episode was only cut
    }
)
print(dataset)
for note in dataset.notes:
    print("note:", note)

recipe = segue.Recipe(
    dataset=dataset,
    offline=segue.BC(top_fraction=0.5, hidden_sizes=(32, 32)),
    offline_steps=300,
)
result = segue.run(recipe, "runs/own-dataset", progress=False)
print("action:", result.policy()(np.zeros(3, np.float32)))
