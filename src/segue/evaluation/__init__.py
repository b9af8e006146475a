"""How a policy is judged."""

from segue.evaluation.probe import Probe
from segue.evaluation.rollout import Rollouts, evaluate, roll_out

__all__ = ["Probe", "Rollouts", "evaluate", "roll_out"]
