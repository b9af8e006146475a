"""Environments that do not wait for each other: the same transitions in another order, and a lag that has a bound."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import segue
from segue.core import Normaliser, Spaces
from segue.data.dataset import returns_to_go
from segue.envs import Environment, Episodes
from segue.envs.goals import Goals
from segue.envs.overlapped import Overlapped
from segue.envs.process import Apart, Held, Remote
from segue.errors import RecipeError, SegueError
from segue.policy import Policy
from segue.recipe import read_recipes
from segue.replay import OnlineOnly, Replay
from segue.rng import environment_seed
from segue.runner import compare
from segue.runner.checkpointer import JobCheckpointer
from segue.training.agent import Agent
from segue.training.hindsight import Hindsight
from segue.training.lag import Lag
from segue.training.online import OnlineSettings, least_lag, train_online
from segue.training.update import init_learner, replace
from toys import REACH, RISK, SMALL, Notes, pendulum

pytestmark = pytest.mark.usefixtures("no_reports")

#: Environments, steps of a chunk, between evaluations and in all, and the least bound.
SLOTS, CHUNK, EVERY, STEPS = 3, 30, 60, 240
LEAST = least_lag(EVERY, SLOTS)


class Walk(gym.Env):
    """Shows its episode, the time and a place that actions move; a step costs its time. Where a pipe in the folder
    `gates` has the name `episode-time`, it waits until somebody opens that.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, gates: str = "") -> None:
        self.gates = gates

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        assert seed is not None
        self.number, self.time, self.place = seed % 9973, 0, 0.0
        return self.seen()

    def step(self, action: Any) -> Any:
        self.time += 1
        self.place += float(action[0]) + float(self.np_random.normal())
        over, ends = self.time == 3 + self.number % 4, self.number % 2 == 0
        seen, info = self.seen()
        return seen, self.place, over and ends, over and not ends, info

    def seen(self) -> Any:
        gate = Path(self.gates, f"{self.number}-{self.time}")
        if self.gates and gate.exists():
            gate.open().close()
        return np.array([self.number, self.time, self.place], np.float32), {"cost": float(self.time)}


class Doors(gym.Env):
    """Four doors, of which the one whose number is shown is shut: each step another one."""

    observation_space = gym.spaces.Box(0, 4, (1,))
    action_space = gym.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time, self.shut = 0, int(self.np_random.integers(4))
        return self.seen()

    def step(self, action: Any) -> Any:
        assert action != self.shut, "a door that is shut"
        self.time, self.shut = self.time + 1, (self.shut + 1) % 4
        seen, info = self.seen()
        return seen, float(action), self.time == 5, False, info

    def seen(self) -> Any:
        return np.array([self.shut], np.float32), {"action_mask": (np.arange(4) != self.shut).astype(np.int8)}


WALK = Environment(f"{__name__}:Walk")


def number_of(slot: int, episode: int) -> int:
    """What Walk shows of an episode."""
    return environment_seed(0, "training", slot, episode) % 9973


class Puppet(Apart):
    """An environment elsewhere that answers when `script` says so: it is given those that are asked, and chooses."""

    script: ClassVar[Callable[[Sequence[Puppet]], list[Puppet]]]
    #: The number that Walk shows of an episode, and the time at which the process ends.
    dies: ClassVar[tuple[int, int] | None] = None

    def __init__(self, environment: Environment, timeout: float, keys: Sequence[str]) -> None:
        self.held, self.limit, self.until, self.what = Held(), 60.0, math.inf, "make"
        self.made_of = environment.plain(), keys

    def ask(self, what: str, argument: Any) -> None:
        self.what, self.argument, self.until = what, argument, math.inf

    def answer(self) -> Any:
        if self.until == 0:
            raise SegueError("it did not come back")
        if self.what == "make":
            return self.held.make(*self.made_of)[1]
        if self.what == "step" and self.at == self.dies:
            raise SegueError("its process ended")
        return self.held.act(self.what, self.argument)[1]

    @property
    def at(self) -> tuple[int, int]:
        """What Walk shows."""
        walk = self.held.env.unwrapped
        return getattr(walk, "number", -1), getattr(walk, "time", -1)

    @staticmethod
    def answered(asked: Sequence[Puppet], seconds: float) -> list[Puppet]:
        return Puppet.script(asked)

    def close(self) -> None: ...


def shuffled(seed: int) -> Callable[[Sequence[Puppet]], list[Puppet]]:
    """Any of them, in any order, resets often late."""
    source = random.Random(seed)

    def script(asked: Sequence[Puppet]) -> list[Puppet]:
        steps = [one for one in asked if one.what == "step" or source.random() < 0.2]
        return source.sample(steps or asked, source.randint(1, len(steps or asked)))

    return script


class Told:
    """What an agent was told, row by row, and how old the policy was that acted, by the data its learner had."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[dict[str, Any]] = []
        self.lags: list[int] = []
        self.abandoned: list[int] = []
        self.replay: Any = None
        now, acting, chosen = {"step": 0}, {"known": 0}, {}
        patched = ((Agent, "learn"), (Agent, "tell"), (Agent, "abandon"), (Agent, "finish"), (Policy, "act"))
        learn, tell, abandon, finish, act = (getattr(cls, name) for cls, name in patched)
        init, ask = Policy.__init__, Overlapped.ask

        def learnt(agent: Agent) -> None:
            now["step"] = agent.step
            learn(agent)

        def trained(asked: Any) -> Any:
            return replace(asked.learner, step=np.asarray(now["step"], np.int32)), {}

        def made(policy: Policy, algorithm: Any, learner: Any, *rest: Any) -> None:
            init(policy, algorithm, learner, *rest)
            policy.known = int(learner.step)

        def acted(policy: Policy, *given: Any) -> Any:
            acting["known"] = policy.known
            return act(policy, *given)

        def asked(episodes: Overlapped, action: np.ndarray, which: Sequence[int]) -> None:
            chosen.update(dict.fromkeys(which, acting["known"]))
            ask(episodes, action, which)

        def told(agent: Agent, batch: Any, reward: Any, done: Any, slots: Any, carry: Any, cost: Any) -> None:
            for row, slot in enumerate(slots.tolist()):
                names = ("observation", "action", "next_observation", "discount")
                found = {name: np.asarray(getattr(batch, name)[row]) for name in names}
                self.rows.append({"slot": slot, **found, "reward": reward[row], "done": done[row], "cost": cost[row]})
                self.lags.append(agent.step + row - chosen[slot])
            tell(agent, batch, reward, done, slots, carry, cost)

        def given_up(agent: Agent, slots: Sequence[int]) -> None:
            self.abandoned += slots
            abandon(agent, slots)

        def finished(agent: Agent) -> Any:
            self.replay = agent.replay.online
            return finish(agent)

        for (cls, name), function in zip(patched, (learnt, told, given_up, finished, acted), strict=True):
            monkeypatch.setattr(cls, name, function)
        monkeypatch.setattr(Policy, "__init__", made)
        monkeypatch.setattr(Overlapped, "ask", asked)
        monkeypatch.setattr("segue.training.agent.train", trained)


def collect(bound: int, notes: Notes | None = None, environment: Environment = WALK) -> Notes:
    """An online phase in which nothing is learnt, of n-step targets and returns-to-go."""
    notes = notes or Notes()
    algorithm = segue.CalQL(**SMALL, n_step=2)
    spaces = Spaces(3, 1)
    settings = OnlineSettings(
        env_id=environment,
        steps=STEPS,
        warmup_steps=0,
        random_warmup=False,
        updates_per_step=1.0,
        environments=SLOTS,
        environment_processes="auto",
        max_lag=bound,
        eval_every=EVERY,
        eval_episodes=1,
        seed=0,
        cost="cost",
    )
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), spaces), Normaliser.identity(3))
    train_online(algorithm, (), OnlineOnly(), learner, Replay.create(None, STEPS, spaces, True), notes, settings)
    return notes


@pytest.fixture
def puppets(monkeypatch: pytest.MonkeyPatch) -> type[Puppet]:
    monkeypatch.setattr("segue.training.online.elsewhere", lambda *given: Puppet)
    monkeypatch.setattr(Puppet, "script", shuffled(0), raising=False)
    return Puppet


def episodes_of(rows: list[dict[str, Any]]) -> dict[tuple[int, int], list[int]]:
    """Row numbers by slot and the episode that the observation shows."""
    found: dict[tuple[int, int], list[int]] = {}
    for number, row in enumerate(rows):
        found.setdefault((row["slot"], int(row["observation"][0])), []).append(number)
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bound", [LEAST, LEAST + 7])
def test_in_any_order_they_are_the_transitions_of_environments_that_wait(
    bound: int, seed: int, puppets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(puppets, "script", shuffled(seed))
    told = Told(monkeypatch)
    notes = collect(bound)
    assert len(told.rows) == STEPS
    slots = [row["slot"] for row in told.rows]
    assert slots != sorted(slots)
    alone = Episodes(WALK, SLOTS, 0, "training", cost_key="cost")
    for row in told.rows:
        only = np.arange(SLOTS) == row["slot"]
        assert (alone.observation[row["slot"]] == row["observation"]).all()
        action = np.where(only[:, None], row["action"], 0)
        following, reward, terminated, truncated = (column[only][0] for column in alone.step(action, only))
        assert (following == row["next_observation"]).all()
        assert (reward, terminated | truncated) == (row["reward"], row["done"])
        assert (terminated, alone.cost[only][0]) == (row["discount"] == 0, row["cost"])
    alone.close()
    assert max(told.lags) <= bound
    recorded = [values for _, values in notes.measured if "policy_lag" in values]
    assert len(recorded) == STEPS / CHUNK
    assert max(told.lags) > CHUNK + SLOTS, "also with a policy that is a chunk old"
    chunks = np.array(told.lags).reshape(-1, CHUNK)
    assert [values["policy_lag"] for values in recorded] == pytest.approx(chunks.mean(1))
    assert [values["policy_lag_max"] for values in recorded] == chunks.max(1).tolist()


def test_what_becomes_known_later_is_of_the_same_episode(puppets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch)
    collect(LEAST + 9)
    following, to_go = (np.asarray(getattr(told.replay, name)) for name in ("following", "return_to_go"))
    ended = 0
    for numbers in episodes_of(told.rows).values():
        assert following[numbers[:-1]].tolist() == numbers[1:]
        assert following[numbers[-1]] == -1
        if told.rows[numbers[-1]]["done"]:
            ended += 1
            rewards = np.array([told.rows[number]["reward"] for number in numbers], float)
            expected = returns_to_go(rewards, segue.CalQL(**SMALL).discount, None)
            np.testing.assert_allclose(to_go[numbers], expected, rtol=1e-5)
        else:
            assert (to_go[numbers] == -np.inf).all()
    assert ended > 10


@pytest.mark.parametrize("more", [0, 1, 5, 30])
def test_while_one_does_not_answer_the_others_go_on_up_to_the_bound(
    more: int, puppets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers when it is the only one of which a step is awaited."""
    told, first, until = Told(monkeypatch), number_of(0, 0), []
    order = shuffled(1)

    def script(asked: Sequence[Any]) -> list[Any]:
        held = [one for one in asked if one.what == "step" and one.at[0] == first and not until]
        if len(held) == len(asked):
            until.append(len(told.rows))
            return held
        return order([one for one in asked if one not in held])

    monkeypatch.setattr(puppets, "script", script)
    bound = LEAST + more
    collect(bound)
    assert until == [min(bound, STEPS - 1)], "its action was chosen with no data at all"
    assert told.rows[until[0]]["slot"] == 0
    assert max(told.lags) == bound
    assert len(told.rows) == STEPS


def test_a_reset_holds_nobody_up(puppets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first reset of one environment comes back after all that the others had to do."""
    told, order = Told(monkeypatch), shuffled(2)
    slow = environment_seed(0, "training", 1, 0)

    def script(asked: Sequence[Any]) -> list[Any]:
        others = [one for one in asked if not (one.what == "reset" and one.argument == slow)]
        return order(others) if others and len(told.rows) < STEPS - 5 else order(asked)

    monkeypatch.setattr(puppets, "script", script)
    collect(LEAST)
    assert {row["slot"] for row in told.rows[: STEPS - 5]} == {0, 2}
    assert len(told.rows) == STEPS


@pytest.mark.parametrize("how", ["ends its process", "hangs"])
def test_one_that_is_lost_is_quarantined_while_the_others_go_on(
    how: str, puppets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, notes, order, lost = Told(monkeypatch), Notes(), shuffled(3), number_of(2, 1)
    meanwhile = {"dead": -1, "made": -1}
    if how == "ends its process":
        monkeypatch.setattr(puppets, "dies", (lost, 1))

    def script(asked: Sequence[Any]) -> list[Any]:
        new = [one for one in asked if one.what == "make" and notes.events]
        if new and meanwhile["dead"] < 0:
            meanwhile["dead"] = len(told.rows)
        if how == "hangs":
            for one in asked:
                if one.what == "step" and one.at == (lost, 1):
                    one.until = 0.0
        others = [one for one in asked if one not in new and one.until]
        if new and len(told.rows) < meanwhile["dead"] + 20:
            return order(others)
        if new:
            meanwhile["made"] = len(told.rows)
        return order([*others, *new]) if others or new else []

    monkeypatch.setattr(puppets, "script", script)
    collect(LEAST + 5, notes)
    assert told.abandoned == [2]
    ((_, line),) = notes.events
    assert "step 2 of episode 1" in line
    assert "(1 of " in line
    assert meanwhile["made"] >= meanwhile["dead"] + 20
    mine = [row for row in told.rows if row["slot"] == 2]
    at = [int(row["observation"][0]) for row in mine].index(lost)
    assert [int(row["observation"][1]) for row in mine[at : at + 2]] == [0, 0], "of the lost step nobody is told"
    assert int(mine[at + 1]["observation"][0]) == number_of(2, 2)
    following = np.asarray(told.replay.following)
    number = next(i for i, row in enumerate(told.rows) if row is mine[at])
    assert following[number] == -1
    assert len(told.rows) == STEPS


def test_what_a_policy_remembers_is_of_its_own_episode(puppets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts its steps, and does what it has counted."""

    def start(policy: Policy, batch: int) -> Any:
        return np.zeros(batch), ()

    def act(policy: Policy, observation: np.ndarray, carry: Any, *rest: Any) -> Any:
        return segue.acting.Acted((carry[0] / 10)[:, None].astype(np.float32), lambda: carry[0], (carry[0] + 1, ()))

    carries = []
    watch = segue.training.bridge_reviews.BridgeReviews.watch

    def watched(self: Any, reward: Any, done: Any, slots: Any, carry: Any, cost: Any) -> None:
        carries.extend(carry[0].tolist())
        watch(self, reward, done, slots, carry, cost)

    monkeypatch.setattr(Policy, "start", start)
    monkeypatch.setattr(Policy, "act", act)
    monkeypatch.setattr(segue.training.bridge_reviews.BridgeReviews, "watch", watched)
    told = Told(monkeypatch)
    collect(LEAST + 4)
    times = np.array([row["observation"][1] for row in told.rows])
    np.testing.assert_allclose([row["action"][0] for row in told.rows], times / 10, rtol=1e-6)
    assert carries == (times + 1).tolist()


def test_hindsight_joins_the_steps_of_each_slot() -> None:
    """Of some rows in another order of slots it gets the episodes that it gets of all together."""
    from segue.training.hindsight import Steps

    source = np.random.default_rng(0)
    steps = [Steps(*(source.normal(size=(2, 1)) for _ in range(5))) for _ in range(3)]
    together, apart = (Hindsight(None, 1, 0, 2) for _ in range(2))
    for number, step in enumerate(steps):
        together.watch(step, np.array([number == 2] * 2))
    for slot in (1, 0):
        for number, step in enumerate(steps):
            row = Steps(*(column[slot : slot + 1] for column in step))
            apart.watch(row, np.array([number == 2]), np.array([slot]))
    for one, other in zip(together.ended, reversed(apart.ended), strict=True):
        assert all((a == b).all() for a, b in zip(one, other, strict=True))


def kept(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Any]]:
    """Steps and replay wherever a run could be saved, and at its end."""
    found: list[tuple[int, Any]] = []
    position, finish = Agent.position, Agent.finish

    def looked(method: Any) -> Any:
        def method_of(agent: Agent) -> Any:
            found.append((agent.step, jax.tree.map(np.array, agent.replay.online)))
            return method(agent)

        return method_of

    monkeypatch.setattr(Agent, "position", looked(position))
    monkeypatch.setattr(Agent, "finish", looked(finish))
    return found


def live(**changes: Any) -> segue.Recipe:
    values = {
        "env": f"{__name__}:Walk",
        "online": segue.CalQL(**SMALL, n_step=2),
        "online_steps": STEPS,
        "warmup_steps": CHUNK,
        "eval_every": EVERY,
        "eval_episodes": 1,
        "environments": SLOTS,
        "max_lag": LEAST + 9,
    }
    return segue.Recipe(**(values | changes))


GUARDED = (segue.Guard(), segue.JumpStart(stages=2, window=2, longest=50))
RESUMED = {
    "from-scratch": live(cost="cost"),
    "bridges": pendulum(
        bridges=GUARDED, environments=2, env=RISK, cost="cost", online_steps=320, eval_every=80, max_lag=85
    ),
}


@pytest.mark.parametrize("name", ["from-scratch", pytest.param("bridges", marks=pytest.mark.slow)])
def test_a_run_that_is_killed_goes_on_with_all_its_transitions(
    name: str, tmp_path: Path, puppets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    found, save, saves, rows = kept(monkeypatch), JobCheckpointer.save, [0], {}

    def fatal(checkpointer: JobCheckpointer, position: Any) -> None:
        save(checkpointer, position)
        saves[0] += 1
        if saves[0] % 2 == 0:
            raise Killed

    monkeypatch.setattr(JobCheckpointer, "save", fatal)
    recipe = RESUMED[name]
    with pytest.raises(Killed):
        segue.run(recipe, tmp_path / "x", workers=1, checkpoint_every=0)
    for _ in range(20):
        try:
            result = compare(read_recipes(tmp_path / "x"), tmp_path / "x", workers=1, checkpoint_every=0)
            break
        except Killed:
            continue
    assert saves[0] >= 6
    assert result.status == "complete"
    seed = result.summary["arms"]["run"]["seeds"]["0"]
    assert not [event for event in seed["events"] if "quarantined" in event["message"]]
    assert not [event for event in seed["events"] if "did not repeat" in event["message"]]
    *before, (steps, whole) = found
    assert steps == recipe.online_steps
    for step, replay in before:
        for column in ("observation", "action", "reward", "next_observation"):
            assert (getattr(replay, column)[:step] == getattr(whole, column)[:step]).all()
    if name == "from-scratch":
        for row, (number, time, _) in enumerate(whole.observation.tolist()):
            rows.setdefault(number, []).append((time, row))
        for times in rows.values():
            assert [time for time, _ in times] == list(range(len(times))), "no step of an episode is missing"
            assert whole.following[[row for _, row in times[:-1]]].tolist() == [row for _, row in times[1:]]


def test_a_run_says_that_it_does_not_repeat(tmp_path: Path, puppets: Any) -> None:
    said: list[str] = []
    segue.run(live(), tmp_path / "x", workers=1, on_event=lambda job, event: said.append(event.get("message", "")))
    assert sum("neither this run nor one that resumes it repeats to the bit" in line for line in said) == 1


def test_copies_with_other_goals_are_of_one_episode(
    tmp_path: Path, puppets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An episode of Reach is known by its goal, and another one by what the same episode reached."""
    found = kept(monkeypatch)
    recipe = live(env=REACH, online=segue.TD3(**SMALL), hindsight=1)
    assert segue.run(recipe, tmp_path / "x", workers=1).status == "complete"
    goals = Goals(REACH)
    steps, replay = found[-1]
    goal, place = replay.observation[:, goals.desired], replay.next_observation[:, goals.achieved]
    meant: dict[bytes, bytes] = {}
    reached: dict[bytes, set[bytes]] = {}
    copies = 0
    for row in np.flatnonzero(replay.action.any(1)).tolist():  # a step comes before its copies
        step, aim, there = (array.tobytes() for array in (replay.action[row], goal[row], place[row]))
        own = meant.setdefault(step + there, aim)
        reached.setdefault(own, set()).add(there)
        copies += aim != own
    for row in np.flatnonzero(replay.action.any(1)).tolist():
        step, aim, there = (array.tobytes() for array in (replay.action[row], goal[row], place[row]))
        own = meant[step + there]
        assert aim in (own, *reached[own])
    assert len(meant) == steps
    assert copies > steps / 2


def test_masks_are_those_of_the_step(tmp_path: Path, puppets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = kept(monkeypatch)
    recipe = live(env=f"{__name__}:Doors", online=segue.DQN(**SMALL))
    result = segue.run(recipe, tmp_path / "x", workers=1)
    assert result.status == "complete"
    assert not result.summary["arms"]["run"]["seeds"]["0"]["events"], "no door that is shut was tried"
    steps, replay = found[-1]
    assert steps == STEPS
    for shown, allowed in ((replay.observation, replay.allowed), (replay.next_observation, replay.next_allowed)):
        assert (allowed == (np.arange(4) != shown)).all()
    assert replay.allowed[np.arange(STEPS), replay.action].all()


@given(st.data())
def test_no_lag_is_above_the_bound_and_nothing_ever_waits_for_nothing(data: st.DataObject) -> None:
    slots, chunk = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    total, bound = chunk * data.draw(st.integers(1, 6)), 2 * chunk - 1 + data.draw(st.integers(0, 12))
    lag, step, known, began = Lag(bound, total), 0, 0, 0
    idle = set(range(slots))
    while step < total:
        while step < began + chunk:
            chosen = sorted(idle)[: lag.room(step, known)]
            lag.begin(chosen, known)
            idle -= set(chosen)
            may = lag.next(step)
            arrived = data.draw(st.lists(st.sampled_from(may), min_size=1, unique=True)) if may else []
            told = lag.end(arrived, step, began + chunk - step)
            assert told, "no step is awaited, and none may begin"
            for slot, had in told.items():
                assert 0 <= step - had <= bound
                idle.add(slot)
                step += 1
            late = sorted(had + bound for had in lag.under_way.values())
            assert all(step + place <= due for place, due in enumerate(late)), "one of them has to be too late"
        known, began = began, step


def test_one_that_is_in_time_holds_nobody_back() -> None:
    lag = Lag(10, 100)
    lag.begin([0], 0)
    lag.begin([1, 2], 4)
    assert lag.next(8) == [0, 1, 2]
    assert lag.next(9) == [0, 1, 2]
    assert lag.next(10) == [0], "told eleventh it is ten behind"
    assert lag.room(8, 4) == 4
    assert Lag(10, 100).room(99, 95) == 1, "the phase has no more"


@pytest.mark.slow
def test_real_processes_wait_at_the_bound_for_the_one_that_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / f"{number_of(0, 0)}-2"
    os.mkfifo(gate)
    told, arrived, until = Told(monkeypatch), Overlapped.arrived, []
    monkeypatch.setattr("segue.training.online.elsewhere", lambda *given: Remote)

    def watched(episodes: Overlapped, among: Sequence[int]) -> list[int]:
        if list(among) == [0] and set(episodes.busy.values()) == {"step"} and gate.exists():
            until.append(len(told.rows))
            with gate.open("w"):
                gate.unlink()
        return arrived(episodes, among)

    monkeypatch.setattr(Overlapped, "arrived", watched)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ["PYTHONPATH"]]))
    collect(LEAST + 10, environment=Environment(f"{__name__}:Walk", {"gates": str(tmp_path)}))
    assert until == [LEAST + 10]
    assert len(told.rows) == STEPS
    assert max(told.lags) == LEAST + 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_lag": -1}, "max_lag is -1; expected at least 0"),
        ({"environments": 1}, "one environment has no other to wait for"),
        ({"environment_processes": "no"}, "environment_processes is no: .* expected yes, ray or auto"),
        ({"max_lag": LEAST - 1}, f"max_lag is {LEAST - 1}; expected at least {LEAST}. Updates are .* every {CHUNK}"),
        ({"online": segue.PPO()}, "ppo learns on-policy"),
    ],
)
def test_a_bound_that_cannot_be_kept_or_means_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    values = {
        "env": WALK.name,
        "online": segue.SAC(),
        "online_steps": STEPS,
        "warmup_steps": 0,
        "eval_every": EVERY,
        "environments": SLOTS,
        "max_lag": LEAST,
    }
    segue.Recipe(**values)
    with pytest.raises(RecipeError, match=message):
        segue.Recipe(**(values | changes))
