"""When does the plain handover collapse? `python -m studies.collapse` (`make collapse`), after `make data`.

TD3+BC is pretrained on a Hopper dataset and goes on as it is, or is handed over to TD3, or to TD3 with the conservative
update; the live phase samples live data only, live data appended to the dataset, or half of each; the dataset shows
one policy, three, or five up to the medium one. Every combination.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import segue
from studies.grid import main
from studies.results import Study

WAYS = ("keep TD3+BC", "switch to TD3", "switch, conservative")
REPLAYS = {"live only": segue.OnlineOnly(), "appended": segue.Appended(), "half and half": segue.Mixed()}
LOGS = {
    "narrow": "minari:segue/hopper/medium-v0",
    "mixed": "segue:hopper-mixed",
    "replay": "minari:segue/hopper/medium-replay-v0",
}


def tasks(full: bool) -> dict[str, dict[str, segue.Recipe]]:
    """The stored grid has narrower networks and a smaller budget."""
    shared: dict[str, Any] = {} if full else {"hidden_sizes": (128, 128), "batch_size": 128}
    offline, online = segue.TD3BC(**shared), segue.TD3(**shared)
    ways: list[dict[str, Any]] = [
        {"online": offline},
        {"online": online},
        {"online": online, "bridges": (segue.ConservativeUpdate(),)},
    ]
    common: dict[str, Any] = {
        "env": "Hopper-v5",
        "offline": offline,
        "offline_steps": 200_000 if full else 50_000,
        "online_steps": 100_000 if full else 20_000,
        "eval_every": 5_000 if full else 1_000,
        "handover_eval_every": 500,
        "eval_episodes": 10,
        "seeds": 10 if full else 3,
    }
    return {
        name: {
            f"{way}, {kind}": segue.Recipe(**common, **values, dataset=log, replay=replay)
            for way, values in zip(WAYS, ways, strict=True)
            for kind, replay in REPLAYS.items()
        }
        for name, log in LOGS.items()
    }


STUDY = Study(
    folder=Path(__file__).parent,
    tasks=tasks,
    columns=("offline score", "dip", "share below", "final", "area"),
    panels=[
        [(f"{way} · {log} log", {kind: f"{log}: {way}, {kind}" for kind in REPLAYS}) for way in WAYS] for log in LOGS
    ],
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
