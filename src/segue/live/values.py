"""What applications send, as policies have it, and back: checked, so that nothing unusable gets into the log."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from segue.deployment.spaces import Actions, ContinuousActions, DiscreteActions, Space, flatten
from segue.errors import SegueError
from segue.live.messages import Decide

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class Refused(SegueError):
    """Something that was sent and cannot be taken.

    Attributes:
        status: of HTTP.
        code: why, in one word.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclasses.dataclass(frozen=True)
class LiveSpaces:
    """The observations and actions of a log, the same for all of its policies."""

    space: Space
    actions: Actions

    def flat(self, value: Any, what: str) -> Float[np.ndarray, " observation"]:
        """An observation, flattened, float32; `what` names it in errors. Raises Refused."""
        try:
            with np.errstate(over="ignore"):  # infinite, then, and refused below
                flat = flatten(self.space, value)
        except SegueError as error:
            raise Refused(422, "observation", f"{what}: {error}") from None
        if flat.ndim != 1:
            raise Refused(422, "observation", f"{what} has shape {flat.shape} flattened; expected one observation")
        if not np.isfinite(flat).all():
            raise Refused(422, "not_finite", f"{what} has {flat[~np.isfinite(flat)][0]}; expected finite numbers")
        return flat

    def mask(self, given: list[int] | None) -> Bool[np.ndarray, " actions"] | None:
        """Which actions are allowed; None: all. Raises Refused."""
        if given is None:
            return None
        actions = self.actions
        if not isinstance(actions, DiscreteActions):
            raise Refused(
                422, "allowed", "allowed actions were sent for a policy whose actions are numbers; leave it out"
            )
        mask = np.zeros(actions.size, bool)
        for one in given:
            if not actions.start <= one < actions.start + actions.size:
                last = actions.start + actions.size - 1
                raise Refused(422, "allowed", f"allowed has {one}; expected numbers from {actions.start} to {last}")
            mask[one - actions.start] = True
        if not mask.any():
            raise Refused(422, "allowed", "no action is allowed; expected at least one")
        return mask

    def done(self, request: Decide) -> np.ndarray:
        """What the application did, in apprentice mode. Raises Refused."""
        if request.action is None:
            raise Refused(422, "no_action", "the application acts in this episode: expected the action that was taken")
        if (log_prob := request.log_prob) is not None:
            if not math.isfinite(log_prob):
                raise Refused(422, "not_finite", f"log_prob is {log_prob}; expected a finite number")
            if log_prob > 1e-6 and isinstance(self.actions, DiscreteActions):
                raise Refused(
                    422, "log_prob", f"log_prob is {log_prob}; expected the logarithm of a probability: 0 or less"
                )
        return self.to_decision(request.action)

    def to_decision(self, given: Any) -> np.ndarray:
        """An action in the environment's units as policies have it. Raises Refused."""
        actions = self.actions
        if isinstance(actions, DiscreteActions):
            last = actions.start + actions.size - 1
            if not isinstance(given, int) or isinstance(given, bool) or not actions.start <= given <= last:
                raise Refused(422, "action", f"action is {given!r}; expected a number from {actions.start} to {last}")
            return np.asarray(given - actions.start, np.int64)
        try:
            action = np.asarray(given, np.float64)
        except (TypeError, ValueError):
            action = np.zeros(0)
        margin = 1e-4 * actions.half_range
        inside = action.shape == actions.low.shape and bool(
            ((action >= actions.low - margin) & (action <= actions.high + margin)).all()
        )
        if not inside:
            raise Refused(
                422, "action", f"action is {given!r}; expected {actions.size} numbers within the policy's bounds"
            )
        half = np.where(actions.half_range > 0, actions.half_range, 1)
        return ((action - actions.centre) / half).clip(-1, 1).astype(np.float32)

    def read_action(self, stored: bytes) -> np.ndarray:
        """An action of the log: [action] in [-1, 1], or a number from 0."""
        discrete = isinstance(self.actions, DiscreteActions)
        return np.frombuffer(stored, np.int64)[0] if discrete else np.frombuffer(stored, np.float32)

    def units(self, decision: np.ndarray) -> Any:
        """The same as the application has it: in the environment's units."""
        actions = self.actions
        if isinstance(actions, DiscreteActions):
            return int(decision) + actions.start
        centre, half_range = self._scale
        return np.clip(centre + half_range * decision, actions.low, actions.high).tolist()

    @functools.cached_property
    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(self.actions, ContinuousActions)
        return self.actions.centre, self.actions.half_range
