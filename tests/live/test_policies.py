"""Policies of a log as people handle them: over HTTP, on the command line, and beside a service that runs."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import Made
from serving import HERE, Serve
from starlette.testclient import TestClient

from segue.cli.main import main
from segue.deployment.policy import load_policy
from segue.errors import SegueError
from segue.live import Service, admin
from segue.live.admin import routes
from segue.live.http import application
from segue.live.overview import policies
from segue.live.policies import stage
from segue.live.promotion import Watch, canary
from segue.live.trial import declare

X = [0.1, -0.2, 0.3]
KEY = {"authorization": "Bearer secret"}


class Clock:
    """Stands for time.time."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def service(serve: Serve) -> Service:
    return serve()


@pytest.fixture
def web(service: Service) -> Iterator[TestClient]:
    watch = Watch(service)
    with TestClient(application(service, "secret", False, *routes(service, watch, "secret")), base_url=HERE) as client:
        yield client


def asked(web: TestClient, method: str, path: str, **content: Any) -> tuple[int, Any]:
    answer = web.request(method, path, headers=KEY, json=content if method == "POST" else None)
    return answer.status_code, answer.json()


def files(made: Made) -> dict[str, str]:
    return {file.name: base64.b64encode(file.read_bytes()).decode() for file in made.directory.iterdir()}


def log(service: Service) -> str:
    return service.database.url.removeprefix("sqlite:///")


def play(service: Service, clock: Clock, episodes: range, better: float) -> None:
    """One decision each, with its reward; the candidate earns more."""
    rng = np.random.default_rng(episodes.start)
    for i in episodes:
        clock.now += 1
        arm = service.decide(decision_id=f"d{i}", episode_id=f"e{i}", observation=X).arm
        service.outcome(decision_id=f"d{i}", reward=rng.normal() + better * (arm == "candidate"), terminated=True)


def test_a_service_tries_a_candidate_promotes_it_and_goes_on_deciding(
    service: Service, other: Made, clock: Clock
) -> None:
    candidate = stage(service.database, other.directory)
    declare(service.database, clock(), "me", {"window": 10.0, "shares": [0.5]})
    canary(service.database, candidate, "me", force=True)
    watch = Watch(service)
    service.look()
    play(service, clock, range(60), better=4.0)
    clock.now += 11  # nothing else happens, and the windows close
    evidence = watch.review()
    assert evidence is not None
    assert sum(arm.units for arm in evidence.arms.values()) == 60
    decided = service.decide(decision_id="after", episode_id="after", observation=X)
    assert (decided.policy, decided.arm) == (candidate, "live")
    assert service.decide(decision_id="d0", episode_id="e0", observation=X).decision_id == "d0"


def test_a_running_episode_of_a_withdrawn_candidate_is_the_live_policys(service: Service, other: Made) -> None:
    candidate = stage(service.database, other.directory)
    declare(service.database, 0.0, "me", {"window": 10.0})
    canary(service.database, candidate, "me", force=True, share=0.999)
    service.look()
    assert service.decide(decision_id="a", episode_id="e", observation=X).policy == candidate
    assert main(["policies", "rollback", "--db", log(service), "--why", "no"]) == 0
    service.look()
    decided = service.decide(decision_id="b", episode_id="e", observation=X)
    assert (decided.arm, decided.policy, decided.t) == ("candidate", service.deployment.live, 1)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SegueError("the disk is full"), "the disk is full"),
        (ZeroDivisionError(), "a fault of Segue's; the service's own log says more"),
    ],
)
def test_a_review_that_fails_is_said_and_the_next_one_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    watch, calls, twice = Watch(service, every=0.001), [], threading.Event()

    def fails() -> None:
        calls.append(watch.failure)
        if len(calls) > 1:
            twice.set()
        raise error

    monkeypatch.setattr(watch.promoter, "review", fails)
    with watch:
        assert twice.wait(30)
    assert calls[:2] == [None, said]


def test_everything_that_changes_who_acts_needs_the_token(web: TestClient, service: Service) -> None:
    before = service.deployment
    for route in routes(service, Watch(service), "secret")[0]:
        for method in (route.methods or set()) - {"HEAD"}:
            answer = web.request(method, route.path.replace("{policy}", before.live))
            assert answer.status_code == 401, route.path
            assert answer.json()["code"] == "token"
    assert service.look() == before


def test_openapi_describes_every_address_of_administrators(web: TestClient, service: Service) -> None:
    paths = web.get("/openapi.json").json()["paths"]
    for route in routes(service, Watch(service), "secret")[0]:
        for method in (route.methods or set()) - {"HEAD"}:
            assert paths[route.path][method.lower()]["security"] == [{"token": []}]


def test_a_policy_is_uploaded_once_and_found_by_name_and_by_the_beginning_of_its_hash(
    web: TestClient, other: Made
) -> None:
    status, staged = asked(web, "POST", "/v1/policies", name="other", files=files(other))
    assert (status, staged["status"], staged["name"]) == (200, "staged", "other")
    assert asked(web, "POST", "/v1/policies", name="again", files=files(other)) == (200, staged)
    for word in ("other", staged["policy"][:10], staged["policy"]):
        assert asked(web, "GET", f"/v1/policies/{word}") == (200, staged)
    assert [one["status"] for one in asked(web, "GET", "/v1/policies")[1]] == ["live", "staged"]


@pytest.mark.parametrize("name", ["../policy.json", "/etc/passwd", ".token", "", "a/b"])
def test_an_upload_names_no_place_outside(web: TestClient, name: str) -> None:
    status, problem = asked(web, "POST", "/v1/policies", name="x", files={name: ""})
    assert (status, problem["code"]) == (422, "files")


def test_an_upload_that_is_no_policy_or_of_other_spaces_is_refused(
    web: TestClient, other: Made, crane: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(web, "POST", "/v1/policies", name="x", files={"policy.json": ""})[0] == 422
    damaged = {**files(other), "policy.onnx": base64.b64encode(b"no").decode()}
    status, problem = asked(web, "POST", "/v1/policies", name="x", files=damaged)
    assert status == 422
    assert "damaged" in problem["message"]
    assert "expected the same" in asked(web, "POST", "/v1/policies", name="x", files=files(crane))[1]["message"]
    assert asked(web, "POST", "/v1/policies", name="x", files={"policy.json": "no base64!"})[0] == 400
    monkeypatch.setattr(admin, "MOST_BYTES", 1000)
    assert asked(web, "POST", "/v1/policies", name="x", files=files(other))[0] == 413
    assert len(asked(web, "GET", "/v1/policies")[1]) == 1


def test_the_steps_of_a_candidate_over_http(web: TestClient, service: Service, other: Made) -> None:
    first = service.deployment.live
    asked(web, "POST", "/v1/policies", name="other", files=files(other))
    assert asked(web, "POST", "/v1/policies/other/shadow")[1]["mode"] == "shadow"
    assert asked(web, "POST", "/v1/policies/other/canary", force=True)[1]["code"] == "no_window"
    declare(service.database, 0.0, "me", {"window": 10.0})
    assert asked(web, "POST", "/v1/policies/other/canary")[1]["code"] == "no_verdict"
    assert asked(web, "POST", "/v1/policies/other/canary", force=True, share=0.2)[1]["share"] == 0.2
    assert service.deployment.mode == "canary"
    assert asked(web, "POST", "/v1/pause")[1]["share"] == 0
    assert asked(web, "POST", "/v1/resume")[1]["share"] == 0.2
    assert asked(web, "POST", "/v1/freeze")[1]["mode"] == "frozen"
    assert asked(web, "POST", "/v1/resume")[1]["mode"] == "canary"
    seen = asked(web, "GET", "/v1/evidence")[1]
    assert seen["trial"]["verdict"].startswith("not enough evidence")
    modes = [event["what"].partition(":")[0] for event in seen["events"] if event["kind"] == "deployment"]
    assert modes == ["live", "shadow", "canary", "canary", "canary", "frozen", "canary"]
    assert asked(web, "POST", "/v1/policies/other/promote", force=True, why="a test")[1]["live"] != first
    assert asked(web, "POST", "/v1/rollback")[1]["live"] == first
    assert asked(web, "POST", "/v1/rollback") == (
        409,
        {
            "code": "nothing",
            "message": "there is nothing to roll back: no candidate, and no policy that was live before",
        },
    )


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        ("/v1/policies/nobody/shadow", {}, 404, "unknown_policy"),
        ("/v1/policies/exported/canary", {"share": 2}, 400, "malformed"),
        ("/v1/policies/exported/canary", {"shares": 0.1}, 400, "malformed"),
        ("/v1/policies/exported/shadow", {}, 409, "live"),
        ("/v1/pause", {}, 409, "no_canary"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused_in_words(
    web: TestClient, path: str, content: dict[str, Any], status: int, code: str
) -> None:
    found, problem = asked(web, "POST", path, **content)
    assert (found, problem["code"]) == (status, code)


def test_names_that_two_policies_have_are_refused(web: TestClient, other: Made) -> None:
    asked(web, "POST", "/v1/policies", name="exported", files=files(other))
    status, problem = asked(web, "GET", "/v1/policies/exported")
    assert (status, problem["code"]) == (409, "ambiguous")


def test_an_evaluation_runs_in_a_process_of_its_own_and_its_failure_is_kept(
    web: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go = [], threading.Event()

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        started.append(command)
        go.wait(30)
        return subprocess.CompletedProcess(command, 2, "", "segue: no episodes\n")

    monkeypatch.setattr(subprocess, "run", run)
    path = "/v1/policies/exported/evaluate"
    assert asked(web, "POST", path, who="me")[1]["status"] == "started"
    assert asked(web, "POST", path)[1]["code"] == "busy"
    go.set()
    for thread in threading.enumerate():
        if thread.name == "segue-live-evaluation":
            thread.join()
    service.tick("test")  # what was sent before is in the log
    assert started[0][3:5] == ["policies", "evaluate"]
    rows = service.database.read("SELECT who, what, detail FROM audit")
    assert [(who, what, json.loads(detail)["why"]) for who, what, detail in rows] == [
        ("me", "not evaluated", "segue: no episodes")
    ]


def test_what_serves_imports_no_jax() -> None:
    code = "import sys, segue.live.admin, segue.live.overview, segue.cli.serve; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_the_command_line_works_without_a_service(
    serve: Serve, other: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    service = serve()
    db = log(service)
    service.close()
    assert run(capsys, "policies", "stage", str(other.directory), "--name", "other", "--db", db)[1].endswith("staged\n")
    assert "was staged before" in run(capsys, "policies", "stage", str(other.directory), "--db", db)[1]
    assert json.loads(run(capsys, "policies", "rules", "--window", "60", "--shares", "0.2,0.5", "--db", db)[1]) == {
        "window": 60.0,
        "missing": 0.0,
        "alpha": 0.05,
        "shares": [0.2, 0.5],
        "cost": None,
        "cost_limit": None,
        "gate": "passed",
        "effective": 30.0,
        "run_length": 100_000.0,
        "automatic": True,
    }
    done = run(capsys, "policies", "shadow", "other", "--db", db)[1]
    assert "mode shadow" in done
    assert "begins only by hand" not in done
    assert "20% of the units" in run(capsys, "policies", "canary", "other", "--force", "--db", db)[1]
    assert "mode live" in run(capsys, "policies", "promote", "other", "--force", "--why", "test", "--db", db)[1]
    listed = json.loads(run(capsys, "policies", "--json", "--db", db)[1])
    assert [one["status"] for one in listed] == ["retired", "live"]
    table = run(capsys, "policies", "--db", db)[1]
    assert "other" in table
    assert "retired" in table


def test_a_policy_that_only_watches_is_not_said_to_be_live(
    serve: Serve, other: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    service = serve(mode="apprentice")
    db = log(service)

    def seen() -> tuple[str, list[str]]:
        return run(capsys, "policies", "--db", db)[1].splitlines()[-1], [one.status for one in policies(service.log)]

    [(first,)] = service.log.read("SELECT policy FROM policies")
    assert seen() == (
        f"mode apprentice: the application acts, policy {first[:12]} decides on paper; explore policy",
        ["shadow"],
    )
    candidate = stage(service.log, other.directory, "other")
    done = run(capsys, "policies", "shadow", "other", "--db", db)[1]
    assert "beside an application a canary begins only by hand: `segue policies evaluate other`" in done
    said, status = seen()
    assert (f"policy {candidate[:12]} decides on paper" in said, status) == (True, ["staged", "shadow"])
    run(capsys, "policies", "shadow", first, "--db", db)  # it watched, so it may again
    assert seen()[1] == ["shadow", "retired"]
    run(capsys, "policies", "rules", "--window", "60", "--db", db)
    run(capsys, "policies", "canary", "other", "--force", "--share", "0.2", "--db", db)
    said, status = seen()
    assert f"the application acts, policy {candidate[:12]} for 20% of the units" in said
    assert status == ["staged", "canary"]
    run(capsys, "policies", "pause", "--db", db)
    said, status = seen()
    assert f"the application acts, the trial of policy {candidate[:12]} is paused" in said
    assert status == ["staged", "paused"]
    run(capsys, "policies", "rollback", "--db", db)
    assert seen()[1] == ["shadow", "retired"]  # the first policy decides on paper again
    assert "nothing to roll back" in run(capsys, "policies", "rollback", "--db", db)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["promot", "x"], "did you mean 'promote'"),
        (["promote"], "expected a policy after it"),
        (["explore"], "expected no, policy or a share of random actions (0.1) after it"),
        (["rollback", "x"], "expected nothing after it"),
        (["rollback", "--share", "0.5"], "--share goes with canary"),
        (["rules", "--shares", "a"], "expected numbers joined by commas"),
        (["rules", "--alpha", "2"], "alpha"),
        (["shadow", "nobody"], "the log has no policy 'nobody'"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused_in_one_line(
    service: Service, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, text = run(capsys, "policies", *arguments, "--db", log(service))
    assert code == 2
    assert said in text
    assert text.count("\n") == 1


def test_ab_says_which_policy_of_a_log_is_better(
    service: Service, other: Made, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no two policies have shared units" in run(capsys, "ab", "--db", log(service))[1]
    candidate = stage(service.database, other.directory, "other")
    declare(service.database, clock(), "me", {"window": 10.0, "shares": [0.5]})
    canary(service.database, candidate, "me", force=True)
    service.look()
    play(service, clock, range(200), better=2.0)
    clock.now += 20
    service.tick("promotion")
    code, text = run(capsys, "ab", "--db", log(service))
    assert code == 0
    assert "the candidate is better" in text
    found = json.loads(run(capsys, "ab", "exported", "other", "--db", log(service), "--json")[1])
    assert found["policies"]["candidate"] == candidate
    assert sum(arm["units"] for arm in found["arms"].values()) == 200
    assert found["interval"][0] < 2.0 < found["interval"][1]
    assert "never shared units" in run(capsys, "ab", "other", "other", "--db", log(service))[1]
    longer = json.loads(run(capsys, "ab", "--db", log(service), "--window", "1000", "--json")[1])
    assert sum(arm["waiting"] for arm in longer["arms"].values()) == 200, "their window is still open"


def test_ab_judges_two_exported_policies_from_a_dataset(
    switch: Made, other: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    data = {
        "observations": rng.normal(size=(300, 3)).astype(np.float32),
        "actions": rng.integers(4, size=300),
        "rewards": rng.normal(size=300),
        "terminals": np.ones(300, bool),
        "behaviour_log_prob": np.full(300, np.log(1 / 4)),
        "discrete_actions": np.array(4),
    }
    np.savez(tmp_path / "log.npz", **data)
    places = [str(made.directory) for made in (switch, other)]
    code, text = run(capsys, "ab", *places, "--dataset", str(tmp_path / "log.npz"), "--json")
    assert code == 0
    found = json.loads(text)
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    assert found["verdict"].startswith("not enough evidence that they differ")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_ab_says_which_of_two_exported_policies_a_dataset_shows_to_be_better(
    switch: Made, other: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], order: tuple[int, int]
) -> None:
    """Uniform actions, of which those that `other` takes and `switch` does not are rewarded."""
    rng = np.random.default_rng(0)
    rows = 6000
    observations = rng.normal(size=(rows, 3)).astype(np.float32)
    actions = rng.integers(4, size=rows)
    wanted, avoided = (np.exp(load_policy(made.directory).log_probs(observations)) for made in (other, switch))
    taken = np.arange(rows), actions
    data = {
        "observations": observations,
        "actions": actions,
        "rewards": (wanted[taken] > avoided[taken]).astype(np.float32),
        "terminals": np.ones(rows, bool),
        "behaviour_log_prob": np.full(rows, np.log(1 / 4)),
        "discrete_actions": np.array(4),
    }
    np.savez(tmp_path / "log.npz", **data)
    places = [str((switch, other)[i].directory) for i in order]
    code, text = run(capsys, "ab", *places, "--dataset", str(tmp_path / "log.npz"))
    assert code == 0
    assert f"{other.directory} is better than {switch.directory} by 0." in text
    assert "effective episodes" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected --db LOG"),
        (["a", "--db", "x.db"], "expected two, or none"),
        (["--db", "no.db"], "no live log here"),
        (["--db", "x.db", "--alpha", "2"], "between 0 and 1"),
        (["--db", "x.db", "--window", "nan"], "--window is nan; expected seconds above 0"),
        (["a", "b", "--dataset", "x.npz", "--window", "60"], "--window is of units of a live log (--db)"),
        (["--dataset", "x.npz"], "expected two directories"),
    ],
)
def test_ab_refuses_in_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "ab", *arguments)
    assert (code, text.count("\n")) == (2, 1)
    assert said in text


def test_a_step_by_a_user_without_a_name_is_kept_as_the_command_line_s(
    serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose user is in no /etc/passwd."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", nameless)
    service = serve()
    assert run(capsys, "policies", "explore", "0.2", "--db", log(service))[0] == 0
    assert service.log.read("SELECT who FROM deployments ORDER BY seq DESC LIMIT 1") == [("command line",)]


def test_staging_says_if_the_gate_cannot_judge_and_exploring_is_the_way_out(
    serve: Serve, other: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    service = serve(explore="no")
    db = log(service)
    code, said = run(capsys, "policies", "stage", str(other.directory), "--db", db)
    assert (code, "warning: the live policy does not explore" in said) == (0, True)
    assert "explore 0.2" in run(capsys, "policies", "explore", "0.2", "--why", "to judge", "--db", db)[1]
    assert "warning" not in run(capsys, "policies", "stage", str(other.directory), "--db", db)[1]
    assert service.look().explore == "0.2"
    assert main(["policies", "explore", "2", "--db", db]) == 2
    assert "expected no, policy, or a share" in capsys.readouterr().err
    assert service.look().explore == "0.2"


def test_staging_says_that_a_policy_without_probabilities_cannot_be_judged(
    serve: Serve, chunks: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    service = serve(policy=chunks.directory)
    said = run(capsys, "policies", "stage", str(chunks.directory), "--db", log(service))[1]
    assert "warning: it does not know how probable its actions are" in said
    assert "`canary --force` goes without" in said


def test_where_the_application_acts_no_exploring_is_asked_for(
    serve: Serve, other: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    service = serve(mode="apprentice", explore="no")
    assert "warning" not in run(capsys, "policies", "stage", str(other.directory), "--db", log(service))[1]
