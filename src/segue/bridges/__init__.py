"""Bridges: what acts at the handover, one file each. `BRIDGES` is the one place where they are listed."""

from segue.bridges.averaged_actor import AveragedActor
from segue.bridges.base import Bridge, Handover, Report, Review
from segue.bridges.conservative import ConservativeUpdate
from segue.bridges.critic_refit import CriticRefit
from segue.bridges.earned_freedom import EarnedFreedom
from segue.bridges.guard import Guard
from segue.bridges.jump_start import JumpStart
from segue.bridges.let_go import LetGo
from segue.bridges.policy_expansion import PolicyExpansion
from segue.bridges.promotion import Promotion
from segue.bridges.q_filter import QFilter
from segue.bridges.samg import SAMG
from segue.plugins import Registry

_ALL = (
    QFilter,
    ConservativeUpdate,
    SAMG,
    LetGo,
    CriticRefit,
    PolicyExpansion,
    JumpStart,
    Guard,
    Promotion,
    AveragedActor,
    EarnedFreedom,
)

BRIDGES: Registry[type[Bridge]] = Registry("bridge", {cls.name: cls for cls in _ALL})

__all__ = [
    "BRIDGES",
    "SAMG",
    "AveragedActor",
    "Bridge",
    "ConservativeUpdate",
    "CriticRefit",
    "EarnedFreedom",
    "Guard",
    "Handover",
    "JumpStart",
    "LetGo",
    "PolicyExpansion",
    "Promotion",
    "QFilter",
    "Report",
    "Review",
]
