"""A test that takes an `algorithm`, a `bridge`, a `strategy` or a `scheme` runs for each that is meant."""

from __future__ import annotations

from typing import Any

from segue import conformance


def pytest_generate_tests(metafunc: Any) -> None:
    """All parts there are, or those that `python -m segue.conformance` was asked for; algorithms by kind of actions."""
    for part, registry in conformance.known().items():
        if part not in metafunc.fixturenames:
            continue
        wanted = conformance.WANTED
        names = [name for name in registry if not wanted or name in wanted]
        # The scope runs all tests of a part one after the other: what is compiled for one serves the next.
        if "kind" in metafunc.fixturenames:
            pairs = [(name, kind) for name in names for kind in registry[name].actions]
            metafunc.parametrize((part, "kind"), pairs, scope="module")
        else:
            metafunc.parametrize(part, names, scope="module")
