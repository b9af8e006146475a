"""Colours and line styles that the picture and the page share, for light and for dark backgrounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Dash = Literal["solid", "dashed", "dotted"]
DASHES: tuple[Dash, ...] = get_args(Dash)
"""Arms beyond the palette take its colours again, dashed, then dotted; CSS and Matplotlib know the names."""


@dataclass(frozen=True)
class Theme:
    """One background and what is legible on it; `arms`, after Okabe and Ito, are colour-blind safe."""

    paper: str
    ink: str
    quiet: str
    rule: str
    alert: str
    arms: tuple[str, ...]

    def arm(self, index: int) -> tuple[str, Dash]:
        """`(colour, line style)` of the arm at this place."""
        again, place = divmod(index, len(self.arms))
        return self.arms[place], DASHES[again % len(DASHES)]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b1f24",
    quiet="#68707c",
    rule="#e3e6ea",
    alert="#a84300",
    arms=("#0072b2", "#d55e00", "#009e73", "#b85a94", "#b07800", "#4a4f57"),
)
DARK = Theme(
    paper="#14171b",
    ink="#e7eaee",
    quiet="#97a1ad",
    rule="#2b3037",
    alert="#ffb454",
    arms=("#4aa8e0", "#ff8a3d", "#2fc79b", "#e08fc0", "#f0c029", "#c9d1d9"),
)
