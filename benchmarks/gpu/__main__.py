"""`python -m benchmarks.gpu`: updates per second on this GPU, and of the same updates in PyTorch, within a time budget.

It needs JAX, NumPy, Equinox and Optax; PyTorch and Gymnasium are used where they are there. Every row is written as
soon as it is measured. What the budget did not allow is listed as missing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

# Or JAX takes three quarters of the memory before PyTorch has any.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

SEEDS = (1, 8, 32, 128)
OUT = Path(__file__).resolve().parent.parent / "gpu.json"
#: Seconds that a rate is measured for, in turns.
MEASURED, TURNS = 1.5, 5


class Updates(Protocol):
    """What is timed."""

    def run(self, updates: int) -> int: ...

    def finite(self) -> bool: ...


def rate(make: Callable[[], Updates], first: int) -> dict[str, Any]:
    """Updates per second of one seed: the median of five turns that follow each other; and how long the start took."""
    start = time.perf_counter()
    updates = make()
    updates.run(first)
    compiled = time.perf_counter()
    updates.run(first)
    each = time.perf_counter() - compiled
    repeats = max(int(MEASURED / TURNS / each), 1)
    rates = []
    for _ in range(TURNS):
        begun, done = time.perf_counter(), 0
        for _ in range(repeats):
            done += updates.run(first)
        rates.append(done / (time.perf_counter() - begun))
    return {
        "updates_per_second": statistics.median(rates),
        "slowest": min(rates),
        "fastest": max(rates),
        "start_s": compiled - start,
        "finite": updates.finite(),
    }


def rows(quick: bool) -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """What is measured, in the order of its importance, and how."""
    from benchmarks.gpu import segue_updates

    size, first = (2_000, 4) if quick else (1_000_000, 1_000)
    # A small dispatch for many seeds: it is a whole number of them anyway.
    lengths = {1: first, 8: first, 32: max(first // 4, 4), 128: max(first // 10, 4)}
    counts = (1, 2) if quick else SEEDS

    def ours(name: str, seeds: int) -> tuple[dict[str, Any], Callable[[], dict[str, Any]]]:
        def measure() -> dict[str, Any]:
            found = rate(lambda: segue_updates.Updates(name, seeds, size), lengths.get(seeds, first))
            return {**found, "of_all_seeds": seeds * found["updates_per_second"], "memory_gib": segue_updates.memory()}

        return {"library": "segue", "algorithm": name, "seeds": seeds}, measure

    def theirs(name: str) -> tuple[dict[str, Any], Callable[[], dict[str, Any]]]:
        def measure() -> dict[str, Any]:
            from benchmarks.gpu import torch_updates

            made: list[Any] = []

            def make() -> Any:
                made.append(torch_updates.Updates(name, size))
                return made[0]

            return {**rate(make, first), "how": made[0].how}

        return {"library": "torch", "algorithm": name, "seeds": 1}, measure

    def phase(name: str, seeds: int, steps: int) -> tuple[dict[str, Any], Callable[[], dict[str, Any]]]:
        def measure() -> dict[str, Any]:
            start = time.perf_counter()
            updates, done = segue_updates.Updates(name, seeds, size), 0
            while done < steps:
                done += updates.run(min(first, steps - done))
            return {"seconds": time.perf_counter() - start, "updates": done, "finite": updates.finite()}

        return {"library": "segue", "algorithm": name, "seeds": seeds, "what": "an offline phase"}, measure

    for name in segue_updates.FIRST:
        yield ours(name, 1)
        yield theirs(name)
    for seeds in counts[1:]:
        for name in segue_updates.FIRST:
            yield ours(name, seeds)
    yield phase("td3-bc", 2 if quick else 32, 8 if quick else 20_000)
    others = ("bc", "dqn") if quick else segue_updates.NAMES[len(segue_updates.FIRST) :]
    # One seed and 32 of every algorithm, before 8 and 128.
    for seeds in (1,) if quick else (1, 32, 8, 128):
        for name in others:
            yield ours(name, seeds)


def measured(quick: bool, budget: float, write: Callable[[list[dict[str, Any]], list[dict[str, Any]]], None]) -> None:
    """Measure until the budget does not allow another row of the length of the longest so far."""
    start, longest = time.perf_counter(), 0.0
    found: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    for about, measure in rows(quick):
        begun = time.perf_counter()
        if begun - start + longest > budget:
            missing.append({**about, "why": "the time was over"})
            continue
        try:
            row = {**about, **measure()}
        except ImportError as error:
            missing.append({**about, "why": str(error)})
            continue
        except Exception as error:  # one that does not fit or compile does not take the others along
            missing.append({**about, "why": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"})
            continue
        finally:
            longest = max(longest, time.perf_counter() - begun)
        found.append(row)
        print(json.dumps(row), flush=True)
        write(found, missing)
    write(found, missing)


def compared(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The two figures that have targets: one seed against PyTorch (5 times), 32 seeds against one (16 times)."""
    rates = {(row["library"], row["algorithm"], row["seeds"]): row.get("updates_per_second") for row in found}
    made = []
    for (library, name, seeds), value in rates.items():
        one = rates.get(("segue", name, 1))
        if library == "torch" and value and one:
            made.append({"algorithm": name, "what": "one seed/PyTorch", "ratio": one / value, "target": 5.0})
        elif library == "segue" and seeds > 1 and value and one:
            target = {"target": 16.0} if seeds == 32 else {}
            made.append({"algorithm": name, "what": f"{seeds} seeds/one", "ratio": seeds * value / one, **target})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=440.0, help="seconds in all, the start included (440)")
    parser.add_argument("--quick", action="store_true", help="a smoke test: nothing is measured well")
    parser.add_argument("--out", type=Path, help="where the rows are written (benchmarks/gpu.json)")
    flags = parser.parse_args()
    start = time.perf_counter()
    import jax

    device = jax.devices()[0]
    if device.platform != "gpu" and flags.out is None:
        parser.error(f"there is no GPU ({device.device_kind}); give --out FILE to run on this processor all the same")
    about = {
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "torch": _version("torch"),
        "quick": flags.quick,
        "dataset": "random, Hopper's shapes, batch 256, two hidden layers of 256",
    }

    def write(found: list[dict[str, Any]], missing: list[dict[str, Any]]) -> None:
        whole = {**about, "seconds": time.perf_counter() - start, "compared": compared(found)}
        text = json.dumps({**whole, "rows": found, "missing": missing}, indent=1)
        (flags.out or OUT).write_text(text + "\n")

    measured(flags.quick, flags.budget - (time.perf_counter() - start), write)
    print(f"{device.device_kind}: {time.perf_counter() - start:.0f} s; written to {flags.out or OUT}")


def _version(package: str) -> str | None:
    """What is installed; None if nothing is."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
