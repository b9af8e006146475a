"""What a policy has learnt from: fingerprints of a dataset's episodes, and the range of its observations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from jaxtyping import Float

#: Of a policy that has learnt from no dataset.
NOTHING_SEEN = np.zeros(0, np.uint64)


@dataclasses.dataclass(frozen=True)
class Observed:
    """The range of the observations in training, and from how many episodes it is known."""

    low: Float[np.ndarray, " observation"]
    """Smallest value of each number."""
    high: Float[np.ndarray, " observation"]
    """Largest value of each number."""
    episodes: int
    """Whole episodes that the observations are of."""

    @classmethod
    def of(cls, observations: Float[np.ndarray, "n observation"], episodes: int) -> Self:
        """The range of these observations."""
        return cls(observations.min(0), observations.max(0), episodes)

    def wider(self, other: Observed) -> Observed:
        """The range of both; `other` is of other episodes."""
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Observed(low, high, self.episodes + other.episodes)

    def plain(self) -> dict[str, Any]:
        """The same as JSON."""
        return {"low": self.low.tolist(), "high": self.high.tolist(), "episodes": self.episodes}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Self:
        """What `plain` was written from."""
        low, high = (np.asarray(plain[name], np.float32) for name in ("low", "high"))
        return cls(low, high, int(plain["episodes"]))
