"""Saving and loading a learner, in a directory that is written whole or not at all.

arrays.safetensors    the learner's arrays by their paths, and the fingerprints of the episodes that it has learnt from
manifest.json         what the arrays mean, and the hash of the file

The arrays have the form that a resumable state has them in (segue.runner.state_store).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, UInt64
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from segue.algorithms import ALGORITHMS, Algorithm
from segue.bridges import BRIDGES, Bridge
from segue.core import Learner, Normaliser, Spaces, same_shape
from segue.data.encoding import Encoding
from segue.envs import Environment, environment_spaces
from segue.errors import RecipeError, SegueError
from segue.files import UNREADABLE, write_directory
from segue.plugins import PluginError
from segue.policy import Policy
from segue.recipe import decode, encode
from segue.seen import NOTHING_SEEN, Observed
from segue.training.checkpointing import flatten, unflatten
from segue.training.update import init_learner, replace

FORMAT = 4
ARRAYS = "arrays.safetensors"
#: Name of the fingerprints among the arrays.
SEEN = "seen.episodes"
#: Checkpoints of a run that an error names, where the run's directory was given instead.
SUGGESTED = 3


class OtherFormat(SegueError):
    """A checkpoint that another version of Segue wrote."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A learner and what is needed to use it."""

    algorithm: Algorithm
    bridges: tuple[Bridge, ...]
    spaces: Spaces
    environment: Environment | None
    learner: Learner
    seen: UInt64[np.ndarray, " episodes"] = dataclasses.field(default_factory=NOTHING_SEEN.copy, repr=False)
    """Sorted fingerprints of the dataset's episodes that the learner has learnt from."""
    progress: float = 0.0
    """Share of the online phase that was over, in [0, 1]; 0 at the end of an offline phase, before exploration."""
    encoding: Encoding | None = None
    """What the numbers of observations and actions mean, where the dataset was a table."""
    action_bounds: tuple[Float[np.ndarray, " action"], Float[np.ndarray, " action"]] | None = None
    """Low and high of continuous actions in the unit of the dataset; None if that is [-1, 1], or there is none."""
    observed: Observed | None = None
    """The range of the observations that it has learnt from; None if not known."""

    def require_fit(self, env_id: str | Environment) -> Checkpoint:
        """This checkpoint, if its policy can act in that environment.

        Raises:
            RecipeError: with both sides' sizes.
        """
        spaces = environment_spaces(env_id)
        if self.spaces != spaces:
            raise RecipeError(
                f"the policy has {self.spaces.describe()}, {env_id} has {spaces.describe()}; expected the same"
            )
        return self

    def policy(self) -> Policy:
        """The policy that is deployed; it explores as at this point of its phase."""
        now = self.algorithm.at(np.asarray(self.progress, np.float32))
        learner, acting = self.learner, []
        for bridge, state in zip(self.bridges, self.learner.bridges, strict=True):
            nets = bridge.deployed(state, learner.nets)
            if nets is None:
                acting.append((bridge, state))
            else:
                learner = replace(learner, nets=nets)
        learner = replace(learner, bridges=tuple(state for _, state in acting))
        return Policy(now, learner, tuple(bridge for bridge, _ in acting), self.seen)


def parameters_sha256(learner: Learner) -> str:
    """Hash of every array of the learner: nets, optimisers, bridge states, step and normalisation."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(learner):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save(directory: Path, checkpoint: Checkpoint) -> str:
    """Write a checkpoint directory in one step, replacing an older one, and return its parameters' hash.

    What the replay strategy remembers of each row is left out: it means nothing without the rows.
    """
    checkpoint = dataclasses.replace(checkpoint, learner=replace(checkpoint.learner, sampler=()))
    digest = parameters_sha256(checkpoint.learner)
    content = save_arrays({**flatten(checkpoint.learner), SEEN: checkpoint.seen})
    manifest = {
        "format": FORMAT,
        "algorithm": encode(checkpoint.algorithm),
        "bridges": [encode(bridge) for bridge in checkpoint.bridges],
        "spaces": dataclasses.asdict(checkpoint.spaces),
        "env": None if checkpoint.environment is None else checkpoint.environment.plain(),
        "progress": checkpoint.progress,
        "encoding": None if checkpoint.encoding is None else checkpoint.encoding.to_dict(),
        "action_bounds": checkpoint.action_bounds and [bound.tolist() for bound in checkpoint.action_bounds],
        "observed": None if checkpoint.observed is None else checkpoint.observed.plain(),
        "parameters_sha256": digest,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_directory(directory, {ARRAYS: content, "manifest.json": json.dumps(manifest, indent=1).encode()})
    return digest


def load(directory: Path | str) -> Checkpoint:
    """Read a checkpoint back, bit for bit.

    Raises:
        SegueError: if it is missing or damaged.
        OtherFormat: if another version of Segue wrote it.
    """
    directory = Path(directory)
    try:
        manifest = json.loads((directory / "manifest.json").read_bytes())
        if manifest["format"] != FORMAT:
            raise OtherFormat(f"{directory}: checkpoint format {manifest['format']}; this version reads {FORMAT}")
        algorithm = decode("algorithm", manifest["algorithm"], ALGORITHMS)
        bridges = tuple(decode("bridge", part, BRIDGES) for part in manifest["bridges"])
        image = manifest["spaces"].get("image")
        spaces = Spaces(**{**manifest["spaces"], "image": image and tuple(image)})
        content = (directory / ARRAYS).read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
            raise ValueError(f"{ARRAYS} is not what was written")
        arrays = load_arrays(content)
        seen = arrays.pop(SEEN)
        expected = skeleton(algorithm, bridges, spaces)
        learner = unflatten(expected, arrays)
        if not same_shape(learner, expected):
            raise ValueError("its arrays have other shapes than manifest.json describes")
        digest, progress = manifest["parameters_sha256"], float(manifest["progress"])
        environment = None if manifest["env"] is None else Environment.read(manifest["env"])
        means = manifest.get("encoding")
        encoding = None if means is None else Encoding.from_dict(means)
        bounds = manifest.get("action_bounds")
        low_high = None if bounds is None else (np.asarray(bounds[0], np.float64), np.asarray(bounds[1], np.float64))
        ranges = manifest["observed"]
        observed = None if ranges is None else Observed.read(ranges)
    except (OtherFormat, PluginError, RecipeError):
        raise
    except FileNotFoundError as error:
        finals = sorted(map(str, directory.glob("checkpoints/*/seed-*/final")))
        hint = "; it is a run without a finished policy" if (directory / "recipe.json").exists() else ""
        if finals:
            hint = f"; it is a run: give {' or '.join(finals[:SUGGESTED])}"
        raise SegueError(f"{directory}: no checkpoint here ({error.filename} is missing){hint}") from error
    except (SafetensorError, *UNREADABLE) as error:
        raise SegueError(f"{directory}: the checkpoint is damaged ({error}); use another one") from error
    if parameters_sha256(learner) != digest:
        raise SegueError(f"{directory}: the checkpoint is damaged (its hash does not match); use another one")
    return Checkpoint(algorithm, bridges, spaces, environment, learner, seen, progress, encoding, low_high, observed)


def damage(directory: Path) -> str | None:
    """What is wrong with a checkpoint, or None if it can be read.

    Raises:
        OtherFormat: if another version of Segue wrote it, which is no damage.
    """
    try:
        load(directory)
    except OtherFormat:
        raise
    except SegueError as error:
        return str(error).removesuffix("; use another one")
    return None


def skeleton(algorithm: Algorithm, bridges: tuple[Bridge, ...], spaces: Spaces, sampler: Any = ()) -> Learner:
    """A learner of the right structure, without its numbers ."""

    def build() -> Learner:
        nets = algorithm.init(jax.random.key(0), spaces)
        return init_learner(algorithm, nets, Normaliser.identity(spaces.observation_size))

    learner = eqx.filter_eval_shape(build)
    states = tuple(bridge.skeleton(algorithm, spaces) for bridge in bridges)
    return eqx.tree_at(
        lambda tree: (tree.bridges, tree.sampler), learner, (states, sampler), is_leaf=lambda leaf: leaf == ()
    )
