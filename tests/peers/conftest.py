"""Peers are compared in double precision, and the agreement that was measured is listed at the end of the run."""

from __future__ import annotations

import jax
import numpy as np
import pytest

MEASURED = pytest.StashKey[dict[str, dict[str, float]]]()
#: d3rlpy adds up its critics' losses in float32 whatever it is given; the rest is near 1e-15.
TOLERANCE = 1e-7


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def agree(request):
    """Asserts that two quantities are equal: the largest difference, relative to the typical size of the peer's."""
    measured = request.config.stash.setdefault(MEASURED, {}).setdefault(request.node.name, {})

    def check(quantity, segue, peer):
        ours, theirs = _flat(segue), _flat(peer)
        assert ours.shape == theirs.shape
        typical = np.sqrt(np.mean(theirs**2))
        assert typical > 1e-4
        measured[quantity] = np.abs(ours - theirs).max() / typical
        assert measured[quantity] <= TOLERANCE, quantity

    return check


def _flat(numbers):
    arrays = numbers if isinstance(numbers, list) else [numbers]
    return np.concatenate([np.ravel(np.asarray(getattr(x, "detach", lambda x=x: x)(), np.float64)) for x in arrays])


def pytest_terminal_summary(terminalreporter, config):
    for test, measured in config.stash.get(MEASURED, {}).items():
        agreement = " · ".join(f"{quantity} {error:.0e}" for quantity, error in measured.items())
        terminalreporter.write_line(f"{test.removeprefix('test_')}: {agreement}")
