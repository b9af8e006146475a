"""The percentile bootstrap over episodes (Efron 1979), for self-normalised and doubly robust estimates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

#: Resamples of the dataset.
RESAMPLES = 2000
#: Resamples evaluated together.
CHUNK = 100


def resample(
    statistics: Callable[[Float[np.ndarray, "resamples episodes"]], Float[np.ndarray, "resamples statistics"]],
    episodes: int,
    source: np.random.Generator,
) -> Float[np.ndarray, "resamples statistics"]:
    """The statistics of resampled datasets; they are given how often each episode is in each resample."""
    return np.concatenate([statistics(_counts(episodes, source)) for _ in range(RESAMPLES // CHUNK)])


def _counts(episodes: int, source: np.random.Generator) -> Float[np.ndarray, "resamples episodes"]:
    drawn = source.integers(episodes, size=(CHUNK, episodes)) + episodes * np.arange(CHUNK)[:, None]
    return np.bincount(drawn.ravel(), minlength=CHUNK * episodes).reshape(CHUNK, episodes).astype(np.float64)


def lower_quantile(values: Float[np.ndarray, " resamples"], confidence: float) -> float:
    """What a share `confidence` of the resamples exceeds; one in which the estimate does not exist counts as −inf."""
    return float(np.quantile(np.where(np.isnan(values), -np.inf, values), 1 - confidence, method="inverted_cdf"))
