"""What a phase starts from: environment, normalisation, and for the online one the handover with its bridges."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from segue import rng
from segue.algorithms.base import Algorithm, copy_arrays
from segue.bridges.base import Handover
from segue.core import Learner, Normaliser, Spaces, Transition, origin
from segue.data import load as load_dataset
from segue.data.dataset import Dataset
from segue.data.mapped import MappedDataset
from segue.envs import Environment, environment_spaces
from segue.envs.goals import Goals
from segue.envs.make import Looks
from segue.errors import RecipeError
from segue.evaluation.held_out import EPISODES, check_judges
from segue.recipe import Recipe, located
from segue.replay import REPLAYS, Replay
from segue.replay.on_disk import OnDisk, transitions_of
from segue.runner import checkpoint
from segue.training.distil import distil
from segue.training.handover import hand_over
from segue.training.hindsight import logged_with_copies
from segue.training.offline import alone, train_offline
from segue.training.recorder import Recorder
from segue.training.update import init_learner, replace

#: Goals that vary less than this share of what is achieved are no scale for what is achieved.
NARROW = 0.1
#: Share of a dataset's rewards that may differ from what the environment computes for its goals.
MISTAKEN = 0.01


def hand_over_to_online(
    source: checkpoint.Checkpoint | None,
    recipe: Recipe,
    dataset: Dataset | None,
    logged: Transition | OnDisk | None,
    spaces: Spaces,
    recorder: Recorder,
    seed: int,
) -> tuple[Learner, list[str]]:
    """The online learner with its bridges attached, and a word on what happened to each role.

    `source` is the pretrained checkpoint, if there is one; `logged` is the dataset as the online algorithm learns from
    it.
    """
    algorithm = recipe.online
    assert algorithm is not None
    learner, lines = _starting_learner(source, recipe, dataset, spaces, seed)

    parts = None if dataset is None else dataset.part_rows(recipe.dataset_hindsight)

    def fit_critic(learner: Learner, steps: int) -> Learner:
        fitted = alone(
            train_offline(
                dataclasses.replace(algorithm, **dict.fromkeys(algorithm.conservatism, 0.0)),  # type: ignore[arg-type]
                learner,
                Replay.create(logged, 0, spaces, part_rows=parts),
                recorder,
                steps=steps,
                seed=seed,
                env_id=None,
                eval_every=max(steps, 1),
                eval_episodes=1,
                phase="critic-fit",
                train_policy=False,
            )
        )
        return replace(fitted, step=jax.numpy.zeros_like(fitted.step))

    def tell(step: int, total: int) -> None:
        recorder.progress("handover", step, total)

    seen = logged
    if isinstance(logged, OnDisk) and recipe.bridges:
        seen = logged.sample()
        if len(seen.reward) < len(logged):
            lines.append(
                f"bridges: what they fit to the dataset at the handover, they fit to {len(seen.reward):,} random "
                f"transitions of its {len(logged):,}, which lie on disk"
            )
    handover = Handover(algorithm, spaces, dataset, None if isinstance(seen, OnDisk) else seen, tell, fit_critic)
    states: dict[str, Any] = {}
    for bridge in sorted(recipe.bridges, key=lambda bridge: bridge.attach_order):
        learner, states[bridge.name] = bridge.attach(learner, handover, rng.stream(seed, "bridge", bridge.name))
        lines += bridge.describe(states[bridge.name])
    if algorithm.updates_per_block > 4 * recipe.effective_updates_per_step:
        lines.append(
            "policy: moves only every "
            f"{algorithm.updates_per_block / recipe.effective_updates_per_step:g} live steps; {algorithm.name} is "
            f"published with updates_per_step {algorithm.updates_per_step:g}"
        )
    return replace(learner, bridges=tuple(states[bridge.name] for bridge in recipe.bridges)), lines


def _starting_learner(
    source: checkpoint.Checkpoint | None, recipe: Recipe, dataset: Dataset | None, spaces: Spaces, seed: int
) -> tuple[Learner, list[str]]:
    """What the online phase starts from, and a word on each role."""
    algorithm, key = recipe.online, rng.stream(seed, "online-init")
    assert algorithm is not None
    if source is None:
        return init_learner(algorithm, algorithm.init(key, spaces), normaliser_of(recipe, dataset)), [
            "everything: fresh"
        ]
    observations = None if dataset is None else dataset.observations
    learner, handover = hand_over(source.learner, source.algorithm, algorithm, spaces, key, observations)
    lines = list(handover.lines)
    if "actor" in handover.fresh and algorithm.chunk_length > 1:
        lines.append(f"actor: not taught: {algorithm.name} decides on {algorithm.chunk_length} actions at once")
    elif "actor" in handover.fresh and dataset is not None and recipe.distil_steps:
        learner, loss = distil(source.policy(), learner, algorithm, dataset.observations, recipe.distil_steps, seed)
        nets = learner.nets
        copies = {role: copy_arrays(nets.actor) for role in nets.roles() if origin(role) == "actor"}
        learner = replace(learner, nets=nets.replace(**copies))
        lines.append(
            f"actor: taught in {recipe.distil_steps:,} updates what {source.algorithm.name} does on the dataset's "
            f"states (last loss {loss:.3g})"
        )
    elif "actor" not in handover.fresh and recipe.distil_steps not in (0, Recipe.distil_steps):
        why = "the actor is carried over" if "actor" in handover.carried else f"{algorithm.name} has no actor"
        lines.append(f"policy: distil_steps {recipe.distil_steps} has no effect: {why}")
    if "critic" in handover.fresh and "actor" not in learner.nets.roles():
        lines.append(
            f"policy: lost: {algorithm.name} acts by its critic alone, and {source.algorithm.name} has none that fits; "
            "an algorithm with an actor (discrete-sac, iql, awac, ppo) takes the policy over"
        )
    elif "critic" in handover.fresh and not any(bridge.name == "critic-refit" for bridge in recipe.bridges):
        lines.append(
            "critic: WARNING: it is new. Fit it first (bridge critic-refit), or the policy follows an untrained critic"
        )
    return learner, lines


def environment_of(recipe: Recipe, dataset: Dataset | None) -> Environment | None:
    """The live environment: the recipe's, or the one that the dataset names.

    Raises:
        RecipeError: if there is an online phase and no environment.
    """
    environment = recipe.environment_with(dataset)
    if environment is None and recipe.online is not None:
        raise RecipeError("the online phase needs an environment, and the dataset names none: give --env")
    return environment


def check_fit(
    recipe: Recipe, dataset: Dataset | None, environment: Environment | None, look: Looks | None = None
) -> None:
    """Refuse a dataset, an environment and a recipe that do not fit together.

    Raises:
        RecipeError: naming what does not fit.
    """
    look = look or Looks()
    recipe.check_fit(dataset, None if environment is None else look(environment).spaces)
    check_on_disk(recipe, dataset)
    check_patience(recipe, dataset)
    if not (recipe.hindsight or recipe.dataset_hindsight):
        return
    if environment is None:
        raise RecipeError(
            "dataset_hindsight asks the environment for the rewards of other goals, and there is none: give --env"
        )
    with contextlib.closing(Goals(environment)) as goals:
        if dataset is not None and recipe.dataset_hindsight:
            _check_rewards(dataset, goals)
    if dataset is None or not recipe.normalise_observations:
        return
    scale = dataset.normaliser().std
    wide, narrow = float(scale[goals.achieved].max()), float(scale[goals.desired].max())
    if narrow < wide * NARROW:
        raise RecipeError(
            f"the desired goals of {dataset.source} hardly vary: their standard deviation is {narrow:.2g}, and "
            f"{wide:.2g} that of the achieved ones. Normalised, the goals of hindsight would be huge: give "
            "--no-normalise-observations"
        )


def check_on_disk(recipe: Recipe, dataset: Dataset | None) -> None:
    """Refuse what needs the whole dataset in memory, where it lies on disk.

    Raises:
        RecipeError: naming the part of the recipe.
    """
    if not isinstance(dataset, MappedDataset):
        return
    if recipe.dataset_hindsight:
        raise RecipeError(
            f"dataset_hindsight copies the dataset with other goals, and {dataset.source} lies on disk; leave it out, "
            "or give the dataset in a format that is read into memory"
        )
    replay = recipe.effective_replay
    on_policy = recipe.online is None or recipe.online.on_policy
    if not on_policy and replay.needs_dataset and not replay.stateless():
        able = [name for name, cls in REPLAYS.items() if cls.stateless()]
        raise RecipeError(
            f"replay {replay.name} keeps a number for every transition of the dataset, and those of {dataset.source} "
            f"lie on disk and are read ahead; there is {', '.join(able)}"
        )


def judges_of(recipe: Recipe, held_out: Dataset | None) -> Dataset | None:
    """The held-out episodes that say when pretraining ends; the others are left to judge the policies.

    They are half of them, since a policy that was chosen by some episodes looks better on those. None without patience,
    and where fewer than `EPISODES` would be on one side.
    """
    if not recipe.patience or held_out is None or len(held_out.episode_starts) < 2 * EPISODES:
        return None
    return held_out.split(0.5, recipe.held_out_seed)[1]


def check_patience(recipe: Recipe, dataset: Dataset | None) -> None:
    """Refuse a stopping rule whose held-out episodes cannot judge the offline algorithm.

    Raises:
        RecipeError: saying what they lack.
    """
    if not recipe.patience or recipe.offline is None or dataset is None:
        return
    judges = judges_of(recipe, dataset.split(recipe.held_out, recipe.held_out_seed)[1])
    if judges is None:
        raise RecipeError(
            f"patience needs {EPISODES} held-out episodes that say when pretraining ends, and as many that judge the "
            f"policy. There are {dataset.held_out_count(recipe.held_out):,} of {len(dataset.episode_starts):,} in "
            f"{dataset.source}: raise held_out (it is {recipe.held_out:g}), or leave patience out"
        )
    check_judges(recipe.offline, recipe.offline.select(judges.excerpt()))


def _check_rewards(dataset: Dataset, goals: Goals) -> None:
    """Refuse a dataset whose rewards are not those that the environment computes for its goals."""
    if not dataset.rewards_known:
        return
    achieved, desired = (dataset.next_observations[:, place] for place in (goals.achieved, goals.desired))
    computed = goals.rewards(achieved, desired)
    wrong = ~np.isclose(computed, dataset.rewards, rtol=1e-3, atol=1e-5)
    if wrong.mean() > MISTAKEN:  # rounding to 32 bits may move a goal over the edge of what counts as reached
        row = int(wrong.argmax())
        raise RecipeError(
            f"{dataset.source}: row {row} has the reward {dataset.rewards[row]:g}, compute_reward of {goals.where} "
            f"gives {computed[row]:g} ({wrong.mean():.1%} of the rows differ); expected the same, or hindsight would "
            "mix two rewards: leave dataset_hindsight out"
        )


def logged_of(recipe: Recipe, algorithm: Algorithm, part: Dataset, normaliser: Normaliser) -> Transition | OnDisk:
    """A part of the recipe's dataset as an algorithm learns from it, with the copies that hindsight makes."""
    if not recipe.dataset_hindsight:
        return transitions_of(algorithm, part, normaliser)
    environment = environment_of(recipe, part)
    assert environment is not None
    with contextlib.closing(Goals(environment)) as goals:
        return logged_with_copies(algorithm, part, normaliser, goals, recipe.dataset_hindsight)


def dataset_of(recipe: Recipe, home: Path | None = None, look: Looks | None = None) -> Dataset | None:
    """The recipe's dataset, if it has one, its actions as those of the live environment; `home` is a run's directory.

    Raises:
        SegueError: if it cannot be read, or its environment cannot be made.
    """
    if recipe.dataset is None:
        return None
    dataset = recipe.dataset
    if not isinstance(dataset, Dataset):
        uri = dataset if home is None else located(dataset, home)
        dataset = load_dataset(uri, clip_actions=recipe.clip_actions)
    environment = recipe.environment_with(dataset)
    if environment is None or dataset.bounds_known or not dataset.spaces.discrete:
        return dataset  # nothing is left to settle, for which an environment would have to be made
    return dataset.in_space((look or Looks())(environment).actions.space)


def normaliser_of(recipe: Recipe, dataset: Dataset | None) -> Normaliser:
    """The dataset's statistics, or the identity."""
    if dataset is not None and recipe.normalise_observations:
        return dataset.normaliser()
    if dataset is not None:
        return Normaliser.identity(dataset.spaces.observation_size)
    environment = environment_of(recipe, None)
    assert environment is not None
    return Normaliser.identity(environment_spaces(environment).observation_size)
