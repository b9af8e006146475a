"""What applications say to the service, and what it answers; as JSON, and in Python."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

#: Without control characters, of which a database may not take all.
Id = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*$")]
Text = Annotated[str, Meta(max_length=2000, pattern=r"^[^\x00]*$")]
Share = Annotated[float, Meta(ge=0, le=1)]


class Begin(Struct, forbid_unknown_fields=True):
    """An episode begins; a first decision does it, too."""

    episode_id: Id
    unit_id: Id | None = None
    """Who or what it is about (a user, a patient, a robot), which keeps its arm; by default the episode itself."""


class Begun(Struct):
    """Who acts in an episode."""

    episode_id: str
    unit_id: str
    arm: str
    policy: str
    probability: float
    """Of this arm, when the unit was assigned."""


class Decide(Struct, forbid_unknown_fields=True):
    """What should be done?"""

    decision_id: Id
    """A retry with the same id is given the same answer."""
    episode_id: Id
    observation: Any
    """In the form of the policy's observation space."""
    unit_id: Id | None = None
    allowed: list[int] | None = None
    """The actions there are, if not all; discrete policies only."""
    action: Any = None
    """In apprentice mode: what the application did."""
    log_prob: float | None = None
    """In apprentice mode: how probable that was, if it is known."""


class Decided(Struct):
    """What to do."""

    decision_id: str
    episode_id: str
    t: int
    """Step of the episode, from 0."""
    action: Any
    """In the environment's units: numbers, or one whole number."""
    log_prob: float | None
    """log b(a|s): a density over actions scaled to [-1, 1], or a probability; null if it is not known."""
    arm: str
    policy: str
    mode: str


class Outcome(Struct, forbid_unknown_fields=True):
    """What came of a decision."""

    decision_id: Id
    reward: float
    outcome_id: Id | None = None
    """By default the decision's id."""
    cost: float | None = None
    next_observation: Any = None
    """If no further decision of the episode follows with it."""
    terminated: bool = False
    """The episode has ended, and nothing follows."""
    truncated: bool = False
    """The episode was cut off: it could have gone on."""


class Activation(Struct, forbid_unknown_fields=True):
    """Whether a decision was executed."""

    decision_id: Id
    executed: bool
    action: Any = None
    """What was done instead, if it is known."""
    who: Text = ""
    """What or who overrode it."""


class Noted(Struct):
    """What became of an outcome or an activation."""

    decision_id: str
    status: str
    """recorded, or already recorded."""


class Problem(Struct):
    """Why something was not taken."""

    code: str
    message: str
