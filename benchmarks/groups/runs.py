"""Whole runs on Hopper against the peers': fine-tuning (TD3+BC offline, then live) and SAC from scratch.

Unless `--full`, a part of each run is run, in turns, and the rest is projected from the mean of its later turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from benchmarks.rows import Row, sooner
from benchmarks.settings import Settings
from benchmarks.turns import ROOT, Contestant, Turn, race

LOG = ROOT / "src/segue/data/bundled/hopper-mixed.npz"
OFFLINE, ONLINE, WARMUP, EPISODES = 50_000, 20_000, 1_000, 10
LAP = 500


def rows(settings: Settings) -> Iterator[Row]:
    """The seconds of each run."""
    lengths = {"offline": OFFLINE, "online": ONLINE} if settings.full else {"offline": 5_000, "online": 4_000}
    lap, every, warmup, episodes = LAP, WARMUP, WARMUP, EPISODES
    if settings.quick:
        lengths, lap, every, warmup, episodes = {"offline": 200, "online": 400}, 50, 100, 100, 2
    note = "in full" if settings.full else f"projected from {lengths['offline']:,} + {lengths['online']:,}"
    common = {"env": "Hopper-v5", "warmup_steps": warmup, "online_steps": lengths["online"]}

    tuned = {"offline": {"name": "td3-bc"}, "offline_steps": lengths["offline"], "online": {"name": "td3-bc"}}
    recipe = {**common, **tuned, "dataset": "segue:hopper-mixed", "eval_every": every, "eval_episodes": episodes}
    contestants = [Contestant("runs", lap, json.dumps(recipe))]
    if settings.peers is not None:
        arguments = (LOG, lap, lengths["offline"], lengths["online"], warmup, every, episodes)
        contestants.append(Contestant("d3rlpy_runs", *arguments, python=settings.peers))
    ours, *theirs = (seconds(turns, warmup, lap) for turns in race(contestants))
    yield sooner("fine-tuning 50k + 20k/d3rlpy", ours, next(iter(theirs), None), "s", 2.5, note)

    recipe = {**common, "online": {"name": "sac"}, "eval_every": lengths["online"], "eval_episodes": 1}
    contestants = [Contestant("runs", lap, json.dumps(recipe))]
    peers = {"sbx": 1.2, "sb3": 2.2} if settings.peers is not None else {}
    contestants += [
        Contestant("sb_runs", peer, lap, lengths["online"], warmup, python=settings.peers) for peer in peers
    ]
    ours, *theirs = (seconds(turns, warmup, lap) for turns in race(contestants))
    note = "in full" if settings.full else f"projected from {lengths['online']:,}"
    if not peers:
        yield sooner("online SAC 20k", ours, None, "s", None, note)
    for (peer, target), other in zip(peers.items(), theirs, strict=True):
        yield sooner(f"online SAC 20k/{peer}", ours, other, "s", target, note)


def seconds(turns: Sequence[Turn], warmup: int, lap: int) -> float:
    """What the run takes in full length: its start and its end as they were, the rest by the mean of a turn.

    A phase starts with its compilation, the online one with its warm-up before that.
    """
    total = turns[-1]["seconds"]
    for phase, length, start in (("offline", OFFLINE, lap), ("online", ONLINE, warmup + lap)):
        laps = [turn for turn in turns if turn.get("phase") == phase]
        if laps:
            first = -(-start // lap)
            later = laps[first:]
            done = sum(turn["units"] for turn in laps[:first])
            total += sum(turn["seconds"] for turn in laps[:first])
            total += sum(turn["seconds"] for turn in later) * (length - done) / sum(turn["units"] for turn in later)
    return total
