"""Summaries built by hand, so that every number in a report has a known answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

CQL = {"name": "cql", "alpha": 5.0}
SAC = {"name": "sac", "tau": 0.005}


def evaluations(returns: Mapping[int, float]) -> list[dict[str, Any]]:
    return [{"step": step, "mean_return": value, "returns": [value]} for step, value in returns.items()]


@pytest.fixture
def seed() -> Callable[..., dict[str, Any]]:
    """One seed's record from `{step: return}`."""

    def make(
        online: Mapping[int, float],
        offline_score: float | None = None,
        offline: Mapping[int, float] | None = None,
    ) -> dict[str, Any]:
        last = list(online.values())[-1] if online else None
        return {
            "status": "complete",
            "error": None,
            "offline_score": offline_score,
            "offline_evaluations": evaluations(offline or {}),
            "online_evaluations": evaluations(online),
            "final_score": last,
            "wall_time_s": {"offline": 125.0 if offline_score is not None else None, "online": 8.25},
            "updates_per_second": {"offline": None, "online": 1234.4},
            "parameters_sha256": "0123456789abcdef" * 4,
        }

    return make


@pytest.fixture
def arm() -> Callable[..., dict[str, Any]]:
    """One arm from its seeds' records; keywords replace fields of the recipe."""

    def make(seeds: Sequence[dict[str, Any]], handover: Sequence[str] = (), **recipe: Any) -> dict[str, Any]:
        fields = {"env": "Hopper-v5", "offline": CQL, "online": SAC, "online_steps": 2000, "bridges": []}
        return {
            "recipe": {**fields, **recipe},
            "handover": list(handover),
            "seeds": {str(i): record for i, record in enumerate(seeds)},
        }

    return make


@pytest.fixture
def summary(seed: Callable[..., Any], arm: Callable[..., Any]) -> dict[str, Any]:
    """Two arms, two seeds each: scratch ends at 200 and 400, fine-tune at 1,900 and 2,100 after a dip."""
    scratch = [seed({0: 0.0, 1000: 100.0, 2000: 200.0}), seed({0: 0.0, 1000: 300.0, 2000: 400.0})]
    tuned = [
        seed({0: 1000.0, 1000: 800.0, 2000: 1900.0}, 1000.0, {0: 0.0, 500: 990.0}),
        seed({0: 1000.0, 1000: 900.0, 2000: 2100.0}, 1000.0, {0: 0.0, 500: 995.0}),
    ]
    return {
        "segue_version": "0.1.0",
        "status": "complete",
        "machine": {"processor": "a processor", "cores": 2, "platform": "a platform", "device": "cpu"},
        "versions": {"python": "3.11.9", "jax": "0.10.0"},
        "command": "segue compare --out runs/x",
        "wall_time_s": 3725.0,
        "arms": {
            "scratch": arm(scratch, offline=None),
            "fine-tune": arm(tuned, handover=["actor: carried over from cql", "critic: fresh"]),
        },
    }
