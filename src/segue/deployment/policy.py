"""The exported policy as it is used: read, checked, and called with observations, by NumPy and onnxruntime alone.

A directory of

policy.json       what it is: spaces, what it remembers, algorithm, where it comes from; hashes of the others and itself
policy.onnx       how it acts, greedily
exploring.onnx    how it acts while collecting data
density.onnx      how probable actions are, if that is known
seen.npy          fingerprints of the episodes that it has learnt from

The first two models take `observation`, `carry_0`, `carry_1` … (what the policy remembers of the steps before) and
`normal_2`, `uniform_3` … (random numbers of that distribution; the number only tells them apart). They give `action` in
the environment's units, `decision` (the same in [-1, 1] or counted from 0), `log_prob`, and `next_carry_0` ….

The third gives `greedy` and `exploring`, as far as they are known: log π(·|s) of every discrete action; or the
log-density of the continuous `action` in [-1, 1] that it takes beside `observation`.

Models of known probabilities of discrete actions also take `allowed`, bool [batch, actions]; without it, all are.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segue.acting import Acted, require_allowed
from segue.deployment.spaces import Actions, ContinuousActions, DiscreteActions, Space, flat_size, flatten
from segue.errors import SegueError
from segue.noise import DRAW

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt64

    from segue import rng
    from segue.networks.distributions import Kind

FORMAT = 5
MANIFEST, SEEN = "policy.json", "seen.npy"
GREEDY, EXPLORING, DENSITY = "policy.onnx", "exploring.onnx", "density.onnx"
#: What is there besides the manifest; the density only if it is known.
FILES = (GREEDY, EXPLORING, DENSITY, SEEN)
#: Outputs of the density model for the two ways of acting.
GIVES = {False: "greedy", True: "exploring"}

Arrays = dict[str, np.ndarray]


class Model:
    """An ONNX model with the noise that it takes.

    Raises:
        SegueError: if onnxruntime is not installed, or cannot read it.
    """

    def __init__(self, content: bytes) -> None:
        onnxruntime = _runtime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # More threads than one are slower for networks of this size.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._only_what_is_asked = onnxruntime.RunOptions()
        self._only_what_is_asked.only_execute_path_to_fetches = True
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common class
            raise SegueError(f"onnxruntime cannot read the model ({error})") from None
        self.noise = {
            value.name: (distribution, tuple(value.shape))
            for value in self._session.get_inputs()
            if (distribution := value.name.rpartition("_")[0]) in DRAW
        }
        """Distribution and shape of each input of random numbers; a dimension that is no number is the batch."""

    def draw(self, batch: int, source: rng.Source | None) -> Arrays:
        """The noise of one step, from a new generator if none is given."""
        if not self.noise:
            return {}
        source = np.random.default_rng() if source is None else source
        if not isinstance(source, np.random.Generator):
            raise SegueError(f"the source is {source!r}; expected a NumPy generator, from which exported policies draw")
        return {
            name: DRAW[distribution](source, tuple([size if isinstance(size, int) else batch for size in shape]))
            for name, (distribution, shape) in self.noise.items()
        }

    def run(self, outputs: Sequence[str], inputs: Arrays) -> list[np.ndarray]:
        """These outputs; nothing else is computed.

        Raises:
            SegueError: if the inputs are not those of the model.
        """
        try:
            return list(self._session.run(outputs, inputs, self._only_what_is_asked))
        except Exception as error:
            raise SegueError(f"the exported policy cannot act on these inputs ({error})") from None


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise SegueError("an exported policy needs the package onnxruntime: pip install 'segue[export]'") from None
    return onnxruntime


class Decision(NamedTuple):
    """What an exported policy did, with axes as the observation has them."""

    action: Float[np.ndarray, "*batch action"] | Int[np.ndarray, "*batch"]
    """In the environment's units, or the action's number there."""
    decision: Float[np.ndarray, "*batch action"] | Int[np.ndarray, "*batch"]
    """The same in [-1, 1], or counted from 0."""
    log_prob: Float[np.ndarray, "*batch"]
    """log b(a|s) of the decision; NaN where it is not known."""


class ExportedPolicy:
    """A trained policy: observations in the environment's own form to actions in its own units.

    Without state, so one may be shared between threads. For whole episodes use `start` and `act` (segue.acting): a
    policy may remember what it did before.

    Args:
        greedy: how it acts.
        exploring: how it acts while collecting data.
        density: how probable actions are; None if that is not known.
        about: the content of policy.json: spaces, and where the policy comes from.
        seen: fingerprints of the episodes that it has learnt from (`Dataset.episode_fingerprints`). Off-policy
            evaluation needs them.
    """

    def __init__(
        self,
        greedy: Model,
        exploring: Model,
        density: Model | None,
        about: dict[str, Any],
        seen: UInt64[np.ndarray, " episodes"],
    ) -> None:
        self._models, self._density, self.about, self.seen = {False: greedy, True: exploring}, density, about, seen
        self.dependence: str | None = about["dependence"]
        """Why its actions depend on more than the observation; None if they do not."""
        self.space: Space = about["observation_space"]
        self.actions: Actions = read_actions(about["action_space"])
        self._fresh = [np.array([part["start"]], part["dtype"]) for part in about["carry"]]
        self._asked = ["decision", *(f"next_carry_{i}" for i in range(len(self._fresh)))]

    def __repr__(self) -> str:
        parts = " + ".join(part["name"] for part in (self.about["algorithm"], *self.about["bridges"]))
        actions = self.actions
        if isinstance(actions, DiscreteActions):
            gives = f"() from {actions.start} to {actions.start + actions.size - 1}"
        else:
            gives = f"({actions.size},) from {actions.low.min():g} to {actions.high.max():g}"
        seen = f"{self.space['type']} ({flat_size(self.space)},) as the environment gives them"
        return f"ExportedPolicy({parts}; observations {seen}; actions {gives})"

    def __call__(
        self,
        observation: Any,
        *,
        explore: bool = False,
        source: np.random.Generator | None = None,
        allowed: Bool[np.ndarray, "*batch actions"] | None = None,
    ) -> Float[np.ndarray, "*batch action"] | Int[np.ndarray, "*batch"]:
        """The action in the environment's units (float32 within its bounds), or its number.

        A policy that remembers acts as in the first step of an episode.

        Args:
            observation: as the environment gives it, or flattened; a batch has leading axes (each part of it, if it is
                made of parts).
            explore: with the noise that it explored with in training, instead of greedily.
            source: of the random numbers, if it draws any; by default a new one.
            allowed: which discrete actions can be taken, counted from the first; by default all.

        Raises:
            SegueError: for an observation of another shape, or one that NaN, infinity or its size make meaningless; or
                if `allowed` has another shape, allows nothing, or is given for a policy that cannot keep to it.
        """
        return self._first_step(("action",), observation, explore, source, allowed)[0]

    def decide(
        self,
        observation: Any,
        *,
        explore: bool = False,
        source: np.random.Generator | None = None,
        allowed: Bool[np.ndarray, "*batch actions"] | None = None,
    ) -> Decision:
        """What a call gives, and how probable it was, by one run of the model.

        Arguments and errors are a call's.
        """
        return Decision(*self._first_step(Decision._fields, observation, explore, source, allowed))

    def _first_step(
        self,
        outputs: Sequence[str],
        observation: Any,
        explore: bool,
        source: np.random.Generator | None,
        allowed: Bool[np.ndarray, "*batch actions"] | None,
    ) -> list[np.ndarray]:
        """These outputs of the first step of an episode, the action first."""
        flat = flatten(self.space, observation)
        rows, lead = flat.reshape(-1, flat.shape[-1]), flat.shape[:-1]
        if allowed is not None:
            mask = np.asarray(allowed)
            allowed = mask.reshape(-1, mask.shape[-1]) if mask.shape[:-1] == lead and mask.ndim else mask
        model = self._models[explore]
        inputs = self._inputs(model, rows, self.start(len(rows)), source)
        given = model.run(outputs, {**inputs, **self._mask(explore, allowed, len(rows))})
        if isinstance(self.actions, DiscreteActions):
            given[0] = given[0].astype(np.int64)
            _require_meaning(given[0], self.actions.start, flat)
        else:
            _require_meaning(given[0], None, flat)
        return [value.reshape(lead + value.shape[1:]) for value in given]

    def start(self, batch: int) -> tuple[np.ndarray, ...]:
        """What is carried into the first step of so many episodes; nothing for most policies."""
        return tuple([np.repeat(part, batch, axis=0) for part in self._fresh])

    def act(
        self,
        observation: Float[np.ndarray, "batch observation"],
        carry: tuple[np.ndarray, ...],
        source: rng.Source | None,
        explore: bool,
        allowed: Bool[np.ndarray, "batch actions"] | None = None,
        *,
        log_prob: bool = False,
    ) -> Acted:
        """One step of episodes that run side by side: actions in [-1, 1], or counted from 0.

        Args:
            observation: flattened.
            carry: of the step before, or `start`'s.
            source: of the random numbers, if it draws any: a NumPy generator, by default a new one.
            explore: whether to act as while collecting data.
            allowed: which discrete actions can be taken; by default all.
            log_prob: compute the log-probability in the same run of the model; otherwise asking for it is another run.

        Raises:
            SegueError: for an observation that NaN, infinity or its size make meaningless; or if `allowed` has another
                shape, allows nothing, or is given for a policy that cannot keep to it.
        """
        flat = np.asarray(observation, np.float32)
        model = self._models[explore]
        inputs = {**self._inputs(model, flat, carry, source), **self._mask(explore, allowed, len(flat))}
        asked = [*self._asked, "log_prob"] if log_prob else self._asked
        decision, *following = model.run(asked, inputs)
        _require_meaning(decision, 0 if isinstance(self.actions, DiscreteActions) else None, flat)
        known = following.pop() if log_prob else None
        return Acted(decision, lambda: model.run(["log_prob"], inputs)[0] if known is None else known, tuple(following))

    def kind(self, explore: bool) -> Kind:
        """What is known of the distribution that it draws from (segue.networks.distributions)."""
        kind: Kind = self.about["distribution"][GIVES[explore]]
        return kind

    def log_prob(
        self,
        observation: Float[np.ndarray, "batch observation"],
        action: Float[np.ndarray, "batch action"] | Int[np.ndarray, " batch"],
        *,
        explore: bool = False,
        allowed: Bool[np.ndarray, "batch actions"] | None = None,
    ) -> Float[np.ndarray, " batch"]:
        """log π(a|s) of given actions: a probability, or a density over [-1, 1]; NaN of a certain continuous action.

        Args:
            observation: flattened.
            action: in [-1, 1], or counted from 0.
            explore: of the policy as it acts while collecting data, instead of greedily.
            allowed: which discrete actions could be taken; by default all.

        Raises:
            SegueError: if it is not known; for other shapes, actions out of range, and what `act` refuses.
        """
        given, size, discrete = np.asarray(action), self.actions.size, isinstance(self.actions, DiscreteActions)
        expected = (len(observation),) if discrete else (len(observation), size)
        low, high = (0, size - 1) if discrete else (-1, 1)
        within = given.dtype.kind in "iuf"[: 2 if discrete else 3] and ((given >= low) & (given <= high)).all()
        if given.shape != expected or not within:
            raise SegueError(
                f"the actions are {given.dtype} of shape {given.shape}; expected shape {expected} and "
                f"{'integers' if discrete else 'numbers'} from {low} to {high}"
            )
        if discrete:
            log_probs = self.log_probs(observation, explore=explore, allowed=allowed)
            return np.take_along_axis(log_probs, given[:, None], axis=1)[:, 0]
        if self.kind(explore) == "certain" and allowed is None:
            return np.full(len(given), np.nan, np.float32)
        return self._known(explore, observation, allowed, action=given.astype(np.float32))

    def log_probs(
        self,
        observation: Float[np.ndarray, "batch observation"],
        *,
        explore: bool = False,
        allowed: Bool[np.ndarray, "batch actions"] | None = None,
    ) -> Float[np.ndarray, "batch actions"]:
        """log π(·|s) of every discrete action.

        Arguments and errors are those of `log_prob`.
        """
        if not isinstance(self.actions, DiscreteActions):
            raise SegueError("its actions are continuous, so they cannot be listed; use log_prob")
        return self._known(explore, observation, allowed)

    def _known(self, explore: bool, observation: Any, allowed: Any, **action: np.ndarray) -> np.ndarray:
        """An output of the density model."""
        flat = np.asarray(observation, np.float32)
        inputs = {"observation": flat, **action, **self._mask(explore, allowed, len(flat))}
        if self._density is None or self.kind(explore) == "draws":
            why = (
                self.dependence or f"{self.about['algorithm']['name']} draws its actions from no density that is known"
            )
            raise SegueError(f"{why}; the probability of a given action is not known")
        (found,) = self._density.run([GIVES[explore]], inputs)
        if np.isnan(found).any():
            raise SegueError(_not_finite(flat))
        return found

    def _mask(self, explore: bool, allowed: Any, batch: int) -> Arrays:
        """The input that says what is allowed."""
        if allowed is None:
            return {}
        if self.kind(explore) != "discrete":
            why = self.dependence or f"{self.about['algorithm']['name']} has no probabilities of discrete actions"
            raise SegueError(f"{why}, and cannot keep to allowed actions: leave allowed out")
        return {"allowed": require_allowed(allowed, (batch, self.actions.size))}

    def _inputs(
        self, model: Model, flat: np.ndarray, carry: tuple[np.ndarray, ...], source: rng.Source | None
    ) -> Arrays:
        inputs = {"observation": flat}
        inputs.update({f"carry_{i}": part for i, part in enumerate(carry)})
        inputs.update(model.draw(len(flat), source))
        return inputs


def _require_meaning(action: np.ndarray, first: int | None, flat: np.ndarray) -> None:
    """A model cannot raise: it gives NaN, or a number below the first, for observations that have no action."""
    # The dot product is NaN where any number is; no other check is as fast for a few numbers.
    if math.isnan(np.vdot(action, action)) if first is None else (action < first).any():
        raise SegueError(_not_finite(flat))


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
        SegueError: if it is missing, damaged, or of another format, or onnxruntime is not installed.
    """
    directory = Path(path)
    document = read_manifest(directory)
    files = {}
    for name in document["files"]:
        file = directory / name
        try:
            files[name] = file.read_bytes()
        except OSError as error:
            raise SegueError(f"{file}: cannot be read: {error.strerror}; export the policy again") from None
        if hashlib.sha256(files[name]).hexdigest() != document["files"][name]:
            raise SegueError(f"{file}: damaged (its hash is not the one in {MANIFEST}); export the policy again")
    return assemble(document, files, str(directory))


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
        whole = document["sha256"] == digest(document) and set(document["files"]) | {DENSITY} == set(FILES)
    except OSError as error:
        trained = directory if any((directory / name).exists() for name in ("checkpoints", "manifest.json")) else "RUN"
        raise SegueError(
            f"{directory}: no exported policy here ({MANIFEST}: {error.strerror}); expected a folder that "
            f"`segue export {trained} --to FOLDER` wrote"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SegueError(f"{file}: damaged, or not of an exported policy ({error}); export the policy again") from None
    if not whole:
        raise SegueError(f"{file}: damaged or edited (its hash does not match); export the policy again")
    return document


def digest(document: dict[str, Any]) -> str:
    """The hash of policy.json: of everything in it but this hash. It names the policy, weights included."""
    rest = {name: value for name, value in document.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def assemble(document: dict[str, Any], files: Mapping[str, bytes], where: str) -> ExportedPolicy:
    """The policy of a manifest and the other files, tried out once, so that parts which do not fit are found now.

    Raises:
        SegueError: if they do not fit together, or onnxruntime is not installed.
    """
    _runtime()
    try:
        greedy, exploring = (Model(files[name]) for name in (GREEDY, EXPLORING))
        density = Model(files[DENSITY]) if DENSITY in files else None
        seen = np.load(io.BytesIO(files[SEEN]), allow_pickle=False)
        if seen.dtype != np.uint64 or seen.ndim != 1:
            raise ValueError(f"{SEEN} is not a list of fingerprints")
        policy = ExportedPolicy(greedy, exploring, density, document, seen)
        expected = (2,) if isinstance(policy.actions, DiscreteActions) else (2, policy.actions.size)
        for explore in (False, True):
            zeros = np.zeros((2, flat_size(policy.space)), np.float32)
            action = np.asarray(policy.act(zeros, policy.start(2), None, explore).action)
            if action.shape != expected:
                raise ValueError(f"actions have shape {action.shape[1:]}")
            if policy.kind(explore) != "draws" and policy.log_prob(zeros, action, explore=explore).shape != (2,):
                raise ValueError("an action has no one probability")
    except Exception as error:  # those of damaged parts have no common class
        raise SegueError(f"{where}: the parts of the exported policy do not fit together ({error})") from None
    return policy


def read_actions(plain: dict[str, Any]) -> Actions:
    """The action space of a manifest.

    Raises:
        ValueError: if its bounds are none.
    """
    if plain["type"] == "Discrete":
        return DiscreteActions(int(plain["n"]), int(plain["start"]))
    low, high = (np.array(plain[bound], np.float32) for bound in ("low", "high"))
    if low.ndim != 1 or low.shape != high.shape or not (low <= high).all() or not np.isfinite([low, high]).all():
        raise ValueError("the action bounds are not finite, or the wrong way round")
    return ContinuousActions(low, high)
