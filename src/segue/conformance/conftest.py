"""A test that takes an `algorithm`, a `bridge`, a `strategy` or a `scheme` runs for each that is meant."""

from __future__ import annotations

from typing import Any

from segue import conformance


def pytest_generate_tests(metafunc: Any) -> None:
    """All parts there are, or those that `python -m segue.conformance` was asked for."""
    for kind, registry in conformance.known().items():
        if kind in metafunc.fixturenames:
            wanted = conformance.WANTED
            metafunc.parametrize(kind, [name for name in registry if not wanted or name in wanted])
