"""Reference returns for normalised scores: which return counts as 0 and which as 100, and whose convention that is."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

D4RL = "D4RL"
OWN = "given in the recipe"
GYMNASIUM = "random policy and Gymnasium's reward threshold"


@dataclass(frozen=True)
class Reference:
    """Returns that count as 0 and 100, and the `source` of both; scores of different sources are not comparable."""

    source: str
    low: float
    high: float

    def scores(self, returns: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """100 (R − low) / (high − low), not clipped."""
        return 100 * (returns - self.low) / (self.high - self.low)


_D4RL = {
    r"HalfCheetah-v[234]|halfcheetah-.+-v[012]": (-280.178953, 12135.0),
    r"Hopper-v[234]|hopper-.+-v[012]": (-20.272305, 3234.3),
    r"Walker2d-v[234]|walker2d-.+-v[012]": (1.629008, 4592.3),
    r"Ant-v[234]|ant-.+-v[012]": (-325.6, 3879.7),
    r"pen-.+-v[01]": (96.262799, 3076.8331017826877),
    r"hammer-.+-v[01]": (-274.856578, 12794.134825156867),
    r"door-.+-v[01]": (-56.512833, 2880.5693087298737),
    r"relocate-.+-v[01]": (-6.425911, 4233.877797728884),
    r"maze2d-umaze-v1": (23.85, 161.86),
    r"maze2d-medium-v1": (13.13, 277.39),
    r"maze2d-large-v1": (6.7, 273.99),
    r"maze2d-umaze-dense-v1": (68.537689, 193.66285642381482),
    r"maze2d-medium-dense-v1": (44.264742, 297.4552547777125),
    r"maze2d-large-dense-v1": (30.569041, 303.4857382709002),
    r"antmaze-.+-v[02]": (0.0, 1.0),
    r"kitchen-.+-v0": (0.0, 4.0),
}
"""REF_MIN_SCORE and REF_MAX_SCORE of d4rl/infos.py, by D4RL's names and by those of the Gymnasium environments with the
same dynamics and reward. Not for v5, which changed both, nor for AdroitHand…, whose rewards and time limits differ."""

_GYMNASIUM = {
    "HalfCheetah-v5": (-278.0, 4800.0),
    "Hopper-v5": (17.6, 3800.0),
    "Ant-v5": (-67.5, 6000.0),
    "InvertedPendulum-v5": (5.1, 950.0),
    "InvertedDoublePendulum-v5": (47.4, 9100.0),
    "CartPole-v1": (22.2, 475.0),
}
"""low: measured by us, the mean return of uniformly random actions (1,000 episodes; 100 of HalfCheetah and Ant),
checked by a test. high: the reward at which Gymnasium's registry calls the task solved; an expert may score above 100.
Walker2d-v5 has no threshold there, and so no reference here."""


def reference(env_id: str | None) -> Reference | None:
    """The convention for this environment; None where there is none."""
    for pattern, (low, high) in _D4RL.items():
        if env_id is not None and re.fullmatch(pattern, env_id):
            return Reference(D4RL, low, high)
    return Reference(GYMNASIUM, *_GYMNASIUM[env_id]) if env_id in _GYMNASIUM else None
