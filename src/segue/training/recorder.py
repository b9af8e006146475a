"""What the loops tell the outside: evaluations, metrics and progress. A run writes them down; a test collects them."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import jax
import numpy as np

from segue.core import Metrics
from segue.errors import Diverged


@runtime_checkable
class Recorder(Protocol):
    """Receives what happens, in order."""

    def progress(self, phase: str, step: int, total: int) -> None:
        """`step` of `total` are done."""

    def metrics(self, phase: str, step: int, values: dict[str, float]) -> None:
        """Averages over the updates since the last call."""

    def evaluation(self, phase: str, step: int, returns: np.ndarray, costs: np.ndarray | None = None) -> None:
        """Undiscounted returns of the evaluation episodes after `step` steps, and the sums of their costs if known."""

    def clock(self, phase: str, what: str) -> AbstractContextManager[None]:
        """Times a part of a phase that is not training: `evaluation` or `compile`."""

    def spent(self, phase: str, what: str, seconds: float) -> None:
        """The same, timed already; `compile` includes waiting for other seeds' evaluations."""

    def event(self, phase: str, step: int, message: str) -> None:
        """Something that happened at this step, such as a roll-back."""

    def note(self, message: str) -> None:
        """Something the user should know."""


class Silent:
    """Records nothing."""

    def progress(self, phase: str, step: int, total: int) -> None:
        """Nothing."""

    def metrics(self, phase: str, step: int, values: dict[str, float]) -> None:
        """Nothing."""

    def evaluation(self, phase: str, step: int, returns: np.ndarray, costs: np.ndarray | None = None) -> None:
        """Nothing."""

    def clock(self, phase: str, what: str) -> AbstractContextManager[None]:
        """Nothing."""
        return contextlib.nullcontext()

    def spent(self, phase: str, what: str, seconds: float) -> None:
        """Nothing."""

    def event(self, phase: str, step: int, message: str) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""


def fetch(phase: str, step: int, metrics: Metrics) -> dict[str, float]:
    """Metrics on the host.

    Raises:
        Diverged: if one of them is NaN or Inf.
    """
    values = {name: float(value) for name, value in sorted(jax.device_get(metrics).items())}
    for name, value in values.items():
        if not np.isfinite(value):
            raise Diverged(
                f"{phase} phase, step {step}: {name} is {value}. Learning has diverged; try a smaller learning rate, "
                "a smaller discount or a stronger conservative term"
            )
    return values
