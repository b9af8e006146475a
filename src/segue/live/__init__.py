"""Live operation: a service that decides, logs, and learns only from what it can prove.

    from segue.live import Client, Learner, Service

Needs `pip install 'segue[live]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segue.live.client import Client
    from segue.live.learner import Learner
    from segue.live.service import Service

__all__ = ["Client", "Learner", "Service"]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in __all__:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"segue.live.{name.lower()}"), name)
