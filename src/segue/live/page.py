"""The page at `/`: a template with its style and script, and the JSON that it asks for every few seconds.

The charts are plain SVG that the script draws. A plotting library would bring megabytes of script, its own colours for
light and dark, and styles that a strict Content-Security-Policy forbids; two line charts and a strip need 150 lines.
"""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from segue import __version__
from segue.live.board import RANGES, Answered, Board, Seen
from segue.live.http import ENCODE, JSON, Call, Metrics, guarded, open_to_all
from segue.live.promotion import Watch
from segue.live.service import Service
from segue.live.values import Refused

TEMPLATES = files("segue.live") / "templates"
#: What a browser may load: nothing from elsewhere, and no script or style that is written into the page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
STATIC = {"page.css": "text/css", "page.js": "text/javascript"}


def routes(service: Service, watch: Watch, token: str, everywhere: bool) -> tuple[list[Route], Call]:
    """The page, its parts, and its data, with what OpenAPI says of them.

    Args:
        service: is shown.
        watch: reviews its evidence.
        token: is asked for, if `everywhere`, before data are shown; the page itself has none.
        everywhere: whether reading needs the token.
    """
    board = Board(service.log, watch.promoter)
    # One reader with one connection, however many look.
    reader = ThreadPoolExecutor(1, "segue-live-page")

    async def page(request: Request) -> Response:
        return Response(_page(), media_type="text/html", headers=HEADERS)

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise Refused(404, "no_such_address", f"/static/{name}: there is no such file; see /")
        return Response((TEMPLATES / name).read_bytes(), media_type=STATIC[name], headers=HEADERS)

    async def data(request: Request) -> Response:
        span = request.query_params.get("range", "all")
        if span not in RANGES:
            raise Refused(422, "range", f"range is {span!r}; expected {', '.join(RANGES)}")
        answered = latency(request.app.state.metrics)
        said = (answered, service.waiting(), service.healthy() or watch.failure)
        seen = await asyncio.get_running_loop().run_in_executor(reader, board.see, span, *said)
        return Response(ENCODE(seen), media_type=JSON, headers={"cache-control": "no-store"})

    guard = functools.partial(guarded, token) if everywhere else open_to_all
    return [
        Route("/", page),
        Route("/static/{name}", open_to_all(static)),
        Route("/v1/board", guard(data)),
    ], Call(
        "/v1/board",
        None,
        Seen,
        "What the page shows",
        "GET",
        (("range", {"type": "string", "enum": list(RANGES), "default": "all"}),),
        everywhere,
    )


@functools.cache
def _page() -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((TEMPLATES / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(version=__version__)


def latency(metrics: Metrics) -> Answered:
    """Quantiles of the histogram that Prometheus reads, linear within its buckets."""
    [family] = metrics.seconds.collect()
    buckets = [
        (float(sample.labels["le"]), sample.value) for sample in family.samples if sample.name.endswith("_bucket")
    ]
    count = buckets[-1][1]

    def quantile(share: float) -> float | None:
        if not count:
            return None
        low, below = 0.0, 0.0
        for end, upto in buckets[:-1]:
            if upto >= share * count:
                return low + (end - low) * (share * count - below) / (upto - below)
            low, below = end, upto
        return low  # beyond the last bucket, whose end is infinite

    return Answered(int(count), quantile(0.5), quantile(0.99))
