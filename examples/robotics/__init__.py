"""Robotics: pushing adapted to changed friction and mass, human demonstrations of a hand, and a humanoid's log."""

from studies.command import needs

needs(["gymnasium_robotics", "onnx"], "robotics,export")
