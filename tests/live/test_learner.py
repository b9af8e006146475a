"""The online phase fed by a live log."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logs import FINAL, World, live_recipe, made_run

import segue
from segue.cli.main import main
from segue.core import Spaces
from segue.deployment.policy import digest
from segue.errors import Diverged, SegueError
from segue.live import Learner, Service
from segue.live.database import Database, Unavailable, open_database
from segue.live.policies import read_policy, stage
from segue.live.schema import TABLES
from segue.runner import checkpoint
from segue.runner.checkpoint import parameters_sha256
from toys import SMALL

EVERY = 200


@pytest.fixture(scope="module")
def place(tmp_path_factory: Any) -> Path:
    """A run, its exported policy, and the log of 500 decisions; nothing may write here."""
    where = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segue.runner.write_report", lambda out: out / "report.html")
        made_run(where)
    with Service(where / "live.db", where / "policy", seed=0) as service:
        World(service, lost=0.05, overridden=0.1).steps(500).settle()
    return where


@pytest.fixture
def made(place: Path, tmp_path: Path) -> Path:
    """The same, to be written."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    return tmp_path


def learner(made: Path, out: str = "learn", db: Any = None, **options: Any) -> Learner:
    recipe = live_recipe(made / "run", **options.pop("recipe", {}))
    given = {"every": EVERY, "overdue": 200, **options}
    return Learner(db or made / "live.db", made / "run" / FINAL, recipe, out=made / out, **given)


def learnt(made: Path, out: str = "learn", **options: Any) -> Learner:
    """A learner that has learnt from what is there."""
    one = learner(made, out, **options)
    one.run(once=True)
    return one


def candidates(database: Database, of: str = "learn") -> list[tuple[Any, ...]]:
    """Of each policy that was staged: name, how far it was trained, its learner's bytes, and what it has seen."""
    rows = database.read(
        "SELECT p.name, p.trained_to, c.checkpoint, p.manifest FROM policies p LEFT JOIN cursors c "
        "ON p.trained_to = c.read_to AND c.reader = ? WHERE p.name LIKE ? ORDER BY p.seq, c.seq",
        of,
        f"{of}-%",
    )
    return [(*row[:3], json.loads(row[3])["observed"]) for row in rows]


@pytest.fixture(scope="module")
def undisturbed(place: Path, tmp_path_factory: Any) -> list[tuple[Any, ...]]:
    """The candidates of a learner that nothing happened to."""
    where = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(place, where, dirs_exist_ok=True)
    return candidates(learnt(where).database)


def test_it_stages_candidates_each_with_its_parent_and_how_far_it_has_read(
    made: Path, undisturbed: list[tuple[Any, ...]]
) -> None:
    database = learnt(made).database
    rows = database.read("SELECT policy, parent, trained_to, name, manifest FROM policies ORDER BY seq")
    first = rows[0][0]
    assert [row[1] for row in rows] == [None, first, *(row[0] for row in rows[1:-1])]
    assert [row[3] for row in rows[1:]] == ["learn-200", "learn-400"]
    assert rows[-1][2] <= database.read("SELECT seq FROM counter")[0][0]
    assert read_policy(database, rows[-1][0])(np.zeros(3)).shape == (1,)
    assert candidates(database) == undisturbed
    after, before = undisturbed[-1][3], json.loads(rows[0][4])["observed"]
    assert (np.array(after["low"]) <= before["low"]).all()
    assert (np.array(after["high"]) >= before["high"]).all()
    assert (after["low"], after["high"]) != (before["low"], before["high"])
    assert after["episodes"] > before["episodes"]


def test_episodes_of_a_dataset_that_is_learnt_from_again_count_once(made: Path) -> None:
    one = learner(made)
    assert one._observed is not None
    assert one._observed.plain() == one.source.observed.plain()


def test_what_has_not_learnt_anything_yet_is_not_staged(made: Path) -> None:
    assert candidates(learnt(made, recipe={"warmup_steps": 600, "online_steps": 700}).database) == []


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(
    ("where", "times"),
    [
        pytest.param("segue.files._write_through", [9, 14], marks=pytest.mark.slow),
        ("segue.files.os.replace", [7, 4]),
        ("segue.live.learner.stage", [1, 2]),
        ("segue.live.database.Sqlite.append", [2, 1]),
        ("after segue.live.database.Sqlite.append", [3]),
        pytest.param("segue.training.agent.Agent.take_in", [5, 8], marks=pytest.mark.slow),
    ],
)
def test_killed_wherever_that_happens_it_goes_on_to_the_same_bytes(
    made: Path, undisturbed: list[tuple[Any, ...]], where: str, times: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = 0
    for nth in times:
        with monkeypatch.context() as patch:
            owner, name = _owner(where.removeprefix("after "))
            calls, original = iter(range(1, 1_000_000)), getattr(owner, name)

            def dies(*given: Any, calls: Any = calls, original: Any = original, nth: int = nth, **more: Any) -> Any:
                dead = next(calls) == nth
                if dead and not where.startswith("after "):
                    raise Killed
                answer = original(*given, **more)
                if dead:
                    raise Killed
                return answer

            patch.setattr(owner, name, dies)
            try:
                learnt(made)
            except Killed:
                killed += 1
    assert killed == len(times)
    assert candidates(learnt(made).database) == undisturbed


@pytest.mark.slow
def test_bridges_and_what_the_replay_remembers_survive_a_kill(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {
        "bridges": (segue.CriticRefit(evaluate_steps=5, align_steps=5), segue.ConservativeUpdate()),
        "replay": segue.Balanced(capacity=300, hidden_sizes=(8,)),
    }
    whole = learnt(made, "whole", recipe=recipe)
    with monkeypatch.context() as patch:
        patch.setattr("segue.live.learner.stage", lambda *given: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            learnt(made, recipe=recipe)
    again = learnt(made, recipe=recipe)
    assert again.agent.learner.bridges
    assert parameters_sha256(again.agent.learner) == parameters_sha256(whole.agent.learner)


def test_targets_of_three_steps_stay_in_their_episode_and_survive_a_kill(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"online": segue.CalQL(**SMALL, n_step=3)}
    whole = learnt(made, "whole", recipe=recipe).agent
    live = whole.replay.online
    (known,) = np.nonzero(np.asarray(live.following) >= 0)
    after = np.asarray(live.following)[known] % len(live.reward)
    assert len(known) > 100
    assert np.array_equal(live.observation[after], live.next_observation[known]), "each begins where the last ended"
    assert (np.asarray(live.discount)[known] > 0).all(), "nothing follows the end of an episode"
    one_step = learnt(made, "one-step").agent
    assert parameters_sha256(one_step.learner) != parameters_sha256(whole.learner)
    with monkeypatch.context() as patch:
        patch.setattr("segue.live.learner.stage", lambda *given: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            learnt(made, recipe=recipe)
    again = learnt(made, recipe=recipe).agent
    assert parameters_sha256(again.learner) == parameters_sha256(whole.learner)


def _owner(path: str) -> tuple[Any, str]:
    """What has this attribute."""
    place, _, name = path.rpartition(".")
    if place in sys.modules:
        return sys.modules[place], name
    module, _, owner = place.rpartition(".")
    return getattr(sys.modules[module], owner), name


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on_to_the_same_bytes(made: Path, undisturbed: list[tuple[Any, ...]]) -> None:
    script = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "from test_learner import learner\n"
        "say = lambda event: print(event.get('message', ''), flush=True)\n"
        "learner(Path(sys.argv[1]), on_event=say).run()\n"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, str(made), str(here), str(here.parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("staged"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert candidates(learnt(made).database) == undisturbed


def test_read_while_it_grows_it_becomes_what_it_becomes_of_the_whole_log(made: Path) -> None:
    learnt(made, "in-parts")
    with Service(made / "live.db", seed=5) as service:
        World(service, 5).steps(130).settle()
    parts, whole = learnt(made, "in-parts"), learnt(made, "whole")
    assert parts.agent.step == whole.agent.step > 500
    assert parameters_sha256(parts.agent.learner) == parameters_sha256(whole.agent.learner)


def test_asked_to_stop_it_saves_where_it_stands_and_goes_on_from_there(
    made: Path, undisturbed: list[tuple[Any, ...]]
) -> None:
    def stop(event: Any) -> None:
        if event["event"] == "progress":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        learner(made, on_event=stop).run()
    assert candidates(learnt(made).database) == undisturbed


class Told(list[str]):
    """What a learner says, which is asked to stop the second time that it has nothing to do at this step."""

    def __init__(self, step: int) -> None:
        self.step, self.idle = step, 0

    def __call__(self, event: Any) -> None:
        if event["event"] == "progress" and event["step"] == self.step:
            self.idle += 1
            if self.idle == 2:
                os.kill(os.getpid(), signal.SIGINT)
        if "message" in event:
            self.append(event["message"])


def test_it_waits_for_what_comes_and_for_a_log_that_is_away(
    made: Path, undisturbed: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.live.learner.LOOK", 0.0)
    told = Told(step=400)
    one = learner(made, on_event=told)
    assert one.status() == f"0 transitions learnt from · row 0 of {one.stream.last():,}"
    read, stages = one.stream.read, iter([False, True, False])
    reads = iter([False, False])

    def reading(count: int) -> Any:
        if next(reads, True):
            return read(count)
        raise Unavailable("no answer from the log")

    def staging(*given: Any) -> str:
        if next(stages):
            return stage(*given)
        raise Unavailable("no answer from the log")

    monkeypatch.setattr(one.stream, "read", reading)
    with monkeypatch.context() as patch:
        patch.setattr("segue.live.learner.stage", staging)
        with pytest.raises(KeyboardInterrupt):
            one.run()
    assert told.count("WARNING: no answer from the log; tries again") == 2
    assert told.count("WARNING: no answer from the log; the candidate is staged later") == 1
    assert one.status().startswith("400 transitions learnt from · row ")
    again = learnt(made)
    assert (again.staged or "")[:12] in again.status()
    assert candidates(again.database)[-1] == undisturbed[-1]


@pytest.mark.parametrize("away", ["segue.live.stream.Stream.read", "segue.live.learner.stage"])
def test_a_learner_that_is_not_to_wait_says_that_the_log_is_away(
    away: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*given: Any) -> Any:
        raise Unavailable("no answer from the log")

    monkeypatch.setattr(away, gone)
    with pytest.raises(Unavailable, match="no answer from the log"):
        learnt(made)


def test_overrides_that_came_too_late_are_counted_once(made: Path) -> None:
    with Service(made / "live.db", made / "policy", seed=7) as service:
        World(service, 7).steps(20).settle()
    learnt(made)
    with Service(made / "live.db", made / "policy", seed=8) as service:
        for (name,) in service.database.read("SELECT decision FROM decisions WHERE decision LIKE 'e7-%' LIMIT 4"):
            service.activation(decision_id=name, executed=False, who="a human")
        World(service, 8).steps(300).settle()
    notes = list[str]()
    learnt(made, on_event=lambda event: notes.append(event.get("message", "")))
    [warning] = [note for note in notes if "overridden" in note]
    assert "decisions were overridden, and the log heard of it too late" in warning
    assert "send activations before outcomes, or begin a learner with a larger settle" in warning


def test_the_first_candidate_has_no_parent_where_the_log_began_with_another_policy(made: Path) -> None:
    manifest = json.loads((made / "policy" / "policy.json").read_text())
    manifest["provenance"]["parameters_sha256"] = "0" * 64  # of a checkpoint that is not here
    manifest["sha256"] = digest(manifest)
    (made / "policy" / "policy.json").write_text(json.dumps(manifest))
    with Service(made / "other.db", made / "policy", seed=0) as service:
        World(service).steps(80).settle()
    database = learnt(made, db=made / "other.db", every=50).database
    parents = database.read("SELECT parent FROM policies WHERE name LIKE 'learn-%' ORDER BY seq")
    assert parents[0] == (None,)


@pytest.mark.slow
def test_more_episodes_may_run_side_by_side_than_when_it_began(made: Path) -> None:
    with Service(made / "live.db", seed=1) as service:
        World(service, 1, together=90).steps(250).settle()
    one = learnt(made, overdue=10_000)
    assert one.agent.settings.slots >= one.stream.slots > 60


def test_in_apprentice_mode_it_learns_from_what_the_application_did(made: Path) -> None:
    with Service(made / "other.db", made / "policy", mode="apprentice") as service:
        for i in range(60):
            service.decide(decision_id=f"{i}", episode_id=f"{i}", observation=[0.0, 0.0, 0.0], action=[i % 4 - 1.5])
            service.outcome(decision_id=f"{i}", reward=1.0, terminated=True)
    one = Learner(made / "other.db", made / "run" / FINAL, live_recipe(made / "run"), out=made / "learn", every=50)
    one.run(once=True)
    assert one.agent.step == 50
    taken = np.asarray(one.agent.replay.online.action)[:50, 0]
    assert taken == pytest.approx([(i % 4 - 1.5) / 2 for i in range(50)])


def test_the_report_shows_the_returns_of_episodes_in_order_of_assignment(made: Path) -> None:
    (made / "live.db").unlink()
    with Service(made / "live.db", made / "policy", seed=0) as service:
        World(service).steps(400).settle()
        expected = service.database.read(
            "SELECT SUM(reward) FROM steps GROUP BY episode HAVING MAX(terminated + truncated) = 1 ORDER BY assigned"
        )
    learnt(made)
    seed = segue.Result.load(made / "learn").summary["arms"]["run"]["seeds"]["0"]
    found = [value for evaluation in seed["online_evaluations"] for value in evaluation["returns"]]
    assert len(found) > 20
    assert found == pytest.approx([value for (value,) in expected[: len(found)]])
    assert seed["offline_evaluations"], "those of the run it began with"


def test_a_learner_that_diverges_stages_nothing_and_says_so(made: Path) -> None:
    wild = segue.CalQL(**SMALL, critic_learning_rate=1e30)
    with pytest.raises(Diverged, match="and again at step"):
        learnt(made, recipe={"online": wild})
    database = open_database(made / "live.db")
    assert database.read("SELECT name FROM policies") == [("policy",)]
    assert database.read("SELECT who, what FROM audit WHERE what = 'diverged'") == [("learn", "diverged")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": {"bridges": (segue.CriticRefit(), segue.Guard())}}, "bridge guard decides who acts, or judges"),
        ({"recipe": {"bridges": (segue.PolicyExpansion(),)}}, "bridge policy-expansion decides who acts"),
        ({"recipe": {"online": segue.PPO(hidden_sizes=(8,)), "replay": None}}, "expected an off-policy algorithm"),
        ({"recipe": {"hindsight": 2}}, "which a log cannot answer"),
        ({"recipe": {"online": None, "online_steps": 0}}, "needs an online algorithm: --online NAME"),
        ({"every": 0}, "every is 0; expected at least 1"),
        ({"recipe": {"online": segue.CQLLagrangian()}}, "learns from costs, which segue learn does not read"),
    ],
)
def test_what_makes_no_sense_with_a_log_is_refused_before_anything_is_written(
    made: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SegueError, match=said):
        learner(made, **changes)
    assert not (made / "learn").exists()


def test_a_log_of_another_system_or_without_a_policy_is_refused(made: Path, switch: Any) -> None:
    open_database(made / "empty.db").close()
    with pytest.raises(SegueError, match=r"empty\.db: the log has no policy yet; segue serve --policy begins one"):
        learner(made, db=made / "empty.db")
    Service(made / "switch.db", switch.directory).close()
    with pytest.raises(SegueError, match=r"/final: it has .*, the log .*; expected a checkpoint for the system"):
        learner(made, db=made / "switch.db")
    assert not (made / "learn").exists()


def test_a_checkpoint_of_pictures_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(directory: Path) -> Any:
        return dataclasses.replace(checkpoint.load(directory), spaces=Spaces(12, 1, image=(2, 2, 3)))

    monkeypatch.setattr("segue.live.learner.checkpoints", types.SimpleNamespace(load=load))
    with pytest.raises(SegueError, match="its observations are images, which a live log does not hold"):
        learner(made)


def test_on_another_machine_it_goes_on_and_says_so(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner(made).close()
    monkeypatch.setattr("segue.live.learner.visible_cores", lambda: list(range(97)))
    notes = list[str]()
    learner(made, on_event=lambda event: notes.append(event["message"])).close()
    assert any("97" in note for note in notes), notes


def test_a_learner_that_is_not_finite_is_not_staged(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.live.learner.sound", lambda learner: False)
    database = learnt(made).database
    assert candidates(database) == []
    [row] = [json.loads(line) for line in (made / "learn/records/run/seed-0/events.jsonl").read_text().splitlines()][:1]
    assert row["message"] == "the learner is not finite; it was not staged"


def test_a_checkpoint_outside_a_run_is_refused(made: Path) -> None:
    with pytest.raises(SegueError, match=r"policy: expected a checkpoint in a run directory"):
        Learner(made / "live.db", made / "policy", out=made / "learn")


def test_another_learner_in_the_same_place_is_refused(made: Path) -> None:
    learner(made)
    with pytest.raises(SegueError, match=r"was begun with another overdue \(200, now 7\); choose another --out"):
        learner(made, overdue=7)


def test_its_directory_is_no_run_to_be_resumed_in_a_simulator(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learner(made)
    assert main(["run", "--resume", str(made / "learn")]) == 2
    assert "is of segue learn, which goes on with it" in capsys.readouterr().err


def test_the_command_learns_with_the_flags_of_a_run(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    flags = "--online cal-ql --online.hidden-sizes 8 8 --online.batch-size 16 --replay online-only --dataset None"
    command = ["learn", "--db", str(made / "live.db"), "--run", str(made / "run"), "--out", str(made / "learn")]
    assert main([*command, "--every", "200", "--once", *flags.split()]) == 0
    said = capsys.readouterr().out
    assert "(learn-200), trained to row" in said
    assert "\r\x1b[K" in said, "on a terminal one line is written over"
    (note,) = [line for line in said.split("\n") if "(learn-200), trained to row" in line]
    assert "\x1b[K" not in note, "what stays begins a line of its own"
    written = json.loads((made / "learn" / "recipe.json").read_text())
    assert (written["dataset"], written["replay"]["name"], written["online_steps"]) == (None, "online-only", 100_000)
    assert main(["report", str(made / "learn"), "--out", str(made / "page")]) == 0
    assert "follows a live log" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_leaves_out_what_decides_who_acts_in_a_run_and_says_so(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted = live_recipe(
        made / "run", bridges=(segue.CriticRefit(evaluate_steps=1, align_steps=1), segue.Promotion())
    )
    monkeypatch.setattr("segue.live.learner.recipe_of", lambda checkpoint: promoted)
    command = ["learn", "--db", str(made / "live.db"), "--run", str(made / "run"), "--out", str(made / "learn")]
    assert main([*command, "--every", "400", "--once"]) == 0
    assert "bridge promotion is left out: in live operation the service decides" in capsys.readouterr().out
    written = json.loads((made / "learn" / "recipe.json").read_text())
    assert [bridge["name"] for bridge in written["bridges"]] == ["critic-refit"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--db", "live.db"], "segue learn needs a log and a run to start from"),
        (["--db", "live.db", "--run", "policy"], "an exported policy has no critics"),
        (["--db", "none.db", "--run", "run", "--online", "cal-ql"], "none.db: no live log here"),
        (["--db", "live.db", "--run", "run"], "needs an online algorithm: --online NAME"),
    ],
)
def test_a_command_that_cannot_begin_says_why(
    made: Path, flags: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    assert main(["learn", *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_log_in_postgresql_makes_the_same_learner(made: Path, shared: str, undisturbed: list[Any]) -> None:
    import psycopg

    there = open_database(shared)
    with sqlite3.connect(made / "live.db") as log, psycopg.connect(shared) as copy:
        copy.execute("DELETE FROM counter")
        for table in ("counter", *TABLES.values()):
            rows = log.execute(f"SELECT * FROM {table}").fetchall()
            if rows:
                marks = ", ".join(["%s"] * len(rows[0]))
                copy.cursor().executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    learnt(made, db=shared)
    assert candidates(there) == undisturbed
    there.close()
