"""Bridges: what acts at the seam, one file each. `BRIDGES` is the one place where they are listed."""

from segue.bridges.base import Bridge
from segue.bridges.q_filter import QFilter

BRIDGES: dict[str, type[Bridge]] = {cls.name: cls for cls in (QFilter,)}

__all__ = ["BRIDGES", "Bridge", "QFilter"]
