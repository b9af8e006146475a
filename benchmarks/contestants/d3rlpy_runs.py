"""TD3+BC on the Hopper dataset and then live by d3rlpy's `fit` and `fit_online`, cut into turns.

`d3rlpy_runs LOG LAP OFFLINE-STEPS ONLINE-STEPS WARM-UP EVAL-EVERY EPISODES`. LOG is the bundled dataset's file.
"""

from __future__ import annotations

import sys
import tempfile

from benchmarks.gate import Gate, Laps


def main() -> None:
    gate = Gate()
    gate.ready()
    import d3rlpy
    import gymnasium as gym
    import numpy as np

    lap, offline, online, warmup, every, episodes = map(int, sys.argv[2:])
    laps = Laps(gate, lap)
    data = np.load(sys.argv[1])
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    log = d3rlpy.dataset.MDPDataset(**{name: np.asarray(data[name], np.float32) for name in names})
    algorithm = d3rlpy.algos.TD3PlusBCConfig(
        batch_size=256, observation_scaler=d3rlpy.preprocessing.StandardObservationScaler()
    ).create(device="cpu")
    with tempfile.TemporaryDirectory() as out:
        files = d3rlpy.logging.FileAdapterFactory(out)
        judge = d3rlpy.metrics.EnvironmentEvaluator(gym.make("Hopper-v5"), n_trials=episodes)
        algorithm.fit(
            log,
            n_steps=offline,
            n_steps_per_epoch=every,
            evaluators={"return": judge},
            logger_adapter=files,
            show_progress=False,
            callback=lambda algo, epoch, step: laps("offline", step),
        )
        live = d3rlpy.dataset.create_fifo_replay_buffer(online, env=gym.make("Hopper-v5"))
        algorithm.fit_online(
            gym.make("Hopper-v5"),
            d3rlpy.dataset.MixedReplayBuffer(live, log, 0.5),
            explorer=d3rlpy.algos.NormalNoise(std=0.1),
            n_steps=online,
            n_steps_per_epoch=every,
            update_start_step=warmup,
            eval_env=gym.make("Hopper-v5"),
            eval_n_trials=episodes,
            logger_adapter=files,
            show_progress=False,
            callback=lambda algo, epoch, step: laps("online", step),
        )
        gate.done()


if __name__ == "__main__":
    main()
