"""Recommendation: off-policy evaluation on real clicks, and a simulated shop that goes live."""

from studies.command import needs

needs(["sardine", "starlette", "onnx"], "recommendation,live,export")
