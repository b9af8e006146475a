"""The service over HTTP: JSON in, JSON out. What it means is in segue.live.service and segue.live.messages."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import logging
import re
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from segue import __version__
from segue.errors import SegueError
from segue.live.database import Unavailable
from segue.live.messages import Activation, Begin, Begun, Decide, Decided, Noted, Outcome, Problem
from segue.live.service import Service
from segue.live.values import Refused

LOGGER = logging.getLogger("segue.live")
#: Largest body, in bytes: an observation of 100,000 numbers and more.
MOST_BYTES = 2**21
#: Outcomes in one request.
Outcomes = Annotated[list[Outcome], msgspec.Meta(max_length=1000)]
#: Seconds that an answer may take to be written.
PATIENCE = 10.0

#: Names of this machine that reach only this machine.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

ENCODE = msgspec.json.Encoder().encode
JSON = "application/json"


class Metrics:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.decisions = Counter("segue_decisions", "Decisions", ["arm"], registry=self.registry)
        self.outcomes = Counter("segue_outcomes", "Outcomes", registry=self.registry)
        self.refused = Counter("segue_refused", "Requests that were refused", ["code"], registry=self.registry)
        self.seconds = Histogram(
            "segue_decision_seconds",
            "Time from a request for a decision to its answer",
            buckets=[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0],
            registry=self.registry,
        )
        self.waiting = Gauge("segue_waiting_writes", "Rows that wait to be written", registry=self.registry)
        self.by_arm: dict[str, Any] = {}


class Mailbox:
    """Answers from other threads, brought into the event loop with one wake-up for many."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._letters = loop, deque[tuple[asyncio.Future[Any], Any]]()
        self._thread, self._rung = threading.get_ident(), False

    def put(self, future: asyncio.Future[Any], answer: Any) -> None:
        """From any thread; from the loop's own it is there at once."""
        if threading.get_ident() == self._thread:
            future.set_result(answer)
            return
        self._letters.append((future, answer))
        if not self._rung:
            self._rung = True
            self._loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._rung = False
        while self._letters:
            future, answer = self._letters.popleft()
            if not future.done():
                future.set_result(answer)


class Call(NamedTuple):
    """What OpenAPI says of one address."""

    path: str
    asked: Any
    """What a request holds; None: nothing."""
    answer: Any
    summary: str
    method: str = "POST"
    query: tuple[tuple[str, Any], ...] = ()
    """Name and schema of each optional parameter of the query."""
    token: bool = True
    """Whether it always needs the token."""


def application(
    service: Service,
    token: str,
    everywhere: bool = False,
    more: Sequence[Route] = (),
    calls: Sequence[Call] = (),
    beside: contextlib.AbstractContextManager[Any] | None = None,
    hosts: Collection[str] = (),
) -> Starlette:
    """The ASGI application.

    Args:
        service: decides; it is closed when the application is.
        token: for everything that changes who acts; and for everything, if `everywhere`.
        everywhere: whether applications need the token, too: they do where the service is reached from other machines.
        more: routes of other parts.
        calls: what OpenAPI says of them.
        beside: runs while the application does.
        hosts: names besides the loopback's that a request may give as its Host; none and `everywhere`: any name.
    """
    metrics = Metrics()
    mailbox: Mailbox

    def route(path: str, kind: Any, place: str, submit: Callable[[Any, Callable[[Any], None]], None]) -> Route:
        decoder = msgspec.json.Decoder(kind)

        async def endpoint(scope: Scope, receive: Receive) -> Response | bytes | None:
            if everywhere and not _authorised(Request(scope), token):
                return _problem(Refused(401, "token", "expected the header Authorization: Bearer TOKEN"), metrics)
            started = time.perf_counter()
            try:
                content = await _body(scope, receive)
            except Refused as error:
                return _problem(error, metrics)
            if content is None:
                return None
            try:
                asked = decoder.decode(content)
            except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
                said = Refused(400, "malformed", f"{error}")
                service.refuse(place, content.decode(errors="replace"), said)
                return _problem(said, metrics)
            if isinstance(asked, list):
                answers = await asyncio.gather(*(answered(one, submit) for one in asked))
                plain = [_as_problem(one, metrics) if isinstance(one, Exception) else one for one in answers]
                metrics.outcomes.inc(sum(isinstance(one, Noted) for one in answers))
                return ENCODE(plain)
            answer = await answered(asked, submit)
            if isinstance(answer, Exception):
                return _problem(answer, metrics)
            if isinstance(answer, Decided):
                if (counter := metrics.by_arm.get(answer.arm)) is None:
                    counter = metrics.by_arm[answer.arm] = metrics.decisions.labels(answer.arm)
                counter.inc()
                metrics.seconds.observe(time.perf_counter() - started)
            elif place == "outcomes":
                metrics.outcomes.inc()
            return ENCODE(answer)

        return Route(path, _Endpoint(endpoint), methods=["POST"])

    async def answered(asked: Any, submit: Callable[[Any, Callable[[Any], None]], None]) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        submit(asked, functools.partial(mailbox.put, future))
        if future.done():
            return future.result()
        timer = loop.call_later(PATIENCE, _give_up, future)  # at half the price of asyncio.timeout
        try:
            return await future
        finally:
            timer.cancel()

    async def health(request: Request) -> Response:
        return Response(b'{"status":"alive"}', media_type=JSON)

    async def ready(request: Request) -> Response:
        if (why := service.healthy()) is not None:
            return _problem(Unavailable(why), metrics)
        return Response(ENCODE({"status": "ready", "mode": service.deployment.mode}), media_type=JSON)

    async def prometheus(request: Request) -> Response:
        metrics.waiting.set(service.waiting())
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    async def openapi(request: Request) -> Response:
        return Response(ENCODE(document(calls)), media_type=JSON)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        nonlocal mailbox
        app.state.metrics, mailbox = metrics, Mailbox(asyncio.get_running_loop())
        with beside or contextlib.nullcontext():
            yield
        await asyncio.to_thread(service.close)

    routes = [
        route("/v1/decisions", Decide, "decisions", service.submit_decide),
        route("/v1/episodes", Begin, "episodes", service.submit_begin),
        route("/v1/outcomes", Outcome | Outcomes, "outcomes", service.submit_outcome),
        route("/v1/activations", Activation, "activations", service.submit_activation),
        Route("/healthz", health),
        Route("/readyz", ready),
        Route("/metrics", prometheus),
        Route("/openapi.json", openapi),
        *more,
    ]
    return Application(
        {route.path: route.endpoint for route in routes[: len(CALLS)]},
        None if everywhere and not hosts else LOOPBACK | {host.lower() for host in hosts},
        metrics,
        routes=routes,
        lifespan=lifespan,
        exception_handlers={404: _lost, 405: _lost, 500: _broken},
    )


def _give_up(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(Unavailable(f"not written within {PATIENCE:g} seconds; send it again"))


def guarded(token: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The same endpoint for those who have the token."""

    async def with_token(request: Request) -> Response:
        if not _authorised(request, token):
            return _problem(Refused(401, "token", "expected the header Authorization: Bearer TOKEN"))
        return await open_to_all(endpoint)(request)

    return with_token


def open_to_all(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The same endpoint, which answers errors in words."""

    async def in_words(request: Request) -> Response:
        try:
            return await endpoint(request)
        except SegueError as error:
            return _problem(error)

    return in_words


def _authorised(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


class Application(Starlette):
    """The application: refuses names that are not its own, and takes a shorter way to what is called most.

    A page of another site can have its own name point to this machine (DNS rebinding), and then read what it likes as
    if from its own origin. The Host that the browser sends gives it away. Starlette's layers and routes cost more than
    all the rest of HTTP here, so POST to an address of `direct` goes past them.

    Args:
        direct: ASGI applications by path.
        hosts: names that a request may give as its Host; None: any.
        metrics: count what is refused.
        starlette: arguments of Starlette.
    """

    def __init__(
        self, direct: dict[str, Any], hosts: Collection[str] | None, metrics: Metrics, **starlette: Any
    ) -> None:
        super().__init__(**starlette)
        self._direct, self._hosts, self._metrics = direct, hosts, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's life."""
        app: Any = super().__call__
        if scope["type"] == "http":
            if self._hosts is not None and (name := _host(scope)) not in self._hosts:
                said = f"the host is {name!r}; expected {' or '.join(sorted(self._hosts))}; --allow-host adds others"
                app = _problem(Refused(421, "host", said), self._metrics)
            elif scope["method"] == "POST":
                app = self._direct.get(scope["path"], app)
        await app(scope, receive, send)


def _host(scope: Scope) -> str:
    """The name that a request was sent to, without its port; empty if it gives none, or several."""
    given = [value for name, value in scope["headers"] if name == b"host"]
    if len(given) != 1:
        return ""
    name, bracket, _ = given[0].decode("latin-1").lower().partition("]")
    return name + bracket if bracket else name.partition(":")[0]


class _Endpoint:
    """An ASGI application that answers with bytes of JSON, or a response."""

    def __init__(self, endpoint: Callable[[Scope, Receive], Awaitable[Response | bytes | None]]) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless the client has gone away."""
        try:
            answer = await self._endpoint(scope, receive)
        except Exception as error:
            answer = await _broken(Request(scope), error)
        if isinstance(answer, bytes):
            headers = [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(answer))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": answer})
        elif answer is not None:
            await answer(scope, receive, send)


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """What was sent; None if the client went away before its end. Raises Refused."""
    # Required: browsers send a page's requests to other sites without asking first if they have no content type.
    given = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if given.partition(b";")[0].strip().lower() != JSON.encode():
        raise Refused(415, "not_json", f"the content type is {given.decode('latin-1')!r}; expected {JSON}")
    parts, size = [], 0
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > MOST_BYTES:
                    raise Refused(413, "too_large", f"the body is larger than {MOST_BYTES:,} bytes")
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise Refused(408, "too_slow", f"the body did not come within {PATIENCE:g} seconds; send it again") from None


def _as_problem(error: Exception, metrics: Metrics | None) -> Problem:
    code = error.code if isinstance(error, Refused) else "unavailable"
    if metrics is not None:
        metrics.refused.labels(code).inc()
    return Problem(code, str(error))


def _problem(error: Exception, metrics: Metrics | None = None) -> Response:
    status = error.status if isinstance(error, Refused) else 503 if isinstance(error, Unavailable) else 422
    headers = {"retry-after": "1"} if status == 503 else {}
    return Response(ENCODE(_as_problem(error, metrics)), status, headers, JSON)


async def _lost(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    what = "there is no such address" if status == 404 else "another method is expected"
    return _problem(
        Refused(status, "no_such_address", f"{request.method} {request.url.path}: {what}; see /openapi.json")
    )


async def _broken(request: Request, error: Exception) -> Response:
    LOGGER.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _problem(Refused(500, "fault", "a fault of Segue's; the service's own log says more"))


#: What applications call.
CALLS = (
    Call("/v1/episodes", Begin, Begun, "Assign an episode to an arm", token=False),
    Call("/v1/decisions", Decide, Decided, "What to do", token=False),
    Call("/v1/outcomes", Outcome | Outcomes, Noted | list[dict[str, str]], "What came of decisions", token=False),
    Call("/v1/activations", Activation, Noted, "Whether a decision was executed", token=False),
)


def document(more: Sequence[Call] = ()) -> dict[str, Any]:
    """The service as OpenAPI 3.1 has it, with `more` addresses."""
    calls = [*CALLS, *more]
    kinds = [kind for call in calls for kind in (call.asked, call.answer)] + [Problem]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    problem = {"description": "Not taken", "content": {JSON: {"schema": schemas[-1]}}}
    paths: dict[str, Any] = {}
    for number, call in enumerate(calls):
        described: dict[str, Any] = {
            "summary": call.summary,
            "responses": {
                "200": {"description": "Taken", "content": {JSON: {"schema": schemas[2 * number + 1]}}},
                **dict.fromkeys(("400", "401", "404", "408", "409", "413", "415", "421", "422", "503"), problem),
            },
        }
        if call.asked is not None:
            described["requestBody"] = {
                "required": number < len(CALLS),
                "content": {JSON: {"schema": schemas[2 * number]}},
            }
        if call.token:
            described["security"] = [{"token": []}]
        string = {"type": "string"}
        parameters = [
            *({"name": n, "in": "path", "required": True, "schema": string} for n in re.findall(r"{(\w+)}", call.path)),
            *({"name": n, "in": "query", "schema": schema} for n, schema in call.query),
        ]
        if parameters:
            described["parameters"] = parameters
        paths.setdefault(call.path, {})[call.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "Segue live", "version": __version__},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }
