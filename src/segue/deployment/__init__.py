"""Trained policies outside the project: one directory with weights, their meaning and an ONNX model.

What reads it (policy, kinds, spaces) needs NumPy and safetensors only; what writes it (export, onnx_model) the rest.
"""

from segue.deployment.policy import ExportedPolicy, load_policy

__all__ = ["ExportedPolicy", "load_policy"]
