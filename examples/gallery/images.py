"""Observations that are images: uint8 arrays get a convolutional encoder by themselves. See docs/images.md."""

from __future__ import annotations

import numpy as np

import segue

# A column of 8×8 grey images with a bright dot; the right action is the half in which the dot is.
random = np.random.default_rng(0)
rows = 256
place = random.integers(0, 8, (rows, 2))
images = np.zeros((rows, 8, 8), np.uint8)
images[np.arange(rows), place[:, 0], place[:, 1]] = 255
right = (place[:, 1] >= 4).astype(np.int32)

dataset = {
    "observations": images,
    "actions": right,
    "rewards": np.ones(rows, np.float32),
    "terminals": np.ones(rows, bool),
    "discrete_actions": 2,
}
recipe = segue.Recipe(dataset=dataset, offline=segue.BC(hidden_sizes=(32,), batch_size=32), offline_steps=60)
policy = segue.run(recipe, "runs/images", progress=False).policy()
flat = images[:50].reshape(50, -1)  # a policy takes observations flattened, as environments' are
agreed = np.mean(policy(flat) == right[:50])
print(f"the policy agrees with the dataset in {agreed:.0%} of 50 images")
