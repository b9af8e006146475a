"""What the fixture `serve` is."""

from __future__ import annotations

from collections.abc import Callable

from segue.live import Service

Serve = Callable[..., Service]
