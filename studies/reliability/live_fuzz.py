"""Sends a live service what nobody should: `python -m studies.reliability live-fuzz`.

Two sources: requests that schemathesis derives from the service's own OpenAPI document; and our own, AT_ONCE at a time:
good ones, which meet each other, and the same with NaN, huge numbers, deep nesting, wrong types, control characters,
ids at their limits, and bytes that are no JSON. No answer may be a 5xx, none may differ from the first one to the same
decision; afterwards the log may hold only what it should, and every refusal of what was read.

Our own go to a new log every CHUNK requests, of each durability and mode in turn; what was found so far is stored
between them, and the same command goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import schemathesis
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance
from starlette.applications import Starlette

from segue.deployment.spaces import DiscreteActions, flat_size
from segue.live import Service
from segue.live.admin import whole
from segue.live.http import MOST_BYTES, application
from studies.reliability.live_load import Record, added, policy

HERE = Path(__file__).parent
Fuzz = Callable[[Service, int, int], Counter[Any]]
PATHS = ("/v1/episodes", "/v1/decisions", "/v1/outcomes", "/v1/activations")
#: Statuses whose requests were read, so that the log keeps why they were refused.
KEPT = (400, 404, 409, 422)

#: What a field may be instead of what it should be.
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, 1e30, -1e300, 1e-320, 10**400, 2**53 + 1, -(2**63)),
    *(math.nan, math.inf, -math.inf, "", "1", "\0", "\ud800", "é", "x" * 200, "x" * 201, "x" * 2001),
    *("'; DROP TABLE decisions; --", [], {}, [[]], [None], [True, "1"], {"": {}}, [1e400] * 4),
    *({"__proto__": {}}, [[0.0] * 4] * 2),
)
#: Decisions of an episode, requests at once, and requests to one log.
STEPS, AT_ONCE, CHUNK = 5, 16, 50_000
#: How the logs begin, in turn.
LOGS = (
    {"durability": "process"},
    {"durability": "after", "explore": "0.3"},
    {"durability": "process", "mode": "apprentice"},
    {"durability": "power"},
)


def good(draw: random.Random, path: str, size: int, known: int) -> dict[str, Any]:
    """A request as an application sends it, about one of so many decisions, of which STEPS are an episode."""
    number = draw.randrange(known)
    decision, episode = {"decision_id": f"d{number}"}, {"episode_id": f"e{number // STEPS}"}
    observation = [(number * 7_919 + place * 104_729) % 6_001 / 1_000 - 3 for place in range(size)]
    if path == "/v1/episodes":
        return episode | ({"unit_id": f"u{number // STEPS}"} if draw.random() < 0.3 else {})
    if path == "/v1/decisions":
        acted = {"action": number % 2} if draw.random() < 0.2 else {}  # what the application did
        return {**decision, **episode, "observation": observation, **acted}
    if path == "/v1/activations":
        return {**decision, "executed": draw.random() < 0.5, "who": "fuzz"}
    following = {"next_observation": observation} if draw.random() < 0.2 else {}
    return {**decision, "reward": number % 7 / 7, "terminated": number % STEPS == 4, **following}


def hostile(draw: random.Random) -> Any:
    """One of HOSTILE, to be changed further."""
    return copy.deepcopy(draw.choice(HOSTILE))


def damaged(draw: random.Random, asked: dict[str, Any], path: str) -> Any:
    """The same with a field that is missing, more, of another type, or with all of it wrapped."""
    kind, name = draw.randrange(6), draw.choice([*asked, *OPTIONAL[path]])
    if kind == 0:
        asked.pop(name, None)
    elif kind == 1:
        asked[draw.choice(("more", "__proto__", name.upper()))] = hostile(draw)
    elif kind == 2 and (value := asked.get(name)) and isinstance(value, list):
        place = draw.randrange(len(value))
        asked[name] = [*value[:place], hostile(draw), *value[place + 1 :]]
    elif kind == 3 and isinstance(asked.get(name), str):
        asked[name] += draw.choice(("\0", "\ud800", "é", "x" * 200, " "))
    elif kind == 4 and draw.random() < 0.2:
        return draw.choice(([asked], [asked, asked], {"asked": asked}, [], hostile(draw)))
    else:
        asked[name] = hostile(draw)
    return asked


def cut_up(draw: random.Random, text: bytes) -> bytes:
    """The same bytes, cut, overwritten, doubled, nested deeply, made long, or of another encoding."""
    place, kind = draw.randrange(len(text) + 1), draw.randrange(8)
    if kind == 0:
        return text[:place]
    if kind == 1:
        return text[:place] + draw.randbytes(draw.randint(1, 4)) + text[place + 1 :]
    if kind == 2:
        return text[:place] + draw.choice((b"{", b"}", b"[", b",", b"\x00", b'"', b"\\u0000", b"1e999")) + text[place:]
    if kind == 3:
        return text[:-1] + b"," + text[1:]  # every key twice
    if kind == 4:
        return b'{"decision_id":"a","observation":' + b"[" * draw.randint(1, 5_000)
    if kind == 5:
        return b'{"decision_id":"a","observation":[' + b"1," * draw.randint(2**10, 2**12) + b"1]}"
    if kind == 6:
        return text.decode(errors="replace").encode(draw.choice(("utf-16", "utf-32", "utf-8-sig")))
    return draw.randbytes(draw.randint(0, 60))


#: Fields that a request of each path need not have.
OPTIONAL = {
    "/v1/episodes": ("unit_id",),
    "/v1/decisions": ("unit_id", "allowed", "action", "log_prob"),
    "/v1/outcomes": ("outcome_id", "cost", "next_observation", "truncated"),
    "/v1/activations": ("action", "who"),
}


def request(draw: random.Random, size: int, known: int) -> tuple[str, bytes]:
    """Path and body: a good request, or one that is damaged up to three times; `size` is that of an observation."""
    path = draw.choice((*PATHS, "/v1/decisions"))
    asked: Any = good(draw, path, size, known)
    if (part := draw.random()) < 0.4:
        for _ in range(draw.randint(1, 3)):
            asked = damaged(draw, asked, path) if isinstance(asked, dict) else asked
    elif path == "/v1/outcomes" and part < 0.5:
        asked = [asked, *(good(draw, path, size, known) for _ in range(draw.randint(0, 4)))]
    elif path == "/v1/decisions" and part < 0.6:
        asked["allowed"] = [draw.randint(-1, 3) for _ in range(draw.randint(0, 3))]
    text = json.dumps(asked, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    return path, cut_up(draw, text) if draw.random() < 0.15 else text


async def post(app: Starlette, path: str, body: bytes) -> tuple[int, bytes]:
    """What the application answers, without a socket."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"", "root_path": ""}
    await app({**scope, "http_version": "1.1", "scheme": "http"}, receive, send)
    return sent[0]["status"], sent[1]["body"]


def fuzz_bytes(service: Service, count: int, seed: int = 0) -> Counter[int | str]:
    """Send so many of our own requests, AT_ONCE at a time: how many had which status.

    Raises:
        AssertionError: at a 5xx, or at a decision that is answered otherwise than before, or is not in the log.
    """
    app, statuses, draw, record = application(service, "token"), Counter[int | str](), random.Random(seed), Record()
    acting = service.policy(service.deployment.live)
    assert isinstance(acting.actions, DiscreteActions)
    size, first_action = flat_size(acting.space), acting.actions.start

    async def send(path: str, body: bytes) -> None:
        status, answer = await post(app, path, body)
        assert status < 500, (path, body, answer)
        statuses["several outcomes" if answer.startswith(b"[") else status] += 1
        if status == 200 and path == "/v1/decisions":
            record.decided(json.loads(answer))

    async def run() -> None:
        await app.router.lifespan_context(app).__aenter__()  # its end would close the service
        for sent in range(0, count, AT_ONCE):
            several = [request(draw, size, 1 + sent // 10) for _ in range(min(AT_ONCE, count - sent))]
            await asyncio.gather(*(send(*one) for one in several))
        too_large = b'{"decision_id":"' + b"x" * MOST_BYTES + b'"}'
        assert (await post(app, "/v1/decisions", too_large))[0] == 413

    asyncio.run(run())
    service.tick("study")
    found = record.check(service.database.url.removeprefix("sqlite:///"), first_action)
    assert (found["decisions_lost"], found["different"]) == (0, 0), found["examples"]
    return statuses


def fuzz_schema(service: Service, count: int, seed: int = 0) -> Counter[int | str]:
    """Send so many requests that schemathesis makes up, to all addresses: how many had which status.

    Raises:
        AssertionError: at a 5xx, or an answer that the document does not describe.
    """
    schema = schemathesis.openapi.from_asgi("/openapi.json", whole(service, "token", False, 3600.0, ["testserver"]))
    statuses = Counter[int | str]()
    operations = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr] # an error in our document raises
    for operation in operations:

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=max(count // len(operations), 1),
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def send(case: schemathesis.Case) -> None:
            # An observation may be anything in the document, and has to be one of the policy's; our token is right.
            case.headers["authorization"] = "Bearer token"
            answer = case.call_and_validate(excluded_checks=[positive_data_acceptance, ignored_auth])
            if case.operation.path in PATHS:  # what an administrator is refused is not kept
                statuses[answer.status_code] += 1
            else:
                statuses[f"administrator {answer.status_code}"] += 1

        send()
    return statuses


def rows_that_should_not_be_there(service: Service) -> list[str]:
    """What is wrong with the log, in words; the service is idle."""
    read, wrong = service.database.read, []
    acting = service.policy(service.deployment.live)
    size, actions = flat_size(acting.space), acting.actions
    assert isinstance(actions, DiscreteActions)
    columns = "decision, t, observation, action, log_prob"
    for name, t, observation, action, log_prob in read(f"SELECT {columns} FROM decisions"):
        numbers = np.frombuffer(observation, np.float32)
        if len(numbers) != size or not np.isfinite(numbers).all():
            wrong.append(f"decision {name!r}: observation {numbers}")
        if not 0 <= int.from_bytes(action, "little") < actions.size or t < 0 or (log_prob or 0) > 1e-6:
            wrong.append(f"decision {name!r}: action {action!r}, t {t}, log-probability {log_prob}")
    for name, reward, cost, following, terminated, truncated in read(
        "SELECT outcome, reward, cost, next_observation, terminated, truncated FROM outcomes"
    ):
        numbers = np.zeros(size, np.float32) if following is None else np.frombuffer(following, np.float32)
        if not (math.isfinite(reward) and math.isfinite(cost or 0.0) and np.isfinite(numbers).all()):
            wrong.append(f"outcome {name!r}: reward {reward}, cost {cost}, next observation {numbers}")
        if len(numbers) != size or terminated + truncated > 1:
            wrong.append(f"outcome {name!r}: {len(numbers)} numbers, terminated {terminated}, truncated {truncated}")
    counted: dict[str, str] = {
        "decisions without an episode": "decisions WHERE episode NOT IN (SELECT episode FROM episodes)",
        "outcomes without a decision": "outcomes WHERE decision NOT IN (SELECT decision FROM decisions)",
        "activations without a decision": "activations WHERE decision NOT IN (SELECT decision FROM decisions)",
        "episodes with a gap": "(SELECT 1 FROM decisions GROUP BY episode HAVING MAX(t) + 1 != COUNT(*))",
        "ids of another length": "decisions WHERE LENGTH(CAST(decision AS BLOB)) NOT BETWEEN 1 AND 800",
        "activations that are neither": "activations WHERE executed NOT IN (0, 1)",
    }
    wrong += [what for what, table in counted.items() if read(f"SELECT COUNT(*) FROM {table}") != [(0,)]]
    return wrong


def fuzzed(place: Path, exported: Path, fuzz: Fuzz, count: int, seed: int) -> dict[str, Any]:
    """What became of so many requests to a new log."""
    start = time.process_time()
    with Service(place, exported, **LOGS[seed % len(LOGS)]) as service:  # type: ignore[arg-type]
        statuses = fuzz(service, count, seed)
        service.tick("study")  # the writer's queue is empty after it
        (kept,) = service.database.read("SELECT COUNT(*) FROM refused")[0]
        (taken,) = service.database.read("SELECT COUNT(*) FROM decisions")[0]
        wrong = rows_that_should_not_be_there(service)
        if kept < sum(statuses[status] for status in KEPT):
            wrong.append("refused requests are missing")
    return {
        "requests": sum(statuses.values()),
        "statuses": {str(status): statuses[status] for status in sorted(statuses, key=str)},
        "refusals kept": kept,
        "decisions in the log": taken,
        "faults of the log": len(wrong),
        "examples": wrong[:5],
        "seconds of processor": round(time.process_time() - start),
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.reliability live-fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="of our own; a tenth of it from schemathesis")
    parser.add_argument("--full", action="store_true", help="a million requests")
    parser.add_argument("--policy", type=Path, help="an exported discrete policy; by default one is made")
    parser.add_argument("--results", type=Path, default=HERE / "live_fuzz.json", help="what is there goes on")
    flags = parser.parse_args(arguments)
    count = 1_000_000 if flags.full else flags.requests
    results: dict[str, Any] = json.loads(flags.results.read_text()) if flags.results.exists() else {}
    with tempfile.TemporaryDirectory(prefix="segue-live-fuzz-") as scratch:
        exported, place = flags.policy or policy(Path(scratch)), Path(scratch) / "fuzzed.db"
        kinds: dict[str, tuple[Fuzz, int, int]] = {
            "our own": (fuzz_bytes, count, CHUNK),
            "schemathesis": (fuzz_schema, count // 10, CHUNK // 10),
        }
        for name, (fuzz, number, chunk) in kinds.items():
            while (done := results.get(name, {}).get("asked", 0)) < number:
                for file in place.parent.glob(f"{place.name}*"):
                    file.unlink()
                part = min(chunk, number - done)
                found = {"asked": part, **fuzzed(place, exported, fuzz, part, done // chunk)}
                results[name] = added(results[name], found) if done else found
                flags.results.write_text(json.dumps(results, indent=1) + "\n")
                print(name, results[name], flush=True)
    if any(found["faults of the log"] for found in results.values()):
        raise SystemExit("the log is not what it should be")
