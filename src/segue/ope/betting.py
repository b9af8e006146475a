"""A lower confidence bound that holds for every number of episodes, whatever the tails: by betting.

For independent Y_1 … Y_n ≥ 0 with mean at least u, and a stake θ in (0, 1), the capital

    K_θ(u) = Π_i (1 + θ (Y_i / u − 1))

of somebody who bets against "the mean is at most u" is a product of n factors ≥ 0 with mean ≤ 1 if the mean of Y is at
most u. So is its average over stakes, K(u), and by Markov's inequality P(K(u) ≥ 1/δ) ≤ δ. K falls in u, so

    inf {u : K(u) < 1/δ}

is a lower bound of the mean with confidence 1 − δ. No upper bound on Y is needed, which is what makes it fit importance
weights (Waudby-Smith & Ramdas 2023, arXiv 2010.09686, section 4; for off-policy evaluation Waudby-Smith et al. 2022,
arXiv 2210.10768). Averaging over fixed stakes instead of choosing them one by one keeps it independent of the order of
the episodes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

#: θ: the average is within a factor of twenty of the best of them.
STAKES = np.geomspace(1e-3, 0.95, 20)
#: Halvings of the bracket; far below the rounding of the data.
BISECTIONS = 100


def lower_bound(values: Float[np.ndarray, " n"], confidence: float) -> float:
    """Lower bound of the mean of independent, identically distributed `values` ≥ 0, at this one-sided confidence.

    Valid for every n. Values below 0 by rounding count as 0.
    """
    values = np.maximum(values, 0.0)
    low, high = 0.0, float(values.mean())
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _capital(values, middle) >= -np.log1p(-confidence) else (low, middle)
    return low


def _capital(values: Float[np.ndarray, " n"], mean: float) -> float:
    """log K(mean)."""
    logs = np.log1p(STAKES[:, None] * (values / mean - 1)).sum(1)
    return float(np.logaddexp.reduce(logs) - np.log(len(STAKES)))
