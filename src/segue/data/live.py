"""The log of a live service: `live:live.db`, `live:sqlite:///live.db`, `live:postgresql://…` (docs/learn.md)."""

from __future__ import annotations

import dataclasses
import json
from typing import Any
from urllib.parse import parse_qsl, urlencode

import numpy as np

from segue.data.dataset import Columns, log_volume
from segue.data.encoding import Encoding
from segue.deployment.policy import read_actions
from segue.deployment.spaces import DiscreteActions
from segue.envs.spec import Environment
from segue.errors import DataError, SegueError, unknown
from segue.live.database import Database, open_database

#: What may follow a `?`: SQL for it, with `?` for its value, where a query has one.
OPTIONS = {
    "arm": "arm = ?",
    "policy": "substr(policy, 1, ?) = ?",
    "mode": "mode = ?",
    "from": "assigned > ?",
    "to": "",
    "propensities": "",
}
#: Rows of the log per query.
PAGE = 50_000


@dataclasses.dataclass(frozen=True)
class Place:
    """A log, and which part of it is meant."""

    url: str
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Place:
        """What follows `live:`.

        Raises:
            DataError: for an option that there is none of, or a value that does not fit.
        """
        url, _, query = text.partition("?")
        pairs = dict(parse_qsl(query, keep_blank_values=True))
        options = {name: value for name, value in pairs.items() if name in OPTIONS}
        rest = {name: value for name, value in pairs.items() if name not in OPTIONS}
        if rest and url.startswith(("postgresql://", "postgres://")):  # options of the connection
            url = f"{url}?{urlencode(rest)}"
        elif rest:
            raise DataError(f"live:{text}: {unknown('option', next(iter(rest)), OPTIONS)}")
        for name in ("from", "to"):
            if name in options and not options[name].isdecimal():
                raise DataError(f"live:{text}: {name} is {options[name]!r}; expected the number of a row of the log")
        if options.get("propensities", "known") != "known":
            raise DataError(f"live:{text}: propensities is {options['propensities']!r}; expected known")
        return cls(url, options)

    def where(self, *names: str) -> tuple[str, list[Any]]:
        """The condition that these options make, and its values."""
        given = {name: self.options[name] for name in names if name in self.options}
        values: list[Any] = []
        for name, value in given.items():
            values += [int(value)] if name == "from" else [len(value), value] if name == "policy" else [value]
        return " AND ".join(["1 = 1", *(OPTIONS[name] for name in given)]), values


def read(name: str) -> Columns:
    """The transitions of a live service's log: `live:live.db?arm=live`, also policy=, mode=, from=, to= (row numbers).

    Raises:
        DataError: there is no such log, it cannot be read, or nothing in it is complete.
    """
    source, place = f"live:{name}", Place.parse(name)
    try:
        database = open_database(place.url, create=False)
        try:
            return _Reading(source, place, database).columns()
        finally:
            database.close()
    except DataError:
        raise
    except SegueError as error:
        raise DataError(f"{source}: {error}") from None


class _Reading:
    def __init__(self, source: str, place: Place, database: Database) -> None:
        self.source, self.place, self.database = source, place, database
        [(last,)] = database.read("SELECT seq FROM counter")
        self.last = min(last, int(place.options.get("to", last)))
        manifests = database.read("SELECT manifest FROM policies ORDER BY seq LIMIT 1")
        if not manifests:
            raise DataError(f"{source}: the log is empty: it has no policy and no decision")
        self.about = json.loads(manifests[0][0])
        self.discrete = isinstance(read_actions(self.about["action_space"]), DiscreteActions)
        self.notes: list[str] = []

    def columns(self) -> Columns:
        steps = self._steps()
        order = np.lexsort((steps["t"], steps["assigned"]))
        steps = {name: column[order] for name, column in steps.items()}
        if self.place.options.get("propensities") == "known":
            steps = self._with_propensities(steps)
        goes_on = (np.diff(steps["assigned"]) == 0) & (np.diff(steps["t"]) == 1)
        ends = np.append(~goes_on, True) | steps["terminated"] | steps["truncated"]
        env = None if self.about["env"] is None else Environment.read(self.about["env"])
        encoding = self.about["encoding"]
        return Columns(
            observations=steps["observation"],
            rewards=steps["reward"],
            terminals=steps["terminated"],
            timeouts=ends & ~steps["terminated"],
            next_observations=steps["next_observation"],
            env_id=None if env is None else env.name,
            env_spec=None if env is None else env.options(),
            cost=self._whole("cost", steps["cost"], "cost"),
            encoding=None if encoding is None else Encoding.from_dict(encoding),
            **self._actions(steps),
            notes=tuple(self.notes),
        )

    def _steps(self) -> dict[str, np.ndarray]:
        """What is complete, in order of the log; the rest is counted."""
        condition, values = self.place.where("arm", "policy", "mode", "from")
        [(decided,)] = self.database.read(
            "SELECT COUNT(*) FROM (SELECT d.seq, d.policy, d.mode, e.arm, e.seq AS assigned FROM decisions d "
            f"JOIN episodes e ON e.episode = d.episode) AS decided WHERE {condition} AND seq <= ?",
            *values,
            self.last,
        )
        pages, seen, overridden, unknown_action = [], 0, 0, 0
        for first in range(0, self.last, PAGE):
            rows = self.database.read(
                "SELECT executed, activated, replaced_by, decided, decided_log_prob, assigned, t, observation, reward, "
                f"cost, next_observation, terminated, truncated FROM steps WHERE seq > ? AND seq <= ? AND {condition}",
                first,
                min(first + PAGE, self.last),
                *values,
            )
            seen += len(rows)
            kept = []
            for executed, activated, replaced_by, action, log_prob, *rest in rows:
                if executed == 0 and activated <= self.last:
                    overridden, unknown_action = overridden + 1, unknown_action + (replaced_by is None)
                    action, log_prob = replaced_by, None
                following, terminated = rest[5], rest[6]
                if action is not None and (terminated or following is not None):
                    kept.append((action, log_prob, *rest))
            if kept:
                pages.append(self._arrays(kept))
        complete = sum(len(page["t"]) for page in pages)
        self._note(decided - complete - unknown_action, "have no outcome or no next observation (yet): left out")
        self._note(overridden - unknown_action, "were overridden: they count with the action taken, without propensity")
        self._note(unknown_action, "were not executed, and what was done is unknown: left out, a trajectory ends there")
        if not pages:
            raise DataError(
                f"{self.source}: none of {decided:,} decisions is complete; expected an outcome, and the next decision "
                "or a next_observation"
            )
        return {name: np.concatenate([page[name] for page in pages]) for name in pages[0]}

    def _arrays(self, rows: list[tuple[Any, ...]]) -> dict[str, np.ndarray]:
        action, log_prob, assigned, t, observation, reward, cost, following, terminated, truncated = zip(
            *rows, strict=True
        )
        count = len(rows)
        # What follows a terminal has no effect; the row needs some observation.
        after = [now if then is None else then for now, then in zip(observation, following, strict=True)]
        kind = np.int64 if self.discrete else np.float32
        actions = np.frombuffer(b"".join(action), kind)
        known = [np.nan if value is None else value for value in log_prob]
        return {
            "assigned": np.array(assigned, np.int64),
            "t": np.array(t, np.int64),
            "observation": np.frombuffer(b"".join(observation), np.float32).reshape(count, -1),
            "next_observation": np.frombuffer(b"".join(after), np.float32).reshape(count, -1),
            "action": actions if self.discrete else actions.reshape(count, -1),
            "log_prob": np.where(np.isfinite(known), known, np.nan),
            "reward": np.array(reward, np.float64),
            "cost": np.array([np.nan if value is None else value for value in cost]),
            "terminated": np.array(terminated, bool),
            "truncated": np.array(truncated, bool),
        }

    def _with_propensities(self, steps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Without the episodes in which a propensity is missing."""
        without = np.unique(steps["assigned"][np.isnan(steps["log_prob"])])
        kept = ~np.isin(steps["assigned"], without)
        if not kept.any():
            raise DataError(f"{self.source}: every episode has a step without propensity; leave propensities=known out")
        if len(without):
            self.notes.append(f"{len(without):,} episodes have a step without propensity: left out")
        return {name: column[kept] for name, column in steps.items()}

    def _actions(self, steps: dict[str, np.ndarray]) -> dict[str, Any]:
        """Actions in the environment's units, what there is to choose from, and their propensities."""
        log_prob = self._whole("propensity", steps["log_prob"], "behaviour_log_prob")
        actions = read_actions(self.about["action_space"])
        if isinstance(actions, DiscreteActions):
            return {
                "actions": steps["action"],
                "discrete_actions": actions.size,
                "behaviour_log_prob": log_prob,
            }
        low, high = actions.low.astype(np.float64), actions.high.astype(np.float64)
        units = (low + high) / 2 + (high - low) / 2 * steps["action"].astype(np.float64)
        return {
            "actions": units.clip(low, high),
            "action_bounds": (low, high),
            # The log has densities over [-1, 1].
            "behaviour_log_prob": None if log_prob is None else log_prob - log_volume(low, high),
        }

    def _whole(self, what: str, column: np.ndarray, name: str) -> np.ndarray | None:
        """The column if every row has it."""
        missing = int(np.isnan(column).sum())
        if 0 < missing < len(column):
            hint = "; ?propensities=known keeps the episodes that have them" if what == "propensity" else ""
            self.notes.append(
                f"{missing:,} of {len(column):,} transitions have no {what}, so there is no {name!r}{hint}"
            )
        return column if not missing else None

    def _note(self, count: int, what: str) -> None:
        if count:
            self.notes.append(f"{count:,} decisions {what}")
