"""Exported policies of random weights, and services that decide with them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "deployment"))
from made import Made, make

from segue.live import Service


@pytest.fixture(scope="session")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Four actions, counted from 1; observations of three numbers."""
    return make(tmp_path_factory.mktemp("switch"), "discrete-sac", "discrete")


@pytest.fixture(scope="session")
def crane(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two numbers as actions; a dictionary as observation."""
    return make(tmp_path_factory.mktemp("crane"), "sac", "continuous")


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Another policy for the spaces of `switch`."""
    return make(tmp_path_factory.mktemp("other"), "dqn", "discrete")


Serve = Callable[..., Service]


@pytest.fixture
def serve(tmp_path: Path, switch: Made) -> Iterator[Serve]:
    """Makes services, by default on the same log with the same policy, and closes them."""
    services = []

    def made(db: Any = tmp_path / "live.db", policy: Any = switch.directory, **settings: Any) -> Service:
        services.append(Service(db, policy, **{"explore": "policy", **settings}))
        return services[-1]

    yield made
    for service in services:
        service.close()
