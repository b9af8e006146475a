"""Doing a job: from its inputs on disk to its result on disk.

Whatever happens while it runs is appended to its records at once, and where it stands is saved now and then; its result
is written last, so a job without a result is one to go on with.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt64

from segue import rng
from segue.algorithms.ppo import PPO
from segue.bridges import Bridge
from segue.core import Learner
from segue.data.dataset import Dataset
from segue.envs import Patience, environment_spaces
from segue.envs.masks import gives_masks
from segue.errors import Diverged
from segue.evaluation import Probe, action_histogram
from segue.evaluation.held_out import HeldOut
from segue.files import write_atomically
from segue.policy import Policy
from segue.recipe import Recipe
from segue.replay import Replay
from segue.runner import checkpoint
from segue.runner.checkpoint import Checkpoint
from segue.runner.checkpointer import JobCheckpointer
from segue.runner.jobs import Event, Job
from segue.runner.recorder import JobRecorder
from segue.runner.start import dataset_of, environment_of, hand_over_to_online, judges_of, logged_of, normaliser_of
from segue.runner.stopping import Stop
from segue.seen import NOTHING_SEEN, Observed
from segue.training.early_stopping import EarlyStopping
from segue.training.offline import Asking, train_offline
from segue.training.on_policy import train_on_policy
from segue.training.online import OnlineSettings, train_online
from segue.training.update import init_learner, replace

#: The checkpoint of the last evaluated learner, there while the job runs and where it failed.
LATEST = "latest"


def recipe_of(job: Job) -> Recipe:
    """The recipe as it is on this machine."""
    recipe = Recipe.from_dict(job.recipe)
    return recipe if job.dataset_at is None else dataclasses.replace(recipe, dataset=job.dataset_at)


class Inputs:
    """What jobs that differ in numbers only have in common: the dataset is read once, and on the device once."""

    def __init__(self, job: Job) -> None:
        self.recipe, self.home = recipe_of(job), job.home

    @functools.cached_property
    def dataset(self) -> Dataset | None:
        """The part of the dataset that the run learns from, if there is one: without the episodes held out."""
        return self._parts[0]

    @functools.cached_property
    def _parts(self) -> tuple[Dataset | None, Dataset | None]:
        """What is learnt from, and the held-out episodes that say when pretraining ends, if any do."""
        whole = dataset_of(self.recipe, self.home)
        if whole is None:
            return None, None
        learnt, held_out = whole.split(self.recipe.held_out, self.recipe.held_out_seed)
        return learnt, judges_of(self.recipe, held_out)

    @functools.cached_property
    def seen(self) -> UInt64[np.ndarray, " episodes"]:
        """Fingerprints of the episodes that every policy of the run has learnt from or was chosen by, sorted."""
        used = [part.episode_fingerprints() for part in self._parts if part is not None]
        return np.sort(np.concatenate([NOTHING_SEEN, *used]))

    @functools.cached_property
    def offline(self) -> Replay:
        """The dataset as the offline algorithm learns from it."""
        algorithm, dataset = self.recipe.offline, self.dataset
        assert algorithm is not None
        assert dataset is not None
        selected = algorithm.select(dataset)
        logged = logged_of(self.recipe, algorithm, selected, normaliser_of(self.recipe, dataset))
        part_rows = selected.part_rows(self.recipe.dataset_hindsight)
        return Replay.create(logged, 0, dataset.spaces, part_rows=part_rows)

    @functools.cached_property
    def judges(self) -> HeldOut | None:
        """The held-out episodes as they judge the offline algorithm, if they say when pretraining ends."""
        algorithm, (learnt, held_out) = self.recipe.offline, self._parts
        assert algorithm is not None
        return None if held_out is None else HeldOut(algorithm, held_out, normaliser_of(self.recipe, learnt))


def execute(job: Job, inputs: Inputs, send: Callable[[Event], None], stop: Stop) -> Asking[None]:
    """Do the job, or go on with it where it was saved last, and write its checkpoint and then its result.

    Raises:
        Stopped: if `stop` was requested; where the job stands is saved.
    """
    recipe = recipe_of(job)
    checkpointer = JobCheckpointer(job, stop, _ring(recipe) if job.phase == "online" else None, send)
    _ = inputs.dataset  # reading it may take long
    stop.check()
    recorder = JobRecorder(job, send, None if checkpointer.state is None else checkpointer.state.plain["records"])
    checkpointer.recorder = recorder
    try:
        if job.phase == "offline":
            final = yield from _offline(job, recipe, inputs, recorder, checkpointer)
        else:
            final = _online(job, recipe, inputs, recorder, checkpointer)
        result = _result(job, recorder, final, checkpointer.lines)
        if job.phase == "offline":
            if int(final.learner.step) < job.steps:
                result["stopped_at"] = int(final.learner.step)
            result["actions"] = action_histogram(Policy(final.algorithm, final.learner), inputs.offline.logged)
    except Diverged as error:
        kept = sorted(job.checkpoints.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
        kept += [latest for latest in [job.checkpoints / LATEST] if latest.exists()]
        where = f". The last evaluated policy is kept in {kept[-1]}" if kept else ""
        raise Diverged(f"{error}{where}") from error
    finally:
        recorder.close()
    write_atomically(job.records / "result.json", json.dumps(result))
    checkpointer.store.finish()


def _offline(
    job: Job, recipe: Recipe, inputs: Inputs, recorder: JobRecorder, checkpointer: JobCheckpointer
) -> Asking[Checkpoint]:
    dataset = inputs.dataset
    assert recipe.offline is not None
    assert dataset is not None
    algorithm, spaces, env_id = recipe.offline, dataset.spaces, environment_of(recipe, dataset)
    fresh = algorithm.init(rng.stream(job.seed, "init"), spaces)
    learner, observed = init_learner(algorithm, fresh, normaliser_of(recipe, dataset)), dataset.observed()
    position = checkpointer.position(learner)
    learner = yield from train_offline(
        algorithm,
        learner,
        inputs.offline,
        recorder,
        steps=recipe.offline_steps,
        seed=job.seed,
        env_id=env_id,
        eval_every=recipe.offline_eval_every,
        eval_episodes=recipe.eval_episodes,
        patience=Patience(recipe.step_timeout, recipe.bad_steps),
        cost=recipe.cost,
        keep=lambda learner: checkpoint.save(
            job.checkpoints / LATEST,
            Checkpoint(algorithm, (), spaces, env_id, learner, inputs.seen, **_unit(dataset), observed=observed),
        ),
        stopping=None if inputs.judges is None else EarlyStopping(inputs.judges, recipe.patience, position),
        checkpointer=checkpointer,
        position=position,
    )
    return Checkpoint(algorithm, (), spaces, env_id, learner, inputs.seen, **_unit(dataset), observed=observed)


def _online(
    job: Job, recipe: Recipe, inputs: Inputs, recorder: JobRecorder, checkpointer: JobCheckpointer
) -> Checkpoint:
    dataset = inputs.dataset
    assert recipe.online is not None
    algorithm, bridges, env_id = recipe.online, recipe.bridges, environment_of(recipe, dataset)
    assert env_id is not None
    spaces = environment_spaces(env_id)
    logged = None if dataset is None else logged_of(recipe, algorithm, dataset, normaliser_of(recipe, dataset))
    replay: Replay | None = None
    sampler: Any = ()
    if not algorithm.on_policy:
        strategy = recipe.effective_replay
        rows, capacity = logged if strategy.needs_dataset else None, _ring(recipe) or _arriving(recipe)
        parts = None if dataset is None else dataset.part_rows(recipe.dataset_hindsight)
        masks = spaces.discrete and ((logged is not None and logged.allowed is not None) or gives_masks(env_id))
        sequences = algorithm.sequence_length > 1
        replay = Replay.create(rows, capacity, spaces, sequences, algorithm.needs_costs, masks, parts)
        sampler = strategy.init(replay, spaces, rng.stream(job.seed, "sampler"))
    source = None if job.pretrained is None else checkpoint.load(job.pretrained)
    learnt_from = _observed_before(source, dataset)
    if checkpointer.state is None:
        with recorder.clock(job.phase, "handover"):
            learner, checkpointer.lines = hand_over_to_online(
                source, recipe, dataset, logged, spaces, recorder, job.seed
            )
        learner, position = replace(learner, sampler=sampler), None
        for line in checkpointer.lines:
            recorder.note(line)
    else:
        learner = checkpoint.skeleton(algorithm, bridges, spaces, sampler)
        position = checkpointer.position(learner)
        if position is not None and replay is not None:
            grown = {
                name: replace(saved, sampler=strategy.grow(saved.sampler, replay))
                for name, saved in position.learners.items()
            }
            position = dataclasses.replace(position, learners=grown)
    del source  # its arrays would stay on the device
    settings = OnlineSettings(
        env_id=env_id,
        steps=recipe.online_steps,
        warmup_steps=recipe.warmup_steps,
        random_warmup=job.pretrained is None,
        updates_per_step=recipe.effective_updates_per_step,
        environments=recipe.environments,
        environment_processes=recipe.environment_processes,
        max_lag=recipe.max_lag,
        hindsight=recipe.hindsight,
        eval_every=recipe.online_eval_every,
        handover_eval_every=recipe.handover_eval_every,
        eval_episodes=recipe.eval_episodes,
        seed=job.seed,
        patience=Patience(recipe.step_timeout, recipe.bad_steps),
        cost=recipe.cost,
    )
    probe = Probe(logged)
    unit = {} if dataset is None else _unit(dataset)
    observed = learnt_from

    def keep(step: int, learner: Learner, seen: Observed | None) -> None:
        nonlocal observed
        if seen is not None:
            observed = seen if learnt_from is None else learnt_from.wider(seen)
        if step == 0 and job.pretrained is not None and dataset is not None:
            _warn_of_a_weak_start(recorder, bridges, float(dataset.episode_returns.mean()), recipe.eval_episodes)
        name = f"step-{step}" if recipe.keep_policies else LATEST
        over = step / recipe.online_steps
        now = Checkpoint(algorithm, bridges, spaces, env_id, learner, inputs.seen, over, **unit, observed=observed)
        checkpoint.save(job.checkpoints / name, now)

    if isinstance(algorithm, PPO):
        learner = train_on_policy(algorithm, bridges, learner, recorder, settings, probe, keep, checkpointer, position)
    else:
        assert replay is not None
        learner = train_online(
            algorithm, bridges, strategy, learner, replay, recorder, settings, probe, keep, checkpointer, position
        )
    return Checkpoint(algorithm, bridges, spaces, env_id, learner, inputs.seen, 1.0, **unit, observed=observed)


def _observed_before(source: Checkpoint | None, dataset: Dataset | None) -> Observed | None:
    """The range of the dataset's observations; the offline phase has it already, and a dataset on disk is long."""
    if source is not None and source.observed is not None:
        return source.observed
    return None if dataset is None else dataset.observed()


def _unit(dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint keeps of what the dataset's numbers mean."""
    return {"encoding": dataset.encoding, "action_bounds": dataset.action_bounds}


def _warn_of_a_weak_start(
    recorder: JobRecorder, bridges: Sequence[Bridge], dataset_return: float, episodes: int
) -> None:
    """Warns when the policy deployed at first earns less than the dataset: the bridges may keep it for long."""
    score = recorder.last_score
    if score is None or score >= dataset_return:
        return
    who = next((said for bridge in bridges if (said := bridge.instead())), None)
    then = "a longer offline phase, or another offline algorithm, may hand over more"
    if who is not None:
        then = "it stays deployed until another policy proves to be better"
    elif bridges:
        then = f"what holds the policy will hold it there; {then}"
    counted = f"{episodes:,} episode{'s' * (episodes != 1)}"
    recorder.event(
        "online",
        0,
        f"{who or 'the policy handed over'} earns {score:.4g} on average of {counted}, the dataset's episodes "
        f"{dataset_return:.4g}: {then}",
    )


def _ring(recipe: Recipe) -> int | None:
    """Rows of the ring, if that is fewer than come in."""
    capacity = recipe.effective_replay.capacity
    return None if capacity is None or capacity >= recipe.online_steps else capacity * (1 + recipe.hindsight)


def _arriving(recipe: Recipe) -> int:
    """Rows that come into the ring at most: the live transitions, and copies of each."""
    return recipe.online_steps * (1 + recipe.hindsight)


def _result(job: Job, recorder: JobRecorder, final: Checkpoint, handover: list[str]) -> dict[str, Any]:
    digest = checkpoint.save(job.checkpoints / "final", final)
    shutil.rmtree(job.checkpoints / LATEST, ignore_errors=True)
    updates = int(final.learner.step)
    aside = {what: recorder.seconds[f"{job.phase} {what}"] for what in ("evaluation", "compile", "handover")}
    return {
        "steps": job.steps,
        "score": recorder.last_score,
        "wall_time_s": recorder.elapsed,
        "evaluation_s": aside["evaluation"],
        "compile_s": aside["compile"],
        "handover_s": aside["handover"],
        "updates_per_second": updates / max(recorder.elapsed - sum(aside.values()), 1e-9),
        "parameters_sha256": digest,
        "handover": handover,
    }
