"""Minari datasets: `minari:ID`, from the local root or downloaded through Minari; and writing new ones."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from segue.data.dataset import Columns
from segue.data.files import reason
from segue.envs.make import make_raw, portable_spec
from segue.envs.spaces import Actions, check_observations, logged_observations
from segue.envs.spec import Environment
from segue.errors import DataError, RecipeError, unknown

#: Where a dataset's infos hold log b(a|s), one more than there are steps, as Minari stores infos.
PROPENSITY = "behaviour_log_prob"
#: Where they hold costs: row t + 1 is of step t, since Minari's recorder puts the info of the reset first.
COST = "cost"
#: Where they hold which actions can be taken, as Gymnasium's `info` does: row t is of step t, the last one follows it.
MASK = "action_mask"


@dataclasses.dataclass(frozen=True)
class Episode:
    """One recorded episode of T steps, as the environment gave it."""

    observations: Any
    """[T + 1, …]: before each step, and after the last one; a dict of such arrays for a Dict space."""
    actions: np.ndarray
    """[T, …]."""
    rewards: np.ndarray
    """[T]."""
    terminal: bool
    """Whether it ended in a true terminal state; otherwise it was cut by a time limit."""
    seed: int | None = None
    """Seed of the reset."""
    log_probs: np.ndarray | None = None
    """[T]: log b(a|s) under the policy that acted, for continuous actions a density over the environment's own box; NaN
    where it is not known."""
    costs: np.ndarray | None = None
    """[T]: the cost of each step."""
    allowed: np.ndarray | None = None
    """[T, actions]: which discrete actions could be taken."""


def read(dataset_id: str) -> Columns:
    """Columns of a Minari dataset in the local root (MINARI_DATASETS_PATH), downloaded into it if need be.

    Observations are flattened as Gymnasium's FlattenObservation does. Bounds of actions, the number of
    discrete actions and the environment come from the dataset's own spaces and specification.

    Raises:
        DataError: the id is malformed, the download failed, the dataset is damaged, or its spaces are not
            supported.
    """
    source = f"minari:{dataset_id}"
    folder = _folder(source, dataset_id)
    if not (folder / "data").exists():
        _download(source, dataset_id, folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import minari

            dataset = minari.load_dataset(dataset_id)
            episodes = [episode for episode in dataset if len(episode.rewards)]
    # Minari passes on whatever its storages, h5py, pyarrow and gymnasium raise.
    except Exception as error:
        raise DataError(
            f"{source}: {folder} cannot be read ({reason(error)}); if it is damaged, delete that folder and "
            "load it again"
        ) from error
    if not episodes:
        raise DataError(f"{source}: the dataset is empty: no episode in {folder} has a step")
    return _columns(source, dataset, episodes)


def write(
    dataset_id: str,
    episodes: Sequence[Episode],
    *,
    env_id: str | Environment | None,
    description: str,
    algorithm: str,
    observation_space: gym.Space | None = None,
    action_space: gym.Space | None = None,
) -> Path:
    """Create the Minari dataset `dataset_id` in the local root and return its folder.

    Args:
        dataset_id: `name-v0`, with optional namespaces: `hopper/mixed-v0`.
        episodes: at least one, each with at least one step.
        env_id: the environment, or its id; the dataset takes its specification, and the spaces that are not given.
        description: what a reader should know of the data.
        algorithm: what acted.
        observation_space: of the recorded observations.
        action_space: of the recorded actions.

    Raises:
        DataError: the id is malformed or taken, or there are no episodes.
    """
    import minari

    source = f"minari:{dataset_id}"
    folder = require_free(dataset_id)
    if not episodes or not all(len(episode.rewards) for episode in episodes):
        raise DataError(f"{source}: nothing to write; expected one or more episodes of one or more steps")
    env = None if env_id is None else make_raw(env_id)
    spaces = {
        "observation_space": observation_space or getattr(env, "observation_space", None),
        "action_space": action_space or getattr(env, "action_space", None),
    }
    spec = None if env is None else portable_spec(env)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari asks for an author and a code link
            minari.create_dataset_from_buffers(
                dataset_id,
                [_buffer(episode) for episode in episodes],
                env=env if spec is not None else None,
                **spaces,
                algorithm_name=algorithm,
                description=description,
            )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half a dataset would be taken for a whole one
        raise
    return folder


def require_free(dataset_id: str) -> Path:
    """The folder where a new dataset of this id would go.

    Raises:
        DataError: the id is malformed or taken.
    """
    source = f"minari:{dataset_id}"
    folder = _folder(source, dataset_id)
    if folder.exists():
        raise DataError(
            f"{source}: already exists in {folder}; choose another name or version, or delete that folder first"
        )
    return folder


def _folder(source: str, dataset_id: str) -> Path:
    """Where the dataset is or would be in the local root."""
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage import get_dataset_path

    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:  # Minari's own parser trips over a missing version
        raise DataError(
            f"{source}: malformed id; expected [NAMESPACE/]NAME-vVERSION, such as D4RL/door/human-v2"
        ) from error
    try:
        return get_dataset_path(dataset_id)
    except OSError as error:
        raise DataError(
            f"{source}: the local root cannot be used ({reason(error)}); set MINARI_DATASETS_PATH to a folder of yours"
        ) from error


def _download(source: str, dataset_id: str, folder: Path) -> None:
    import minari

    root = folder.parents[dataset_id.count("/")]
    try:
        # Minari prints its progress; standard output belongs to the caller's own results.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            minari.download_dataset(dataset_id)
    # Whatever the remote's client raises: no network, no such dataset, no permission.
    except Exception as error:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            local = minari.list_local_datasets()
        raise DataError(
            f"{source}: not in the local root, and the download failed ({type(error).__name__}: {reason(error)}). "
            f"Without a network, copy the dataset's folder to {folder}, or set MINARI_DATASETS_PATH to a local root "
            f"that has it; in {root}: {unknown('Minari dataset', dataset_id, local)}"
        ) from error


def _columns(source: str, dataset: Any, episodes: Sequence[Any]) -> Columns:
    try:
        check_observations(dataset.observation_space, source)
        space = Actions.of(dataset.action_space, source)
        env = None if dataset.env_spec is None else Environment.of(dataset.env_spec)
    except RecipeError as error:
        raise DataError(str(error)) from error
    observations, next_observations = [], []
    for episode in episodes:
        steps = len(episode.rewards)
        flat = logged_observations(dataset.observation_space, episode.observations)
        if len(flat) != steps + 1:
            raise DataError(
                f"{source}: episode {episode.id} has {len(flat):,} observations and {steps:,} rewards; expected "
                "one observation more than rewards"
            )
        observations.append(flat[:-1])
        next_observations.append(flat[1:])
    actions = np.concatenate([np.asarray(episode.actions) for episode in episodes])
    timeouts = np.concatenate([episode.truncations for episode in episodes]).astype(bool)
    # Where Minari says an episode ends, it ends, also if the recording was interrupted there.
    timeouts[np.cumsum([len(episode.rewards) for episode in episodes]) - 1] = True
    return Columns(
        observations=np.concatenate(observations),
        actions=space.from_environment(actions),
        rewards=np.concatenate([episode.rewards for episode in episodes]),
        terminals=np.concatenate([episode.terminations for episode in episodes]),
        timeouts=timeouts,
        next_observations=np.concatenate(next_observations),
        env_id=None if env is None else env.name,
        env_spec=None if env is None else env.options(),
        action_bounds=None if space.low is None or space.high is None else (space.low, space.high),
        discrete_actions=space.size if space.discrete else None,
        behaviour_log_prob=_propensities(episodes),
        cost=_costs(episodes),
        allowed_actions=_masks(episodes) if space.discrete else None,
    )


def _propensities(episodes: Sequence[Any]) -> np.ndarray | None:
    """log b(a|s) of every step, if every episode has it."""
    found = [np.asarray((episode.infos or {}).get(PROPENSITY, ()))[: len(episode.rewards)] for episode in episodes]
    whole = all(len(part) == len(episode.rewards) for part, episode in zip(found, episodes, strict=True))
    return np.concatenate(found) if whole else None


def _costs(episodes: Sequence[Any]) -> np.ndarray | None:
    """The cost of every step, if every episode has it as one number per step."""
    found = [np.asarray((episode.infos or {}).get(COST, ())) for episode in episodes]
    whole = all(part.shape == (len(e.rewards) + 1,) for part, e in zip(found, episodes, strict=True))
    return np.concatenate([part[1:] for part in found]) if whole else None


def _masks(episodes: Sequence[Any]) -> np.ndarray | None:
    """Which actions could be taken in every step, if every episode has it."""
    found = [np.asarray((episode.infos or {}).get(MASK, ())) for episode in episodes]
    whole = all(len(part) == len(e.rewards) + 1 for part, e in zip(found, episodes, strict=True))
    return np.concatenate([part[:-1] for part in found]) if whole else None


def _buffer(episode: Episode) -> Any:
    from minari.data_collector import EpisodeBuffer

    steps = len(episode.rewards)
    last = np.arange(steps) == steps - 1
    infos = {}
    # Unknown for a step (NaN) is unknown for the dataset.
    if episode.log_probs is not None and np.isfinite(episode.log_probs).all():
        infos[PROPENSITY] = np.append(episode.log_probs, np.nan)
    if episode.costs is not None:
        infos[COST] = np.insert(episode.costs, 0, 0.0)
    if episode.allowed is not None:
        infos[MASK] = np.append(episode.allowed, np.ones_like(episode.allowed[:1]), axis=0)
    return EpisodeBuffer(
        seed=episode.seed,
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=last & episode.terminal,
        truncations=last & (not episode.terminal),
        infos=infos or None,
    )
