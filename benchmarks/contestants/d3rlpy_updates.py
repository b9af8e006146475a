"""Updates of d3rlpy by its own loop: `d3rlpy_updates ALGORITHM UPDATES` (TD3PlusBC, IQL, AWAC, CQL, CalQL …)."""

from __future__ import annotations

import sys

import d3rlpy

from benchmarks.gate import Gate
from benchmarks.shapes import BATCH, columns

#: As Segue counts: no Lagrange multiplier, ten actions drawn.
OPTIONS = {"CQL": {"n_action_samples": 10}, "CalQL": {"n_action_samples": 10}}


def main() -> None:
    gate = Gate()
    name, updates = sys.argv[1], int(sys.argv[2])
    data = columns(100_000)
    log = d3rlpy.dataset.MDPDataset(**{key: value for key, value in data.items() if key != "next_observations"})
    config = getattr(d3rlpy.algos, f"{name}Config")
    algorithm = config(batch_size=BATCH, **OPTIONS.get(name, {})).create(device="cpu")

    def turn() -> float:
        algorithm.fit(
            log,
            n_steps=updates,
            n_steps_per_epoch=updates,
            show_progress=False,
            save_interval=10**9,
            logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        )
        return updates

    gate.forever(turn)


if __name__ == "__main__":
    main()
