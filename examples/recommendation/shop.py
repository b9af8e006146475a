"""From SARDINE's logs to a live recommender that learns: every step is a command of Segue's, and the traffic is HTTP."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

import segue
from examples.recommendation.world import ITEMS, STEPS, Sessions
from segue.acting import ActingPolicy
from segue.live import Client

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
    first: int = 300
    """Live sessions before the first trial."""
    trial: int = 2_000
    """Live sessions of one trial at most."""
    learn: int = 1_500
    """Live sessions of the promoted policy before fine-tuning."""
    truth: int = 2_000
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
        SystemExit: if it failed, with what it said.
    """
    print(f"$ segue {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "segue.cli.main", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"segue {words[0]} failed: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def serving(db: Path, policy: Path, seed: int) -> Iterator[str]:
    """`segue serve` as long as this lasts, and its address."""
    words = ["serve", "--policy", str(policy), "--db", str(db), "--explore", "policy", "--seed", str(seed)]
    words += ["--port", "0", "--review", "1"]
    print(f"$ segue {' '.join(words)} &", flush=True)
    command = [sys.executable, "-m", "segue.cli.main", *words]
    with open(db.with_suffix(".service.log"), "a") as said:
        service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            assert service.stdout is not None
            first = service.stdout.readline()
            if not first.startswith("segue: http"):
                raise SystemExit(f"segue serve did not start; see {said.name}")
            yield first.split()[1]
        finally:
            service.terminate()
            service.wait()


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

    def standing(self, name: str) -> dict[str, Any]:
        """One policy with its status and every verdict on it."""
        command = [sys.executable, "-m", "segue.cli.main", "policies", "--db", str(self.db), "--json"]
        listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return next(one for one in listed if name in (one["name"], one["policy"]))

    def exposure(self, policy: str) -> Int[np.ndarray, " items"]:
        """How often a policy has shown each item to users."""
        shown = segue.load(f"live:{self.db}?policy={policy}").actions
        return np.bincount(shown, minlength=ITEMS)


def trial(log: Log, name: str, traffic: Traffic, sizes: Sizes) -> dict[str, Any]:
    """A candidate of the log from shadow to its end: live, withdrawn, or out of sessions; with all evidence.

    The off-policy gate is asked first. Where it cannot say, the canary is forced, and the log keeps that.
    """
    log.policies("shadow", name)
    print(log.policies("evaluate", name), flush=True)
    gate = log.standing(name)["gates"][-1]
    forced = gate["verdict"] != "passed"
    if forced:
        print(log.policies("canary", name, "--force", "--why", "the gate cannot say; the canary will"), flush=True)

    def decided() -> bool:
        return log.standing(name)["status"] not in ("shadow", "canary")

    sessions = traffic.until(decided, sizes.trial)
    waited = 0.0
    while not decided() and waited < 2 * WINDOW:  # the last windows have to close
        time.sleep(1.0)
        waited += 1.0
    outcome = log.standing(name)
    if outcome["status"] == "canary":
        log.policies("rollback", "--why", "the trial is out of sessions")
    print(run("ab", "--db", str(log.db)), flush=True)
    compared = json.loads(run("ab", "--db", str(log.db), "--json"))
    return {"name": name, "gate": gate, "forced": forced, "sessions": sessions, "status": outcome["status"],
            "verdicts": outcome["gates"], "ab": compared}
