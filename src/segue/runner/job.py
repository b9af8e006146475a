"""One job: one phase of one seed, from its inputs on disk to its result on disk.

A job is plain data, so it runs the same in this process or in a worker of its own. Whatever happens while it runs is
appended to its records at once; its result is written last, so a job without a result is one to do again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from segue import random
from segue.algorithms.base import copy
from segue.algorithms.ppo import PPO
from segue.bridges.base import Seam
from segue.data import load as load_dataset
from segue.data.dataset import Dataset
from segue.envs import environment_spaces
from segue.errors import Diverged, RecipeError
from segue.evaluation import Probe
from segue.recipe import Recipe
from segue.replay import Replay
from segue.runner import checkpoint
from segue.runner.checkpoint import Checkpoint
from segue.training.distil import distil
from segue.training.handover import hand_over
from segue.training.offline import train_offline
from segue.training.on_policy import train_on_policy
from segue.training.online import OnlineSettings, train_online
from segue.training.update import init_learner, replace
from segue.types import COPIES, Learner, Normaliser, Spaces

Event = dict[str, Any]
#: The checkpoint of the last evaluated learner, there while the job runs and where it failed.
LATEST = "latest"


@dataclasses.dataclass(frozen=True)
class Job:
    """A phase of a recipe for one seed.

    `records` and `checkpoints` are its directories; `pretrained` is the offline job's checkpoint, if there is one.
    """

    phase: Literal["offline", "online"]
    label: str
    recipe: dict[str, Any]
    seed: int
    records: Path
    checkpoints: Path
    tensorboard: Path
    pretrained: Path | None = None

    def to_json(self) -> str:
        """For the command line of a worker."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that `to_json` wrote."""
        plain = json.loads(text)
        for name in ("records", "checkpoints", "tensorboard", "pretrained"):
            plain[name] = None if plain[name] is None else Path(plain[name])
        return cls(**plain)

    def result(self) -> dict[str, Any] | None:
        """What the finished job wrote, or None."""
        try:
            return json.loads((self.records / "result.json").read_text())
        except FileNotFoundError:
            return None


class _Recorder:
    """Writes records as they come and passes events on."""

    def __init__(self, job: Job, send: Callable[[Event], None]) -> None:
        from tensorboardX import SummaryWriter

        self.job, self.send = job, send
        job.records.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(job.tensorboard, ignore_errors=True)  # an interrupted attempt's events would lie over ours
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.files = {
            name: (job.records / f"{name}.jsonl").open("w", buffering=1)
            for name in ("metrics", "evaluations", "events")
        }
        self.writer = SummaryWriter(str(job.tensorboard))
        self.last_score: float | None = None

    def progress(self, phase: str, step: int, total: int) -> None:
        self.send({"event": "progress", "phase": phase, "step": step, "total": total})

    def metrics(self, phase: str, step: int, values: dict[str, float]) -> None:
        self.files["metrics"].write(json.dumps({"phase": phase, "step": step, **values}) + "\n")
        for name, value in values.items():
            self.writer.add_scalar(f"{phase}/{name}", value, step)

    def evaluation(self, phase: str, step: int, returns: np.ndarray) -> None:
        self.last_score = float(np.mean(returns))
        record = {"phase": phase, "step": step, "mean_return": self.last_score, "returns": returns.tolist()}
        self.files["evaluations"].write(json.dumps(record) + "\n")
        self.writer.add_scalar(f"{phase}/mean_return", self.last_score, step)
        self.send({"event": "evaluation", **record})

    @contextlib.contextmanager
    def clock(self, phase: str, what: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase, what] += time.perf_counter() - start

    def event(self, phase: str, step: int, message: str) -> None:
        self.files["events"].write(json.dumps({"step": step, "message": message}) + "\n")
        self.send({"event": "note", "message": message})

    def note(self, message: str) -> None:
        self.send({"event": "note", "message": message})

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        self.writer.close()


def execute(job: Job, send: Callable[[Event], None]) -> None:
    """Do the job, and write its checkpoint and then its result."""
    recipe = Recipe.from_dict(job.recipe)
    recorder = _Recorder(job, send)
    try:
        dataset = None
        if recipe.dataset is not None:
            assert isinstance(recipe.dataset, str)
            dataset = load_dataset(recipe.dataset, clip_actions=recipe.clip_actions)
        result = (_offline if job.phase == "offline" else _online)(job, recipe, dataset, recorder)
    except Diverged as error:
        kept = sorted(job.checkpoints.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
        kept += [latest for latest in [job.checkpoints / LATEST] if latest.exists()]
        where = f". The last evaluated policy is kept in {kept[-1]}" if kept else ""
        raise Diverged(f"{error}{where}") from error
    finally:
        recorder.close()
    temporary = job.records / "result.json.partial"
    temporary.write_text(json.dumps(result))
    os.replace(temporary, job.records / "result.json")


def _offline(job: Job, recipe: Recipe, dataset: Dataset | None, recorder: _Recorder) -> dict[str, Any]:
    assert recipe.offline is not None
    assert dataset is not None
    algorithm, spaces, env_id = recipe.offline, dataset.spaces, environment_of(recipe, dataset)
    normaliser = normaliser_of(recipe, dataset)
    learner = init_learner(algorithm, algorithm.init(random.stream(job.seed, "init"), spaces), normaliser)
    replay = Replay.create(algorithm.log(algorithm.select(dataset), normaliser), 0, spaces)
    start = time.perf_counter()
    learner = train_offline(
        algorithm,
        learner,
        replay,
        spaces,
        recorder,
        steps=recipe.offline_steps,
        seed=job.seed,
        env_id=env_id,
        eval_every=recipe.offline_eval_every,
        eval_episodes=recipe.eval_episodes,
        keep=lambda learner: checkpoint.save(
            job.checkpoints / LATEST, Checkpoint(algorithm, (), spaces, env_id, learner)
        ),
    )
    seconds = time.perf_counter() - start
    return _result(job, recorder, seconds, Checkpoint(algorithm, (), spaces, env_id, learner), [])


def _online(job: Job, recipe: Recipe, dataset: Dataset | None, recorder: _Recorder) -> dict[str, Any]:
    assert recipe.online is not None
    algorithm, env_id = recipe.online, environment_of(recipe, dataset)
    assert env_id is not None
    spaces = environment_spaces(env_id)
    normaliser = normaliser_of(recipe, dataset)
    learner, lines = _starting_learner(job, recipe, dataset, spaces, normaliser)
    log = None if dataset is None else algorithm.log(dataset, normaliser)

    def fit_critic(learner: Learner, steps: int) -> Learner:
        fitted = train_offline(
            dataclasses.replace(algorithm, **dict.fromkeys(algorithm.conservatism, 0.0)),  # type: ignore[arg-type]
            learner,
            Replay.create(log, 0, spaces),
            spaces,
            recorder,
            steps=steps,
            seed=job.seed,
            env_id=None,
            eval_every=max(steps, 1),
            eval_episodes=1,
            phase="critic-fit",
            train_actor=False,
        )
        return replace(fitted, step=jax.numpy.zeros_like(fitted.step))

    seam = Seam(algorithm, spaces, dataset, log, lambda step, total: recorder.progress("seam", step, total), fit_critic)
    states: dict[str, Any] = {}
    for bridge in sorted(recipe.bridges, key=lambda bridge: bridge.attach_order):
        learner, states[bridge.name] = bridge.attach(learner, seam, random.stream(job.seed, "bridge", bridge.name))
        lines += bridge.describe(states[bridge.name])
    if algorithm.critic_updates > 4 * recipe.effective_updates_per_step:
        lines.append(
            f"policy: moves once in {algorithm.critic_updates} critic updates, so every "
            f"{algorithm.critic_updates / recipe.effective_updates_per_step:g} live steps; {algorithm.name} is "
            f"published with updates_per_step {algorithm.updates_per_step:g}"
        )
    learner = replace(learner, bridges=tuple(states[bridge.name] for bridge in recipe.bridges))
    for line in lines:
        recorder.note(line)

    settings = OnlineSettings(
        env_id=env_id,
        steps=recipe.online_steps,
        warmup_steps=recipe.warmup_steps,
        random_warmup=job.pretrained is None,
        updates_per_step=recipe.effective_updates_per_step,
        environments=recipe.environments,
        eval_every=recipe.online_eval_every,
        seam_eval_every=recipe.seam_eval_every,
        eval_episodes=recipe.eval_episodes,
        seed=job.seed,
    )
    probe = Probe(log)

    def keep(step: int, learner: Learner) -> None:
        name = f"step-{step}" if recipe.keep_policies else LATEST
        checkpoint.save(job.checkpoints / name, Checkpoint(algorithm, recipe.bridges, spaces, env_id, learner))

    start = time.perf_counter()
    if isinstance(algorithm, PPO):
        learner = train_on_policy(algorithm, recipe.bridges, learner, recorder, settings, probe, keep)
    else:
        strategy = recipe.effective_replay
        capacity = min(strategy.capacity or recipe.online_steps, recipe.online_steps)
        replay = Replay.create(log if strategy.needs_dataset else None, capacity, spaces)
        sampler = strategy.init(replay, spaces, random.stream(job.seed, "sampler"))
        learner = replace(learner, sampler=sampler)
        learner = train_online(algorithm, recipe.bridges, strategy, learner, replay, recorder, settings, probe, keep)
    seconds = time.perf_counter() - start
    return _result(job, recorder, seconds, Checkpoint(algorithm, recipe.bridges, spaces, env_id, learner), lines)


def _starting_learner(
    job: Job, recipe: Recipe, dataset: Dataset | None, spaces: Spaces, normaliser: Normaliser
) -> tuple[Learner, list[str]]:
    """What the online phase starts from, and a word on each role."""
    algorithm, key = recipe.online, random.stream(job.seed, "online-init")
    assert algorithm is not None
    if job.pretrained is None:
        return init_learner(algorithm, algorithm.init(key, spaces), normaliser), ["everything: fresh"]
    source = checkpoint.load(job.pretrained)
    learner, handover = hand_over(source.learner, source.algorithm, algorithm, spaces, key)
    lines = list(handover.lines)
    if "actor" in handover.fresh and dataset is not None and recipe.distil_steps:
        learner, loss = distil(source.policy(), learner, algorithm, dataset.observations, recipe.distil_steps, job.seed)
        nets = learner.nets
        copies = {role: copy(nets.actor) for role, of in COPIES.items() if of == "actor" and role in nets.roles()}
        learner = replace(learner, nets=nets.replace(**copies))
        lines.append(
            f"actor: taught in {recipe.distil_steps} updates what {source.algorithm.name} does on the log's states "
            f"(last loss {loss:.3g})"
        )
    if "critic" in handover.fresh and "actor" not in learner.nets.roles():
        lines.append(
            f"policy: lost: {algorithm.name} acts by its critic alone, and {source.algorithm.name} has none that fits; "
            "an algorithm with an actor (discrete-sac, iql, awac, ppo) takes the policy over"
        )
    elif "critic" in handover.fresh and not any(bridge.name == "critic-refit" for bridge in recipe.bridges):
        lines.append("critic: the policy will follow it before it knows anything; bridge critic-refit fits it first")
    return learner, lines


def environment_of(recipe: Recipe, dataset: Dataset | None) -> str | None:
    """The live environment: the recipe's, or the one that the log names.

    Raises:
        RecipeError: if there is an online phase and no environment.
    """
    env_id = recipe.env or (dataset.env_id if dataset is not None else None)
    if env_id is None and recipe.online is not None:
        raise RecipeError("the online phase needs an environment, and the log names none: give --env")
    return env_id


def normaliser_of(recipe: Recipe, dataset: Dataset | None) -> Normaliser:
    """The log's statistics, or the identity."""
    if dataset is not None and recipe.normalise_observations:
        return dataset.normaliser()
    if dataset is not None:
        return Normaliser.identity(dataset.spaces.observation_size)
    env_id = environment_of(recipe, None)
    assert env_id is not None
    return Normaliser.identity(environment_spaces(env_id).observation_size)


def _result(job: Job, recorder: _Recorder, seconds: float, final: Checkpoint, handover: list[str]) -> dict[str, Any]:
    digest = checkpoint.save(job.checkpoints / "final", final)
    shutil.rmtree(job.checkpoints / LATEST, ignore_errors=True)
    updates = int(final.learner.step)
    aside = {what: recorder.seconds[job.phase, what] for what in ("evaluation", "compile")}
    return {
        "score": recorder.last_score,
        "wall_time_s": seconds,
        "evaluation_s": aside["evaluation"],
        "compile_s": aside["compile"],
        "updates_per_second": updates / max(seconds - sum(aside.values()), 1e-9),
        "parameters_sha256": digest,
        "handover": handover,
    }
