"""How a policy is judged."""

from segue.evaluation.probe import Probe, action_histogram
from segue.evaluation.rollout import Rollouts, evaluate, roll_out

__all__ = ["Probe", "Rollouts", "action_histogram", "evaluate", "roll_out"]
