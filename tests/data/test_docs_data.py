"""docs/data.md: every command and every line of Python of its table of formats does what it says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import test_live_data as live
from made_logs import as_dict, make_episodes
from test_formats import lerobot

import segue
from segue.cli.main import main
from segue.data.convert import convert

PAGE = (Path(__file__).parents[2] / "docs/data.md").read_text()
FORMATS = re.findall(r"^\| [^|]+ \| (?:`(segue inspect [^`]+)`|–) \| `([^`]+)` \|$", PAGE, re.MULTILINE)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The files of the page, in the current folder, and its variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    (tmp_path / "root").mkdir()
    (tmp_path / "logs").mkdir()
    made = make_episodes([(3, True), (4, True)])
    arrays = as_dict(made, next_observations=False)
    episode = np.repeat([0, 1], [3, 4])
    columns = {"episode": episode, "action_0": arrays["actions"][:, 0], "reward": arrays["rewards"]}
    columns["terminated"] = arrays["terminals"]
    foreign = pa.table({**columns, **{f"f_{i}": arrays["observations"][:, i] for i in range(3)}})
    frame = pa.table({**columns, **{f"obs_{i}": arrays["observations"][:, i] for i in range(3)}})
    for name in ("log.csv", "logs/a.csv", "logs/b.csv"):
        pa.csv.write_csv(foreign, name)
    pa.parquet.write_table(frame, "log.parquet")
    Path("log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in frame.to_pylist()))
    lerobot(Path("robot"), "v3.0", made)
    with h5py.File("log.hdf5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    convert(segue.load(arrays), "npz:log.npz")
    convert(segue.load(arrays), "minari:made/log-v0")
    convert(segue.load(arrays), "mapped:log")
    live.episode(live.log(tmp_path), "one")
    return {"segue": segue, "frame": frame, "arrays": arrays}


def test_every_format_has_a_command_and_a_line_of_python_that_agree(
    names: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    ours = {scheme for scheme, read in segue.data.FORMATS.items() if read.__module__.startswith("segue.")}
    named = {match[1] for command, _ in FORMATS if (match := re.match(r"segue inspect '?(\w+):", command))}
    assert named == ours
    for command, line in FORMATS:
        dataset = eval(line, names)
        if command:
            assert main([*shlex.split(command)[1:], "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["transitions"] == len(dataset)


def test_the_conversion_of_the_page_is_read_as_it_says(names: object, capsys: pytest.CaptureFixture[str]) -> None:
    Path("log.npz").unlink()
    command = re.search(r"^segue (convert .+)$", PAGE, re.MULTILINE)[1]
    assert main(shlex.split(command)) == 0
    assert len(segue.load("npz:log.npz")) == 7
    assert main(shlex.split(command)) == 2
    assert "already exists" in capsys.readouterr().err
