"""Trained policies outside the project: one directory with ONNX models of how a policy acts, and their meaning.

What reads it (policy, spaces) needs NumPy and onnxruntime only; what writes it (export, translate) the rest.
"""

from segue.deployment.policy import Decision, ExportedPolicy, load_policy

__all__ = ["Decision", "ExportedPolicy", "load_policy"]
