"""Parts from another package: an installed one, by entry points, and a module in the current folder."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

import segue
from segue import conformance
from segue.algorithms import ALGORITHMS, TD3
from segue.bridges import BRIDGES
from segue.conformance.__main__ import main as conformance_main
from segue.data import FORMATS, npz
from segue.errors import RecipeError, SegueError
from segue.plugins import PluginError, Registry, module_of
from segue.recipe import decode
from toys import PENDULUM, pendulum_log

ROOT = Path(__file__).parents[1]
SMALL = ["--offline.hidden-sizes", "8", "8", "--online.hidden-sizes", "8", "8"]
STEPS = ["--offline-steps", "20", "--online-steps", "40", "--warmup-steps", "10", "--eval-every", "20"]
FEW = ["--eval-episodes", "1", "--seeds", "2", "--workers", "2", "--distil-steps", "0"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples/plugin is installed, as pip does it."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    source = tmp_path_factory.mktemp("source") / "plugin"
    subprocess.run(["cp", "-r", str(ROOT / "examples" / "plugin"), str(source)], check=True)
    options = ["--no-build-isolation", "--target", str(place), str(source)]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place


def python(folder: Path, *arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command in this folder, with the packages of `site`."""
    path = [str(ROOT / "src"), *([str(site)] if site else []), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def segue_commands(folder: Path, *commands: list[str], site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """These commands one after the other, in one process, until one fails."""
    program = (
        "import sys, unpainted; from segue.cli.main import main; unpainted.paint(False); "
        f"sys.exit(next(filter(None, map(main, {commands})), 0))"
    )
    return python(folder, "-c", program, site=site)


def lines_of_hopper(place: Path) -> None:
    """Twenty episodes of three steps each."""
    rows = []
    for i in range(60):
        step = {"observation": [i / 60] * 11, "action": [(-1) ** i * 0.5] * 3, "reward": -1.0, "terminal": False}
        rows.append(json.dumps({**step, "timeout": i % 3 == 2}))
    place.write_text("\n".join(rows))


def test_an_installed_package_is_known_to_flags_workers_resume_and_reports(installed: Path, tmp_path: Path) -> None:
    lines_of_hopper(tmp_path / "steps.jsonl")
    parts = ["--dataset", "jsonl:steps.jsonl", "--offline", "crr", "--online", "crr", "--bridges", "slow-start"]
    parts += ["--replay", "recent", "--env", "Hopper-v5", "--bridges.slow-start.first", "0.5"]
    run = ["run", *parts, *SMALL, *STEPS, *FEW, "--out", "run"]
    done = segue_commands(tmp_path, ["list"], run, site=installed)
    assert done.returncode == 0, done.stderr + done.stdout
    assert all(name in done.stdout for name in ("crr", "slow-start", "recent", "jsonl:")), done.stdout
    saved = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert saved["offline"]["name"] == "crr"
    again = segue_commands(tmp_path, ["run", "--resume", "run"], ["report", "run"], site=installed)
    assert again.returncode == 0, again.stderr
    elsewhere = segue_commands(tmp_path, ["report", "run"])
    assert elsewhere.returncode == 2, "here the package is not installed"
    assert "module 'segue_example" in elsewhere.stderr


@pytest.mark.slow
def test_the_conformance_suite_runs_on_an_installed_package(installed: Path, tmp_path: Path) -> None:
    names = [word for name in ("crr", "slow-start", "recent", "jsonl") for word in ("--part", name)]
    done = python(tmp_path, "-m", "segue.conformance", "-q", *names, site=installed)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


@pytest.mark.slow
def test_a_file_of_ours_works_as_a_module_of_somebody_else(tmp_path: Path) -> None:
    """TD3+BC, with no change but its name: in flags, when it resumes, in its checkpoint."""
    text = (ROOT / "src/segue/algorithms/td3_bc.py").read_text()
    text = text.replace('name: ClassVar[str] = "td3-bc"', 'name: ClassVar[str] = "theirs"')
    (tmp_path / "theirs.py").write_text(text + "\n\nimport segue\n\nsegue.register(TD3BC)\n")
    npz.write(tmp_path / "log.npz", segue.load(pendulum_log()).columns())
    parts = ["--import", "theirs", "--dataset", "npz:log.npz", "--offline", "theirs", "--online", "theirs"]
    done = segue_commands(
        tmp_path, ["run", *parts, "--env", PENDULUM, *SMALL, *STEPS, "--eval-episodes", "1", "--out", "run"]
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads((tmp_path / "run/recipe.json").read_text())["offline"]["module"] == "theirs"
    judge = ["evaluate", "run/checkpoints/run/seed-0/final", "--episodes", "1"]
    longer = ["run", "--resume", "run", "--online-steps", "60", "--workers", "1"]
    again = segue_commands(tmp_path, judge, longer)
    assert again.returncode == 0, again.stderr
    before = (tmp_path / "run/recipe.json").read_text()
    field = "    bc_weight: float"
    assert field in text
    (tmp_path / "theirs.py").write_text(
        (tmp_path / "theirs.py").read_text().replace(field, f"    new: int = 1\n{field}")
    )
    changed = segue_commands(tmp_path, ["run", "--resume", "run", "--online-steps", "80"])
    assert changed.returncode == 2
    assert "offline of 'run' has other hyper-parameters today" in changed.stderr
    assert (tmp_path / "run/recipe.json").read_text() == before


def test_a_module_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(SegueError, match="algorithm 'gone': module 'nowhere_to_be_found' cannot be imported"):
        decode("algorithm", {"name": "gone", "module": "nowhere_to_be_found"}, ALGORITHMS)
    with pytest.raises(RecipeError, match="unknown algorithm 'gone'"):
        decode("algorithm", "gone", ALGORITHMS)


def test_a_name_belongs_to_one_part() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Other(TD3):
        """Another one."""

        name: ClassVar[str] = "td3"

    with pytest.raises(PluginError, match=r"the name 'td3' is taken by segue\.algorithms\.td3\.TD3"):
        segue.register(Other)
    assert segue.register(TD3) is TD3, "again is no other one"
    with pytest.raises(PluginError, match="is no algorithm, bridge or replay strategy"):
        segue.register(dict)
    assert "guard" in BRIDGES


def test_a_class_whose_fields_would_be_lost_or_that_has_no_name_is_refused() -> None:
    class Plain(TD3):
        """No dataclass of its own."""

        name: ClassVar[str] = "plain"
        extra: float = 1.0

    with pytest.raises(PluginError, match="is no dataclass, so its fields would be neither flags nor saved"):
        segue.register(Plain)
    with pytest.raises(PluginError, match="give it a name of its own"):
        segue.register(dataclasses.dataclass(frozen=True, kw_only=True)(type("Nameless", (TD3,), {})))


def test_a_file_that_means_another_class_of_the_same_name_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'td3' of the file is from elsewhere, the one known here from segue"):
        decode("algorithm", {"name": "td3", "module": "elsewhere"}, ALGORITHMS)


def test_a_format_is_registered_by_its_scheme_once(monkeypatch) -> None:
    monkeypatch.setattr("segue.data.FORMATS._parts", dict(FORMATS._parts))
    columns = segue.load(pendulum_log()).columns()
    segue.register_dataset("my-format", lambda place: columns)
    assert len(segue.load("my-format:anywhere")) == len(columns.rewards)
    with pytest.raises(PluginError, match="the name 'npz' is taken by"):
        segue.register_dataset("npz", lambda place: columns)


def test_a_part_that_no_other_process_could_import_is_refused() -> None:
    class Cell(TD3):
        """Defined in a notebook."""

    Cell.__module__ = "__main__"
    with pytest.raises(PluginError, match=r"Cell is defined in the script or notebook itself.* move it into a module"):
        module_of(Cell)


def test_an_entry_point_and_its_part_have_one_name(monkeypatch) -> None:
    from importlib.metadata import EntryPoint

    other = EntryPoint("td4", "segue.algorithms.td3:TD3", "segue.algorithms")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [other])
    with pytest.raises(PluginError, match=r"the entry point 'td4' is .*TD3, whose name is 'td3'; make them one"):
        Registry("algorithm", {})["td4"]


def test_an_entry_point_that_cannot_be_loaded_is_an_error_where_it_is_asked_for(monkeypatch) -> None:
    from importlib.metadata import EntryPoint

    broken = EntryPoint("broken", "no_such_module:Part", "segue.bridges")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [broken] if group == "segue.bridges" else [])
    registry: Registry[type] = Registry("bridge", {"own": dict})
    assert list(registry) == ["own", "broken"]
    assert registry["own"] is dict
    with pytest.warns(UserWarning, match="broken"):
        assert list(registry.values()) == [dict], "and one that is broken hides no other"
    with pytest.raises(PluginError, match=r"the bridge 'broken' \(no_such_module:Part\) cannot be loaded"):
        registry["broken"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--part", "td3-bd"], "unknown part 'td3-bd': did you mean 'td3-bc'"),
        (["--import", "no_such_parts"], "--import: "),
    ],
)
def test_the_conformance_command_names_what_is_not_there(
    flags: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["segue.conformance", *flags])
    monkeypatch.setattr(conformance, "WANTED", [])
    assert conformance_main() == 2
    assert said in capsys.readouterr().err
    assert conformance.WANTED == []


def test_the_conformance_command_tests_the_parts_that_are_named_with_the_flags_of_pytest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["segue.conformance", "--import", "toys", "--part", "td3-bc", "-x"])
    monkeypatch.setattr(conformance, "WANTED", [])
    monkeypatch.setattr(pytest, "main", lambda given: asked.append(given) or 5)
    assert conformance_main() == 5
    assert conformance.WANTED == ["td3-bc"]
    assert asked == [["--pyargs", "segue.conformance", "-p", "no:cacheprovider", "-x"]]
