"""Numbers and settings as readers meet them: thousands separated, minus signs true, absent values a dash."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

ABSENT = "–"


def decimals(values: Iterable[float]) -> int:
    """How many decimals tell these numbers apart: about four figures for the largest."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    return 0 if largest >= 100 else 1 if largest >= 10 else 2 if largest >= 1 else 3


def number(value: float | None, places: int = 0) -> str:
    """`1,234.5`, `−12`; a dash where there is no number."""
    if value is None or not math.isfinite(value):
        return ABSENT
    rounded = round(value, places)
    # Adding zero turns −0.0 into 0.0.
    return f"{rounded + 0.0:,.{places}f}".replace("-", "−")


def figures(value: float) -> str:
    """Three figures, whatever the size: `0.00123`, `1.5`, `2,340`."""
    if math.isfinite(value) and 1e-4 <= abs(value) < 1e6:
        return number(value, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:.3g}".replace("-", "−") if math.isfinite(value) else ABSENT


def duration(seconds: float | None) -> str:
    """`8.3 s`, `2 min 05 s`, `3 h 12 min`."""
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def sentence(text: str) -> str:
    """With a capital at its start; the rest as it is."""
    return text[:1].upper() + text[1:]


def setting(value: Any) -> str:
    """A recipe's value in one line."""
    if value is None or value in ({}, [], ()):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(setting(v) for v in value)
    return str(value)


def range_text(low: float, high: float, places: int) -> str:
    """`1,900–2,100`, or one number if both read alike."""
    first, last = number(low, places), number(high, places)
    if first == last:
        return first
    return f"{first} to {last}" if low < 0 else f"{first}–{last}"
