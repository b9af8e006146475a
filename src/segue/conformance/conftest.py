"""Options of the conformance suite: which parts are tested."""

from __future__ import annotations

from typing import Any

from segue.plugins import import_module


def pytest_addoption(parser: Any) -> None:
    """`--part NAME` (may be given again) and `--import MODULE`."""
    parser.addoption("--part", action="append", default=[], help="only the part of this name; may be given again")
    parser.addoption("--import", dest="imports", action="append", default=[], help="a module that registers parts")


def pytest_generate_tests(metafunc: Any) -> None:
    """A test that takes an `algorithm`, a `bridge`, a `strategy` or a `scheme` runs for each that is meant."""
    from segue.algorithms import ALGORITHMS
    from segue.bridges import BRIDGES
    from segue.data import FORMATS
    from segue.replay import REPLAYS

    for module in metafunc.config.getoption("imports", None) or ():
        import_module(module)
    wanted = metafunc.config.getoption("--part", None) or ()
    known: dict[str, Any] = {"algorithm": ALGORITHMS, "bridge": BRIDGES, "strategy": REPLAYS, "scheme": FORMATS}
    unknown = [name for name in wanted if not any(name in registry for registry in known.values())]
    if unknown:
        raise ValueError(f"--part {unknown[0]}: there is no such part")
    for kind, registry in known.items():
        if kind in metafunc.fixturenames:
            metafunc.parametrize(kind, [name for name in registry if not wanted or name in wanted])
