"""LeRobot datasets of version 2 and 3: `lerobot:FOLDER`, the robot's state and its action. Videos are not read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segue.data import files, tabular
from segue.data.dataset import Columns
from segue.data.table import Table, completed
from segue.errors import DataError

STATES = ("observation.state", "observation.environment_state")
EPISODE, STEP, ACTION, REWARD = "episode_index", "frame_index", "action", "next.reward"


def read(place: str) -> Columns:
    """LeRobot's folder (`meta/`, `data/`): state and action; rewards by --reward COLUMN, success or module:function.

    Raises:
        DataError: it is no such folder, a file is damaged or cut short, or a column is missing.
    """
    table = Table.parse(place)
    assert table.paths is not None
    folder = Path(",".join(table.paths)).expanduser()
    source = f"lerobot:{folder}"
    info = _info(source, folder)
    found = sorted(str(path) for path in folder.glob("data/**/*.parquet"))
    if not found:
        raise DataError(f"{source}: there is no data/**/*.parquet in it; copy the folder 'data' too")
    whole, paths, lengths = tabular.from_files("parquet", found)
    names = whole.column_names
    if EPISODE not in names or STEP not in names:
        raise DataError(f"{source}: its files have no {EPISODE!r} or no {STEP!r}; there is {', '.join(names)}")
    usual = Table(
        None,
        episode=EPISODE,
        step=STEP,
        observation=[name for name in STATES if name in names] or None,
        action=ACTION,
        reward=REWARD if REWARD in names else tabular.NONE,
        action_low=tabular.OF_THE_DATA,
        action_high=tabular.OF_THE_DATA,
    )
    entries = {name: list(_flat(feature.get("names"))) for name, feature in info.get("features", {}).items()}
    reading = tabular.Reading(completed(table, usual), whole, paths, lengths, "parquet", entries)
    reading.notes += _missing(source, folder, info, whole)
    return reading.columns()


def _info(source: str, folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise DataError(
            f"{source}: there is no such folder; expected a downloaded dataset, with 'meta' and 'data' in it"
        )
    path = folder / "meta" / "info.json"
    if not path.is_file():
        raise DataError(f"{source}: there is no meta/info.json in it; copy the folder 'meta' too")
    try:
        info = json.loads(path.read_text())
        if not isinstance(info, dict) or "codebase_version" not in info:
            raise ValueError("expected an object with a 'codebase_version'")
        features = info.get("features", {})
        if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
            raise ValueError("'features' is no object that holds objects")
        if not isinstance(info.get("total_episodes", 0), int):
            raise ValueError("'total_episodes' is no whole number")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as LeRobot's info.json ({files.reason(error)})") from error
    version = str(info["codebase_version"])
    if not version.startswith(("v2.", "v3.")):
        raise DataError(f"{source}: LeRobot's format {version}; expected v2 or v3, to which its own scripts convert")
    return info


def _flat(names: Any) -> Iterator[str]:
    """LeRobot nests names in lists and objects, as robots do."""
    if isinstance(names, dict):
        names = list(names.values())
    if isinstance(names, list):
        for name in names:
            yield from _flat(name)
    elif names is not None:
        yield str(names)


def _missing(source: str, folder: Path, info: dict[str, Any], whole: Any) -> list[str]:
    """A note on episodes that are not there.

    Raises:
        DataError: if one that is there has fewer or more rows than the metadata say.
    """
    present, counts = np.unique(whole[EPISODE].to_numpy(), return_counts=True)
    promised = _lengths(folder)
    for episode, count in zip(present.tolist(), counts.tolist(), strict=True):
        if promised.get(episode, count) != count:
            raise DataError(
                f"{source}: episode {episode} has {count:,} rows, its metadata say {promised[episode]:,}; copy or "
                "download it again"
            )
    total = max(len(promised), info.get("total_episodes", 0))
    if len(present) >= total:
        return []
    absent = sorted(set(promised or range(total)) - set(present.tolist()))
    shown = ", ".join(map(str, absent[:3])) + (" …" if len(absent) > 3 else "")
    return [f"{len(present):,} of {total:,} episodes are here; missing: {shown}"]


def _lengths(folder: Path) -> dict[int, int]:
    """Steps by episode, as the metadata say: one JSON line each in version 2, Parquet in version 3."""
    import pyarrow as pa
    import pyarrow.parquet

    lines = folder / "meta" / "episodes.jsonl"
    try:
        if lines.exists():
            rows = [json.loads(line) for line in lines.read_text().splitlines() if line.strip()]
        else:
            parts = sorted(folder.glob("meta/episodes/**/*.parquet"))
            read = pa.parquet.read_table
            rows = [row for part in parts for row in read(part, columns=["episode_index", "length"]).to_pylist()]
        return {int(row["episode_index"]): int(row["length"]) for row in rows}
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}/meta: the list of episodes cannot be read ({files.reason(error)})") from error
