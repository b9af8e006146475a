"""Clients that live in a world and ask a service over HTTP what to do, with everything that goes wrong on the way."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import msgspec
import numpy as np

from segue.errors import SegueError
from segue.live.messages import Begin, Decide, Decided, Outcome, Problem
from segue.live.worlds import behaviour, make_world
from segue.live.worlds.settings import Traffic
from segue.live.worlds.wire import Wire

#: Seconds between reports, and between attempts of one request; how long one is tried.
REPORT, PAUSE, PATIENCE = 5.0, 0.1, 30.0


@dataclasses.dataclass
class Tally:
    """What happened to the traffic so far."""

    count: Counter[str] = dataclasses.field(default_factory=Counter)
    """Episodes, decisions, outcomes, dropped, duplicates, retries, other answers, refused."""
    returns: dict[str, list[float]] = dataclasses.field(default_factory=lambda: defaultdict(list))
    """Of the finished episodes by arm."""

    def line(self) -> str:
        """In words."""
        arms = "; ".join(
            f"{arm}: mean return {np.mean(some):.3g}" for arm, some in sorted(self.returns.items()) if some
        )
        counts = ", ".join(f"{number:,} {what}" for what, number in self.count.items())
        return f"{counts or 'nothing yet'}{'; ' + arms if arms else ''}"


async def drive(
    url: str, world: str, traffic: Traffic, token: str | None = None, report: Callable[[str], None] = lambda line: None
) -> Tally:
    """Live in a world until its episodes are over.

    In apprentice mode the clients act by the world's own behaviour policy, where the episode is not a candidate's.

    Args:
        url: where the service is.
        world: see `make_world`.
        traffic: of how many, and what goes wrong.
        token: the service's, if it asks for one.
        report: is given a line now and then, where something has happened, and one at the end.

    Raises:
        SegueError: if there is no such world, the service refuses what is sent, or does not answer.
    """
    tally, places = Tally(), iter(range(10**18 if traffic.episodes is None else traffic.episodes))
    wire, run = Wire(url, token), secrets.token_hex(4)  # a log may have been driven before
    reporter = asyncio.create_task(_reporting(tally, report))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(traffic.clients):
                client = _Client(wire, make_world(world), traffic, tally, group, run)
                group.create_task(client.live(places))
    except* SegueError as errors:
        raise errors.exceptions[0] from None
    finally:
        reporter.cancel()
        wire.close()
    report(f"segue: simulation ended: {tally.line()}")
    return tally


async def _reporting(tally: Tally, report: Callable[[str], None]) -> None:
    said = ""
    while True:
        await asyncio.sleep(REPORT)
        if (line := tally.line()) != said:  # outcomes may take long to come
            report(f"segue: simulated so far: {line}")
            said = line


class _Client:
    """One episode after another, in a copy of the world of its own."""

    def __init__(
        self, wire: Wire, world: gym.Env, traffic: Traffic, tally: Tally, group: asyncio.TaskGroup, run: str
    ) -> None:
        self._run = run
        self._wire, self._world, self._traffic, self._tally, self._group = wire, world, traffic, tally, group
        self._apprentice = self._acts = False

    async def live(self, places: Any) -> None:
        """Episodes, as long as there are places."""
        for number in places:
            self._source = np.random.default_rng([self._traffic.seed, number])
            await self._episode(number)
            self._tally.count["episodes"] += 1

    def _unit(self, number: int) -> int:
        return int(number * self._traffic.drift) + int(self._source.integers(self._traffic.units))

    async def _episode(self, number: int) -> None:
        traffic, source, world = self._traffic, self._source, self._world
        unit, name, earned = self._unit(number), f"{self._run}-{number}", 0.0
        observation, _ = world.reset(seed=int(source.integers(2**31)), options={"unit": unit})
        if self._apprentice:
            begun = await self._post("/v1/episodes", Begin(name, f"unit-{unit}"))
            self._acts = begun["arm"] == "application"
        for step in range(10**9):
            await asyncio.sleep(source.exponential(traffic.think))
            decided = await self._decision(f"{name}-{step}", name, unit, observation)
            observation, reward, terminated, truncated, _ = world.step(self._action(decided.action))
            earned += float(reward)
            following = _plain(observation) if truncated and not terminated else None
            outcome = Outcome(
                decided.decision_id,
                float(reward),
                next_observation=following,
                terminated=terminated,
                truncated=truncated and not terminated,
            )
            if source.random() < traffic.drop:
                self._tally.count["dropped"] += 1
            else:
                twice = source.random() < traffic.duplicate
                self._group.create_task(self._outcome(outcome, source.exponential(traffic.delay), twice))
            if terminated or truncated:
                self._tally.returns[decided.arm].append(earned)
                return

    def _action(self, action: Any) -> Any:
        space = self._world.action_space
        return (
            action if isinstance(space, gym.spaces.Discrete) else np.asarray(action, space.dtype).reshape(space.shape)
        )

    async def _decision(self, decision: str, episode: str, unit: int, observation: Any) -> Decided:
        asked = Decide(decision, episode, _plain(observation), f"unit-{unit}")
        if self._acts:
            action, asked.log_prob = behaviour(self._world, observation, self._source)
            asked.action = action.tolist()
        answer = await self._post("/v1/decisions", asked)
        if isinstance(answer, Problem) and answer.code == "no_action" and not self._acts:
            self._apprentice = self._acts = True
            return await self._decision(decision, episode, unit, observation)
        if isinstance(answer, Problem):
            raise SegueError(f"the service refused a decision of this world ({answer.code}): {answer.message}")
        self._tally.count["decisions"] += 1
        if self._source.random() < self._traffic.retry:
            self._tally.count["retries"] += 1
            self._tally.count["other answers"] += await self._post("/v1/decisions", asked) != answer
        return msgspec.convert(answer, Decided)

    async def _outcome(self, outcome: Outcome, delay: float, twice: bool) -> None:
        await asyncio.sleep(delay)
        for again in range(1 + twice):
            answer = await self._post("/v1/outcomes", outcome)
            if isinstance(answer, Problem):
                self._tally.count["refused"] += 1
            else:
                self._tally.count["duplicates" if again else "outcomes"] += 1

    async def _post(self, path: str, asked: Any) -> Any:
        """The answer as plain data, or why it was refused; what was not answered is sent again."""
        content, until = msgspec.json.encode(asked), time.monotonic() + PATIENCE
        while True:
            try:
                status, answer = await self._wire.post(path, content)
                if status == 200:
                    return msgspec.json.decode(answer)
                if status not in (408, 503):
                    return msgspec.json.decode(answer, type=Problem)
                said = answer.decode(errors="replace")
            except msgspec.DecodeError:
                raise SegueError(
                    f"{path}: the address answered {status}: {answer[:200].decode(errors='replace')!r}; expected a "
                    "service that `segue serve` runs: check the address"
                ) from None
            except OSError as error:
                said = str(error) or type(error).__name__
            if time.monotonic() > until:
                raise SegueError(f"{path}: the service gave no answer within {PATIENCE:g} seconds ({said})")
            await asyncio.sleep(PAUSE)


def _plain(observation: Any) -> Any:
    """As JSON has it."""
    if isinstance(observation, dict):
        return {name: _plain(part) for name, part in observation.items()}
    if isinstance(observation, tuple):
        return [_plain(part) for part in observation]
    return observation.tolist() if hasattr(observation, "tolist") else observation
