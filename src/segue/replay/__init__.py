"""Replay: what the online phase samples, one strategy a file. `REPLAYS` is the one place where they are listed."""

from segue.plugins import Registry
from segue.replay.annealed import Annealed
from segue.replay.appended import Appended
from segue.replay.balanced import Balanced
from segue.replay.base import Replay, ReplayStrategy, amend, append
from segue.replay.mixed import Mixed
from segue.replay.online_only import OnlineOnly
from segue.replay.replaced import Replaced

_ALL = (OnlineOnly, Appended, Mixed, Annealed, Replaced, Balanced)

REPLAYS: Registry[type[ReplayStrategy]] = Registry("replay", {cls.name: cls for cls in _ALL})

__all__ = [
    "REPLAYS",
    "Annealed",
    "Appended",
    "Balanced",
    "Mixed",
    "OnlineOnly",
    "Replaced",
    "Replay",
    "ReplayStrategy",
    "amend",
    "append",
]
