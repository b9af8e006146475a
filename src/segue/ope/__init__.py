"""Off-policy evaluation: what a policy is worth, judged from a dataset of another before it goes live."""

from segue.ope.behaviour import BehaviourModel, Propensities, calibration_error, propensities
from segue.ope.episodes import Episodes, Support
from segue.ope.estimator import Bounds, Estimator
from segue.ope.evaluate import ESTIMATORS, METHODS, CostEstimate, Estimate, OfflineEvaluation, evaluate_offline
from segue.ope.fqe import FQE, Fitted, fit
from segue.ope.policy import ContinuousPolicy, DiscretePolicy, NoDensity, judged
from segue.ope.verdict import Verdict, decide

__all__ = [
    "ESTIMATORS",
    "FQE",
    "METHODS",
    "BehaviourModel",
    "Bounds",
    "ContinuousPolicy",
    "CostEstimate",
    "DiscretePolicy",
    "Episodes",
    "Estimate",
    "Estimator",
    "Fitted",
    "NoDensity",
    "OfflineEvaluation",
    "Propensities",
    "Support",
    "Verdict",
    "calibration_error",
    "decide",
    "evaluate_offline",
    "fit",
    "judged",
    "propensities",
]
