"""One arm on one task with one seed, in a process of its own: `contestants CORE TASK ARM SEED FILE`.

FILE gets every evaluation with the seconds that training had taken until then. Libraries are imported when the clock
runs already, so that what they need to start counts.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.logs import LOGS

if TYPE_CHECKING:
    from segue.data.dataset import Dataset

WIDTHS = (128, 128)
BATCH = 128
DISCOUNT = 0.99
#: Packages whose versions are noted where their modules were used.
PEERS = {"d3rlpy": "d3rlpy", "sbx-rl": "sbx", "stable-baselines3": "stable_baselines3", "torch": "torch"}


@dataclasses.dataclass(frozen=True)
class Budget:
    """What every contestant gets; Segue's arms clone for fewer updates, as studies/leaderboard has it."""

    offline_updates: int = 50_000
    live_steps: int = 50_000
    eval_every: int = 2_500
    eval_episodes: int = 10


class Stopwatch:
    """Seconds of processor and of wall time since it was made, without what was put aside."""

    def __init__(self) -> None:
        self.start = self.now()
        self.aside = (0.0, 0.0)

    @staticmethod
    def now() -> tuple[float, float]:
        return time.process_time(), time.perf_counter()

    def put_aside(self, since: tuple[float, float]) -> None:
        """What has passed since then does not count."""
        processor, wall = (then + now - began for then, now, began in zip(self.aside, self.now(), since, strict=True))
        self.aside = processor, wall

    def read(self) -> tuple[float, float]:
        processor, wall = (n - s - a for n, s, a in zip(self.now(), self.start, self.aside, strict=True))
        return processor, wall


class Trial:
    """What one process does, and what it has measured."""

    def __init__(self, task: str, seed: int, budget: Budget) -> None:
        self.dataset, self.env_id = LOGS[task]
        self.seed, self.budget, self.watch = seed, budget, Stopwatch()
        self.evaluations: dict[str, list[dict[str, Any]]] = {"offline": [], "online": []}

    def note(self, phase: str, step: int, returns: list[float]) -> None:
        """An evaluation that has been put aside already."""
        processor, wall = self.watch.read()
        self.evaluations[phase].append(
            {
                "step": step,
                "mean_return": round(sum(returns) / len(returns), 2),
                "returns": [round(value, 1) for value in returns],
                "processor_s": round(processor, 1),
                "wall_s": round(wall, 1),
            }
        )
        print(f"{phase} {step:,}: {self.evaluations[phase][-1]}", flush=True)

    def evaluate(self, phase: str, step: int, act: Callable[[Any], Any]) -> None:
        """Where it is due: whole episodes as Segue evaluates, from the same starting states."""
        if step % self.budget.eval_every:
            return
        since = self.watch.now()
        from segue.acting import Stateless
        from segue.evaluation import evaluate

        index = 1000 + step if phase == "online" else step // self.budget.eval_every
        policy = Stateless(lambda observation, source, explore: act(observation))
        returns = evaluate(policy, self.env_id, self.budget.eval_episodes, self.seed, index).tolist()
        self.watch.put_aside(since)
        self.note(phase, step, returns)


def segue_arm(name: str) -> Callable[[Trial], None]:
    """An arm of studies/leaderboard."""

    def train(trial: Trial) -> None:
        import segue
        from studies.leaderboard.__main__ import recipes

        budget = trial.budget
        recipe = recipes(False, {"dataset": trial.dataset, "env": trial.env_id}, sparse=False)[name]
        recipe = dataclasses.replace(
            recipe,
            offline_steps=min(recipe.offline_steps, budget.offline_updates),
            online_steps=budget.live_steps,
            eval_every=budget.eval_every,
            eval_episodes=budget.eval_episodes,
            held_out=0.0,
            seed=trial.seed,
            seeds=1,
        )
        last = trial.watch.now()
        began: dict[tuple[str, int], tuple[float, float]] = {}

        def on_event(job: Any, event: Any) -> None:
            nonlocal last
            if event["event"] == "metrics":  # an evaluation gives some first, when its episodes are over
                began[event["phase"], event["step"]] = last
            elif event["event"] == "evaluation":
                trial.watch.put_aside(began[event["phase"], event["step"]])
                trial.note(event["phase"], event["step"], event["returns"])
            last = trial.watch.now()

        with tempfile.TemporaryDirectory() as out:
            segue.run(recipe, out, workers=1, progress=False, report=False, on_event=on_event)

    return train


def mdp_dataset(data: Dataset) -> Any:
    """The same steps as d3rlpy has them: an episode ends in a terminal state or else by a time limit."""
    import d3rlpy
    import numpy as np

    last = np.append(data.episode_starts[1:], len(data)) - 1
    timeouts = np.zeros(len(data), np.float32)
    timeouts[last] = ~data.terminals[last]
    return d3rlpy.dataset.MDPDataset(
        observations=data.observations,
        actions=data.actions,
        rewards=data.rewards,
        terminals=data.terminals.astype(np.float32),
        timeouts=timeouts,
    )


def d3rlpy_arm(name: str) -> Callable[[Trial], None]:
    """`fit` and then `fit_online`, as d3rlpy's own fine-tuning scripts do it; its defaults for everything not named."""

    def train(trial: Trial) -> None:
        import d3rlpy
        import gymnasium as gym
        import torch

        import segue

        torch.set_num_threads(1)
        d3rlpy.seed(trial.seed)
        data, budget = segue.load(trial.dataset).in_memory(), trial.budget
        log = mdp_dataset(data)
        encoder = d3rlpy.models.VectorEncoderFactory(list(WIDTHS))
        roles = ("actor", "critic", "value") if name == "IQL" else ("actor", "critic")
        own: dict[str, Any] = {f"{role}_encoder_factory": encoder for role in roles}
        if name == "TD3PlusBC":  # as the paper, and d3rlpy's own script
            own["observation_scaler"] = d3rlpy.preprocessing.StandardObservationScaler()
        config = getattr(d3rlpy.algos, f"{name}Config")
        algorithm = config(batch_size=BATCH, gamma=DISCOUNT, **own).create(device="cpu")
        quiet = {
            "n_steps_per_epoch": budget.eval_every,
            "logger_adapter": d3rlpy.logging.NoopAdapterFactory(),
            "show_progress": False,
        }
        algorithm.fit(
            log,
            n_steps=budget.offline_updates,
            callback=lambda learner, epoch, step: trial.evaluate("offline", step, learner.predict),
            **quiet,
        )
        trial.evaluate("online", 0, algorithm.predict)
        env = gym.make(trial.env_id)
        d3rlpy.envs.seed_env(env, trial.seed)
        buffer: Any = d3rlpy.dataset.create_fifo_replay_buffer(1_000_000, env=env)
        online: dict[str, Any] = {}
        if name == "CalQL":  # half of each batch from the dataset, and a thousand updates every thousand steps
            buffer = d3rlpy.dataset.MixedReplayBuffer(buffer, log, 0.5)
            online = {"n_updates": 1_000, "update_interval": 1_000}
        else:
            for episode in log.episodes:
                buffer.append_episode(episode)
        if name == "TD3PlusBC":  # whose policy does not explore
            online = {"explorer": d3rlpy.algos.NormalNoise(std=0.1)}
        algorithm.fit_online(
            env,
            buffer,
            n_steps=budget.live_steps,
            callback=lambda learner, epoch, step: trial.evaluate("online", step, learner.predict),
            **online,
            **quiet,
        )

    return train


def sac_arm(library: str) -> Callable[[Trial], None]:
    """SAC from scratch, without the dataset."""

    def train(trial: Trial) -> None:
        if library == "SBX":
            from sbx import SAC
        else:
            import torch
            from stable_baselines3 import SAC

            torch.set_num_threads(1)
        from stable_baselines3.common.callbacks import BaseCallback

        def act(observation: Any) -> Any:
            return model.predict(observation, deterministic=True)[0]

        class Evaluations(BaseCallback):
            def _on_step(self) -> bool:
                trial.evaluate("online", self.num_timesteps, act)
                return True

        networks = {"net_arch": list(WIDTHS)}
        model = SAC(
            "MlpPolicy",
            trial.env_id,
            batch_size=BATCH,
            gamma=DISCOUNT,
            policy_kwargs=networks,
            seed=trial.seed,
            device="cpu",
        )
        trial.evaluate("online", 0, act)
        model.learn(trial.budget.live_steps, callback=Evaluations())

    return train


CONTESTANTS: dict[str, Callable[[Trial], None]] = {
    "Segue auto": segue_arm("auto"),
    "Segue BC → RLPD, promoted": segue_arm("BC of the best tenth → RLPD, promoted"),
    "Segue BC → PPO": segue_arm("BC of the best tenth → PPO"),
    "SBX SAC from scratch": sac_arm("SBX"),
    "d3rlpy IQL": d3rlpy_arm("IQL"),
    "d3rlpy TD3+BC": d3rlpy_arm("TD3PlusBC"),
    "SB3 SAC from scratch": sac_arm("SB3"),
    "d3rlpy Cal-QL": d3rlpy_arm("CalQL"),
}
"""In the order in which they run: the slowest comes last."""


def run(task: str, arm: str, seed: int, budget: Budget) -> dict[str, Any]:
    """Train, and give back what `segue.report.decode` reads of a seed, with the seconds of each evaluation."""
    trial = Trial(task, seed, budget)
    CONTESTANTS[arm](trial)
    from segue.runner.machine import describe_machine, versions

    peers = {name: importlib.metadata.version(name) for name, module in PEERS.items() if module in sys.modules}
    offline, online = trial.evaluations["offline"], trial.evaluations["online"]
    return {
        "status": "complete",
        # As in Segue's own reports: of what is deployed at the handover, which may be a clone.
        "offline_score": online[0]["mean_return"] if offline else None,
        "offline_evaluations": offline,
        "online_evaluations": online,
        "machine": {**versions(), **peers, **describe_machine(1)},
    }


if __name__ == "__main__":
    _, core, task, arm, seed, file = sys.argv
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    from segue.files import write_atomically

    found = run(task, arm, int(seed), Budget())
    write_atomically(Path(file), json.dumps(found) + "\n")
