"""`python paused_study.py FOLDER`: a study of one run, whose environment waits for a signal in the middle.

Before it waits, it writes the number of its process into the named pipe ARRIVED; without ARRIVED it does not wait.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from gymnasium.envs.classic_control import CartPoleEnv
from studies.results import Study

import segue
from studies import grid

PAUSE_AT, STEPS = 100, 400


class Paused(CartPoleEnv):
    """CartPole; step number PAUSE_AT of this process takes until a signal comes."""

    taken = 0

    def step(self, action: Any) -> Any:
        Paused.taken += 1
        if Paused.taken == PAUSE_AT and "ARRIVED" in os.environ:
            Path(os.environ["ARRIVED"]).write_text(str(os.getpid()))
            signal.pause()
        return super().step(action)


def tasks(full: bool) -> dict[str, dict[str, segue.Recipe]]:
    recipe = segue.Recipe(
        env="paused_study:Paused",
        environment_processes="no",
        max_episode_steps=50,
        online=segue.DiscreteSAC(hidden_sizes=(8, 8), batch_size=16),
        online_steps=STEPS,
        warmup_steps=10,
        eval_every=STEPS,
        eval_episodes=1,
    )
    return {"paused": {"scratch": recipe}}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    study = Study(place, tasks, ("final",))
    sys.exit(grid.main(study, None, ["--workers", "1", "--out", str(place / "runs")]))
