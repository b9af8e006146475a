"""Sends a live service what nobody should: `python -m studies.reliability live-fuzz`.

Two sources: requests that schemathesis derives from the service's own OpenAPI document, and our own bytes: near-valid
JSON with NaN, huge numbers, deep nesting, wrong types, control characters and ids at their limits, and no JSON at all.
No answer may be a 5xx; afterwards the log may hold only what it should, and every refusal of what was read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import schemathesis
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance
from starlette.applications import Starlette

from segue.deployment.spaces import DiscreteActions, flat_size
from segue.live import Service
from segue.live.admin import whole
from segue.live.http import MOST_BYTES, application
from studies.reliability.live_load import policy

HERE = Path(__file__).parent
PATHS = ("/v1/episodes", "/v1/decisions", "/v1/outcomes", "/v1/activations")
#: Statuses whose requests were read, so that the log keeps why they were refused.
KEPT = (400, 404, 409, 422)

#: Ids that are used again and again, so that requests meet each other; and such as applications may make up.
IDS = st.sampled_from(["a", "b", "c", "d"]) | st.text(min_size=1, max_size=200) | st.sampled_from(["\0", "x" * 200])
BAD_IDS = st.sampled_from(["", "x" * 201, 7, None, [], {}, "\ud800"])
NUMBERS = st.sampled_from([0, 1, -1, 2, 0.5, 1e30, -1e300, 1e-320, 10**400, 2**53 + 1, True, "1", math.nan, math.inf])
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20) | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def requests(size: int) -> st.SearchStrategy[tuple[str, bytes]]:
    """Path and body; `size` is that of a good observation."""
    good = st.lists(st.floats(-3, 3, width=32), min_size=size, max_size=size)
    observations = good | st.lists(NUMBERS, min_size=size, max_size=size) | ANYTHING
    bodies = {
        "/v1/episodes": {"episode_id": IDS | BAD_IDS, "unit_id": st.none() | IDS | BAD_IDS},
        "/v1/decisions": {
            "decision_id": IDS | BAD_IDS,
            "episode_id": IDS,
            "observation": good | observations,
            "unit_id": st.none() | IDS,
            "allowed": st.none() | st.lists(st.integers(-1, 9), max_size=4) | ANYTHING,
            "action": st.none() | ANYTHING,
            "log_prob": st.none() | NUMBERS,
        },
        "/v1/outcomes": {
            "decision_id": IDS,
            "reward": st.floats(-1, 1) | NUMBERS | ANYTHING,
            "outcome_id": st.none() | IDS,
            "cost": st.none() | NUMBERS,
            "next_observation": st.none() | observations,
            "terminated": st.booleans() | ANYTHING,
            "truncated": st.booleans(),
        },
        "/v1/activations": {
            "decision_id": IDS,
            "executed": st.booleans() | ANYTHING,
            "action": st.none() | st.integers(0, 4) | ANYTHING,
            "who": st.text(max_size=30) | st.sampled_from(["x" * 2001, 3]),
        },
    }

    few = st.sampled_from(["a", "b", "c", "d", "\0", "x" * 200, "é"])
    good_ones = {  # so that the others meet something
        "/v1/episodes": st.fixed_dictionaries({"episode_id": few}),
        "/v1/decisions": st.fixed_dictionaries({"decision_id": few, "episode_id": few, "observation": good}),
        "/v1/outcomes": st.fixed_dictionaries({"decision_id": few, "reward": st.floats(-1, 1)}),
        "/v1/activations": st.fixed_dictionaries({"decision_id": few, "executed": st.booleans()}),
    }

    def of(path: str) -> st.SearchStrategy[bytes]:
        fields = bodies[path]
        needed = {name: fields[name] for name in list(fields)[: 3 if path == "/v1/decisions" else 2]}
        whole = st.fixed_dictionaries(needed, optional={name: fields[name] for name in fields if name not in needed})
        object_ = whole | st.dictionaries(st.sampled_from([*fields, "more", "__proto__"]), ANYTHING, max_size=5)
        text = (good_ones[path] | whole | object_ | st.lists(object_, max_size=4) | ANYTHING).map(json.dumps)
        deep = st.integers(1, 5_000).map(lambda depth: '{"decision_id":"a","observation":' + "[" * depth)
        long = st.integers(2**10, 2**12).map(lambda count: '{"decision_id":"a","observation":[' + "1," * count + "1]}")
        cut = st.tuples(text, st.integers(0, 60)).map(lambda pair: pair[0][: pair[1]])
        return st.one_of(
            (text | text | text | deep | long | cut).map(lambda words: words.encode("utf-8", "surrogatepass")),
            st.binary(max_size=60),
        )

    return st.sampled_from(PATHS).flatmap(lambda path: st.tuples(st.just(path), of(path)))


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


def fuzz_bytes(service: Service, count: int, seed: int = 0) -> Counter[int]:
    """Send so many of our own requests: how many had which status. Raises AssertionError at a 5xx."""
    app, statuses = application(service, "token"), Counter[int]()
    size = flat_size(service.policy(service.deployment.live).space)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(request=requests(size))
    def send(request: tuple[str, bytes]) -> None:
        status, answer = loop.run_until_complete(post(app, *request))
        assert status < 500, (request, answer)
        if not (status == 200 and answer.startswith(b"[")):  # a batch is answered one by one
            statuses[status] += 1

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        send()
        too_large = b'{"decision_id":"' + b"x" * MOST_BYTES + b'"}'
        assert runner.run(post(app, "/v1/decisions", too_large))[0] == 413
    return statuses


def fuzz_schema(service: Service, count: int, seed: int = 0) -> Counter[int | str]:
    """Send so many requests to each address that schemathesis makes up: how many had which status.

    Raises:
        AssertionError: at a 5xx, or an answer that the document does not describe.
    """
    schema = schemathesis.openapi.from_asgi("/openapi.json", whole(service, "token", False, 3600.0, ["testserver"]))
    statuses = Counter[int | str]()
    for operation in schema.get_all_operations():

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=count, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.given(case=operation.ok().as_strategy())
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
        numbers = np.zeros(size) if following is None else np.frombuffer(following, np.float32)
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


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.reliability live-fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="of our own; a tenth of it from schemathesis")
    parser.add_argument("--full", action="store_true", help="a million requests")
    parser.add_argument("--policy", type=Path, help="an exported discrete policy; by default one is made")
    parser.add_argument("--seed", type=int, default=0, help="of the requests")
    parser.add_argument("--results", type=Path, default=HERE / "live_fuzz.json")
    flags = parser.parse_args(arguments)
    count = 1_000_000 if flags.full else flags.requests
    with tempfile.TemporaryDirectory(prefix="segue-live-fuzz-") as scratch:
        exported, results = flags.policy or policy(Path(scratch)), {}
        kinds: dict[str, tuple[Callable[..., Counter[Any]], int]] = {
            "our own": (fuzz_bytes, count),
            "schemathesis": (fuzz_schema, count // 10 // len(PATHS)),
        }
        for name, (fuzz, number) in kinds.items():
            start = time.monotonic()
            with Service(Path(scratch) / f"{name}.db", exported) as service:
                statuses = fuzz(service, number, flags.seed)
                service.begin(episode_id="the end")  # the writer's queue is empty after it
                (kept,) = service.database.read("SELECT COUNT(*) FROM refused")[0]
                (taken,) = service.database.read("SELECT COUNT(*) FROM decisions")[0]
                wrong = rows_that_should_not_be_there(service)
                if kept < sum(statuses[status] for status in KEPT):
                    wrong.append("refused requests are missing")
            results[name] = {
                "requests": sum(statuses.values()),
                "statuses": {str(status): statuses[status] for status in sorted(statuses, key=str)},
                "refusals kept": kept,
                "decisions in the log": taken,
                "faults of the log": len(wrong),
                "examples": wrong[:5],
                "seconds": round(time.monotonic() - start),
            }
            print(name, results[name], flush=True)
    flags.results.write_text(json.dumps(results, indent=1) + "\n")
    if any(found["faults of the log"] for found in results.values()):
        raise SystemExit("the log is not what it should be")
