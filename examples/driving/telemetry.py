"""Telemetry of a racing simulator: what is in a folder of Assetto Corsa CSV files, cloned and judged by the CLI."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from segue.cli.main import main as segue_cli

#: What the columns mean. Leaving the track ends a lap, and is its cost; positions and laps would name the track.
COLUMNS = (
    *("--step", "steps", "--action", "actions_*", "--reward", "reward"),
    *("--observation", "speed,gap,RPM,actualGear,velocity_*,yaw,angular_velocity_y,current_action_abs_*"),
    *("--terminal", "done", "--cost-column", "out_of_track"),
)
CLONE = ("--env", "none", "--offline", "bc", "--offline-steps", "2000", "--offline.hidden-sizes", "128", "128")


def judge_telemetry(folder: Path, out: Path, seed: int) -> int:
    """Inspect, clone, and evaluate off-policy on laps that the clone has not learnt from. Returns the exit code."""
    table = ("--dataset", f"csv:{folder}/*.csv", *COLUMNS)
    steps: tuple[Sequence[str], ...] = (
        ("inspect", *table[1:]),
        ("run", *table, *CLONE, "--held-out", "0.3", "--seed", str(seed), "--out", str(out)),
        ("evaluate", str(out), "--offline"),
    )
    for step in steps:
        print(f"\n$ segue {shlex.join(step)}\n", flush=True)
        if code := segue_cli(list(step)):
            return code
    return 0
