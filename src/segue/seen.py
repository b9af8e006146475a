"""What a policy has learnt from: fingerprints of a dataset's episodes, and the range of its observations."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

#: Of a policy that has learnt from no dataset.
NOTHING_SEEN = np.zeros(0, np.uint64)


def wider(
    observed: Float[np.ndarray, "2 observation"] | None, observations: Float[np.ndarray, "n observation"]
) -> Float[np.ndarray, "2 observation"]:
    """Smallest and largest value of each number, those of more observations included."""
    low, high = observations.min(0), observations.max(0)
    return np.stack([low, high] if observed is None else [np.minimum(observed[0], low), np.maximum(observed[1], high)])
