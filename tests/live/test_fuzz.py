"""Payloads that nobody should send; `python -m studies.reliability live-fuzz` sends many more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from serving import Serve
from starlette.applications import Starlette
from studies.reliability.live_fuzz import KEPT, Counter, fuzz_bytes, fuzz_schema, post, rows_that_should_not_be_there

from segue.acting import Acted
from segue.errors import SegueError
from segue.live import http
from segue.live.http import application
from segue.live.schema import DeploymentRow


@pytest.mark.parametrize(("fuzz", "count"), [(fuzz_bytes, 400), (fuzz_schema, 136)])
def test_no_request_breaks_the_service_or_its_log(fuzz: Callable[..., Counter[Any]], count: int, serve: Serve) -> None:
    service = serve()
    statuses = fuzz(service, count)
    service.begin(episode_id="the end")
    assert rows_that_should_not_be_there(service) == []
    [(kept,)] = service.database.read("SELECT COUNT(*) FROM refused")
    assert kept >= sum(statuses[status] for status in KEPT) > 0
    assert statuses[200]


def test_no_request_breaks_a_trial_beside_an_application_whose_candidate_fails_now_and_then(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(mode="apprentice")
    now = service.deployment
    service.deploy(DeploymentRow(0.0, now.mode, now.live, now.live, 0.5, now.explore, "test", "", 1))
    policy, draw = service.policy(now.live), random.Random(0)
    act = policy.act

    def flaky(*given: Any, **more: Any) -> Acted:
        if draw.random() < 0.3:
            raise SegueError("NaN")
        return act(*given, **more)

    monkeypatch.setattr(policy, "act", flaky)
    fuzz_bytes(service, 1_000)
    assert rows_that_should_not_be_there(service) == []
    acted = service.database.read("SELECT e.arm, d.policy FROM decisions d JOIN episodes e ON e.episode = d.episode")
    assert set(acted) == {("application", ""), ("candidate", ""), ("candidate", now.live)}
    arms = service.database.read("SELECT arm, probability, unit FROM episodes")
    assert [row[:2] for row in arms] == [(service.deployment.arm(unit)[0], 0.5) for *_, unit in arms]


def answer(app: Starlette, *messages: dict[str, object]) -> tuple[list[int], bool]:
    """Statuses that the application sends for these parts of a body, and whether it ended."""
    sent: list[int] = []
    left = list(messages)

    async def receive() -> dict[str, object]:
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, object]) -> None:
        sent.extend([message["status"]] if "status" in message else [])  # type: ignore[list-item]

    async def run() -> bool:
        async with app.router.lifespan_context(app):
            headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
            scope = {"type": "http", "method": "POST", "path": "/v1/decisions", "headers": headers, "query_string": b""}
            await app({**scope, "root_path": "", "http_version": "1.1", "scheme": "http"}, receive, send)  # type: ignore[arg-type]
        return True

    return sent, asyncio.run(run())


def test_a_body_that_does_not_come_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE", 0.01)
    part = {"type": "http.request", "body": b'{"decision_id":', "more_body": True}
    assert answer(application(serve(), "token"), part) == ([408], True)


def test_a_client_that_goes_away_within_its_request_leaves_nothing(serve: Serve) -> None:
    part = {"type": "http.request", "body": b'{"decision_id":', "more_body": True}
    assert answer(application(serve(), "token"), part, {"type": "http.disconnect"}) == ([], True)
    assert serve().database.read("SELECT (SELECT COUNT(*) FROM refused), COUNT(*) FROM decisions") == [(0, 0)]


def test_ids_of_any_characters_come_back_as_they_were_sent(serve: Serve) -> None:
    service = serve()
    names = ["é" * 200, "\ud7ff\U0010ffff", "'; DROP TABLE decisions; --", " "]
    for name in names:
        assert service.decide(decision_id=name, episode_id=name, observation=[0, 0, 0]).decision_id == name
    assert [name for (name,) in service.database.read("SELECT decision FROM decisions ORDER BY seq")] == names


def test_a_list_of_more_than_1000_outcomes_is_refused(serve: Serve) -> None:
    app = application(serve(), "token")

    async def both() -> list[int]:
        async with app.router.lifespan_context(app):
            one = b'{"decision_id":"d","reward":0}'
            return [(await post(app, "/v1/outcomes", b"[" + b",".join([one] * n) + b"]"))[0] for n in (1000, 1001)]

    assert asyncio.run(both()) == [200, 400]


def test_a_body_of_two_megabytes_is_refused_and_one_just_below_is_read(serve: Serve) -> None:
    app = application(serve(), "token")

    async def both() -> list[int]:
        async with app.router.lifespan_context(app):
            return [
                (await post(app, "/v1/decisions", b"[" * size))[0] for size in (http.MOST_BYTES + 1, http.MOST_BYTES)
            ]

    assert asyncio.run(both()) == [413, 400]
