"""Driving: logs of rule-based drivers, and fine-tuning on a test track with a limit on crashes."""

from studies.command import needs

needs(["highway_env"], "driving")
