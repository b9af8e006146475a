"""Steps per second of environments that are slower than the learner: `python -m benchmarks.environments [ID]`.

One environment, two in this process, two in processes of their own, two of these that do not wait for each other, and
two on nodes of a Ray cluster of this machine take turns; ratios are to the first, within a turn. The policy is random,
so nothing but stepping is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from segue.envs import Environment, Episodes
from segue.envs.on_ray import Nodes
from segue.envs.overlapped import Overlapped
from segue.envs.process import Remote

TURNS, SECONDS = 5, 10.0


def steps_per_second(episodes: Episodes, seconds: float) -> float:
    """Of all environments together."""
    step = arriving(episodes) if isinstance(episodes, Overlapped) else together(episodes)
    step()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        steps += step()
    return steps / (time.perf_counter() - began)


def together(episodes: Episodes) -> Callable[[], int]:
    """A step of each; returns how many."""
    source, count = np.random.default_rng(0), len(episodes.envs)

    def step() -> int:
        episodes.step(action(episodes, source, count))
        return count

    return step


def arriving(episodes: Overlapped) -> Callable[[], int]:
    """The steps that have arrived, of which there is one at least; the others go on, also between turns."""
    source, count = np.random.default_rng(0), len(episodes.envs)
    under_way = action(episodes, source, count)

    def step() -> int:
        arrived: list[int] = []
        while not arrived:
            if chosen := list(episodes.free):
                under_way[chosen] = action(episodes, source, len(chosen))
                episodes.ask(under_way, chosen)
            arrived = episodes.arrived([i for i, doing in episodes.busy.items() if doing == "step"])
        episodes.take(under_way, np.isin(np.arange(count), arrived))
        return len(arrived)

    return step


def action(episodes: Episodes, source: np.random.Generator, count: int) -> np.ndarray:
    if episodes.spaces.discrete:
        return source.integers(episodes.spaces.action_size, size=count)
    return source.uniform(-1, 1, (count, episodes.spaces.action_size)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", nargs="?", default="highway_env:highway-v0", help="what Gymnasium knows")
    parser.add_argument("--environments", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    environment, count = Environment.of(arguments.environment), arguments.environments
    place = (environment, count, 0, "benchmark")
    places: dict[str, Callable[[], Episodes]] = {
        "one": lambda: Episodes(environment, 1, 0, "benchmark"),
        f"{count} in this process": lambda: Episodes(*place),
        f"{count} in processes": lambda: Episodes(*place, apart=Remote),
        f"{count} that do not wait": lambda: Overlapped(*place, apart=Remote),
    }
    with contextlib.ExitStack() as opened:
        with contextlib.suppress(ImportError):
            from ray.cluster_utils import Cluster

            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
            opened.callback(cluster.shutdown)
            for _ in range(count):
                cluster.add_node(num_cpus=1)
            os.environ["RAY_ADDRESS"] = cluster.address
            places[f"{count} on {count} nodes"] = lambda: Episodes(*place, apart=Nodes())
        made = {name: make() for name, make in places.items()}
        found: dict[str, list[float]] = {name: [] for name in made}
        for _ in range(TURNS):
            for name, episodes in made.items():
                found[name].append(steps_per_second(episodes, SECONDS))
        for episodes in made.values():
            episodes.close()
    ratios = {
        name: [rate / alone for rate, alone in zip(rates, found["one"], strict=True)] for name, rates in found.items()
    }
    for name, rates in found.items():
        low, high = min(ratios[name]), max(ratios[name])
        ratio = statistics.median(ratios[name])
        print(f"{name:24} {statistics.median(rates):8.1f} steps/s   {ratio:.2f} of one ({low:.2f} to {high:.2f})")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"environment": arguments.environment, "steps_per_second": found}, indent=1)
        )


if __name__ == "__main__":
    main()
