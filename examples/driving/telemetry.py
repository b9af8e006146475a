"""Telemetry of a racing simulator: what is in a folder of Assetto Corsa CSV files, cloned and judged by the CLI."""

from __future__ import annotations

from pathlib import Path

from segue.cli.main import main as segue_cli


def judge_telemetry(folder: Path, out: Path, seed: int) -> int:
    """Inspect, clone, evaluate off-policy."""
    return segue_cli(["inspect", f"csv:{folder}"])
