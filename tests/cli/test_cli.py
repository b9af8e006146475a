"""The command line as a person meets it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import segue
from segue.cli.launch import launch
from segue.cli.main import COMMANDS, main
from segue.cli.parse import parse, whole_number
from segue.data import npz
from segue.data.dataset import Columns
from segue.errors import SegueError
from segue.runner import RunFailed
from toys import PENDULUM, pendulum

QUICK = ["--online-steps", "40", "--warmup-steps", "10", "--eval-every", "20", "--eval-episodes", "2"]
SMALL = ["--online.hidden-sizes", "8", "8", "--online.batch-size", "16"]


@pytest.fixture
def log(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    rows = 60
    ends = np.arange(rows) % 20 == 19
    columns = Columns(
        observations=rng.normal(size=(rows, 3)),
        actions=rng.uniform(-1, 1, (rows, 1)),
        rewards=rng.normal(size=rows),
        terminals=np.zeros(rows),
        timeouts=ends,
        env_id=PENDULUM,
        action_bounds=(np.array([-1.0]), np.array([1.0])),
    )
    npz.write(tmp_path / "log.npz", columns)
    return f"npz:{tmp_path / 'log.npz'}"


@given(st.integers(0, 10**9))
def test_whole_numbers_are_read_as_people_write_them(number: int) -> None:
    for text in (str(number), f"{number:_}", f"{number}.0", f"{number}e0", f"{number / 1000}k", f"{number}k"):
        assert whole_number(text) == (number * 1000 if text == f"{number}k" else number)


@pytest.mark.parametrize("text", ["1.5", "1e-1", "abc", "nan", "inf", "1e99999999999", "k", "", "1_5.5k1"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number; expected one such as"):
        whole_number(text)


def test_in_a_narrow_terminal_long_flags_are_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit):
        main(["run", "--online", "rlpd", "--online.critic-updates-per-actor-update", "x"])
    said = capsys.readouterr().err
    assert "is not a whole number" in " ".join(said.split())
    assert "unknown flag" not in said


def errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1, "one line"
    return text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["rnu"], "unknown command 'rnu': did you mean 'run'?"),
        (["run", "--online", "sca"], "unknown algorithm 'sca': did you mean 'sac'?"),
        (["run", "--online", "sac", "--bridges", "qfilter"], "unknown bridge 'qfilter': did you mean 'q-filter'?"),
        (["run", "--online", "sac", "--replay", "mixd"], "unknown replay 'mixd': did you mean 'mixed'?"),
        (["run", "--onlin", "sac"], "unknown flag '--onlin': did you mean --online"),
        (
            ["run", "--online", "sac", "--online.lr", "3"],
            "--online.actor-learning-rate or --online.critic-learning-rate?",
        ),
        (["run", "--online", "sac", "--env", "none", "--online-steps", "1e5", "--seeds", "2"], "but env is none"),
        (["run"], "the recipe names no algorithm; expected an offline one (--offline), an online one"),
        (
            ["run", "--online", "sac", "--env", "Pendulum-v1", "--updates-per-step", "1"],
            "say how many: --online-steps N",
        ),
        (["run", "--online", "sac", "--zzz", "3"], "unknown flag '--zzz': segue run --help lists"),
        (["run", "--online", "sac", "--n-envs", "3"], "did you mean --environments?"),
        (["run", "--online", "sac", "--online.batchsize", "3"], "did you mean --online.batch-size"),
        (
            ["run", "--online", "sac", "--bridges", "guard", "--bridges.q-filter.percentile", "30"],
            "--bridges.q-filter.percentile: the bridge is not in the recipe; add --bridges guard,q-filter",
        ),
        (["run", "--online", "sac", "--offline.alpha=3"], "--offline.alpha: no algorithm is named; add --offline NAME"),
        (
            ["run", "--online", "sac", "--bridges", "samg", "--bridges.samg.adaptive", "true"],
            "unexpected argument 'true': --bridges.samg.adaptive takes no value; to switch it off: "
            "--bridges.samg.no-adaptive",
        ),
        (
            ["run", "--online", "sac", "--bridges", "q-filter", "guard"],
            "unexpected argument 'guard': --bridges takes one value; a list is joined by commas: q-filter,guard",
        ),
        (["run", "--online", "sac", "--online-steps", "2000", "--env", "Hoper-v5"], "did you mean 'Hopper-v5'?"),
        (["run", "--online", "sac", "--online-steps", "2000"], "needs an environment"),
        (["run", "--dataset", "segue:hoper", "--offline", "bc", "--offline-steps", "9"], "hopper-mixed"),
        (
            ["run", "--dataset", "hopper.npz", "--offline", "bc", "--offline-steps", "9"],
            "hopper.npz: there is no such file",
        ),
        (["run", "none.json"], "no such file"),
        (["run", "--online", "sac", "--online-steps", "2000", "--online.discount", "2"], "expected between 0 and 1"),
        (["inspect", "npz:nothing.npz"], "nothing.npz"),
        (["inspect", "--plott", "x.png", "npz:log.npz"], "unknown flag '--plott': did you mean --plot?"),
        (["inspect", "--no-clip-action", "npz:log.npz"], "did you mean --no-clip-actions?"),
        (["advise", "npz:log.npz", "--no-trial=1"], "unexpected argument '1': --no-trial takes no value"),
        (["evaluate", "-episodes", "3", "runs/x"], "unknown flag '-episodes': did you mean --episodes?"),
        (["run", "--resum", "runs/x"], "unknown flag '--resum': did you mean --resume?"),
        (["learn", "--db", "live.db", "--runn", "runs/x"], "unknown flag '--runn': did you mean --run?"),
        (["run", "--online", "sac", "--seed=3", "3"], "unexpected argument '3'; see segue run --help"),
        (["compare", "--armm", "x", "--offline.loss mse"], "unknown flag '--armm': did you mean --arm?"),
        (["compare", "--arm", "x", "--offline", "bc"], "--arm takes a name and its flags in quotes"),
        (["evaluate", "nowhere"], "no finished policy here"),
        (["report", "nowhere"], "nowhere: no such directory"),
        (["report", "nowhere", "--reach", "nan"], "--reach is nan; expected a return"),
        (["handover", "nowhere"], "nowhere"),
        (["compare", "--online", "sac"], "no arm was given"),
        (["compare", "--online", "sac", "--arm", "x"], "--arm takes a name and its flags"),
        (["compare", "--arm", "x", "", "--arm", "x", "--seed 1"], "two arms are named 'x'; rename one"),
        (["compare", "--arm", "x", "--online sca"], "arm 'x': unknown algorithm 'sca': did you mean 'sac'?"),
        (["compare", "a.json", "b.json"], "a.json: no such file"),
        (["list", "--import"], "--import: no module is named; expected --import MODULE"),
        (["list", "--import", "no_such_parts"], "--import: module 'no_such_parts' cannot be imported"),
        (
            ["run", "--online", "sac", "--bridges", "guard,q-filter,guard"],
            "a bridge is named twice: guard, q-filter, guard",
        ),
        (["branch"], "segue branch needs a run directory first: segue branch RUN --online td3 --out DIR"),
        (["branch", "--online", "sac"], "segue branch needs a run directory first"),
        (
            ["sweep", "--online", "sac", "--env", "Pendulum-v1", "--online-steps", "2000"],
            "segue sweep needs --out: where the sweep goes",
        ),
        (
            ["run", "--online", "sac", "--env", "Pendulum-v1", "--online-steps", "2000", "--cores", "2"],
            "--cores and --gpus go with --on ray; on this machine --workers shares out the cores",
        ),
        (["collect", "random", "--env", "Pendulum-v1", "--to", "npz:x.npz"], "expected WHAT:STEPS"),
        (["collect", "rando:5", "--env", "Pendulum-v1", "--to", "npz:x.npz"], "did you mean random:5?"),
        (["collect", "random:5", "--env", "Pendulum-v1", "--to", "hdf:x"], "expected minari:ID or npz:FILE"),
    ],
)
def test_bad_input_is_one_line_with_the_nearest_match_and_exit_code_2(
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in errors(arguments, capsys)
    assert list(tmp_path.iterdir()) == [], "nothing was written"


def test_commands_of_live_operation_name_the_package_that_is_missing(tmp_path: Path) -> None:
    check = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "msgspec":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from segue.cli.main import main
for command in ("serve", "ab"):
    assert main([command, "--db", "live.db"]) == 2
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stderr.splitlines() == [
        f"segue: segue {command} needs msgspec: pip install 'segue[live]'" for command in ("serve", "ab")
    ]
    assert done.returncode == 0


@pytest.mark.parametrize(("exit_code", "code"), [(None, 130), (143, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_command_says_that_it_can_go_on(
    exit_code: int | None, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = KeyboardInterrupt()
    if exit_code is not None:
        stopped.exit_code = exit_code

    def main_of_list(arguments: list[str]) -> int:
        raise stopped

    monkeypatch.setattr("segue.cli.list.main", main_of_list)
    assert main(["list"]) == code
    assert capsys.readouterr().err == "segue: interrupted; the same command goes on\n"


def test_the_version_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{segue.__version__}\n"


@pytest.mark.parametrize("words", [*map(str.split, COMMANDS), ["run", "--preset", "promoted"]], ids=" ".join)
@pytest.mark.parametrize("columns", [60, 100])
def test_every_command_explains_itself(
    words: list[str], columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    page = capsys.readouterr().out
    assert "--help" in page
    assert not re.search("None[,}]", page), "what may be left out is shown as what it is otherwise"
    lines = [re.sub("^│|│$", "", line).rstrip() for line in page.splitlines()]
    assert max(len(line) for line in lines if not line.startswith(("usage:", "    segue"))) <= columns
    for one, two in itertools.pairwise(lines):
        explained = re.fullmatch(r"( {5,})\S.*", one)
        if explained and re.match(rf"{explained[1]}\S", two):
            assert len(one) + 1 + len(two.split()[0]) > columns - 2, f"a paragraph breaks early: {one!r}"


@dataclasses.dataclass(frozen=True)
class MayBeLeftOut:
    """Flags with a default of None."""

    count: int | None = None
    sizes: tuple[int, ...] | None = None
    pair: tuple[int, int] | None = None
    one_of: Literal["a", "b"] | None = None


def test_a_flag_that_may_be_left_out_takes_the_word_none_and_its_own_kind() -> None:
    def parsed(*words: str) -> MayBeLeftOut:
        return parse(MayBeLeftOut, words, "test", "")

    given = parsed("--count", "2k", "--sizes", "3", "4", "--pair", "5", "6", "--one-of", "a")
    assert given == MayBeLeftOut(2_000, (3, 4), (5, 6), "a")
    nothing = [word for flag in ("--count", "--sizes", "--pair", "--one-of") for word in (flag, "None")]
    assert parsed(*nothing) == parsed() == MayBeLeftOut()
    for wrong in (("--count", "some"), ("--pair", "5"), ("--pair", "5", "6", "7"), ("--one-of", "c")):
        with pytest.raises((SystemExit, SegueError)):
            parsed(*wrong)


@dataclasses.dataclass(frozen=True)
class Commented:
    """As a plug-in may document its fields."""

    # How often it is tried.
    tries: int = 1


def test_a_field_that_a_comment_explains_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(Commented, ["--help"], "test", "")
    assert "How often it is tried." in capsys.readouterr().out


def test_a_value_of_the_wrong_type_is_refused_with_code_2() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "--online", "sac", "--online-steps", "many"])
    assert stop.value.code == 2


def test_help_and_import_do_not_wait_for_jax() -> None:
    check = "import sys, segue; from segue.cli.main import main; main(['--help']); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_a_run_does_not_wait_for_what_few_runs_need() -> None:
    check = "import sys, segue; segue.run; assert not {'scipy.stats', 'matplotlib', 'optuna', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_listing_names_phases_and_actions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert set(listing) == {"algorithms", "bridges", "replays", "datasets"}
    by_name = {entry["name"]: entry for entry in listing["algorithms"]}
    assert by_name["bc"]["phases"] == ["offline"]
    assert by_name["sac"]["phases"] == ["offline", "online"]
    assert all(entry["actions"] for entry in by_name.values())
    assert "segue:hopper-mixed" in {entry["name"] for entry in listing["datasets"]}


def test_the_listing_shows_equations_with_their_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "E[distance(" in capsys.readouterr().out


def test_run_report_evaluate_and_run_again_from_flags(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x"
    flags = ["--dataset", log, "--offline", "td3-bc", "--offline-steps", "4", "--offline.hidden-sizes", "8", "8"]
    flags += ["--online", "sac", *SMALL, *QUICK, "--bridges", "q-filter", "--bridges.q-filter.percentile", "40"]
    assert main(["run", *flags, "--out", str(out)]) == 0
    recipe = json.loads((out / "recipe.json").read_text())
    assert [(bridge["name"], bridge["percentile"]) for bridge in recipe["bridges"]] == [("q-filter", 40.0)]
    assert recipe["online"]["hidden_sizes"] == [8, 8]
    assert recipe["env"] == PENDULUM, "named by the dataset"

    assert main(["run", str(out / "recipe.json"), "--out", str(tmp_path / "y")]) == 0
    hashes = [
        json.loads((tmp_path / d / "summary.json").read_text())["arms"]["run"]["seeds"]["0"]["parameters_sha256"]
        for d in "xy"
    ]
    assert hashes[0] == hashes[1]

    capsys.readouterr()
    assert main(["evaluate", str(out), "--episodes", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["policy"] for row in rows} == {"offline-td3-bc/seed-0", "run/seed-0"}
    assert all(len(row["returns"]) == 3 for row in rows)

    assert main(["handover", str(out), "--json"]) == 0
    handover = json.loads(capsys.readouterr().out)["run"]
    assert {"return", "value_at_start", "distance_to_dataset"} <= set(handover["moments"]["offline, last"])
    assert {"return", "value_at_start", "distance_to_dataset"} <= set(handover["moments"]["at the handover"])
    assert not (out / "handover.png").exists(), "JSON asks for no picture"
    assert main(["handover", str(out), "--arm", "run", "--out", str(tmp_path / "handover")]) == 0
    assert "evaluation" in capsys.readouterr().out
    assert (tmp_path / "handover/handover.png").exists()
    assert "unknown arm 'rnu': did you mean 'run'?" in errors(["handover", str(out), "--arm", "rnu"], capsys)
    (out / "metrics.csv").unlink()
    assert main(["handover", str(out)]) == 0, "older runs have no metrics to look at"
    assert "was not recorded" in " ".join(capsys.readouterr().out.split())

    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").exists()
    assert main(["report", str(out), str(tmp_path / "y"), "--out", str(tmp_path / "both")]) == 0
    assert (tmp_path / "both/learning_curves.png").exists()


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_that_fails_or_is_interrupted_says_what_happened_and_where_the_report_is(
    interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The results are those of a run that was stored; only how it ended is made up."""
    status = "interrupted" if interrupted else "failed"
    seeds = {"0": {"error": None}, "1": {"error": "the robot [left] fell"}}
    found = SimpleNamespace(
        status=status, report=tmp_path / "x/report.html", summary={"arms": {"run": {"seeds": seeds}}}
    )

    def compare(arms: Any, out: Path, **options: Any) -> Any:
        assert options["command"] == "segue run x.json --out x"
        if interrupted:
            return found
        raise RunFailed(found)

    monkeypatch.setattr("segue.runner.compare", compare)
    monkeypatch.setattr("segue.report.decode", lambda summary, name: name)
    monkeypatch.setattr("segue.report.terminal_report", lambda run: f"the table of {run}")
    place = SimpleNamespace(out=Path("x"), workers=None, on=None, cores=None, gpus=0, track=None, checkpoint_every=60)
    assert launch({"run": pendulum()}, place, ["run", "x.json", "--out", "x"]) == (130 if interrupted else 1)
    said = capsys.readouterr().out
    assert "the table of x" in said
    assert ("run, seed 1: the robot [left] fell" in said) == (not interrupted)
    assert ("Interrupted, and saved: the results so far are in the report" in said) == interrupted
    assert f"Report: {tmp_path}/x/report.html" in said


def test_a_run_that_ends_at_the_switch_or_never_had_one_has_no_handover_to_show(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [
        "--dataset",
        log,
        "--offline",
        "bc",
        "--offline-steps",
        "2",
        "--offline.hidden-sizes",
        "8",
        "--eval-every",
        "2",
    ]
    flags += ["--replay", "mixed", "--eval-episodes", "1"]
    assert main(["run", *flags, "--out", str(tmp_path / "offline")]) == 0
    capsys.readouterr()
    assert "no online phase" in errors(["handover", str(tmp_path / "offline")], capsys)
    run = str(tmp_path / "offline")
    assert "needs --out: where the branch goes" in errors(
        ["branch", run, "--online", "ppo", "--online-steps", "4000"], capsys
    )
    preset = ["branch", run, "--preset", "wsrl", "--out", str(tmp_path / "b")]
    assert "--preset has no use here: what the flags do not name is the run's" in errors(preset, capsys)
    branched: dict[str, Any] = {}
    monkeypatch.setattr("segue.cli.branch.launch", lambda arms, *rest, **more: branched.update(arms) or 0)
    online = ["--online", "ppo", "--online-steps", "4000", "--out", str(tmp_path / "b")]
    assert main(["branch", run, *online]) == 0
    assert (branched["run"].online.name, branched["run"].replay, branched["run"].offline.name) == ("ppo", None, "bc")
    scratch = ["--env", PENDULUM, "--online", "sac", *SMALL, *QUICK]
    assert main(["run", *scratch, "--out", str(tmp_path / "scratch")]) == 0
    capsys.readouterr()
    assert "from scratch" in errors(["handover", str(tmp_path / "scratch")], capsys)


def test_compare_gives_each_arm_its_own_flags(log: str, tmp_path: Path) -> None:
    out = tmp_path / "x"
    common = ["--dataset", log, "--offline", "td3-bc", "--offline-steps", "4", "--offline.alpha", "1"]
    common += ["--online", "sac", *SMALL, *QUICK]
    arms = ["--arm", "scratch", "--offline none --offline-steps 0 --replay online-only", "--arm", "kept", "--seed 1"]
    assert main(["compare", *common, *arms, "--out", str(out), "--workers", "1"]) == 0
    written = json.loads((out / "recipe.json").read_text())["arms"]
    assert written["scratch"]["offline"] is None
    assert written["scratch"]["replay"]["name"] == "online-only"
    assert written["kept"]["offline"]["alpha"] == 1
    assert written["kept"]["seed"] == 1


def arms_of(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> dict[str, Any]:
    """The recipes that `segue compare` would run."""
    found: dict[str, Any] = {}
    monkeypatch.setattr("segue.cli.compare.launch", lambda arms, *rest: found.update(arms) or 0)
    assert main(["compare", *arguments]) == 0
    return found


def test_arms_may_be_recipe_files_named_by_their_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for name, seed in (("a", 1), ("b", 2), ("old/a", 3)):
        (tmp_path / name).mkdir(parents=True)
        recipe = pendulum(seed=seed, dataset="npz:log.npz").to_dict()
        (tmp_path / name / "recipe.json").write_text(json.dumps({"arms": {"run": recipe}}))
    monkeypatch.chdir(tmp_path)
    arms = arms_of(monkeypatch, ["a/recipe.json", "b/recipe.json", "--out", "both"])
    assert {name: arm.seed for name, arm in arms.items()} == {"a": 1, "b": 2}
    said = errors(["compare", "a/recipe.json", "old/a/recipe.json"], capsys)
    assert "old/a/recipe.json: an arm named 'a' came before; rename that run directory" in said


def test_a_sweep_ends_with_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Found:
        directory, status = tmp_path / "x", "complete"

        def __str__(self) -> str:
            return "best: alpha=[2.5]"

    asked: dict[str, Any] = {}
    monkeypatch.setattr("segue.sweeps.sweep", lambda recipe, out, **options: asked.update(options, out=out) or Found())
    flags = ["--online", "sac", "--env", "Pendulum-v1", "--online-steps", "2000", "--vary", "online.discount=0.9,0.99"]
    for Found.status, code in (("complete", 0), ("failed", 1), ("interrupted", 130)):
        assert main(["sweep", *flags, "--confirm", "3", "--out", "x"]) == code
        said = capsys.readouterr().out
        assert "best: alpha=[2.5]\n" in said
        assert ("Interrupted, and saved: the same command goes on." in said) == (code == 130)
        assert f"Sweep: {tmp_path / 'x'}" in said
    assert (asked["vary"], asked["confirm"]) == ({"online.discount": [0.9, 0.99]}, 3)
    assert asked["command"] == f"segue sweep {' '.join(flags)} --confirm 3 --out x"


def test_an_arms_own_dataset_takes_the_place_of_the_common_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    common = ["--dataset", "segue:cartpole-mixed", "--dataset", "npz:x.npz", "--dataset-weights", "1", "2"]
    common += ["--env", "CartPole-v1", "--online", "dqn", "--online-steps", "4000"]
    own = ["--arm", "other", "--dataset csv:y.csv", "--arm", "scratch", "--dataset None --replay online-only"]
    arms = arms_of(monkeypatch, [*common, "--arm", "mixed", "", *own])
    assert {name: arm.dataset for name, arm in arms.items()} == {
        "mixed": "segue:cartpole-mixed@1 + npz:x.npz@2",
        "other": "csv:y.csv",
        "scratch": None,
    }
    table = ["--dataset", "csv:y.csv", "--observation", "x", "--env", "CartPole-v1", "--online", "dqn"]
    assert arms_of(monkeypatch, [*table, "--online-steps", "4000", *own])["scratch"].dataset is None


def test_the_demo_of_the_makefile_is_three_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = subprocess.run(
        ["make", "--dry-run", "--always-make", "demo"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.replace("\\\n", " ")
    (command,) = [line for line in lines.splitlines() if "segue compare" in line]
    arms = arms_of(monkeypatch, shlex.split(command)[2:])
    assert {name: arm.dataset for name, arm in arms.items()} == {
        "scratch": None,
        "plain handover": "segue:hopper-mixed",
        "segue": "segue:hopper-mixed",
    }


def test_collected_episodes_load_as_the_dataset_of_their_environment(tmp_path: Path) -> None:
    from segue.data import load

    file = tmp_path / "log.npz"
    assert main(["collect", "random:250", "--env", "Pendulum-v1", "--to", f"npz:{file}"]) == 0
    dataset = load(f"npz:{file}")
    assert len(dataset) == 250
    assert dataset.env_id == "Pendulum-v1"
    assert dataset.episode_lengths.tolist() == [200, 50]
    assert not dataset.terminals.any(), "Pendulum only times out"
    assert np.abs(dataset.actions).max() > 0.9, "torque in [-2, 2] is rescaled to [-1, 1]"


@pytest.mark.parametrize("arguments", [pytest.param(["--help"], marks=pytest.mark.slow), ["list"]])
def test_a_reader_that_has_seen_enough_is_no_error(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "segue.cli.main", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert (process.wait(), said) == (0, b"")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_output_in_an_encoding_that_lacks_characters_keeps_its_numbers(encoding: str) -> None:
    check = (
        "import sys; from segue.cli import main as cli; cli._main = lambda a: print('−1.5 – π', end='') or 0; "
        "sys.exit(cli.main())"
    )
    command = [sys.executable, "-c", check]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding).replace("–", "-") == "-1.5 - ?"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file on a full disk is at hand on Linux")
@pytest.mark.parametrize("arguments", [["--version"], ["list"]])
def test_output_that_cannot_be_written_is_a_sentence(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "segue.cli.main", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "segue: No space left on device\n")
