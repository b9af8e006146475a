"""The same test on libraries that can go on from a checkpoint, in the way that their documentation shows.

Run by the Python that has them (`make peers` installs it): `.venv/peers/bin/python -m studies.reliability peers`. A run
is killed several times at steps drawn at random, each time started again from its last checkpoint, and compared at the
end with a run that nothing disturbed; which is done twice, to see whether the library repeats itself at all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STEPS, EVERY, SEED = 1200, 200, 0
"""The budget of a run, and the steps between its checkpoints."""
SMALL = {"net_arch": [16, 16]}


def fatal(at: int) -> Callable[[int], None]:
    """What ends the process at this step; 0: never."""

    def look(step: int) -> None:
        if at and step >= at:
            os.kill(os.getpid(), signal.SIGKILL)

    return look


def digest(parameters: dict[str, Any]) -> str:
    """One hash of all arrays."""
    import numpy as np

    text = hashlib.sha256()
    for name in sorted(parameters):
        text.update(name.encode())
        text.update(np.ascontiguousarray(parameters[name]).tobytes())
    return text.hexdigest()


def newest(place: Path, pattern: str) -> tuple[Path | None, int]:
    """The checkpoint of the most steps, and those."""
    found = {int(re.findall(r"\d+", path.stem)[-1]): path for path in place.glob(pattern)}
    return (found[max(found)], max(found)) if found else (None, 0)


def online(library: str, place: Path, look: Callable[[int], None]) -> str:
    """SAC on Pendulum; saved by CheckpointCallback with its replay, gone on with by load and load_replay_buffer."""
    import gymnasium as gym
    import jax
    from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback

    if library == "stable-baselines3":
        from stable_baselines3 import SAC
    else:
        from sbx import SAC

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            look(self.num_timesteps)
            return True

    env = gym.make("Pendulum-v1")
    saved, done = newest(place, "rl_model_*_steps.zip")
    if saved is None:
        options = {"learning_starts": 200, "batch_size": 32, "buffer_size": 10_000}
        model = SAC("MlpPolicy", env, seed=SEED, policy_kwargs=SMALL, **options)
    else:
        model = SAC.load(saved, env=env)
        model.load_replay_buffer(place / f"rl_model_replay_buffer_{done}_steps.pkl")
    save = CheckpointCallback(EVERY, str(place), save_replay_buffer=True)
    # learn counts on from where the model stands
    model.learn(STEPS - done, callback=[save, Look()], reset_num_timesteps=saved is None)
    if library == "stable-baselines3":
        return digest({name: value.numpy() for name, value in model.policy.state_dict().items()})
    states = (model.policy.actor_state.params, model.policy.qf_state.params)
    return digest({str(i): leaf for i, leaf in enumerate(jax.tree.leaves(states))})


def offline(library: str, place: Path, look: Callable[[int], None]) -> str:
    """IQL on a Hopper dataset; saved whole every so many steps, gone on with by load_learnable and fit."""
    import d3rlpy
    import numpy as np

    import segue

    log, rows = segue.load("segue:hopper-mixed").columns(), 5000
    columns = (log.observations, log.actions, log.rewards, log.terminals, log.timeouts)
    dataset = d3rlpy.dataset.MDPDataset(*(np.asarray(column)[:rows] for column in columns))
    saved, done = newest(place, "model_*.d3")
    d3rlpy.seed(SEED)
    encoder = d3rlpy.models.VectorEncoderFactory([16, 16])
    config = d3rlpy.algos.IQLConfig(
        batch_size=32, actor_encoder_factory=encoder, critic_encoder_factory=encoder, value_encoder_factory=encoder
    )
    algorithm = config.create() if saved is None else d3rlpy.load_learnable(str(saved))

    def called(algorithm: Any, epoch: int, step: int) -> None:
        total = done + step
        if total % EVERY == 0:
            algorithm.save(str(place / f"model_{total}.d3"))
        look(total)

    quiet = d3rlpy.logging.NoopAdapterFactory()
    options = {"n_steps_per_epoch": EVERY, "logger_adapter": quiet, "show_progress": False}
    algorithm.fit(dataset, n_steps=STEPS - done, callback=called, **options)
    parts: dict[str, Any] = {}
    for name, module in vars(algorithm.impl.modules).items():
        if hasattr(module, "state_dict"):
            parts |= {f"{name}.{key}": v.numpy() for key, v in module.state_dict().items() if hasattr(v, "numpy")}
    return digest(parts)


LIBRARIES = {"stable-baselines3": online, "sbx-rl": online, "d3rlpy": offline}


def attempt(library: str, place: Path, at: int = 0) -> int:
    """The exit code of a process that does the run, or goes on with it, and is killed at this step."""
    command = [sys.executable, "-m", "studies.reliability.peers", library, str(place), str(at)]
    with (place / "log").open("a") as log:
        return subprocess.run(command, stdout=log, stderr=log, check=False).returncode


def whole(library: str, scratch: Path, kills: list[int]) -> str:
    """The hash that a run ends with, killed at these steps on the way."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    for at in kills:
        if (code := attempt(library, place, at)) != -signal.SIGKILL:
            sys.exit(f"{library}: ended by {code}, not by the kill at {at}: {(place / 'log').read_text()[-2000:]}")
    if (code := attempt(library, place)) != 0:
        sys.exit(f"{library}: ended by {code}: {(place / 'log').read_text()[-2000:]}")
    return (place / "hash").read_text()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.reliability peers", description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="killed runs per library")
    parser.add_argument("--per-run", type=int, default=2, help="kills per run")
    parser.add_argument("--results", type=Path, default=HERE / "peers.json")
    flags = parser.parse_args(arguments)
    draw = random.Random(SEED)
    found = []
    with tempfile.TemporaryDirectory(prefix="segue-peers-") as scratch:
        for library in LIBRARIES:
            undisturbed = whole(library, Path(scratch), [])
            repeats = whole(library, Path(scratch), []) == undisturbed
            same = 0
            for _ in range(flags.runs):
                kills = sorted(draw.sample(range(EVERY + 1, STEPS), flags.per_run))
                same += whole(library, Path(scratch), kills) == undisturbed
            found.append({
                "library": library, "version": version(library), "repeats itself": repeats,
                "runs": flags.runs, "kills": flags.runs * flags.per_run, "identical": same,
            })  # fmt: skip
            print(found[-1], flush=True)
    flags.results.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    name, directory, step = sys.argv[1:]
    (Path(directory) / "hash").write_text(LIBRARIES[name](name, Path(directory), fatal(int(step))))
