"""The service over HTTP, as an application meets it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from made import Made
from serving import HERE, Serve
from starlette.testclient import TestClient

from segue.cli.main import main
from segue.cli.serve import _listen
from segue.live import Client
from segue.live.admin import whole
from segue.live.client import ServiceError
from segue.live.database import Unavailable, open_database
from segue.live.http import application
from segue.live.messages import Outcome

X = [0.1, -0.2, 0.3]


@pytest.fixture
def web(serve: Serve) -> Iterator[TestClient]:
    with TestClient(application(serve(), "secret"), base_url=HERE) as client:
        yield client


def asked(web: TestClient, path: str, **content: Any) -> tuple[int, Any]:
    answer = web.post(path, json=content)
    return answer.status_code, answer.json()


def test_an_episode_from_its_first_decision_to_its_end(web: TestClient) -> None:
    assert asked(web, "/v1/episodes", episode_id="e", unit_id="u")[1]["arm"] == "live"
    status, decided = asked(web, "/v1/decisions", decision_id="d", episode_id="e", observation=X)
    assert status == 200
    assert decided["action"] in (1, 2, 3, 4)
    assert asked(web, "/v1/activations", decision_id="d", executed=True)[0] == 200
    assert asked(web, "/v1/outcomes", decision_id="d", reward=1.0, terminated=True)[0] == 200
    status, problem = asked(web, "/v1/decisions", decision_id="d2", episode_id="e", observation=X)
    assert (status, problem["code"]) == (409, "episode_ended")


def test_many_outcomes_are_taken_or_refused_one_by_one(web: TestClient) -> None:
    asked(web, "/v1/decisions", decision_id="d", episode_id="e", observation=X)
    answer = web.post("/v1/outcomes", json=[{"decision_id": "d", "reward": 1}, {"decision_id": "x", "reward": 1}])
    assert [one.get("status") or one["code"] for one in answer.json()] == ["recorded", "unknown_decision"]


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", {}, 400, "malformed"),
        (b"[]", {}, 400, "malformed"),
        (b'{"decision_id": 1, "episode_id": "e", "observation": []}', {}, 400, "malformed"),
        (b"\xff\xfe", {}, 400, "malformed"),
        (b"[" * 100_000, {}, 400, "malformed"),
        (b"{}", {"content-type": "text/plain"}, 415, "not_json"),
        (b"[" + b" " * 2**21 + b"]", {}, 413, "too_large"),
    ],
)
def test_what_is_malformed_is_refused(
    web: TestClient, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = web.post("/v1/decisions", content=content, headers={"content-type": "application/json", **headers})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8008", "127.0.0.1.evil.example", "[::2]:80", "", "é"])
def test_another_name_of_this_machine_is_refused_everywhere(web: TestClient, host: str) -> None:
    headers = {"host": host.encode()}
    for answer in (
        web.get("/", headers=headers),
        web.get("/healthz", headers=headers),
        web.post("/v1/decisions", json={"decision_id": "d", "episode_id": "e", "observation": X}, headers=headers),
    ):
        assert (answer.status_code, answer.json()["code"]) == (421, "host")
        assert "--allow-host" in answer.json()["message"]


def test_names_that_are_allowed_are_taken_with_any_port(serve: Serve) -> None:
    app = application(serve(), "secret", hosts=["Policy.example"])
    with TestClient(app, base_url=HERE) as web:
        for host in ("policy.example", "policy.EXAMPLE:443", "localhost:8008", "127.0.0.1", "[::1]:8008"):
            assert web.get("/healthz", headers={"host": host}).status_code == 200
        assert web.get("/healthz", headers={"host": "other.example"}).status_code == 421


@pytest.mark.parametrize(("hosts", "status"), [([], 200), (["policy.example"], 421)])
def test_beyond_this_machine_any_name_is_taken_unless_some_are_given(
    serve: Serve, hosts: list[str], status: int
) -> None:
    with TestClient(application(serve(), "secret", everywhere=True, hosts=hosts), base_url=HERE) as web:
        assert web.get("/healthz", headers={"host": "any.example"}).status_code == status


def test_a_request_without_a_content_type_is_refused(web: TestClient) -> None:
    answer = web.post("/v1/decisions", content=b'{"decision_id": "d", "episode_id": "e", "observation": [0, 0, 0]}')
    assert (answer.status_code, answer.json()["code"]) == (415, "not_json")


def test_a_fault_is_answered_and_logged(serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    service = serve()
    monkeypatch.setattr(service, "_decide", lambda *_: 1 / 0)
    with TestClient(application(service, "secret"), base_url=HERE) as web:
        status, problem = asked(web, "/v1/decisions", decision_id="d", episode_id="e", observation=X)
    assert (status, problem["code"]) == (500, "fault")
    assert "ZeroDivisionError" in caplog.text


def test_addresses_that_do_not_exist_point_to_those_that_do(web: TestClient) -> None:
    for answer in (web.get("/v1/nowhere"), web.get("/v1/decisions")):
        assert answer.status_code in (404, 405)
        assert "/openapi.json" in answer.json()["message"]


def test_the_service_says_how_it_is(web: TestClient) -> None:
    asked(web, "/v1/decisions", decision_id="d", episode_id="e", observation=X)
    assert web.get("/healthz").status_code == web.get("/readyz").status_code == 200
    assert 'segue_decisions_total{arm="live"} 1.0' in web.get("/metrics").text
    described = web.get("/openapi.json").json()
    assert set(described["paths"]) >= {"/v1/decisions", "/v1/outcomes", "/v1/episodes", "/v1/activations"}


def test_beyond_this_machine_every_request_needs_the_token(serve: Serve) -> None:
    with TestClient(application(serve(), "secret", everywhere=True), base_url=HERE) as web:
        content = {"decision_id": "d", "episode_id": "e", "observation": X}
        assert web.post("/v1/decisions", json=content).status_code == 401
        assert web.post("/v1/decisions", json=content, headers={"authorization": "Bearer wrong"}).status_code == 401
        assert web.post("/v1/decisions", json=content, headers={"authorization": "Bearer secret"}).status_code == 200


def test_a_service_that_cannot_write_is_not_ready(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    service = serve()
    with TestClient(application(service, "secret"), base_url=HERE) as web, monkeypatch.context() as patch:
        patch.setattr(service.database, "append", lambda rows: (_ for _ in ()).throw(Unavailable("the disk is full")))
        asked(web, "/v1/episodes", episode_id="e")
        ready = web.get("/readyz")
        assert (ready.status_code, ready.json()["message"]) == (503, "the disk is full")
        assert web.get("/healthz").status_code == 200
        patch.undo()
        asked(web, "/v1/episodes", episode_id="e")
        assert web.get("/readyz").status_code == 200


def test_an_answer_that_takes_too_long_is_a_503_and_what_comes_later_is_dropped(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, written = serve(), threading.Event()
    append = service.database.append
    monkeypatch.setattr("segue.live.http.PATIENCE", 0.001)
    monkeypatch.setattr(service.database, "append", lambda rows: written.wait(30) and append(rows))
    with TestClient(application(service, "secret"), base_url=HERE) as web:
        status, problem = asked(web, "/v1/episodes", episode_id="e")
        assert (status, problem["message"]) == (503, "not written within 0.001 seconds; send it again")
        written.set()
        monkeypatch.setattr("segue.live.http.PATIENCE", 30.0)
        assert asked(web, "/v1/episodes", episode_id="e")[1]["arm"] == "live"


def test_a_request_to_two_hosts_is_refused(web: TestClient) -> None:
    headers = [("host", "127.0.0.1"), ("host", "evil.example"), ("content-type", "application/json")]
    assert web.post("/v1/episodes", content=b'{"episode_id": "e"}', headers=headers).status_code == 421


def client_of(*answers: tuple[int, str]) -> tuple[Client, list[Any]]:
    """A client of a server that gives these answers one after the other, and what it was sent."""
    sent, left = list[Any](), iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        status, content = next(left)
        return httpx.Response(status, text=content)

    return Client("http://there", token="", patience=30.0, transport=httpx.MockTransport(answer)), sent


@pytest.mark.parametrize("status", [200, 404, 502])
@pytest.mark.parametrize("content", ["<html>nginx</html>", "", "[1]", '{"arms": 1}', '[{"status": "ok"}]'])
def test_a_server_that_is_no_service_is_said_to_be_none(status: int, content: str) -> None:
    for ask in (
        lambda client: client.begin(),
        lambda client: client.outcomes([Outcome("d", 1.0)]),
        lambda client: client.activation("d", executed=True),
    ):
        client, _ = client_of((status, content))
        with pytest.raises(ServiceError, match=rf"http://there/v1/\w+ answered {status}: .*check the address") as error:
            ask(client)
        assert error.value.code == "not_segue"


def test_a_service_that_is_busy_is_asked_again_with_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.live.client.time.sleep", lambda seconds: None)
    noted = '{"decision_id": "d", "status": "recorded"}'
    client, sent = client_of((503, '{"code": "unavailable", "message": "busy"}'), (408, "slow"), (200, noted))
    assert client.activation("d", executed=False, action=np.int64(2), who="me").status == "recorded"
    assert sent == [{"decision_id": "d", "executed": False, "action": 2, "who": "me"}] * 3


def test_what_is_no_json_is_not_sent() -> None:
    client, sent = client_of()
    with pytest.raises(TypeError, match="object cannot be sent as JSON"):
        client.decide("e", object())
    assert sent == []


Process = subprocess.Popen[str]


@contextlib.contextmanager
def serving(db: str, policy: Path, *more: str) -> Iterator[tuple[str, Process]]:
    """The address of `segue serve` as a process."""
    command = [sys.executable, "-m", "segue.cli.main", "serve", "--db", db, "--policy", str(policy), "--port", "0"]
    process = subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found
    yield found.group(), process
    process.kill()
    process.wait()


def test_a_client_drives_a_service_in_another_process(tmp_path: Path, switch: Made) -> None:
    with (
        serving(str(tmp_path / "live.db"), switch.directory) as (address, process),
        Client(address, patience=10) as client,
    ):
        begun = client.begin(unit_id="u")
        decided = client.decide(begun.episode_id, np.float32(X), decision_id="d")
        assert client.decide(begun.episode_id, np.float32(X), decision_id="d") == decided
        assert client.outcome("d", np.float64(1.0)).status == "recorded"
        answers = client.outcomes([Outcome("d", 1.0), Outcome("x", 1.0)])
        assert [type(one).__name__ for one in answers] == ["Noted", "Problem"]
        with pytest.raises(ServiceError, match="what was recorded stands") as refused:
            client.outcome("d", 3.0)
        assert refused.value.code == "contradiction"
        assert (tmp_path / "live.db.token").stat().st_mode & 0o777 == 0o600
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        with pytest.raises(ServiceError, match="given up"):
            Client(address, patience=0).begin()


def test_several_processes_serve_one_log_and_a_dead_one_is_replaced(shared: str, switch: Made) -> None:
    more = ("--workers", "2", "--token", "t")
    with serving(shared, switch.directory, *more) as (address, process), Client(address, "t") as client:
        for i in range(20):
            assert client.decide(f"e{i % 2}", X, decision_id=str(i)).t == i // 2
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(int(workers[0]), signal.SIGKILL)
        for i in range(40):
            with Client(address, "t") as anew:
                assert anew.decide(f"e{i % 2}", X, decision_id=str(i)).t == i // 2
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    log = open_database(shared)
    assert log.read("SELECT COUNT(*) FROM decisions") == [(40,)]
    log.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--db", "new.db"], "--policy"),
        (["--db", "new.db", "--policy", "nothing"], "expected a folder that `segue export RUN --to FOLDER` wrote"),
        (["--db", "new.db", "--host", "no.invalid"], "cannot listen at --host no.invalid"),
        (["--db", "new.db", "--polcy", "x"], "--policy"),
        (["--db", "sqlite://new.db", "--policy", "switch"], "three slashes"),
        (["--db", "new.db", "--allow-host", "http://a"], "without scheme and port"),
        (["--db", "new.db", "--policy", "switch", "--simulate", "nowhere"], "nowhere"),
        (["--db", "postgresql://127.0.0.1:1/x", "--policy", "switch"], "no token"),
    ],
)
def test_a_service_that_cannot_begin_says_why_and_begins_no_log(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: Any, capsys: Any, switch: Made
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGUE_TOKEN", raising=False)
    (tmp_path / "switch").symlink_to(switch.directory)
    assert main(["serve", "--port", "0", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert "--policy" not in arguments or not (tmp_path / "new.db").exists()


def test_a_simulated_world_gets_the_token_and_ends_with_the_service_however_that_ends(
    tmp_path: Path, switch: Made, monkeypatch: Any, capsys: Any
) -> None:
    begun: list[Any] = []

    class World:
        ended = ""

        def __init__(self, command: list[str], env: dict[str, str]) -> None:
            self.command, self.env = command, env
            begun.append(self)

        def terminate(self) -> None:
            self.ended = "told to end"

        def wait(self) -> None:
            self.ended += ", and waited for"

    def fails(self: Any, sockets: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(subprocess, "Popen", World)
    monkeypatch.setattr("uvicorn.Server.run", fails)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    place = ["--db", str(tmp_path / "live.db"), "--policy", str(switch.directory), "--port", "0", "--token", "secret"]
    names = ["--host", "127.0.0.2", "--allow-host", "policy.example"]
    assert main(["serve", *place, *names, "--simulate", "cartpole", "--traffic.clients", "3"]) == 2
    said = capsys.readouterr()
    assert said.err == "segue: Too many open files\n"
    (world,) = begun
    assert world.command[1:4] == ["-m", "segue.live.worlds", "cartpole"]
    address = world.command[world.command.index("--url") + 1]
    assert f"segue: {address} serves" in said.out
    assert address.startswith("http://127.0.0.2:")
    assert "--traffic.clients=3" in world.command
    assert world.env["SEGUE_TOKEN"] == "secret", "never on a command line, where other users can read it"
    assert "secret" not in world.command
    assert world.ended == "told to end, and waited for"


@pytest.mark.parametrize("port", ["70000", "65536", "-1"])
def test_a_port_out_of_range_is_said(port: str, capsys: Any) -> None:
    assert main(["serve", "--port", port, "--db", "new.db"]) == 2
    assert f"--port is {port}; expected 1 to 65535, or 0" in capsys.readouterr().err


def test_a_port_in_use_is_said(capsys: Any) -> None:
    with _listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", port, "--db", "new.db"]) == 2
    assert f"--port {port}: another program listens there, on 127.0.0.1; choose another port" in capsys.readouterr().err


def test_the_described_interface_is_json(web: TestClient) -> None:
    assert json.dumps(web.get("/openapi.json").json())


def test_the_description_says_which_ranges_the_page_has(serve: Serve) -> None:
    with TestClient(whole(serve(), "secret", False, 1000.0), base_url=HERE) as web:
        described = web.get("/openapi.json").json()["paths"]["/v1/board"]["get"]
        [parameter] = described["parameters"]
        assert (parameter["name"], parameter["in"], "security" in described) == ("range", "query", False)
        for span in parameter["schema"]["enum"]:
            assert web.get("/v1/board", params={"range": span}).status_code == 200
        assert web.get("/v1/board", params={"range": "week"}).status_code == 422
