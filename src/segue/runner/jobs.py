"""One job as plain data: one phase of one seed, so that it runs the same in this process or in a worker of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from segue.recipe import CHECKPOINT_EVERY


class Started(TypedDict):
    """A job began, or goes on."""

    event: Literal["start"]


class Progress(TypedDict):
    """How far a phase is: updates offline, environment steps online."""

    event: Literal["progress"]
    phase: str
    step: int
    total: int


class Evaluation(TypedDict):
    """The policy was judged: undiscounted returns of whole episodes, and their mean; costs where they are recorded."""

    event: Literal["evaluation"]
    phase: str
    step: int
    mean_return: float
    returns: list[float]
    mean_cost: NotRequired[float]
    costs: NotRequired[list[float]]


class Metrics(TypedDict):
    """What the updates reported since the last metrics, by name: losses, Q values and the like."""

    event: Literal["metrics"]
    phase: str
    step: int
    values: dict[str, float]


class Note(TypedDict):
    """A sentence for people."""

    event: Literal["note"]
    message: str


class Finished(TypedDict):
    """A job ended: complete, interrupted or failed."""

    event: Literal["end"]
    status: str


class Exited(TypedDict):
    """A worker process ended: complete, interrupted or failed (with the error); not passed on to `on_event`."""

    event: Literal["exit"]
    status: str
    error: str


#: What `on_event` is told, as plain data; `event["event"]` says which one it is.
Event = Started | Progress | Evaluation | Metrics | Note | Finished
#: What a result holds besides the handover's sentences, which a summary can do without.
FIELDS = {
    "steps",
    "score",
    "wall_time_s",
    "evaluation_s",
    "compile_s",
    "updates_per_second",
    "parameters_sha256",
}

#: The fields of a recipe that its offline phase depends on; arms that agree on them share it.
OFFLINE_FIELDS = (
    "dataset",
    "clip_actions",
    "held_out",
    "held_out_seed",
    "env",
    "env_kwargs",
    "env_wrappers",
    "max_episode_steps",
    "offline",
    "offline_steps",
    "patience",
    "dataset_hindsight",
    "normalise_observations",
    "eval_every",
    "eval_episodes",
    "cost",
)

#: The fields of a job that are paths.
FOLDERS = ("home", "records", "checkpoints", "tensorboard", "states", "pretrained")


@dataclasses.dataclass(frozen=True)
class Job:
    """A phase of a recipe for one seed.

    `home` is the run directory, in which `records`, `checkpoints` and `states` are its own; `pretrained` is the offline
    job's checkpoint, if there is one. `dataset_at` names the dataset on a machine that does not know the recipe's name
    for it. The job saves where it stands every `checkpoint_every` seconds.
    """

    phase: Literal["offline", "online"]
    label: str
    recipe: dict[str, Any]
    home: Path
    seed: int
    records: Path
    checkpoints: Path
    tensorboard: Path
    states: Path
    pretrained: Path | None = None
    dataset_at: str | None = None
    checkpoint_every: float = CHECKPOINT_EVERY

    @property
    def steps(self) -> int:
        """Its budget."""
        return self.recipe[f"{self.phase}_steps"]

    def to_json(self) -> str:
        """For the command line of a worker."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that `to_json` wrote."""
        plain = json.loads(text)
        for name in FOLDERS:
            plain[name] = None if plain[name] is None else Path(plain[name])
        return cls(**plain)

    def absolute(self) -> Job:
        """The same job for a process that runs in another folder."""
        folders = {name: getattr(self, name) for name in FOLDERS}
        return dataclasses.replace(self, **{name: path and path.absolute() for name, path in folders.items()})

    def result(self) -> dict[str, Any] | None:
        """What the finished job wrote; None if it is not finished, or was with a smaller budget.

        A damaged result is none: the job goes on from its last state, which is that of its end, and writes it again.
        """
        try:
            result = json.loads((self.records / "result.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        whole = isinstance(result, dict) and result.keys() >= FIELDS
        return result if whole and result["steps"] == self.steps else None
