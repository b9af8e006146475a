"""Random numbers on the host by distribution: what policies and exported policies draw. It imports NumPy only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

Distribution = Literal["normal", "uniform", "gumbel"]

#: float32 numbers of a shape: standard normal, uniform in [0, 1), standard Gumbel.
DRAW: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda source, shape: source.standard_normal(shape, np.float32),
    "uniform": lambda source, shape: source.random(shape, np.float32),
    "gumbel": lambda source, shape: source.gumbel(size=shape).astype(np.float32),
}
