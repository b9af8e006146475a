"""Algorithms: one file each. `ALGORITHMS` is the one place where they are listed."""

from segue.algorithms.awac import AWAC
from segue.algorithms.base import ActorCritic, Algorithm
from segue.algorithms.bc import BC
from segue.algorithms.bcq import BCQ
from segue.algorithms.cal_ql import CalQL
from segue.algorithms.cql import CQL
from segue.algorithms.discrete_bcq import DiscreteBCQ
from segue.algorithms.discrete_cql import DiscreteCQL
from segue.algorithms.discrete_sac import DiscreteSAC
from segue.algorithms.dqn import DQN
from segue.algorithms.edac import EDAC
from segue.algorithms.fql import FQL
from segue.algorithms.iql import IQL
from segue.algorithms.lagrangian import CQLLagrangian, SACLagrangian
from segue.algorithms.ppo import PPO
from segue.algorithms.rebrac import ReBRAC
from segue.algorithms.redq import REDQ
from segue.algorithms.rlpd import RLPD
from segue.algorithms.sac import SAC
from segue.algorithms.sac_n import SACN
from segue.algorithms.td3 import TD3
from segue.algorithms.td3_bc import TD3BC
from segue.plugins import Registry

#: Offline before online, continuous before discrete.
_ALL: tuple[type[Algorithm], ...] = (
    BC, BCQ, TD3BC, ReBRAC, FQL, IQL, AWAC, CQL, CalQL, CQLLagrangian, SACN, EDAC, SAC, SACLagrangian, TD3, REDQ, RLPD,
    PPO, DiscreteBCQ, DiscreteCQL, DQN, DiscreteSAC,
)  # fmt: skip

ALGORITHMS: Registry[type[Algorithm]] = Registry("algorithm", {cls.name: cls for cls in _ALL})

__all__ = [
    "ALGORITHMS",
    "AWAC",
    "BC",
    "BCQ",
    "CQL",
    "DQN",
    "EDAC",
    "FQL",
    "IQL",
    "PPO",
    "REDQ",
    "RLPD",
    "SAC",
    "SACN",
    "TD3",
    "TD3BC",
    "ActorCritic",
    "Algorithm",
    "CQLLagrangian",
    "CalQL",
    "DiscreteBCQ",
    "DiscreteCQL",
    "DiscreteSAC",
    "ReBRAC",
    "SACLagrangian",
]
