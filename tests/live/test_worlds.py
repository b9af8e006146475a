"""Simulated worlds, and traffic that asks a real service over HTTP."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from made import Made
from serving import Serve

import segue
from segue.cli.serve import _listen
from segue.errors import SegueError
from segue.live import Service
from segue.live.http import application
from segue.live.worlds import WORLDS, Glucose, Recommendation, make_world
from segue.live.worlds.__main__ import logged, main
from segue.live.worlds.glucose import BASAL_RATE, risk
from segue.live.worlds.settings import Traffic
from segue.live.worlds.traffic import Tally, drive

HASTE = {"think": 0.001, "delay": 0.003}


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """The address of this service over HTTP."""
    with _listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(application(service, "token"), log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        listener.listen()
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def simulated(service: Service, world: str = "env:SegueTestSwitch-v0", **traffic: object) -> Tally:
    """What became of this traffic."""
    with listening(service) as url:
        return asyncio.run(drive(url, world, Traffic(**{**HASTE, **traffic})))  # type: ignore[arg-type]


def test_traffic_with_faults_is_in_the_log_once(serve: Serve) -> None:
    tally = simulated(serve(), clients=20, episodes=200, retry=0.3, duplicate=0.3, drop=0.2, units=150)
    service = serve()  # the server has closed the first
    count = tally.count
    assert count["episodes"] == count["decisions"] == 200
    assert count["other answers"] == count["refused"] == 0
    assert 30 < count["retries"] < 100
    assert count["outcomes"] + count["dropped"] == 200
    [(decisions, episodes, units)] = service.database.read(
        "SELECT (SELECT COUNT(*) FROM decisions), COUNT(*), COUNT(DISTINCT unit) FROM episodes"
    )
    assert (decisions, episodes) == (200, 200)
    assert 50 < units < 150  # some came again
    assert service.database.read("SELECT COUNT(*) FROM outcomes") == [(count["outcomes"],)]


def test_no_line_is_said_twice_while_nothing_happens(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segue.live.worlds.traffic, "REPORT", 0.0001)
    lines: list[str] = []
    with listening(serve()) as url:
        asyncio.run(drive(url, "env:SegueTestSwitch-v0", Traffic(**HASTE, clients=1, episodes=5), None, lines.append))
    assert len(set(lines)) == len(lines)
    assert [line.startswith("segue: simulation ended: ") for line in lines] == [False] * (len(lines) - 1) + [True]


def test_a_log_can_be_driven_again(serve: Serve) -> None:
    for _ in range(2):
        simulated(serve(), clients=2, episodes=5)
    assert serve().database.read("SELECT COUNT(*) FROM episodes") == [(10,)]


def test_in_apprentice_mode_the_clients_act_and_say_how_probable_that_was(serve: Serve) -> None:
    simulated(serve(mode="apprentice"), clients=3, episodes=9)
    assert serve().database.read("SELECT DISTINCT mode, log_prob FROM decisions") == [("apprentice", -np.log(4))]


def test_traffic_of_another_world_is_told_what_is_wrong(serve: Serve) -> None:
    with pytest.raises(SegueError, match=r"refused a decision of this world \(observation\): .*expected \(3,\)"):
        simulated(serve(), "recommendation", clients=1, episodes=1)


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """The address of a server that gives each connection one of these answers, and then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def http(status: int, content: bytes, *headers: bytes) -> bytes:
    """An answer as it goes over the wire."""
    lines = [b"HTTP/1.1 %d Said" % status, b"content-length: %d" % len(content), *headers]
    return b"\r\n".join([*lines, b"", content])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http(404, b"<html>"), r"/v1/decisions: the address answered 404: '<html>'; expected a service"),
        (http(200, b"<html>"), r"/v1/decisions: the address answered 200: '<html>'; expected a service"),
        (http(503, b"busy"), r"/v1/decisions: the service gave no answer within 0 seconds \(busy\)"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", r"no answer within 0 seconds \(.*the answer is not Segue's"),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000, r"no answer within 0 seconds \(.*the answer is not Segue's"),
        (b"", r"no answer within 0 seconds \(the connection was lost"),
    ],
    ids=["a page", "a page that is fine", "busy", "SSH", "endless headers", "nothing"],
)
def test_traffic_to_what_is_no_service_is_told_so(answer: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.live.worlds.traffic.PATIENCE", 0.0)
    with answering(answer) as url, pytest.raises(SegueError, match=said):
        asyncio.run(drive(url, "env:SegueTestSwitch-v0", Traffic(**HASTE, clients=1, episodes=1)))


def test_traffic_asks_again_after_an_answer_that_did_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.live.worlds.traffic.PAUSE", 0.0)
    decided = (
        b'{"decision_id":"d","episode_id":"e","t":0,"action":1,"log_prob":0,"arm":"live","policy":"","mode":"live"}'
    )
    refused = b'{"code":"unknown_decision","message":"there is none"}'
    closes = b"connection: close"
    with answering(b"", http(503, b"busy", closes), http(200, decided, closes), http(404, refused)) as url:
        tally = asyncio.run(drive(url, "env:SegueTestSwitch-v0", Traffic(**HASTE, clients=1, episodes=1, retry=0.0)))
    assert (tally.count["decisions"], tally.count["refused"], tally.count["outcomes"]) == (1, 1, 0)
    assert tally.line().startswith("1 decisions")


def test_traffic_sends_observations_of_any_space_as_json(serve: Serve, crane: Made) -> None:
    tally = simulated(serve(policy=crane.directory), "env:SegueTestCrane-v0", clients=1, episodes=2)
    assert tally.count["decisions"] == 6  # three steps each
    assert serve(policy=crane.directory).database.read("SELECT COUNT(*) FROM steps") == [(6,)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cartpole"], "expected --to FILE.npz or --url URL, one of both"),
        (["cartpole", "--to", "log.npz", "--url", "http://127.0.0.1:1"], "one of both"),
        (["cartpole", "--to", "log.npz", "--traffic.episodes", "None"], "--traffic.episodes N: a dataset has an end"),
        (["cartpole", "--to", "there.npz"], "there.npz: is there already; choose another name"),
    ],
)
def test_a_command_of_worlds_that_makes_no_sense_is_refused(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.npz").write_text("mine")
    with pytest.raises(SegueError, match=said):
        main(arguments)
    assert (tmp_path / "there.npz").read_text() == "mine"
    assert not (tmp_path / "log.npz").exists()


def test_the_command_drives_a_service(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    with listening(serve()) as url:
        haste = ["--traffic.think", "0.001", "--traffic.delay", "0.001", "--traffic.episodes", "3"]
        assert main(["env:SegueTestSwitch-v0", "--url", url, *haste]) == 0
    assert "segue: simulation ended: " in capsys.readouterr().out
    assert serve().database.read("SELECT COUNT(*) FROM episodes") == [(3,)]


@pytest.mark.parametrize("name", WORLDS)
def test_a_worlds_log_is_a_dataset_with_probabilities(name: str, tmp_path: Path) -> None:
    file = tmp_path / "log.npz"
    assert main([name, "--to", str(file), "--traffic.episodes", "5"]) == 0
    dataset = segue.load(f"npz:{file}")
    assert dataset.behaviour_log_prob is not None
    with np.load(file) as columns:
        assert str(columns["env_id"]) == f"segue.live.worlds:{WORLDS[name].__name__}"
        again = logged(make_world(name), name, 5, 0)
        np.testing.assert_array_equal(columns["observations"], again["observations"])
    with pytest.raises(SegueError, match="is there already"):
        main([name, "--to", str(file)])


@given(unit=st.integers(0, 10_000), seed=st.integers(0, 100))
def test_the_probabilities_of_an_editors_choices_are_their_frequencies(unit: int, seed: int) -> None:
    world, source = Recommendation(), np.random.default_rng(seed)
    observation, _ = world.reset(seed=seed, options={"unit": unit})
    drawn = [world.behaviour(observation, source) for _ in range(400)]
    said = {int(item): np.exp(log_prob) for item, log_prob in drawn}
    for item, probability in said.items():
        share = np.mean([int(one) == item for one, _ in drawn])
        assert abs(share - probability) < 5 * np.sqrt(probability * (1 - probability) / 400)


def test_the_density_of_a_dose_integrates_to_one() -> None:
    world, source = Glucose(), np.random.default_rng(0)
    observation = np.array([2.0, 0, 0, 1, 0.5], np.float32)
    actions, log_probs = zip(*(world.behaviour(observation, source) for _ in range(4_000)), strict=True)
    scaled = np.array(actions).ravel() / 30 - 1
    order = np.argsort(scaled)
    assert abs(np.trapezoid(np.exp(np.array(log_probs)[order]), scaled[order]) - 1) < 0.02


def test_glucose_rests_at_the_basal_rate_and_falls_above_it() -> None:
    world = Glucose()
    world.reset(seed=1, options={"unit": 3})
    world._meals = set()
    start = world._glucose
    for _ in range(20):
        world.step([BASAL_RATE])
    assert abs(world._glucose - start) < 1e-6
    for _ in range(6):
        world.step([60.0])
    assert world._glucose < start - 10


def test_the_risk_of_glucose_is_nothing_at_its_centre_and_grows_on_both_sides() -> None:
    assert risk(112.5) < 0.01
    assert risk(50) > risk(70) > 1 < risk(180) < risk(300)


@pytest.mark.parametrize("name", WORLDS)
def test_a_unit_is_the_same_every_time(name: str) -> None:
    def hidden(unit: int) -> object:
        world = make_world(name)
        world.reset(seed=0, options={"unit": unit})
        return vars(world.unwrapped)["_tastes" if name == "recommendation" else "_sensitivity"]

    np.testing.assert_array_equal(hidden(7), hidden(7))
    assert np.any(hidden(7) != hidden(8))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("glukose", "did you mean 'glucose'"),
        ("env:NoSuch-v0", "cannot be made"),
        ("somewhere", "there is cartpole, env:ID, glucose, recommendation"),
    ],
)
def test_a_world_that_does_not_exist_is_refused_in_one_line(name: str, said: str) -> None:
    with pytest.raises(SegueError, match=said) as error:
        make_world(name)
    assert "\n" not in str(error.value)
