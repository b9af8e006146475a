"""Algorithms: one file each. `ALGORITHMS` is the one place where they are listed."""

from segue.algorithms.base import ActorCritic, Algorithm
from segue.algorithms.bc import BC
from segue.algorithms.cql import CQL
from segue.algorithms.sac import SAC
from segue.algorithms.td3 import TD3
from segue.algorithms.td3_bc import TD3BC

ALGORITHMS: dict[str, type[Algorithm]] = {cls.name: cls for cls in (BC, SAC, CQL, TD3, TD3BC)}

__all__ = ["ALGORITHMS", "BC", "CQL", "SAC", "TD3", "TD3BC", "ActorCritic", "Algorithm"]
