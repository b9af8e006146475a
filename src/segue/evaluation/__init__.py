"""Evaluation: how a policy is judged."""

from segue.evaluation.rollout import evaluate

__all__ = ["evaluate"]
