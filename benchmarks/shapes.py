"""The task that updates are timed on: Hopper's shapes, batch 256, two hidden layers of 256; NumPy only."""

from __future__ import annotations

import numpy as np

OBSERVATION, ACTION, BATCH, HIDDEN = 11, 3, 256, 256


def columns(rows: int) -> dict[str, np.ndarray]:
    """Random transitions in episodes of 500 steps."""
    rng = np.random.default_rng(0)
    return {
        "observations": rng.standard_normal((rows, OBSERVATION), np.float32),
        "actions": np.tanh(rng.standard_normal((rows, ACTION), np.float32)),
        "rewards": rng.standard_normal(rows, np.float32),
        "next_observations": rng.standard_normal((rows, OBSERVATION), np.float32),
        "terminals": np.zeros(rows, np.float32),
        "timeouts": (np.arange(rows) % 500 == 499).astype(np.float32),
    }
