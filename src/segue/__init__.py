"""Segue: offline-to-online reinforcement learning, without the collapse at the handover.

import segue

recipe = segue.Recipe(dataset="segue:hopper-mixed", offline=segue.TD3BC(), offline_steps=20_000,
                      online=segue.SAC(), online_steps=20_000, bridges=(segue.QFilter(percentile=25),))
result = segue.run(recipe, "runs/first")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from segue.advice import advise as advise
    from segue.algorithms import AWAC as AWAC
    from segue.algorithms import BC as BC
    from segue.algorithms import BCQ as BCQ
    from segue.algorithms import CQL as CQL
    from segue.algorithms import DQN as DQN
    from segue.algorithms import EDAC as EDAC
    from segue.algorithms import FQL as FQL
    from segue.algorithms import IQL as IQL
    from segue.algorithms import PPO as PPO
    from segue.algorithms import REDQ as REDQ
    from segue.algorithms import RLPD as RLPD
    from segue.algorithms import SAC as SAC
    from segue.algorithms import SACN as SACN
    from segue.algorithms import TD3 as TD3
    from segue.algorithms import TD3BC as TD3BC
    from segue.algorithms import CalQL as CalQL
    from segue.algorithms import CQLLagrangian as CQLLagrangian
    from segue.algorithms import DiscreteBCQ as DiscreteBCQ
    from segue.algorithms import DiscreteCQL as DiscreteCQL
    from segue.algorithms import DiscreteSAC as DiscreteSAC
    from segue.algorithms import ReBRAC as ReBRAC
    from segue.algorithms import SACLagrangian as SACLagrangian
    from segue.bridges import SAMG as SAMG
    from segue.bridges import AveragedActor as AveragedActor
    from segue.bridges import ConservativeUpdate as ConservativeUpdate
    from segue.bridges import CriticRefit as CriticRefit
    from segue.bridges import EarnedFreedom as EarnedFreedom
    from segue.bridges import Guard as Guard
    from segue.bridges import JumpStart as JumpStart
    from segue.bridges import LetGo as LetGo
    from segue.bridges import PolicyExpansion as PolicyExpansion
    from segue.bridges import Promotion as Promotion
    from segue.bridges import QFilter as QFilter
    from segue.data import Mixture as Mixture
    from segue.data import Table as Table
    from segue.data import load as load
    from segue.data.dataset import Dataset as Dataset
    from segue.data.inspection import inspect as inspect
    from segue.deployment import load_policy as load_policy
    from segue.deployment.export import export_policy as export_policy
    from segue.errors import SegueError as SegueError
    from segue.ope import FQE as FQE
    from segue.ope import evaluate_offline as evaluate_offline
    from segue.plugins import register as register
    from segue.plugins import register_dataset as register_dataset
    from segue.presets import preset as preset
    from segue.recipe import Recipe as Recipe
    from segue.replay import Annealed as Annealed
    from segue.replay import Appended as Appended
    from segue.replay import Balanced as Balanced
    from segue.replay import Mixed as Mixed
    from segue.replay import OnlineOnly as OnlineOnly
    from segue.replay import Replaced as Replaced
    from segue.runner import Ray as Ray
    from segue.runner import Result as Result
    from segue.runner import RunFailed as RunFailed
    from segue.runner import compare as compare
    from segue.runner import load_checkpoint as load_checkpoint
    from segue.runner import run as run
    from segue.sweeps import Range as Range
    from segue.sweeps import Sweep as Sweep
    from segue.sweeps import sweep as sweep

#: Where each public name lives. Imported when used, so that `import segue` does not wait for JAX.
_HOME = {
    **dict.fromkeys(
        (
            *(
                "AWAC",
                "BC",
                "BCQ",
                "CQL",
                "CQLLagrangian",
                "CalQL",
                "DQN",
                "DiscreteBCQ",
                "DiscreteCQL",
                "DiscreteSAC",
                "EDAC",
                "FQL",
                "IQL",
            ),
            *("IQL", "PPO", "REDQ", "RLPD", "ReBRAC", "SAC", "SACLagrangian", "SACN", "TD3", "TD3BC"),
        ),
        "segue.algorithms",
    ),
    **dict.fromkeys(
        (
            *(
                "SAMG",
                "AveragedActor",
                "ConservativeUpdate",
                "CriticRefit",
                "EarnedFreedom",
                "Guard",
                "JumpStart",
                "LetGo",
                "PolicyExpansion",
            ),
            *("Promotion", "QFilter"),
        ),
        "segue.bridges",
    ),
    **dict.fromkeys(("Mixture", "Table", "load"), "segue.data"),
    "Dataset": "segue.data.dataset",
    "advise": "segue.advice",
    "inspect": "segue.data.inspection",
    "load_policy": "segue.deployment",
    "export_policy": "segue.deployment.export",
    "SegueError": "segue.errors",
    **dict.fromkeys(("FQE", "evaluate_offline"), "segue.ope"),
    **dict.fromkeys(("register", "register_dataset"), "segue.plugins"),
    "preset": "segue.presets",
    "Recipe": "segue.recipe",
    **dict.fromkeys(("Annealed", "Appended", "Balanced", "Mixed", "OnlineOnly", "Replaced"), "segue.replay"),
    **dict.fromkeys(("Range", "Sweep", "sweep"), "segue.sweeps"),
    **dict.fromkeys(("Ray", "Result", "RunFailed", "compare", "load_checkpoint", "run"), "segue.runner"),
}

#: Packages whose names are documented, such as `segue.ope.DiscretePolicy`.
_PACKAGES = ("algorithms", "bridges", "data", "deployment", "envs", "errors", "ope", "replay", "report", "runner")

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"segue.{name}")
    raise AttributeError(f"module 'segue' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
