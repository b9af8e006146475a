"""What saving costs: seconds and bytes of each save in a run of ordinary size."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import segue
from segue.recipe import CHECKPOINT_EVERY
from segue.runner import checkpointer

HERE = Path(__file__).parent


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.reliability cost", description=__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="of the online phase")
    parser.add_argument("--results", type=Path, default=HERE / "cost.json")
    flags = parser.parse_args(arguments)
    saves: list[dict[str, Any]] = []
    save = checkpointer.JobCheckpointer.save

    def timed(self: checkpointer.JobCheckpointer, position: Any) -> None:
        start, busy = time.perf_counter(), time.process_time()
        save(self, position)
        saves.append({"phase": self.job.phase, "s": time.perf_counter() - start, "cpu_s": time.process_time() - busy})

    checkpointer.JobCheckpointer.save = timed  # type: ignore[method-assign]
    recipe = segue.Recipe(
        dataset="segue:hopper-mixed",
        offline=segue.TD3BC(),
        offline_steps=200,
        online=segue.SAC(),
        online_steps=flags.steps,
        bridges=(segue.QFilter(), segue.Guard()),
        eval_every=500,
        eval_episodes=1,
    )
    with tempfile.TemporaryDirectory(prefix="segue-cost-") as scratch:
        result = segue.run(recipe, Path(scratch) / "x", workers=1, checkpoint_every=1)
        assert result.status == "complete"
        state = Path(scratch) / "x/states/run/seed-0"
        arrays = sum(file.stat().st_size for file in state.glob("step-*/*"))
        rows = sum(file.stat().st_size for file in state.glob("rows/*"))
    online = [one for one in saves if one["phase"] == "online"]
    median = float(np.median([one["s"] for one in online]))
    found = {
        "saves": len(online),
        "median_ms": round(1e3 * median, 1),
        "median_cpu_ms": round(1e3 * float(np.median([one["cpu_s"] for one in online])), 1),
        "state_MB": round(arrays / 1e6, 1),
        "transition_bytes": round(rows / flags.steps),
        "share_of_time_by_default": round(median / CHECKPOINT_EVERY, 5),
    }
    flags.results.write_text(json.dumps(found, indent=1) + "\n")
    print(found)
