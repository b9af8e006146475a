"""The page at `/`: its numbers, its refusals, and what a browser makes of it."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from made import Made
from serving import HERE, Serve
from starlette.testclient import TestClient

from segue.live import Service, board
from segue.live.admin import whole
from segue.live.board import BUCKETS, SUMS, WIDTH, Answered, Board, Seen, _Grid
from segue.live.http import Metrics
from segue.live.page import POLICY, latency
from segue.live.policies import stage
from segue.live.promotion import Promoter, canary, change, deployed, promote
from segue.live.schema import DecisionRow, EpisodeRow, GateRow, OutcomeRow, RefusedRow, Row
from segue.live.trial import declare
from segue.student_t import student_t

CHROMIUM = Path("/usr/bin/chromium")
KEY = {"authorization": "Bearer secret"}
NOBODY = Answered(0, None, None)


def episode(at: float, name: str, arm: str, rewards: list[float | None], lag: float = 2.0) -> list[Row]:
    """A step per reward; None: it never arrives."""
    rows: list[Row] = [EpisodeRow(at, name, name, arm, "p", 0.5, 1)]
    for t, reward in enumerate(rewards):
        step = f"{name}-{t}"
        rows.append(DecisionRow(at, step, name, t, b"", None, b"", None, "p", "canary", None))
        if reward is not None:
            rows.append(OutcomeRow(at + lag, step, step, reward, None, None, int(t == len(rewards) - 1), 0))
    return rows


def known(service: Service) -> float:
    """Six episodes, of which one is of the last minute, and two refusals; returns when the first began."""
    start = math.floor(time.time() / 10) * 10 - 1000.0
    declare(service.log, start, "me", {"window": 60.0, "missing": -1.0})
    service.log.append(
        [
            *episode(start, "a", "live", [1.0, 2.0]),
            *episode(start + 5, "b", "live", [1.0, None, 3.0]),
            *episode(start + 5, "c", "candidate", [4.0], lag=20.0),
            *episode(start + 500, "d", "candidate", [6.0]),
            *episode(start + 600, "e", "candidate", [8.0], lag=61.0),
            RefusedRow(start + 5, "outcomes", "unknown_decision", "there is no decision 'x'", "{}"),
            RefusedRow(start + 6, "outcomes", "unknown_decision", "there is no decision 'y'", "{}"),
            *episode(time.time(), "f", "live", [100.0], lag=0.0),
        ]
    )
    return start


def seen(service: Service, span: str = "all") -> Seen:
    return Board(service.log, Promoter(service.log)).see(span, NOBODY, 0, None)


def test_the_numbers_are_those_of_a_known_log(serve: Serve, place: str) -> None:
    service = serve(place)
    start = known(service)
    found = seen(service)
    live, candidate = found.arms["live"], found.arms["candidate"]
    assert (live.episodes, live.decisions, live.outcomes) == (3, 6, 5)
    assert (candidate.episodes, candidate.decisions, candidate.outcomes) == (3, 3, 3)
    # a: 3; b: 4 and a missing reward; f: its window is open.
    assert (live.counted, live.mean, live.due, live.missing) == (2, 3.0, 5, 1)
    # c: 4; d: 6; e: its reward came a second too late.
    assert (candidate.counted, candidate.mean, candidate.missing) == (3, 3.0, 1)
    half = student_t(0.975, 2) * np.std([4, 6, -1], ddof=1) / math.sqrt(3)
    assert (candidate.low, candidate.high) == (pytest.approx(3 - half), pytest.approx(3 + half))
    assert (live.late.median, candidate.late.median, candidate.late.most) == (3.0, 30.0, 300.0)
    assert [(one.code, one.count, one.message) for one in found.refused] == [
        ("unknown_decision", 2, "there is no decision 'y'")
    ]
    assert (sum(live.traffic), sum(candidate.traffic)) == (6, 3)
    assert live.traffic[math.floor((start - found.begins) / found.width)] == 5
    assert found.read == 1.0


def test_a_range_leaves_out_what_is_older(serve: Serve) -> None:
    service = serve()
    old = time.time() - 7200
    service.log.append([*episode(old, "a", "live", [1.0]), RefusedRow(old, "outcomes", "malformed", "", "{}")])
    assert seen(service, "hour").arms == {}
    assert seen(service, "hour").refused == []
    assert seen(service, "day").arms["live"].decisions == seen(service, "all").arms["live"].decisions == 1


def test_without_a_window_returns_count_when_an_episode_ends(serve: Serve) -> None:
    service = serve()
    start = time.time() - 100
    service.log.append([*episode(start, "a", "live", [1.0, 2.0]), *episode(start, "b", "live", [5.0, None])])
    one = seen(service).arms["live"]
    assert (one.counted, one.mean) == (1, 3.0)


def test_another_window_counts_all_returns_again(serve: Serve) -> None:
    service = serve()
    known(service)
    board = Board(service.log, Promoter(service.log))
    board.see("all", NOBODY, 0, None)
    declare(service.log, time.time(), "me", {"window": 10.0})
    assert board.see("hour", NOBODY, 0, None).arms == seen(service, "hour").arms


def test_reading_in_pieces_finds_the_same(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    service = serve()
    known(service)
    at_once = seen(service)
    monkeypatch.setattr(board, "AT_ONCE", 3)
    monkeypatch.setattr(board, "PATIENCE", 1e-3)
    slow = Board(service.log, Promoter(service.log))
    shares = [0.0]
    while shares[-1] < 1:
        found = slow.see("all", NOBODY, 0, None)
        assert found.read >= shares[-1]
        shares.append(found.read)
    assert found.arms == at_once.arms


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=200))
def test_the_grid_of_a_whole_log_loses_nothing_and_stays_small(times: list[float]) -> None:
    grid = _Grid(math.inf)
    for at in times:
        grid.add(at, "live", np.ones(SUMS))
        grid.tidy(max(times))
    assert sum(sums[0] for sums in grid.sums.values()) == len(times)
    first, last = min(grid.sums)[0], grid.last(max(times))
    assert last - first < BUCKETS
    assert first * grid.width <= min(times)
    assert math.log2(grid.width / WIDTH).is_integer()


def test_latency_is_read_from_the_histogram_of_prometheus() -> None:
    metrics = Metrics()
    assert latency(metrics) == NOBODY
    for seconds in [0.0015] * 98 + [0.04] * 2:
        metrics.seconds.observe(seconds)
    found = latency(metrics)
    assert found.count == 100
    assert found.median == pytest.approx(0.001 + 0.001 * 50 / 98)
    assert found.most == pytest.approx(0.02 + 0.03 / 2)
    metrics.seconds.observe(100.0)
    assert latency(metrics).most is not None


def test_deployments_gates_and_alarms_are_on_one_axis(serve: Serve, other: Made) -> None:
    service = serve()
    now = time.time()
    declare(service.log, now, "me", {"window": 60.0})
    policy = stage(service.log, other.directory, "other")
    service.log.append([GateRow(now, policy, "off-policy", "failed", '{"reason": "too few", "needed": 30}')])
    canary(service.log, policy, "ana", "to see", force=True)
    service.note("service", "given up", {"policy": policy, "why": "it was too slow"})
    service.note("learner", "late", {"why": "it is behind"})
    service.tick("test")
    found = seen(service)
    assert [(one.kind, one.what, one.who, one.why) for one in found.happened][1:] == [
        ("note", "rules", "me", "window = 60.0"),
        ("gate", "off-policy gate of other: failed", "", ""),
        ("deployment", "canary: exported acts, other for 10% of the units (forced)", "ana", "to see"),
        ("alarm", "given up: other", "service", "it was too slow"),
        ("note", "late", "learner", "it is behind"),
    ]
    assert found.off_policy is not None
    assert found.off_policy.evidence == {"reason": "too few", "needed": 30}
    assert found.trial is not None
    assert [(one.name, one.status, one.verdict) for one in found.policies] == [
        ("other", "canary", "failed"),
        ("exported", "live", None),
    ]


def test_a_trial_that_cannot_be_judged_is_said(serve: Serve, other: Made) -> None:
    service = serve()
    policy = stage(service.log, other.directory, "other")
    now = deployed(service.log)
    change(service.log, now, "me", "canary", "", mode="canary", candidate=policy, share=0.1)
    assert "before a reward window was declared" in str(seen(service).problem)


@pytest.fixture
def service(serve: Serve) -> Service:
    return serve()


@pytest.fixture
def web(service: Service) -> Iterator[TestClient]:
    with TestClient(whole(service, "secret", False, 1000.0), base_url=HERE) as client:
        yield client


def test_the_page_loads_nothing_from_elsewhere_and_holds_no_data(web: TestClient) -> None:
    for path, kind in (("/", "text/html"), ("/static/page.css", "text/css"), ("/static/page.js", "text/javascript")):
        answer = web.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-security-policy"] == POLICY
        assert "https://" not in answer.text
        assert "unsafe" not in POLICY
        assert "innerHTML" not in answer.text.replace("there is no innerHTML", "")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/static/..%2fpage.py", 404, "no_such_address"),
        ("/static/page.html.j2", 404, "no_such_address"),
        ("/v1/board?range=year", 422, "range"),
    ],
)
def test_what_is_not_there_is_refused_in_words(web: TestClient, path: str, status: int, code: str) -> None:
    answer = web.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_beyond_this_machine_data_need_the_token_and_the_page_does_not(service: Service) -> None:
    with TestClient(whole(service, "secret", True, 1000.0), base_url=HERE) as web:
        assert web.get("/").status_code == 200
        assert web.get("/v1/board").json()["code"] == "token"
        assert web.get("/v1/board", headers=KEY).json()["deployment"]["mode"] == "live"


def test_a_step_decided_upon_another_deployment_changes_nothing(web: TestClient, service: Service, other: Made) -> None:
    looked_at = service.deployment.seq
    promote(service.log, stage(service.log, other.directory), "somebody else", force=True)
    answer = web.post("/v1/rollback", headers=KEY, json={"upon": looked_at})
    assert (answer.status_code, answer.json()["code"]) == (409, "changed")
    assert web.post("/v1/rollback", headers=KEY, json={"upon": service.look().seq}).status_code == 200


def test_the_page_knows_that_a_rollback_lets_the_application_act_again(serve: Serve, other: Made) -> None:
    service = serve(mode="apprentice")
    assert seen(service).previous is None
    promote(service.log, stage(service.log, other.directory), "me", force=True)
    service.look()
    assert seen(service).previous == ""


# In a browser.


class Tab:
    """A page, and what went wrong on it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: self.requests.append(request.url))

    def text(self, of: str) -> str:
        return str(self.page.inner_text(of))

    def act(self, button: str, token: str) -> None:
        """Press a button, and confirm."""
        self.page.click(button)
        self.page.fill("#why", "a test")
        if self.page.is_visible("#token"):
            self.page.fill("#token", token)
        self.page.click("#do")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    play = pytest.importorskip("playwright.sync_api", reason="a browser is driven by pip install 'segue[dev]'")
    if not CHROMIUM.exists():
        pytest.skip("there is no /usr/bin/chromium: apt-get install chromium")
    flags = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"
    with play.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=str(CHROMIUM), args=flags.split())
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any, service: Service) -> Iterator[tuple[Callable[..., Tab], Callable[[], None]]]:
    """Serves and opens the page; and ends the service."""
    with contextlib.ExitStack() as stack:

        def opened(everywhere: bool = False) -> Tab:
            listening = stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0))))
            server = uvicorn.Server(uvicorn.Config(whole(service, "secret", everywhere, 1000.0), log_config=None))
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()

            def end() -> None:
                server.should_exit = server.force_exit = True
                thread.join()

            stack.callback(end)
            ends.append(end)
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            stack.callback(page.close)
            tab = Tab(page)
            page.goto(f"http://127.0.0.1:{listening.getsockname()[1]}/")
            return tab

        ends: list[Callable[[], None]] = []
        yield opened, lambda: ends[-1]()


def test_a_browser_shows_the_numbers_without_an_error_and_asks_nobody_else(open_page: Any, service: Service) -> None:
    known(service)
    opened, _ = open_page
    tab = opened()
    tab.page.wait_for_selector("#arms td")
    rows = tab.page.locator("#arms tbody tr").all_inner_texts()
    assert [row.split("\t")[:5] for row in rows] == [["live", "3", "6", "5", "3"], ["candidate", "3", "3", "3", "3"]]
    assert "unknown_decision" in tab.text("#refused")
    assert tab.page.locator("#charts polygon.area").count() == 2
    assert "acts for everyone" in tab.text("h1")
    tab.page.focus("#charts")
    tab.page.keyboard.press("ArrowLeft")
    assert " decisions" in tab.text("#reading")
    origin = tab.page.url
    assert all(url.startswith((origin, "data:")) for url in tab.requests)
    assert tab.errors == []


def test_an_empty_log_and_a_narrow_screen_have_a_page_too(open_page: Any) -> None:
    opened, _ = open_page
    tab = opened()
    tab.page.set_viewport_size({"width": 390, "height": 800})
    tab.page.wait_for_selector("#main:not([hidden])")
    assert "No episode in this range yet" in tab.text("#arms")
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 390
    assert tab.errors == []


def test_a_rollback_by_button_changes_the_deployment(open_page: Any, service: Service, other: Made) -> None:
    declare(service.log, 0.0, "me", {"window": 60.0})
    candidate = stage(service.log, other.directory, "other")
    canary(service.log, candidate, "me", force=True)
    opened, _ = open_page
    tab = opened()
    tab.page.click("[data-key='rollback ']")
    assert "Withdraws other" in tab.text("#dialog-does")
    assert service.look().candidate == candidate
    tab.page.click("#cancel")
    tab.act("[data-key='rollback ']", "secret")
    tab.page.wait_for_selector("h1:has-text('acts for everyone')")
    assert service.look().candidate is None
    [(who, why)] = service.database.read("SELECT who, why FROM deployments ORDER BY seq DESC LIMIT 1")
    assert (who, why) == ("administrator", "a test")
    assert tab.page.evaluate("localStorage.length") == 0
    # The token is known by now.
    tab.act("[data-key='freeze ']", "")
    tab.page.wait_for_selector("h1:has-text('frozen')")
    tab.act("[data-key='resume ']", "")
    tab.page.wait_for_selector("h1:has-text('acts for everyone')")
    assert tab.errors == []


def test_where_the_application_acts_the_page_says_what_shadow_does_there(
    open_page: Any, service: Service, other: Made
) -> None:
    change(service.log, deployed(service.log), "me", "watch", "", mode="apprentice")
    candidate = stage(service.log, other.directory, "other")
    opened, _ = open_page
    tab = opened()
    tab.page.wait_for_selector("h1:has-text('the application acts, exported decides on paper')")
    assert "On paper: exported" in tab.text("#headline")
    tab.page.click(f"[data-key='shadow {candidate}']")
    said = tab.text("#dialog-does")
    assert "other decides on paper beside the application, in place of exported" in said
    assert "No canary begins without you: judge it against the application" in said
    tab.page.click("#cancel")
    tab.act(f"[data-key='shadow {candidate}']", "secret")
    tab.page.wait_for_selector("h1:has-text('the application acts, other decides on paper')")
    assert "Candidate: other" in tab.text("#headline")
    assert "exported" not in tab.text("#headline")
    assert tab.errors == []


def test_a_wrong_token_and_a_refusal_of_the_service_are_said_in_words(
    open_page: Any, service: Service, other: Made
) -> None:
    policy, before = stage(service.log, other.directory, "other"), service.deployment.seq
    opened, _ = open_page
    tab = opened()
    tab.act(f"[data-key='promote {policy}']", "wrong")
    tab.page.wait_for_selector('#dialog-error:has-text("not the service\'s token")')
    assert tab.page.evaluate("sessionStorage.getItem('token')") is None
    tab.page.fill("#token", "secret")
    tab.page.click("#do")
    tab.page.wait_for_selector("#dialog-error:has-text('Nothing was changed')")
    assert "has not passed its trial" in tab.text("#dialog-error")
    assert service.look().seq == before


def test_names_and_reasons_are_text_whatever_they_contain(open_page: Any, service: Service, other: Made) -> None:
    evil = "<img src=x onerror=\"document.title='broken'\">"
    stage(service.log, other.directory, evil)
    service.note(evil, evil, {"why": evil})
    service.log.append([RefusedRow(time.time(), "outcomes", evil, evil, "{}")])
    opened, _ = open_page
    tab = opened()
    tab.page.wait_for_selector("#events td")
    assert evil in tab.text("#policies")
    assert evil in tab.text("#events")
    assert evil in tab.text("#refused")
    assert tab.page.locator("img").count() == 0
    assert tab.page.title() == "live · Segue live"
    assert tab.errors == []


@pytest.mark.parametrize(
    ("what", "mode", "why", "said"),
    [
        ("freeze", "frozen", "returns have fallen: 3 on average at first, 1 lately", "The service froze itself."),
        ("rollback", "live", "alarm: the live policy gave no action", "The live policy was rolled back."),
        ("rollback", "live", "alarm: the candidate gave no action", "The candidate was withdrawn."),
    ],
)
def test_an_alarm_that_changed_who_acts_is_said_on_top(
    open_page: Any, service: Service, what: str, mode: str, why: str, said: str
) -> None:
    change(service.log, deployed(service.log), "promotion", what, why, mode=mode)
    opened, _ = open_page
    tab = opened()
    tab.page.wait_for_selector("#alerts .banner")
    assert tab.text("#alerts") == f"{said} {why}"


def test_a_service_that_goes_away_is_said(open_page: Any) -> None:
    opened, end = open_page
    tab = opened()
    tab.page.wait_for_selector("#state.good")
    end()
    tab.page.wait_for_selector("#state.bad:has-text('does not answer')")
    assert "What you see is from" in tab.text("#state")


def test_beyond_this_machine_the_page_asks_for_the_token(open_page: Any) -> None:
    opened, _ = open_page
    tab = opened(everywhere=True)
    tab.page.fill("#reading-token", "wrong")
    tab.page.click("#sign-in button")
    tab.page.wait_for_selector('#sign-in-error:has-text("not the service\'s token")')
    tab.page.fill("#reading-token", "secret")
    tab.page.click("#sign-in button")
    tab.page.wait_for_selector("#main:not([hidden])")
    assert tab.page.is_hidden("#sign-in")
