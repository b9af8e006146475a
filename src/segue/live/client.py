"""A client of the service: what an application calls, with ids and retries that cannot double anything."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Sequence
from typing import Any, TypeVar

import httpx
import msgspec

from segue.errors import SegueError
from segue.live.messages import Activation, Begin, Begun, Decide, Decided, Noted, Outcome, Problem

Answer = TypeVar("Answer")


class ServiceError(SegueError):
    """The service refused something; `code` says why in one word."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Client:
    """Talks to `segue serve`.

    A request that was not answered (a timeout, a lost connection, a service that restarts) is sent again with the same
    id, so it is taken once.

    Args:
        url: where the service is.
        token: the service's, if it asks for one; by default the environment variable SEGUE_TOKEN.
        timeout: seconds to wait for an answer.
        patience: seconds during which unanswered requests are sent again.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8008",
        token: str | None = None,
        timeout: float = 5.0,
        patience: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        token = os.environ.get("SEGUE_TOKEN") if token is None else token
        headers = {"content-type": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        self._patience = patience
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, episode_id: str | None = None, unit_id: str | None = None) -> Begun:
        """Begin an episode; without an id it gets one.

        Raises:
            ServiceError: if the service refuses it, or does not answer.
        """
        return self._send("/v1/episodes", Begin(episode_id or uuid.uuid4().hex, unit_id), Begun)

    def decide(
        self,
        episode_id: str,
        observation: Any,
        *,
        decision_id: str | None = None,
        unit_id: str | None = None,
        allowed: Sequence[int] | None = None,
        action: Any = None,
        log_prob: float | None = None,
    ) -> Decided:
        """Ask what to do (see `messages.Decide`); without an id the decision gets one.

        Raises:
            ServiceError: if the service refuses it, or does not answer.
        """
        asked = Decide(
            decision_id or uuid.uuid4().hex,
            episode_id,
            observation,
            unit_id,
            None if allowed is None else list(allowed),
            action,
            log_prob,
        )
        return self._send("/v1/decisions", asked, Decided)

    def outcome(self, decision_id: str, reward: float, **more: Any) -> Noted:
        """Say what came of a decision (see `messages.Outcome` for the other fields).

        Raises:
            ServiceError: if the service refuses it, or does not answer.
        """
        return self._send("/v1/outcomes", Outcome(decision_id, float(reward), **more), Noted)

    def outcomes(self, outcomes: Sequence[Outcome]) -> list[Noted | Problem]:
        """Say what came of many decisions; some may be taken and others refused.

        Raises:
            ServiceError: if the service does not answer.
        """
        answer = self._post("/v1/outcomes", msgspec.json.encode(list(outcomes), enc_hook=_plain))
        try:
            answers = msgspec.json.decode(answer.content, type=list[dict[str, Any]])
            return [
                msgspec.convert(one, Noted) if "status" in one else msgspec.convert(one, Problem) for one in answers
            ]
        except msgspec.DecodeError:  # also of what is JSON, and not Segue's
            raise _not_segue(answer) from None

    def activation(self, decision_id: str, executed: bool, action: Any = None, who: str = "") -> Noted:
        """Say whether a decision was executed, and what was done instead.

        Raises:
            ServiceError: if the service refuses it, or does not answer.
        """
        return self._send("/v1/activations", Activation(decision_id, executed, action, who), Noted)

    def _send(self, path: str, asked: Any, kind: type[Answer]) -> Answer:
        answer = self._post(path, msgspec.json.encode(asked, enc_hook=_plain))
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError:
            raise _not_segue(answer) from None

    def _post(self, path: str, content: bytes) -> httpx.Response:
        until, pause = time.monotonic() + self._patience, 0.05
        while True:
            try:
                answer = self._http.post(path, content=content)
                if answer.status_code == 200:
                    return answer
                if answer.status_code not in (408, 503):
                    raise _refusal(answer)
                said = f"{path}: {_refusal(answer)}"
            except httpx.TransportError as error:
                said = f"{self._http.base_url}: {error or type(error).__name__}"
            if time.monotonic() + pause > until:
                raise ServiceError("unavailable", f"{said}; given up after {self._patience:g} seconds")
            time.sleep(pause)
            pause = min(2 * pause, 1.0)


def _refusal(answer: httpx.Response) -> ServiceError:
    try:
        problem = msgspec.json.decode(answer.content, type=Problem)
    except msgspec.DecodeError:
        return _not_segue(answer)
    return ServiceError(problem.code, problem.message)


def _not_segue(answer: httpx.Response) -> ServiceError:
    said = f"{answer.request.url} answered {answer.status_code}: {answer.text[:200]!r}"
    return ServiceError("not_segue", f"{said}; expected a service that `segue serve` runs: check the address")


def _plain(value: Any) -> Any:
    """NumPy's arrays and numbers as lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")
