"""What a result depends on besides the recipe: the processor, the cores, the versions."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from typing import Any

from segue.compiled import visible_cores

#: Memory maps of a process at which compiled programs are dropped: half of what Linux allows by default.
MANY_MAPS = 32_000
PACKAGES = ("jax", "jaxlib", "equinox", "optax", "numpy", "gymnasium", "mujoco")


def describe_machine(cores_per_worker: int) -> dict[str, Any]:
    """The machine, as it stands in the summary."""
    import jax

    return {
        "processor": _processor(),
        "cores": len(visible_cores()),
        "cores_per_worker": cores_per_worker,
        "platform": platform.platform(),
        "device": jax.devices()[0].device_kind,
    }


def has_accelerator() -> bool:
    """Whether programs run elsewhere than on the processor."""
    import jax

    return jax.default_backend() != "cpu"


def release_programs(many: int = MANY_MAPS) -> None:
    """Drop compiled programs when a process holds many: XLA crashes where the kernel allows it no further memory map.

    Some three hundred small runs in one process come that far. What is needed again is compiled again.
    """
    try:
        with open("/proc/self/maps") as file:
            count = sum(1 for _ in file)
    except OSError:  # not on this system, which has no such limit
        return
    if count > many:
        import jax

        jax.clear_caches()


def versions() -> dict[str, str]:
    """Python and the packages whose versions can change numbers."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


@functools.cache
def identity() -> dict[str, str]:
    """What must be the same for a run to go on to the same numbers."""
    import jax

    where = {"accelerator": jax.devices()[0].device_kind} if has_accelerator() else {}
    return {**(where or {"cores per job": str(len(visible_cores()))}), "processor": _processor(), **versions()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
