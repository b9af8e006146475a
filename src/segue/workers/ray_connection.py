"""A connection to a Ray cluster, or a Ray on this machine for as long as it is needed."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from typing import Any

from segue.compiled import visible_cores
from segue.errors import SegueError
from segue.plugins import search_path

#: How long a cluster at HOST:PORT may take to answer at all. Ray itself would try for a quarter of an hour.
ANSWER_SECONDS = 20.0


def connect(address: str | None) -> bool:
    """Connect to the cluster at this address; without one, start Ray on this machine.

    Returns:
        True if there was no connection before; then the caller ends it with `ray.shutdown`.

    Raises:
        SegueError: if the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # would install the project again in every worker
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not address:  # keeps Ray to the loopback interface; it is read when Ray is imported
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("AUTOSCALER_METRIC_PORT", "0")
    import ray

    if ray.is_initialized():
        return False
    if address:
        _require_answer(address)
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    try:
        if address:
            ray.init(address, **quiet)
        else:
            ray.init(
                "local",
                num_cpus=len(visible_cores()),
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
    except Exception as error:  # Ray raises what it likes
        said = f"Ray at {address} cannot be reached" if address else "Ray cannot be started on this machine"
        hint = "; a cluster that asks for a token needs RAY_AUTH_MODE=token here" if address else ""
        raise SegueError(f"{said}: {one_line(error)}{hint}") from None
    finally:
        if main:  # Ray's own handler ends the process without saving
            signal.signal(signal.SIGTERM, before)
    if not address and ray.nodes()[0]["NodeManagerAddress"] != "127.0.0.1":
        ray.shutdown()
        raise SegueError(
            "Ray was imported before, and would listen to the network: set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before "
            "the import, or start a cluster and give its address"
        )
    return True


def _require_answer(address: str) -> None:
    """Refuse HOST:PORT where nobody listens."""
    found = re.fullmatch(r"\[?([^/\[\]]+)\]?:(\d{1,5})", address)
    until = time.monotonic() + ANSWER_SECONDS
    while found:
        try:
            socket.create_connection((found[1], int(found[2])), max(until - time.monotonic(), 1)).close()
            return
        except (OSError, OverflowError) as error:
            if time.monotonic() > until or isinstance(error, OverflowError):
                raise SegueError(f"Ray at {address} cannot be reached: {one_line(error)}") from None
            time.sleep(0.5)


def own_modules() -> str:
    """Where this process finds modules that are not installed packages, as a PYTHONPATH."""
    installed = sys.prefix, sys.base_prefix
    found = [place for place in search_path().split(os.pathsep) if not place.startswith(installed)]
    return os.pathsep.join(found)


def one_line(error: Exception) -> str:
    """An error of Ray's as a line."""
    text = [line.strip() for line in str(error).splitlines() if line.strip()]
    shown = text[-1] if type(error).__name__.startswith("RayTaskError") and text else " ".join(text)
    return f"{type(error).__name__}: {shown[:300]}"
