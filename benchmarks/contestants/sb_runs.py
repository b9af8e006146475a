"""Online SAC on Hopper by stable-baselines3 or SBX, cut into turns: `sb_runs sb3|sbx LAP STEPS WARM-UP`."""

from __future__ import annotations

import sys

from benchmarks.gate import Gate, Laps


def main() -> None:
    gate = Gate()
    gate.ready()
    library, lap, steps, warmup = sys.argv[1], *map(int, sys.argv[2:])
    if library == "sbx":
        from sbx import SAC
    else:
        from stable_baselines3 import SAC
    from stable_baselines3.common.callbacks import BaseCallback

    laps = Laps(gate, lap)

    class Turns(BaseCallback):
        def _on_step(self) -> bool:
            laps("online", self.num_timesteps)
            return True

    model = SAC("MlpPolicy", "Hopper-v5", learning_starts=warmup, buffer_size=steps, seed=0, device="cpu")
    model.learn(steps, callback=Turns())
    gate.done()


if __name__ == "__main__":
    main()
