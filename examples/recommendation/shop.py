"""From SARDINE's logs to a live recommender that learns: each step is a command of Segue's, the traffic is HTTP."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import queue
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from examples.recommendation.world import ITEMS, STEPS, Sessions
from jaxtyping import Float, Int
from studies.processes import running

import segue
from segue.acting import ActingPolicy
from segue.errors import SegueError
from segue.files import write_atomically
from segue.live import Client
from segue.live.database import open_database
from segue.live.overview import PolicyAbout, policies
from segue.live.policies import read_policy

#: ε of SARDINE's logger: nine of ten items are random.
EPSILON = 0.9
#: Seconds after the start of a session in which its clicks count. A session takes less than one on an idle machine.
WINDOW = 20.0
#: Sessions at the same time.
APPLICATIONS = 4


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How many sessions and updates each step takes."""

    log: int = 400
    """Logged sessions to learn from, and as many more that judge what was learnt."""
    updates: int = 3_000
    before: int = 100
    """Live sessions before a trial: what the off-policy gate judges by."""
    trial: int = 1_500
    """Live sessions of one trial at most."""
    learn: int = 1_000
    """Live sessions before fine-tuning, beside those of the first trial."""
    every: int = 2_500
    """Live decisions from one candidate to the next."""
    truth: int = 1_000
    """Simulated sessions that measure what a policy is really worth."""


def log(sessions: int, seed: int) -> dict[str, np.ndarray]:
    """Sessions of SARDINE's ε-greedy logger as columns of a dataset, with the probabilities of what was shown."""
    np.random.seed(seed)  # noqa: NPY002 - SARDINE draws its random items from it
    world = Sessions()
    choose = world.logger(EPSILON, seed)
    columns: dict[str, list[Any]] = {}
    for number in range(sessions):
        observation, _ = world.reset(seed=_user(seed, number))
        ended = False
        while not ended:
            item, log_prob = choose()
            following, click, ended, _, _ = world.step(item)
            row = (observation, item, click, ended, following, log_prob)
            names = ("observations", "actions", "rewards", "terminals", "next_observations", "behaviour_log_prob")
            for name, value in zip(names, row, strict=True):
                columns.setdefault(name, []).append(value)
            observation = following
    return {**{name: np.asarray(values) for name, values in columns.items()}, "discrete_actions": np.array(ITEMS)}


def clicks_per_session(policy: ActingPolicy, sessions: int, seed: int, explore: bool = True) -> Float[np.ndarray, " n"]:
    """Clicks in each of so many simulated sessions of a policy: the truth that estimates are compared with."""
    worlds = [Sessions() for _ in range(sessions)]
    observation = np.stack([world.reset(seed=_user(seed, number))[0] for number, world in enumerate(worlds)])
    clicks, source = np.zeros(sessions), np.random.default_rng(seed)
    for _ in range(STEPS):
        acted = policy.act(observation, policy.start(sessions), source, explore)
        after = [world.step(item) for world, item in zip(worlds, np.asarray(acted.action), strict=True)]
        observation = np.stack([step[0] for step in after])
        clicks += [step[1] for step in after]
    return clicks


def _user(seed: int, number: int) -> int:
    return int(np.random.default_rng([seed, number]).integers(2**31))


def run(*words: str) -> str:
    """A command of Segue's, shown as one would type it, and what it printed.

    Raises:
        SegueError: if it failed, with what it said.
    """
    print(f"$ segue {' '.join(words)}", flush=True)
    with tempfile.TemporaryFile("w+", errors="replace") as errors, running(words, errors) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        if process.wait():
            errors.seek(0)
            raise SegueError(f"segue {words[0]} failed: {errors.read().strip()}")
    return said


@contextlib.contextmanager
def serving(db: Path, policy: Path, seed: int) -> Iterator[str]:
    """`segue serve` as long as this lasts, and its address."""
    words = ["serve", "--policy", str(policy), "--db", str(db), "--explore", "policy", "--seed", str(seed)]
    words += ["--port", "0", "--review", "1"]
    print(f"$ segue {' '.join(words)} &", flush=True)
    with open(db.with_suffix(".service.log"), "a") as said, running(words, said) as service:
        assert service.stdout is not None
        first = service.stdout.readline()
        if not first.startswith("segue: http"):
            raise SegueError(f"segue serve did not start; see {said.name}")
        yield first.split()[1]


class Traffic:
    """Users who come one after another; the application asks the service what to show, and says what was clicked.

    Args:
        address: of the service.
        seed: of the users.
    """

    def __init__(self, address: str, seed: int) -> None:
        self.seed, self.sessions = seed, 0
        self._idle: queue.SimpleQueue[tuple[Sessions, Client]] = queue.SimpleQueue()
        for _ in range(APPLICATIONS):
            self._idle.put((Sessions(), Client(address)))

    def go_on(self, sessions: int) -> None:
        """So many more sessions."""
        numbers = range(self.sessions, self.sessions + sessions)
        with concurrent.futures.ThreadPoolExecutor(APPLICATIONS) as applications:
            list(applications.map(self._session, numbers))
        self.sessions += sessions

    def until(self, enough: Callable[[], bool], at_most: int, batch: int = 100) -> int:
        """More sessions until it is enough, and how many these were."""
        before = self.sessions
        while self.sessions - before < at_most and not enough():
            self.go_on(batch)
        return self.sessions - before

    def _session(self, number: int) -> None:
        world, client = application = self._idle.get()
        observation, _ = world.reset(seed=_user(self.seed, number))
        ended = False
        while not ended:
            decided = client.decide(f"session-{number}", observation)
            observation, click, ended, _, _ = world.step(decided.action)
            client.outcome(decided.decision_id, click, terminated=ended)
        self._idle.put(application)


class Log:
    """The live log, through `segue policies`."""

    def __init__(self, db: Path) -> None:
        self.db = db

    def policies(self, *words: str) -> str:
        """`segue policies …` on this log."""
        return run("policies", *words, "--db", str(self.db)).strip()

    def standing(self) -> dict[str, PolicyAbout]:
        """Every policy by its name, with its status and every verdict on it; later ones of a name replace earlier."""
        database = open_database(self.db, create=False)
        try:
            return {one.name: one for one in policies(database)}
        finally:
            database.close()

    def exposure(self, policy: str) -> Int[np.ndarray, " items"]:
        """How often a policy has shown each item to users."""
        return np.bincount(segue.load(f"live:{self.db}?policy={policy}").actions, minlength=ITEMS)

    def truth(self, policy: str, sessions: int, seed: int) -> Float[np.ndarray, " sessions"]:
        """Clicks in simulated sessions of a policy as it was deployed."""
        database = open_database(self.db, create=False)
        try:
            return clicks_per_session(read_policy(database, policy), sessions, seed)
        finally:
            database.close()


def trial(log: Log, name: str, traffic: Traffic, sizes: Sizes) -> dict[str, Any]:
    """A candidate of the log from shadow to its end: live, withdrawn, or out of sessions; with all evidence.

    The off-policy gate is asked first. Where it cannot say, the canary is forced, and the log keeps that.
    """
    log.policies("shadow", name)
    print(log.policies("evaluate", name), flush=True)
    gate = log.standing()[name].gates[-1]
    if gate.verdict != "passed":
        why = f"the off-policy gate says: {gate.verdict}"
        print(log.policies("canary", name, "--force", "--why", why), flush=True)

    def decided() -> bool:
        return log.standing()[name].status not in ("shadow", "canary")

    sessions = traffic.until(decided, sizes.trial)
    until = time.monotonic() + 2 * WINDOW
    while not decided() and time.monotonic() < until:  # the last windows have to close
        time.sleep(1.0)
    status = log.standing()[name].status
    if status == "canary":
        status = "undecided"
        log.policies("rollback", "--why", "the trial is out of sessions")
    print(run("ab", "--db", str(log.db)), flush=True)
    return {
        "name": name,
        "status": status,
        "sessions": sessions,
        "gate": {"verdict": gate.verdict, "reason": gate.evidence["reason"]},
        "steps": [f"{one.gate}: {one.verdict}" for one in log.standing()[name].gates],
        "ab": json.loads(run("ab", "--db", str(log.db), "--json")),
    }


def judged(policy: Path, dataset: Path, sizes: Sizes, seed: int) -> dict[str, Any]:
    """What estimators say of a policy from sessions of the logger, and what it really earns, both undiscounted."""
    words = ("--offline", "--explore", "--discount", "1", "--fresh", "--fqe-steps", "1000", "--json")
    (found,) = json.loads(run("evaluate", str(policy), "--dataset", f"npz:{dataset}", *words))
    truth = clicks_per_session(segue.load_policy(policy), sizes.truth, seed)
    return {
        "logger": found["behaviour_value"],
        "truth": _mean(truth),
        "verdict": found["verdict"],
        "estimates": {
            one["method"]: {
                "value": one["value"],
                "lower": one["bounds"]["value_lower"],
                "effective": None if one["support"] is None else one["support"]["effective_episodes"],
            }
            for one in found["estimates"]
        },
    }


def go(out: Path, sizes: Sizes, seed: int) -> dict[str, Any]:
    """The whole way; what was found is kept in `out/shop.json`.

    What stopped before its end continues: runs where they were saved, and live traffic from its beginning.
    """
    kept = out / "shop.json"
    if kept.exists():
        print(f"{kept} is there; nothing is run again", flush=True)
        return dict(json.loads(kept.read_text()))
    out.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(("log", "fresh")):
        if not (out / f"{name}.npz").exists():
            part = out / f"{name}.part.npz"
            np.savez_compressed(part, allow_pickle=False, **log(sizes.log, 2 * seed + number))
            part.rename(out / f"{name}.npz")
    data = ("--dataset", f"npz:{out / 'log.npz'}", "--offline-steps", str(sizes.updates), "--seed", str(seed))
    small = ("--offline.hidden-sizes", "64", "64", "--offline.batch-size", "128")
    run("run", *data, "--offline", "bc", *small, "--out", str(out / "cloned"))
    # A sharper policy than IQL's default: what explores is what users see.
    sharp = ("--offline.inverse-temperature", "10")
    run("run", *data, "--offline", "iql", *small, *sharp, "--out", str(out / "pretrained"))
    for name in ("cloned", "pretrained"):
        if not (out / "policies" / name).exists():
            run("export", str(out / name), "--to", str(out / "policies" / name))
    before = judged(out / "policies" / "pretrained", out / "fresh.npz", sizes, 1_000 + seed)
    if stopped := list(out.glob("live.*")):
        print("the live traffic was stopped before its end; it begins again with a new log", flush=True)
    for old in stopped:
        old.unlink()
    shutil.rmtree(out / "learner", ignore_errors=True)
    live = Log(out / "live.db")
    with serving(live.db, out / "policies" / "cloned", seed) as address:
        live.policies("rules", "--window", str(WINDOW), "--shares", "0.5")
        live.policies("stage", str(out / "policies" / "pretrained"))
        traffic = Traffic(address, 2_000 + seed)
        traffic.go_on(sizes.before)
        trials = [trial(live, "pretrained", traffic, sizes)]
        traffic.go_on(sizes.learn)
        known = set(live.standing())
        learn = ("--db", str(live.db), "--run", str(out / "pretrained"), "--online", "iql", "--every", str(sizes.every))
        run("learn", *learn, *(word.replace("offline", "online") for word in (*small, *sharp)), "--once",
            "--out", str(out / "learner"))  # fmt: skip
        candidates = [name for name in live.standing() if name not in known]
        traffic.go_on(sizes.before)
        trials.append(trial(live, candidates[-1], traffic, sizes))
    names = {"logged, cloned": "cloned", "pretrained": "pretrained", "fine-tuned": candidates[-1]}
    hashes = {shown: live.standing()[name].policy for shown, name in names.items()}
    worth = {shown: _mean(live.truth(policy, sizes.truth, 3_000 + seed)) for shown, policy in hashes.items()}
    exposure = {shown: live.exposure(policy).tolist() for shown, policy in hashes.items()}
    with np.load(out / "log.npz") as columns:
        exposure = {"logger": np.bincount(columns["actions"], minlength=ITEMS).tolist(), **exposure}
        worth = {"logger": _mean(columns["rewards"].reshape(-1, STEPS).sum(1)), **worth}
    found = {
        "seed": seed,
        "sizes": dataclasses.asdict(sizes),
        "before launch": before,
        "trials": trials,
        "clicks per session": worth,
        "exposure": exposure,
    }
    run("report", str(out / "learner"))
    write_atomically(kept, json.dumps(found, indent=1))
    return found


def _mean(values: Float[np.ndarray, " n"]) -> dict[str, float]:
    """With the half-width of its 95 % interval."""
    return {"mean": float(values.mean()), "within": float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))}
