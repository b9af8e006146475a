"""Writing an exported policy from a checkpoint: what acts is taken out, compared with the original, put in place."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import safetensors.numpy

import segue
from segue.algorithms import BC, BCQ, DQN, TD3, Algorithm, DiscreteBCQ
from segue.bridges import Bridge, JumpStart, PolicyExpansion
from segue.deployment.kinds import (
    Actor,
    Categorical,
    ClippedGaussian,
    Expansion,
    FilteredValues,
    Gaussian,
    Kind,
    Network,
    Proposals,
    Values,
    take_apart,
)
from segue.deployment.policy import FORMAT, MANIFEST, MODEL, SEEN, WEIGHTS, ExportedPolicy, assemble, digest
from segue.deployment.spaces import Space
from segue.envs import environment_spaces
from segue.envs.make import make_raw
from segue.errors import SegueError
from segue.networks import MLP, CategoricalActor, GaussianActor
from segue.networks.vae import LATENT_CLIP
from segue.policy import Policy
from segue.random import normal
from segue.recipe import encode
from segue.runner.checkpoint import Checkpoint, load, parameters_sha256
from segue.runner.directory import slug
from segue.types import Nets, Spaces

#: Observations that the exported policy and the original are compared on.
TRIALS = 256


@dataclasses.dataclass(frozen=True)
class Export:
    """What was written."""

    directory: Path
    policy: ExportedPolicy
    notes: tuple[str, ...]
    """What a user should know of it."""


def export_policy(checkpoint: str | os.PathLike[str], to: str | os.PathLike[str], env: str | None = None) -> Export:
    """Write the policy of a checkpoint as one directory for use elsewhere (segue.deployment.policy says what is in it).

    It appears whole or not at all, and acts as the checkpoint does: both are tried on random observations first.

    Args:
        checkpoint: a checkpoint directory, for example `runs/x/checkpoints/run/seed-0/final`.
        to: the directory to write; it must not exist, or be empty.
        env: Gymnasium id of the environment to act in; by default the one in the checkpoint.

    Raises:
        SegueError: if the policy cannot be exported as it acts, or the directory is taken or cannot be written.
    """
    source, directory = Path(checkpoint), Path(to)
    _require_free(directory)
    saved = load(source)
    env_id = env or saved.env_id
    if env_id is not None:
        saved.require_fit(env_id)
    original = saved.policy()
    kind = kind_of(original)
    notes = _notes(saved, kind, env_id)
    plain, tensors = take_apart(kind)
    tensors |= {"observation.mean": original.normaliser.mean, "observation.std": original.normaliser.std}
    if len(original.seen):
        tensors[SEEN] = original.seen
    weights = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
    document: dict[str, Any] = {
        "format": FORMAT,
        "segue_version": segue.__version__,
        "policy": plain,
        **_spaces(env_id, saved.spaces),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "algorithm": encode(saved.algorithm),
        "bridges": [encode(bridge) for bridge in saved.bridges],
        "env": env_id,
        "notes": notes,
        "provenance": _provenance(source, saved),
    }
    document = json.loads(json.dumps(document))  # as it will be read back: tuples become lists
    policy = assemble(document, weights, str(source))
    _try(policy, original)
    model = _model(policy)
    if model is None:
        notes = (*notes, "no policy.onnx: it takes the package onnx (pip install 'segue[export]')")
    else:
        document["onnx_sha256"] = hashlib.sha256(model).hexdigest()
    document["sha256"] = digest(document)
    files = {WEIGHTS: weights, MODEL: model, MANIFEST: (json.dumps(document, indent=1) + "\n").encode()}
    _write(directory, {name: content for name, content in files.items() if content is not None})
    return Export(directory, policy, notes)


def kind_of(policy: Policy) -> Kind:
    """What acts in a policy, bridges included, as NumPy networks.

    Raises:
        SegueError: if a bridge acts in a way that an exported policy cannot.
    """
    kind = _of_algorithm(policy.algorithm, policy.nets)
    for bridge, state in zip(policy.bridges, policy.states, strict=True):
        if isinstance(bridge, PolicyExpansion):
            assert isinstance(kind, Actor)
            offline = _of_actor(state, None)
            kind = Expansion(kind, offline, network_of(policy.nets.critic.members), bridge.inverse_temperature)
        elif isinstance(bridge, JumpStart):
            if state.horizon > 0:
                raise SegueError(
                    f"jump-start: the offline policy still acts in the first {int(state.horizon)} steps of an episode, "
                    "and an exported policy does not count steps; export a checkpoint at which the horizon is 0"
                )
        elif type(bridge).act is not Bridge.act:
            raise SegueError(f"{bridge.name} acts in a way of its own, which segue.deployment does not know yet")
    return kind


def _of_algorithm(algorithm: Algorithm, nets: Nets) -> Kind:
    match algorithm:
        case BCQ():
            # As `Policy` without a source draws them.
            codes = normal(np.random.default_rng(0), (algorithm.acting_samples, 1, nets.behaviour.latent_size))
            return Proposals(
                network_of(nets.behaviour.decoder),
                network_of(nets.perturbation),
                network_of(nets.critic.members).member(0),
                np.asarray(codes[:, 0]).clip(-LATENT_CLIP, LATENT_CLIP),
                LATENT_CLIP,
                algorithm.perturbation_size,
            )
        case DiscreteBCQ():
            critic, behaviour = network_of(nets.critic.members), network_of(nets.behaviour.mlp)
            return FilteredValues(critic, algorithm.initial_epsilon, behaviour, algorithm.threshold)
        case DQN():
            return Values(network_of(nets.critic.members), algorithm.initial_epsilon)
        case TD3():
            return _of_actor(nets.actor, algorithm.exploration_noise)
        case BC(loss="mse"):
            return _of_actor(nets.actor, 0.0)
        case _:
            return _of_actor(nets.actor, None)


def _of_actor(actor: Any, noise: float | None) -> Actor:
    network = network_of(actor.mlp)
    if isinstance(actor, CategoricalActor):
        return Categorical(network)
    if isinstance(actor, GaussianActor):
        return ClippedGaussian(network, np.exp(np.asarray(actor.log_std)))
    return Gaussian(network, noise)


def network_of(mlp: MLP) -> Network:
    """The same network in NumPy."""
    return Network(
        tuple(np.asarray(layer.weight) for layer in mlp.layers),
        tuple(np.asarray(layer.bias) for layer in mlp.layers),
        tuple((np.asarray(norm.scale), np.asarray(norm.shift)) for norm in mlp.norms),
        mlp.activation,
        mlp.norm_after,
    )


def _notes(saved: Checkpoint, kind: Kind, env_id: str | None) -> tuple[str, ...]:
    notes: Sequence[str] = ()
    if isinstance(kind, Proposals):
        notes = (
            f"bcq draws {len(kind.codes)} new latent codes at every step; the exported policy decodes the same ones at "
            "every step, unless it explores",
        )
    if isinstance(kind, Expansion):
        notes = (
            "policy-expansion now and then takes the worse of its two actions; the exported policy takes the better "
            "one, unless it explores",
        )
    if env_id is None and not saved.spaces.discrete:
        notes = (*notes, "no environment is known, so actions stay in [-1, 1]; --env gives them their units")
    return tuple(notes)


def _spaces(env_id: str | None, spaces: Spaces) -> dict[str, Any]:
    if env_id is None:
        size = spaces.action_size
        bounds = {"type": "Box", "low": [-1.0] * size, "high": [1.0] * size}
        actions = {"type": "Discrete", "n": size, "start": 0} if spaces.discrete else bounds
        return {"observation_space": {"type": "Box", "shape": [spaces.observation_size]}, "action_space": actions}
    return _of_environment(env_id)


def _of_environment(env_id: str) -> dict[str, Any]:
    env = make_raw(env_id)
    observations, actions_of = env.observation_space, env.action_space
    env.close()
    if isinstance(actions_of, gym.spaces.Discrete):
        actions = {"type": "Discrete", "n": int(actions_of.n), "start": int(actions_of.start)}
    else:
        assert isinstance(actions_of, gym.spaces.Box)
        actions = {
            "type": "Box",
            "low": _inside(actions_of.low, np.inf).tolist(),
            "high": _inside(actions_of.high, -np.inf).tolist(),
        }
    return {"observation_space": describe(observations), "action_space": actions}


def _inside(bound: np.ndarray, towards: float) -> np.ndarray:
    """The bound in float32, moved by a digit where rounding led outside."""
    rounded = bound.astype(np.float32)
    outside = rounded < bound if towards > 0 else rounded > bound
    return np.where(outside, np.nextafter(rounded, np.float32(towards)), rounded)


def require_fit(policy: ExportedPolicy, env_id: str) -> None:
    """Refuse an environment whose spaces are not those that the policy was exported for.

    Raises:
        SegueError: with both sides' spaces.
    """
    about = policy.about
    if about["env"] is None:  # it knows no more than sizes
        spaces = environment_spaces(env_id)
        theirs: Any = (spaces.observation_size, spaces.action_size)
        ours: Any = (len(policy.mean), policy.actions.size)
    else:
        theirs = json.loads(json.dumps(_of_environment(env_id)))
        ours = {name: about[name] for name in theirs}
    if theirs != ours:
        raise SegueError(f"the policy was exported for {ours}, {env_id} has {theirs}; expected the same")


def describe(space: gym.Space) -> Space:
    """An observation space as plain data.

    Raises:
        SegueError: for one that has no place in an exported policy.
    """
    match space:
        case gym.spaces.Box():
            return {"type": "Box", "shape": list(space.shape)}
        case gym.spaces.MultiBinary():
            return {"type": "MultiBinary", "shape": list(space.shape)}
        case gym.spaces.Discrete():
            return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
        case gym.spaces.MultiDiscrete():
            return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
        case gym.spaces.Tuple():
            return {"type": "Tuple", "spaces": [describe(part) for part in space.spaces]}
        case gym.spaces.Dict():
            return {"type": "Dict", "spaces": [[name, describe(part)] for name, part in space.spaces.items()]}
        case _:
            raise SegueError(
                f"the observation space has a {type(space).__name__}, which exported policies do not flatten; expected "
                "Box, Discrete, MultiBinary, MultiDiscrete, Tuple or Dict"
            )


def _provenance(checkpoint: Path, saved: Checkpoint) -> dict[str, Any]:
    """Where the policy comes from: the checkpoint's hash, and the recipe of the run that it lies in, if it does."""
    provenance = {"parameters_sha256": parameters_sha256(saved.learner), "checkpoint": None, "recipe": None}
    place = checkpoint.resolve()
    try:
        run, arm = place.parents[3], place.parents[1].name
        recipe = json.loads((run / "recipe.json").read_text())
        arms = recipe["arms"] if set(recipe) == {"arms"} else {"run": recipe}
    except (OSError, ValueError, IndexError):
        return provenance
    # An offline phase lies in a folder of its own, which arms may share: then all of them are its recipe.
    mine = next((plain for name, plain in arms.items() if slug(name) == arm or len(arms) == 1), recipe)
    return {**provenance, "checkpoint": "/".join(place.parts[-3:]), "recipe": mine}


def _try(policy: ExportedPolicy, original: Policy) -> None:
    """Compare the two, greedily and exploring.

    Raises:
        SegueError: if they differ; it guards against an algorithm or bridge that acts in a way unknown here.
    """
    source = np.random.default_rng(0)
    spread = source.normal(size=(TRIALS, len(policy.mean))).astype(np.float32)
    observations = policy.mean + 3 * policy.std * spread
    greedy = [dataclasses.replace(b, greedy=1.0) if isinstance(b, PolicyExpansion) else b for b in original.bridges]
    for explore, bridges in ((False, tuple(greedy)), (True, original.bridges)):
        twin = copy.copy(original)
        twin.bridges = bridges
        theirs = twin(observations, np.random.default_rng(0), explore)
        ours = policy.act(observations, np.random.default_rng(0), explore)
        if theirs.shape != ours.shape or not np.allclose(theirs, ours, rtol=0, atol=1e-5):
            raise SegueError(
                f"{original.algorithm.name}: the exported policy would not act as the checkpoint does, so nothing was "
                "written; this is a fault of Segue, please report it"
            )


def _model(policy: ExportedPolicy) -> bytes | None:
    try:
        from segue.deployment.onnx_model import onnx_model
    except ImportError:
        return None
    return onnx_model(policy)


def _require_free(directory: Path) -> None:
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        what = "an exported policy" if (directory / MANIFEST).exists() else "something else"
        raise SegueError(f"{directory} already holds {what}; nothing was changed: choose another --to, or remove it")


def _write(directory: Path, files: dict[str, bytes]) -> None:
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        os.replace(temporary, directory)
    except OSError as error:
        raise SegueError(f"{directory}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
