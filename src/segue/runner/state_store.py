"""Resumable states of one job on disk: the newest complete one counts, a damaged one is set aside.

    step-000000012000/   state.json, arrays.safetensors, and a manifest with the format and their SHA-256
    rows/                live transitions in parts, FIRST-STOP-SHA256.safetensors; written once, shared by the states

A state is there whole or not at all. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from segue.errors import SegueError
from segue.files import UNREADABLE, set_aside, write_atomically, write_directory
from segue.replay.replay_log import assemble

FORMAT = 2
#: States kept: if the newest proves damaged there is one before it.
KEPT = 2
#: The name of a part; other files are ignored.
PART = re.compile(r"(\d+)-(\d+)-[0-9a-f]{16}\.safetensors")


@dataclasses.dataclass(frozen=True)
class State:
    """What was saved at one step."""

    place: Path
    step: int
    plain: dict[str, Any]
    arrays: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    """The transitions of the ring, as `segue.replay.replay_log.assemble` gives them."""


class StateStore:
    """The states of one job.

    Args:
        directory: theirs alone; created by the first save.
        capacity: live transitions that the ring holds; older parts are removed. None keeps all.
    """

    def __init__(self, directory: Path, capacity: int | None = None) -> None:
        self.directory, self.capacity = directory, capacity
        self.count = 0

    def save(self, step: int, plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray], part: Any) -> None:
        """Write a state down, with the transitions that came in since the last; then drop what is no longer needed.

        Raises:
            SegueError: if it cannot be written; the states before are as they were.
        """
        if part:
            stop = self.count + len(part["reward"])
            content = save_arrays(dict(part))
            name = f"{self.count:012d}-{stop:012d}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
            self._make(self.directory / "rows")
            write_atomically(self.directory / "rows" / name, content)
            self.count = stop
        state = json.dumps({"step": step, "rows": self.count, "plain": plain}).encode()
        files = {"state.json": state, "arrays.safetensors": save_arrays({k: np.asarray(v) for k, v in arrays.items()})}
        digests = {name: _digest(FORMAT, content) for name, content in files.items()}
        manifest = json.dumps({"format": FORMAT, "sha256": digests}, indent=1).encode()
        write_directory(self.directory / f"step-{step:012d}", {**files, "manifest.json": manifest})
        with contextlib.suppress(OSError):  # what could not be removed is removed after the next save
            self._prune(KEPT)

    def newest(self, usable: Callable[[dict[str, Any]], None]) -> tuple[State | None, list[str]]:
        """The newest state that is whole, or None; and a sentence on each that is not, which is set aside.

        `usable` raises SegueError for one that cannot be gone on from.

        Raises:
            SegueError: for a state of another format.
        """
        notes: list[str] = []
        for partial in self.directory.glob(".*.partial"):
            shutil.rmtree(partial, ignore_errors=True)
        for partial in self.directory.glob("rows/.*.tmp"):
            partial.unlink()
        for place in sorted(self.directory.glob("step-*"), reverse=True):
            try:
                state = self._read(place)
                usable(state.plain)
            except _OtherFormat:
                raise
            except (SafetensorError, MemoryError, *UNREADABLE) as error:
                aside = set_aside(place)
                notes.append(f"the state at {place} is damaged ({error}); it is now {aside.name} and not used")
                continue
            self._forget_rows(lambda first, stop: stop > self.count)
            return state, notes
        self.count = 0
        if self._parts():  # of no use without a state, but somebody's transitions
            set_aside(self.directory / "rows")
        return None, notes

    def finish(self) -> None:
        """Keep the last state only: a run may be given a longer budget."""
        self._prune(1)

    def _read(self, place: Path) -> State:
        manifest = json.loads((place / "manifest.json").read_bytes())
        content = {name: (place / name).read_bytes() for name in ("state.json", "arrays.safetensors")}
        for name, data in content.items():
            if _digest(manifest["format"], data) != manifest["sha256"][name]:
                raise SegueError(f"{name} is not what was written")
        if manifest["format"] != FORMAT:
            raise _OtherFormat(f"{place}: state format {manifest['format']}; this version of Segue reads {FORMAT}")
        state = json.loads(content["state.json"])
        rows = self._read_rows(state["rows"])
        self.count = state["rows"]
        return State(place, state["step"], state["plain"], load_arrays(content["arrays.safetensors"]), rows)

    def _read_rows(self, count: int) -> dict[str, np.ndarray]:
        needed = 0 if self.capacity is None else max(count - self.capacity, 0)
        parts = []
        expected: int | None = None
        for first, stop, file in self._parts():
            if stop <= needed or first >= count:
                continue
            if first != expected and (expected is not None or first > needed):
                break
            content = file.read_bytes()
            if not hashlib.sha256(content).hexdigest().startswith(file.stem.rsplit("-", 1)[1]):
                raise SegueError(f"{file} is not what was written")
            try:
                parts.append((first, load_arrays(content)))
            except SafetensorError as error:
                raise SegueError(f"{file}: {error}") from None
            expected = stop
        if count > needed and expected != count:
            raise SegueError(f"transition {expected or needed:,} of {count:,} is missing in {self.directory / 'rows'}")
        return assemble(parts)

    def _parts(self) -> list[tuple[int, int, Path]]:
        found = []
        for file in sorted((self.directory / "rows").glob("*.safetensors")):
            name = PART.fullmatch(file.name)
            if name is not None:
                found.append((int(name[1]), int(name[2]), file))
        return found

    def _forget_rows(self, superfluous: Callable[[int, int], bool]) -> None:
        for first, stop, file in self._parts():
            if superfluous(first, stop):
                file.unlink()

    def _prune(self, keep: int) -> None:
        """Remove older states; and transitions that the ring of the oldest one kept no longer held."""
        places = sorted(self.directory.glob("step-*"))
        for place in places[:-keep]:
            removed = place.with_name(".removed.partial")
            shutil.rmtree(removed, ignore_errors=True)
            os.replace(place, removed)
            shutil.rmtree(removed, ignore_errors=True)
        if self.capacity is not None and places:
            oldest = json.loads((places[-keep:][0] / "state.json").read_bytes())["rows"] - self.capacity
            self._forget_rows(lambda first, stop: stop <= oldest)

    @staticmethod
    def _make(directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SegueError(f"{directory}: cannot be created: {error.strerror}") from None


def saved_step(directory: Path) -> int | None:
    """The step of the newest state of a job, by its name; None if none was saved."""
    steps = (place.name.removeprefix("step-") for place in directory.glob("step-*"))
    return max((int(step) for step in steps if step.isdecimal()), default=None)


class _OtherFormat(SegueError):
    """A state that another version of Segue wrote."""


def _digest(number: int, content: bytes) -> str:
    """SHA-256 of the format's number and a file: a damaged number is no other format."""
    return hashlib.sha256(f"{number} ".encode() + content).hexdigest()
