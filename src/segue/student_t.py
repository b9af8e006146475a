"""Student's t, for intervals of means."""

from __future__ import annotations


def student_t(probability: float, degrees: float) -> float:
    """Quantile of Student's t with so many degrees of freedom."""
    from scipy.special import stdtrit  # the quantile alone; scipy.stats takes half a second to import

    return float(stdtrit(degrees, probability))
