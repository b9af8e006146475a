"""What the fixture `serve` is."""

from __future__ import annotations

from collections.abc import Callable

from segue.live import Service

Serve = Callable[..., Service]

#: The address of services in the tests' own process; its name is one that they take.
HERE = "http://127.0.0.1"
