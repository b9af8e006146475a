"""What administrators ask of the service over HTTP; every request needs the token."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from segue.live import page, promotion
from segue.live.http import ENCODE, JSON, Call, application, guarded
from segue.live.messages import Id, Share, Text
from segue.live.overview import Overview, PolicyAbout, overview, policies
from segue.live.policies import Deployment, stage
from segue.live.promotion import Watch
from segue.live.service import Service
from segue.live.values import Refused

#: Largest request that brings a policy, in bytes.
MOST_BYTES = 2**27
#: Most files of a policy.
MOST_FILES = 8


class Stage(Struct, forbid_unknown_fields=True):
    """A policy that `segue export` wrote, file by file."""

    files: dict[str, bytes]
    """Content by file name, in base64."""
    name: Id
    parent: Id | None = None
    """The policy that it was trained from."""
    trained_to: int | None = None
    """Number of the last row of the log that it was trained on."""


class Why(Struct, forbid_unknown_fields=True):
    """A change of who acts."""

    why: Text = ""
    who: Annotated[str, Meta(max_length=200)] = "administrator"
    upon: int | None = None
    """Number of the deployment that it was decided upon: if another one is in force by now, nothing is changed."""


class Step(Why, forbid_unknown_fields=True):
    """A step of a candidate."""

    force: bool = False
    """Without the verdict that it needs; that is kept in the log."""


class Canary(Step, forbid_unknown_fields=True):
    """A share of the units for a candidate."""

    share: Share | None = None
    """By default that of the first stage."""


class Started(Struct):
    """Something that goes on beside the service; its verdict will be among the policy's gates."""

    policy: str
    status: str


class _Action(NamedTuple):
    method: str
    path: str
    asked: Any
    answer: Any
    summary: str
    do: Callable[[Any, str], Any]


def routes(service: Service, watch: Watch, token: str) -> tuple[list[Route], list[Call]]:
    """The routes, and what OpenAPI says of them."""
    database, evaluation = service.log, _Evaluation(service)

    def step(do: Callable[..., Deployment], *names: str) -> Callable[[Any, str], Deployment]:
        def change(asked: Any, word: str) -> Deployment:
            of = [word] if word else []
            if asked.upon is not None and asked.upon != promotion.deployed(database).seq:
                raise Refused(409, "changed", "who acts has changed since you looked; look again, and decide again")
            done = do(database, *of, asked.who, asked.why, **{name: getattr(asked, name) for name in names})
            service.look()
            return done

        return change

    def staged(asked: Stage, word: str) -> PolicyAbout:
        return _about(service, _stage(service, asked))

    policy = "/v1/policies/{policy}"
    actions = [
        _Action("GET", "/v1/policies", None, list[PolicyAbout], "All policies", lambda _, __: policies(database)),
        _Action("POST", "/v1/policies", Stage, PolicyAbout, "Stage a policy", staged),
        _Action("GET", policy, None, PolicyAbout, "One policy", lambda _, word: _about(service, word)),
        _Action("POST", f"{policy}/shadow", Step, Deployment, "Decide on paper", step(promotion.shadow, "force")),
        _Action(
            "POST", f"{policy}/canary", Canary, Deployment, "Act for a share", step(promotion.canary, "force", "share")
        ),
        _Action("POST", f"{policy}/promote", Step, Deployment, "Act for all", step(promotion.promote, "force")),
        _Action("POST", f"{policy}/evaluate", Why, Started, "Judge from the log", evaluation.start),
        _Action("POST", "/v1/rollback", Why, Deployment, "Withdraw the candidate", step(promotion.rollback)),
        _Action("POST", "/v1/pause", Why, Deployment, "No new units for the candidate", step(promotion.pause)),
        _Action("POST", "/v1/freeze", Why, Deployment, "The live policy alone acts", step(promotion.freeze)),
        _Action("POST", "/v1/resume", Why, Deployment, "Go on after pause or freeze", step(promotion.resume)),
        _Action(
            "GET", "/v1/evidence", None, Overview, "What is known", lambda _, __: overview(database, watch.promoter)
        ),
    ]
    calls = [Call(action.path, action.asked, action.answer, action.summary, action.method) for action in actions]
    return [_route(action, token) for action in actions], calls


def _route(action: _Action, token: str) -> Route:
    decoder = None if action.asked is None else msgspec.json.Decoder(action.asked)

    async def endpoint(request: Request) -> Response:
        asked = None
        if decoder is not None:
            try:
                asked = decoder.decode(await _body(request) or b"{}")
            except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
                raise Refused(400, "malformed", str(error)) from None
        answer = await run_in_threadpool(action.do, asked, request.path_params.get("policy", ""))
        return Response(ENCODE(answer), media_type=JSON)

    return Route(action.path, guarded(token, endpoint), methods=[action.method])


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise Refused(413, "too_large", f"the body is larger than {MOST_BYTES:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _about(service: Service, word: str) -> PolicyAbout:
    meant = promotion.find_policy(service.log, word)
    return next(one for one in policies(service.log) if one.policy == meant)


def _stage(service: Service, asked: Stage) -> str:
    names = sorted(asked.files)
    strange = [name for name in names if re.fullmatch(r"[A-Za-z0-9_-]+\.[a-z]+", name) is None]
    if strange or not 0 < len(names) <= MOST_FILES:
        raise Refused(
            422, "files", f"files are {names!r:.200}; expected those that `segue export` wrote, without their folder"
        )
    with tempfile.TemporaryDirectory(prefix="segue-") as folder:
        for name, content in asked.files.items():
            (Path(folder) / name).write_bytes(content)
        return stage(service.log, folder, asked.name, asked.parent, asked.trained_to)


class _Evaluation:
    """Runs `segue policies evaluate` beside the service: off-policy evaluation needs JAX, which serving must not."""

    def __init__(self, service: Service) -> None:
        self._service, self._running = service, threading.Lock()

    def start(self, asked: Why, word: str) -> Started:
        """Begin; one at a time. Raises Refused."""
        policy = promotion.find_policy(self._service.log, word)
        if not self._running.acquire(blocking=False):
            raise Refused(409, "busy", "another policy is being evaluated; wait for its verdict")
        threading.Thread(target=self._run, args=(policy, asked), name="segue-live-evaluation", daemon=True).start()
        return Started(policy, "started")

    def _run(self, policy: str, asked: Why) -> None:
        command = ["policies", "evaluate", policy, "--db", self._service.log.url, f"--why={asked.why}"]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "segue.cli.main", *command], capture_output=True, text=True, check=False
            )
            if done.returncode:
                said = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
                self._service.note(asked.who, "not evaluated", {"policy": policy, "why": said[:2000]})
        finally:
            self._running.release()


def whole(service: Service, token: str, everywhere: bool, review: float, hosts: Collection[str] = ()) -> Starlette:
    """The application with everything: it decides, watches the evidence every `review` seconds, and is administered.

    `hosts` are those of `application`.
    """
    watch = Watch(service, review)
    more, calls = routes(service, watch, token)
    seen, call = page.routes(service, watch, token, everywhere)
    return application(service, token, everywhere, [*more, *seen], [*calls, call], watch, hosts)


#: Environment variable with the arguments of `from_environment`, as JSON.
SETTINGS = "SEGUE_SERVE"


def from_environment() -> Starlette:
    """The application of one of several processes that serve together."""
    settings = msgspec.json.decode(os.environ[SETTINGS])
    return whole(Service(**settings.pop("service")), **settings)
