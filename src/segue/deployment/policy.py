"""The exported policy as it is used: read, checked, and called with observations, by NumPy and safetensors alone.

A directory of

policy.json           what it is: spaces, networks, algorithm, where it comes from; hashes of the others and of itself
policy.safetensors    its arrays: weights, the observations' mean and standard deviation, and fingerprints of the
                      episodes that it has learnt from, if there are any
policy.onnx           its greedy action as an ONNX model (not read here)
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy

from segue.deployment.kinds import Kind, put_together
from segue.deployment.spaces import Actions, ContinuousActions, DiscreteActions, Space, flat_size, flatten
from segue.errors import SegueError
from segue.seen import NOTHING_SEEN

if TYPE_CHECKING:
    from jaxtyping import Float, Int, UInt64

FORMAT = 2
#: Name of the fingerprints among the arrays.
SEEN = "seen.episodes"
MANIFEST, WEIGHTS, MODEL = "policy.json", "policy.safetensors", "policy.onnx"


class ExportedPolicy:
    """A trained policy: observations in the environment's own form to actions in its own units.

    Without state, so one may be shared between threads.

    Args:
        kind: what acts.
        space: of observations, and how they are flattened.
        actions: the environment's.
        mean: of observations, `[observation]`; the policy's networks see (observation − mean) / std.
        std: of observations.
        about: the rest of policy.json: where the policy comes from.
        seen: fingerprints of the episodes that it has learnt from (`Dataset.episode_fingerprints`). Off-policy
            evaluation needs them: `segue.ope.DiscretePolicy(…, seen=policy.seen)`.
    """

    def __init__(
        self,
        kind: Kind,
        space: Space,
        actions: Actions,
        mean: Float[np.ndarray, " observation"],
        std: Float[np.ndarray, " observation"],
        about: dict[str, Any],
        seen: UInt64[np.ndarray, " episodes"] = NOTHING_SEEN,
    ) -> None:
        self.kind, self.space, self.actions, self.about, self.seen = kind, space, actions, about, seen
        self.mean, self.std = mean, std
        if isinstance(actions, ContinuousActions):
            self._centre, self._half_range = actions.centre, actions.half_range

    def __call__(
        self, observation: Any, *, explore: bool = False, source: np.random.Generator | None = None
    ) -> Float[np.ndarray, "*batch action"] | Int[np.ndarray, "*batch"]:
        """The action in the environment's units (float32 within its bounds), or its number (int64).

        Args:
            observation: as the environment gives it, or flattened; a batch has leading axes (each part of it, if it is
                made of parts).
            explore: with the noise that it explored with in training, instead of greedily.
            source: of that noise; by default a new one.

        Raises:
            SegueError: for an observation of another shape, or one that NaN, infinity or its size make meaningless.
        """
        action = self.act(flatten(self.space, observation), source, explore)
        if isinstance(self.actions, DiscreteActions):
            return action + self.actions.start
        scaled = self._centre + self._half_range * action
        # Rounding may lead a bit past a bound.
        return np.minimum(np.maximum(scaled, self.actions.low), self.actions.high)

    def act(
        self, flat: Float[np.ndarray, "*batch observation"], source: np.random.Generator | None, explore: bool
    ) -> Float[np.ndarray, "*batch action"] | Int[np.ndarray, "*batch"]:
        """The action in [-1, 1], or counted from 0, for flattened observations: as policies act inside Segue.

        Raises:
            SegueError: for an observation that NaN, infinity or its size make meaningless.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # judged by what comes of it
            x = (flat - self.mean) / self.std
            if not np.isfinite(x).all():
                raise SegueError(_not_finite(flat))
            if not explore:
                return np.asarray(self.kind.greedy(x))
            return np.asarray(self.kind.explore(x, np.random.default_rng() if source is None else source))


def _not_finite(flat: Float[np.ndarray, "*batch observation"]) -> str:
    bad = np.argwhere(~np.isfinite(flat))
    if not len(bad):
        return "the observation is too large for float32 once normalised, so there is no action"
    *row, number = bad[0].tolist()
    where = f"number {number}" + (f" of row {row[0] if len(row) == 1 else tuple(row)}" if row else "")
    value = flat[tuple(bad[0])]
    return f"the observation has {value} at {where} (flattened), so there is no action; expected finite numbers"


def load_policy(path: str | os.PathLike[str]) -> ExportedPolicy:
    """Read a policy that `segue export` wrote; the hashes are checked.

    Raises:
        SegueError: if it is missing, damaged, or of another format.
    """
    directory = Path(path)
    document = read_manifest(directory)
    try:
        content = (directory / WEIGHTS).read_bytes()
    except OSError as error:
        raise SegueError(f"{directory / WEIGHTS}: cannot be read: {error.strerror}; export the policy again") from None
    if hashlib.sha256(content).hexdigest() != document["weights_sha256"]:
        raise SegueError(
            f"{directory / WEIGHTS}: damaged (its hash is not the one in {MANIFEST}); export the policy again"
        )
    return assemble(document, content, str(directory))


def read_manifest(directory: Path) -> dict[str, Any]:
    """What policy.json says, its own hash checked.

    Raises:
        SegueError: if it is missing, damaged, or of another format.
    """
    file = directory / MANIFEST
    try:
        document = json.loads(file.read_bytes())
        if document["format"] != FORMAT:
            raise SegueError(
                f"{file}: an exported policy of format {document['format']}; this version of Segue reads {FORMAT}: "
                "export it again, or use the version that wrote it"
            )
        whole = document["sha256"] == digest(document)
    except OSError as error:
        raise SegueError(f"{directory}: no exported policy here ({MANIFEST}: {error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SegueError(f"{file}: damaged, or not of an exported policy ({error}); export the policy again") from None
    if not whole:
        raise SegueError(f"{file}: damaged or edited (its hash does not match); export the policy again")
    return document


def digest(document: dict[str, Any]) -> str:
    """The hash of policy.json: of everything in it but this hash. It names the policy, weights included."""
    rest = {name: value for name, value in document.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def assemble(document: dict[str, Any], weights: bytes, where: str) -> ExportedPolicy:
    """The policy of a manifest and its weights, tried out once, so that parts which do not fit are found now.

    Raises:
        SegueError: if they do not fit together.
    """
    try:
        tensors = safetensors.numpy.load(weights)
        seen = tensors.pop(SEEN, NOTHING_SEEN)
        if seen.dtype != np.uint64 or seen.ndim != 1:
            raise ValueError(f"{SEEN} is not a list of fingerprints")
        for name, array in tensors.items():
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"{name} is not made of finite float32 numbers")
        mean, std = tensors.pop("observation.mean"), tensors.pop("observation.std")
        kind = put_together(document["policy"], tensors)
        if tensors:
            raise ValueError(f"{', '.join(tensors)} belong to no network")
        space, actions = document["observation_space"], _actions(document["action_space"])
        if mean.shape != (flat_size(space),) or std.shape != mean.shape or (std <= 0).any():
            raise ValueError("mean and standard deviation do not fit the observation space")
        policy = ExportedPolicy(kind, space, actions, mean, std, document, seen)
        tried = policy.act(np.tile(mean, (2, 1)), None, False)
        if tried.shape != ((2,) if isinstance(actions, DiscreteActions) else (2, actions.size)):
            raise ValueError(f"actions have shape {tried.shape[1:]}")
    except (
        safetensors.SafetensorError,
        SegueError,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
    ) as error:
        raise SegueError(f"{where}: the parts of the exported policy do not fit together ({error})") from None
    return policy


def _actions(plain: dict[str, Any]) -> Actions:
    if plain["type"] == "Discrete":
        return DiscreteActions(int(plain["n"]), int(plain["start"]))
    low, high = (np.array(plain[bound], np.float32) for bound in ("low", "high"))
    if low.ndim != 1 or low.shape != high.shape or not (low <= high).all() or not np.isfinite([low, high]).all():
        raise ValueError("the action bounds are not finite, or the wrong way round")
    return ContinuousActions(low, high)
