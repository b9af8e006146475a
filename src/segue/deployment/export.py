"""Writing an exported policy from a checkpoint: how it acts is traced, compared with the original, put in place.

Nothing here knows an algorithm or a bridge: the ONNX models do what `Policy.decide` does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jax.export import symbolic_shape

import segue
from segue import rng
from segue.deployment.policy import (
    DENSITY,
    EXPLORING,
    FORMAT,
    GIVES,
    GREEDY,
    MANIFEST,
    SEEN,
    ExportedPolicy,
    Model,
    assemble,
    digest,
    read_actions,
)
from segue.deployment.spaces import Actions as ExportedActions
from segue.deployment.spaces import DiscreteActions, Space, flat_size
from segue.envs import Environment, environment_spaces
from segue.envs.make import logged_actions, make_raw
from segue.envs.spaces import Actions
from segue.errors import SegueError
from segue.networks.distributions import Kind, kind_of
from segue.policy import Policy
from segue.recipe import encode
from segue.runner.checkpoint import Checkpoint, load, parameters_sha256
from segue.runner.directory import slug

#: Observations that the exported policy and the original are compared on, and the share that may be ties, where
#: rounding decides between two actions.
TRIALS, TIES = 256, 0.02


@dataclasses.dataclass(frozen=True)
class Export:
    """What was written."""

    directory: Path
    policy: ExportedPolicy
    notes: tuple[str, ...]
    """What a user should know of it."""


def export_policy(
    checkpoint: str | os.PathLike[str], to: str | os.PathLike[str], env: str | Environment | None = None
) -> Export:
    """Write the policy of a checkpoint as one directory for use elsewhere (segue.deployment.policy says what is in it).

    It appears whole or not at all, and acts as the checkpoint does: both are tried on random observations first.

    Args:
        checkpoint: a checkpoint directory, for example `runs/x/checkpoints/run/seed-0/final`.
        to: the directory to write; it must not exist, or be empty.
        env: the environment to act in, or its id; by default the one in the checkpoint.

    Raises:
        SegueError: if the policy cannot be exported as it acts, or the directory is taken or cannot be written.
    """
    source, directory = Path(checkpoint), Path(to)
    _require_free(directory)
    saved = load(source)
    env_id = saved.environment if env is None else Environment.of(env)
    if env_id is not None:
        saved.require_fit(env_id)
    original, seen = saved.policy(), io.BytesIO()
    np.save(seen, original.seen)
    spaces = json.loads(json.dumps(_spaces(env_id, saved)))
    kinds = {explore: _kind(original, explore) for explore in (False, True)}
    size, actions = saved.spaces.observation_size, read_actions(spaces["action_space"])
    models = {
        name: traced(original, size, actions, explore, kinds[explore] == "discrete")
        for name, explore in ((GREEDY, False), (EXPLORING, True))
    }
    known = [explore for explore in (False, True) if kinds[explore] in ("discrete", "density")]
    densities = {DENSITY: traced_density(original, size, actions, known)} if known else {}
    files = {**models, **densities, SEEN: seen.getvalue()}
    carry = [np.asarray(leaf) for leaf in jax.tree.leaves(original.start(1))]
    notes = []
    if carry:
        notes.append("it remembers what it did before: act through whole episodes by its start and act")
    if env_id is not None:
        notes += _about_actions(env_id)
    if env_id is None and not saved.spaces.discrete:
        kept = "have the unit of the dataset" if saved.action_bounds is not None else "stay in [-1, 1]"
        notes.append(f"no environment is known, so actions {kept}; --env gives them that of an environment")
    document: dict[str, Any] = {
        "format": FORMAT,
        "segue_version": segue.__version__,
        **spaces,
        "dependence": original.dependence,
        "distribution": {GIVES[explore]: kind for explore, kind in kinds.items()},
        "carry": [{"dtype": str(_dtype(leaf)), "start": leaf[0].tolist()} for leaf in carry],
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "algorithm": encode(saved.algorithm),
        "bridges": [encode(bridge) for bridge in saved.bridges],
        "env": None if env_id is None else env_id.plain(),
        "encoding": None if saved.encoding is None else saved.encoding.to_dict(),
        "observed": None if saved.observed is None else saved.observed.plain(),
        "notes": notes,
        "provenance": _provenance(source, saved),
    }
    document = json.loads(json.dumps(document))  # as it will be read back: tuples become lists
    document["sha256"] = digest(document)
    policy = assemble(document, files, str(source))
    _try(policy, original, models)
    _write(directory, {**files, MANIFEST: (json.dumps(document, indent=1) + "\n").encode()})
    return Export(directory, policy, tuple(notes))


def _kind(policy: Policy, explore: bool) -> Kind:
    """What is known of the distribution that a policy draws from."""
    if policy.dependence is not None:
        return "draws"
    return kind_of(policy.distribution(policy.normaliser.mean[None], explore))


def traced(policy: Policy, observation_size: int, actions: ExportedActions, explore: bool, restricted: bool) -> bytes:
    """How a policy acts as an ONNX model (segue.deployment.policy says what it takes and gives).

    Args:
        policy: what acts.
        observation_size: numbers in a flattened observation.
        actions: what the environment takes.
        explore: whether it acts as while collecting data.
        restricted: whether the model takes which actions are allowed.

    Raises:
        SegueError: if it does what cannot be traced or translated, or the package onnx is not installed.
    """
    (batch,) = symbolic_shape("batch")
    leaves, structure = jax.tree.flatten(policy.start(1))
    remembers: Any = structure
    inputs = {"observation": jax.ShapeDtypeStruct((batch, observation_size), np.float32)}
    if restricted:
        inputs["allowed"] = jax.ShapeDtypeStruct((batch, actions.size), np.bool_)
    for i, leaf in enumerate(leaves):
        inputs[f"carry_{i}"] = jax.ShapeDtypeStruct((batch, *np.shape(leaf)[1:]), _dtype(leaf))

    def step(tape: rng.Tape, observation: jax.Array, *others: Any) -> tuple[jax.Array, ...]:
        allowed, carry = (others[0], others[1:]) if restricted else (None, others)
        acted = policy.decide(observation, jax.tree.unflatten(remembers, carry), tape, explore, allowed)
        following, form = jax.tree.flatten(acted.carry)
        if form != remembers:
            raise SegueError(f"the policy begins with {remembers} in its memory and goes on with {form}")
        zero = _zero(policy, observation, allowed)
        if isinstance(actions, DiscreteActions):
            decision = jnp.where(zero[:, 0] == 0, acted.action, -1)
            action = decision + actions.start
        else:
            decision = jnp.add(acted.action, zero)
            # Rounding may lead a bit past a bound.
            action = (actions.centre + actions.half_range * decision).clip(actions.low, actions.high)
        same = (jnp.asarray(after, before.dtype) for after, before in zip(following, carry, strict=True))
        return action, decision, jnp.asarray(acted.log_prob(), jnp.float32), *same

    outputs = ["action", "decision", "log_prob", *(f"next_carry_{i}" for i in range(len(leaves)))]
    before, noted = len(inputs), rng.Tape()
    with _tracing(policy):
        jax.eval_shape(lambda *given: step(noted, *given), *inputs.values())
        for i, (distribution, shape) in enumerate(noted.noted):
            inputs[f"{distribution}_{i}"] = jax.ShapeDtypeStruct(shape, np.float32)
        return _model(lambda *given: step(rng.Tape(given[before:]), *given[:before]), inputs, outputs, batch)


def traced_density(policy: Policy, observation_size: int, actions: ExportedActions, modes: Sequence[bool]) -> bytes:
    """How probable a policy's actions are as an ONNX model (segue.deployment.policy says what it takes and gives).

    Args:
        policy: one whose distribution is known.
        observation_size: numbers in a flattened observation.
        actions: what the environment takes.
        modes: whether to explore, for each way of acting that the model is to answer for.

    Raises:
        SegueError: as `traced`.
    """
    (batch,) = symbolic_shape("batch")
    discrete = isinstance(actions, DiscreteActions)
    inputs = {
        "observation": jax.ShapeDtypeStruct((batch, observation_size), np.float32),
        "allowed" if discrete else "action": jax.ShapeDtypeStruct(
            (batch, actions.size), np.bool_ if discrete else np.float32
        ),
    }

    def log_probs(observation: jax.Array, other: jax.Array) -> list[jax.Array]:
        found: list[Any] = [policy.distribution(observation, explore) for explore in modes]
        if discrete:
            return [one.among(other).log_probs + _zero(policy, observation, other) for one in found]
        return [one.log_prob(other) + _zero(policy, observation)[:, 0] for one in found]

    with _tracing(policy):
        return _model(log_probs, inputs, [GIVES[explore] for explore in modes], batch)


def _zero(policy: Policy, observation: jax.Array, allowed: jax.Array | None = None) -> jax.Array:
    """0 for each row, or NaN where an observation is not finite or no action is allowed: a model cannot raise.

    Shape [batch, 1].
    """
    zero = policy.normaliser(observation) @ np.zeros((observation.shape[-1], 1), np.float32)
    return zero if allowed is None else zero / allowed.astype(np.float32).sum(-1, keepdims=True)


@contextlib.contextmanager
def _tracing(policy: Policy) -> Iterator[None]:
    try:
        yield
    except (TypeError, jax.errors.InconclusiveDimensionOperation) as error:  # JAX's of this kind are TypeErrors
        said = str(error).splitlines()[0]
        raise SegueError(
            f"{policy.algorithm.name}: JAX cannot trace how it acts for any batch size ({said})"
        ) from error


def _model(
    function: Callable[..., Sequence[Any]],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
    outputs: Sequence[str],
    batch: Any,
) -> bytes:
    """The ONNX model; which actions are allowed need not be given to it."""
    try:
        from segue.deployment.translate import onnx_model
    except ImportError:
        raise SegueError("segue export needs the packages onnx and onnxruntime: pip install 'segue[export]'") from None
    everything = {"allowed": np.ones((1, inputs["allowed"].shape[-1]), bool)} if "allowed" in inputs else {}
    return onnx_model(function, inputs, outputs, batch=batch, defaults=everything)


def _dtype(leaf: Any) -> np.dtype:
    """As JAX has it: of 32 bits."""
    return jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype)


def _spaces(env_id: Environment | None, saved: Checkpoint) -> dict[str, Any]:
    if env_id is None:
        spaces, size = saved.spaces, saved.spaces.action_size
        low, high = saved.action_bounds or (np.full(size, -1.0), np.full(size, 1.0))
        bounds = {"type": "Box", "low": _inside(low, np.inf).tolist(), "high": _inside(high, -np.inf).tolist()}
        actions = {"type": "Discrete", "n": size, "start": 0} if spaces.discrete else bounds
        return {"observation_space": {"type": "Box", "shape": [spaces.observation_size]}, "action_space": actions}
    return _of_environment(env_id)


def _of_environment(env_id: str | Environment) -> dict[str, Any]:
    """Its spaces as plain data: actions are flat, and a combination of choices is one number."""
    env = make_raw(env_id)
    observations, actions = env.observation_space, Actions.of(env.action_space, f"environment {str(env_id)!r}")
    env.close()
    if actions.low is None or actions.high is None:
        start = int(actions.start[0]) if actions.as_they_are else 0
        plain = {"type": "Discrete", "n": actions.size, "start": start}
    else:
        plain = {
            "type": "Box",
            "low": _inside(actions.low, np.inf).tolist(),
            "high": _inside(actions.high, -np.inf).tolist(),
        }
    return {"observation_space": describe(observations), "action_space": plain}


def _about_actions(env_id: Environment) -> list[str]:
    """How an application gets from the policy's action to the environment's, where they differ in form."""
    actions = logged_actions(env_id)
    shape = actions.space.shape or ()
    if actions.discrete and not actions.as_they_are:
        first = actions.start.tolist()
        return [
            f"an action is the number of a combination: numpy.unravel_index(action, {actions.counts}) + {first} are "
            f"its choices"
        ]
    if actions.discrete or (shape == (actions.size,) and np.issubdtype(actions.space.dtype, np.floating)):
        return []
    integers = "" if np.issubdtype(actions.space.dtype, np.floating) else ", rounded to whole numbers"
    return [f"an action is flat: reshape it to {shape}{integers}"]


def _inside(bound: np.ndarray, towards: float) -> np.ndarray:
    """The bound in float32, moved by a digit where rounding led outside."""
    rounded = bound.astype(np.float32)
    outside = rounded < bound if towards > 0 else rounded > bound
    return np.where(outside, np.nextafter(rounded, np.float32(towards)), rounded)


def require_fit(policy: ExportedPolicy, env_id: str | Environment) -> None:
    """Refuse an environment whose spaces are not those that the policy was exported for.

    Raises:
        SegueError: with both sides' spaces.
    """
    about = policy.about
    if about["env"] is None:  # it knows no more than sizes
        spaces = environment_spaces(env_id)
        theirs: Any = (spaces.observation_size, spaces.action_size)
        ours: Any = (flat_size(policy.space), policy.actions.size)
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
        recipe = json.loads((run / "recipe.json").read_bytes())
        arms = recipe["arms"] if set(recipe) == {"arms"} else {"run": recipe}
    except (OSError, ValueError, IndexError):
        return provenance
    # An offline phase lies in a folder of its own, which arms may share: then all of them are its recipe.
    mine = next((plain for name, plain in arms.items() if slug(name) == arm or len(arms) == 1), recipe)
    return {**provenance, "checkpoint": "/".join(place.parts[-3:]), "recipe": mine}


def _try(policy: ExportedPolicy, original: Policy, models: Mapping[str, bytes]) -> None:
    """Compare the first step of the two, greedily and exploring, on the same random numbers.

    Also among some of the actions, and how probable actions are, where that is known.

    Raises:
        SegueError: if they differ; it guards against a fault of the translation.
    """
    draw = np.random.default_rng(0)
    spread = draw.normal(size=(TRIALS, flat_size(policy.space)))
    observations = np.asarray(original.normaliser.mean + 3 * original.normaliser.std * spread, np.float32)
    some = draw.random((TRIALS, policy.actions.size)) < 0.5
    some[:, 0] |= ~some.any(-1)
    for explore, model in ((False, GREEDY), (True, EXPLORING)):
        kind, pairs = policy.kind(explore), []
        whole: Any = None if kind == "draws" else original.distribution(observations, explore)
        for allowed in (None, some) if kind == "discrete" else (None,):
            noise = Model(models[model]).draw(TRIALS, np.random.default_rng(0))
            theirs = original.act(observations, original.start(TRIALS), rng.Tape(noise.values()), explore, allowed)
            ours = policy.act(observations, policy.start(TRIALS), np.random.default_rng(0), explore, allowed)
            pairs += [(ours.action, theirs.action), *zip(ours.carry, jax.tree.leaves(theirs.carry), strict=True)]
        if kind == "discrete":
            log_probs = policy.log_probs(observations, explore=explore, allowed=some)
            pairs.append((log_probs, whole.among(some).log_probs))
        elif kind == "density":
            given = draw.uniform(-0.9, 0.9, (TRIALS, policy.actions.size)).astype(np.float32)
            pairs.append((policy.log_prob(observations, given, explore=explore), whole.log_prob(given)))
        same = [_same(a, np.asarray(b)) for a, b in pairs]
        if np.mean(np.all(same, axis=0)) < 1 - TIES:
            raise SegueError(
                f"{original.algorithm.name}: the exported policy would not act as the checkpoint does, so nothing was "
                "written; this is a fault of Segue, please report it"
            )


def _same(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Which rows agree but for rounding."""
    if ours.shape != theirs.shape:
        return np.zeros(len(ours), bool)
    return np.isclose(ours, theirs, rtol=1e-4, atol=1e-4).reshape(len(ours), -1).all(1)


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
