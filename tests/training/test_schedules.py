"""Step sizes that fall over a phase, and DQN's ε: what they are at each point, and that each phase starts anew."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import clone, for_each, same_bits
from segue.algorithms import ALGORITHMS, DQN, IQL, PPO, SAC
from segue.bridges import Bridge
from segue.core import Normaliser, Spaces, Transition
from segue.deployment.export import export_policy
from segue.ope.policy import judged
from segue.policy import Policy
from segue.replay import OnlineOnly, Replay
from segue.runner.checkpoint import Checkpoint, load, save
from segue.training import agent, offline
from segue.training.offline import alone, train_offline
from segue.training.online import OnlineSettings, train_online
from segue.training.update import init_learner, run_updates
from toys import CLOCK, PICK, Notes

ONE = Spaces(1, 1)
FACTORS = {"constant": lambda p: 1.0, "linear": lambda p: 1 - p, "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2}
POINTS = [0.0, 0.25, 0.6, 1.0]
SMALL = {"hidden_sizes": (8, 8), "batch_size": 16}


def log() -> Replay:
    rng = np.random.default_rng(0)
    rows = 40
    wide, flat = rng.normal(size=(rows, 1)).astype(np.float32), rng.normal(size=rows).astype(np.float32)
    action = rng.uniform(-0.9, 0.9, (rows, 1)).astype(np.float32)
    return Replay.create(
        Transition(wide, action, flat, wide[::-1], np.full(rows, 0.9, np.float32), flat, action), 0, ONE
    )


LOG = log()


def fresh(algorithm, spaces=ONE):
    return init_learner(algorithm, algorithm.init(jax.random.key(0), spaces), Normaliser.identity(1))


def one_update(algorithm, learner, progress):
    given = {"algorithm": algorithm, "bridges": (), "strategy": None, "blocks": 1}
    return run_updates(clone(learner), LOG, jax.random.key(0), jnp.asarray(progress, jnp.float32), **given)[0]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_adams_first_step_is_the_scheduled_step_size_of_each_role(schedule):
    """Adam's first step moves the parameter with the largest gradient by the step size."""
    rates = {"actor": 1e-3, "critic": 2e-3, "value": 4e-3}
    algorithm = IQL(
        **SMALL,
        **{f"{role}_learning_rate": rate for role, rate in rates.items()},
        **{f"{role}_schedule": schedule for role in rates},
    )
    learner = fresh(algorithm)
    for progress in POINTS:
        after = one_update(algorithm, learner, progress)
        for role, rate in rates.items():
            pairs = zip(*(jax.tree.leaves(getattr(nets, role)) for nets in (learner.nets, after.nets)), strict=True)
            step = max(float(jnp.abs(a - b).max()) for a, b in pairs)
            assert step == pytest.approx(rate * FACTORS[schedule](progress), rel=5e-3, abs=1e-9)


def test_a_role_without_a_schedule_keeps_its_step_size():
    algorithm = SAC(**SMALL, actor_schedule="linear")
    learner = fresh(algorithm)
    early, late = (one_update(algorithm, learner, progress) for progress in (0.0, 1.0))
    for role, alike in {"critic": True, "temperature": True, "actor": False}.items():
        assert same_bits(getattr(early.nets, role), getattr(late.nets, role)) == alike
    assert same_bits(late.nets.actor, learner.nets.actor), "its last step is 0"


@for_each("name", sorted(set(ALGORITHMS) - {"dqn", "discrete-bcq", "discrete-cql", "ppo"}))
def test_constant_is_no_schedule_at_all(name):
    """The very same object at every point of the phase, so the same compiled update and the same bits. DQN's ε and
    PPO's pull change by themselves."""
    algorithm = ALGORITHMS[name]()
    assert algorithm.at(jnp.asarray(0.7)) is algorithm


@for_each("name", ALGORITHMS)
@for_each("schedule", ["linear", "cosine"])
def test_every_schedule_of_every_algorithm_falls_from_the_step_size_to_nothing(name, schedule):
    cls = ALGORITHMS[name]
    fields = [field for field in cls.__dataclass_fields__ if field.endswith("_schedule")]
    assert ("actor_schedule" in fields) == ("actor_learning_rate" in cls.__dataclass_fields__)
    assert fields
    algorithm = cls(**dict.fromkeys(fields, schedule))
    points = np.linspace(0, 1, 21, dtype=np.float32)
    for field in fields:
        rate = field.replace("schedule", "learning_rate")
        rates = [float(getattr(algorithm.at(np.asarray(p)), rate)) for p in points]
        assert rates == pytest.approx([getattr(algorithm, rate) * FACTORS[schedule](p) for p in points], abs=1e-9)
        assert all(later < earlier for earlier, later in itertools.pairwise(rates))
        on_device = float(getattr(algorithm.at(jnp.asarray(0.3)), rate))
        assert on_device == pytest.approx(float(getattr(algorithm.at(np.asarray(0.3, np.float32)), rate)), rel=1e-6)
        assert getattr(algorithm, rate) == getattr(cls(), rate), "the algorithm itself is not changed"


def test_ppos_step_sizes_fall_by_default():
    assert (PPO().actor_schedule, PPO().value_schedule) == ("linear", "linear")
    assert float(PPO().at(jnp.asarray(0.5)).value_learning_rate) == pytest.approx(1.5e-4)


class Progress:
    """Stands in for the updates and notes at which point of its phase each dispatch was."""

    def __init__(self, monkeypatch, loop):
        self.seen = []
        monkeypatch.setattr(loop, "train", self)

    def __call__(self, asked):
        self.seen.append(asked.progress)
        return asked.learner, {}


ONLINE = {
    "env_id": CLOCK,
    "steps": 100,
    "warmup_steps": 20,
    "random_warmup": False,
    "updates_per_step": 1.0,
    "environments": 1,
    "eval_every": 20,
    "eval_episodes": 1,
    "seed": 0,
}


def test_within_a_phase_progress_only_grows_and_the_online_phase_starts_anew(monkeypatch):
    algorithm = SAC(**SMALL, actor_schedule="cosine")
    learner = fresh(algorithm)
    before = Progress(monkeypatch, offline)
    alone(
        train_offline(algorithm, learner, LOG, Notes(), steps=450, seed=0, env_id=None, eval_every=150, eval_episodes=1)
    )
    after = Progress(monkeypatch, agent)
    replay = Replay.create(None, 100, ONE)
    train_online(algorithm, (), OnlineOnly(), learner, replay, Notes(), OnlineSettings(**ONLINE))
    assert before.seen == pytest.approx([0, 100 / 450, 150 / 450, 250 / 450, 300 / 450, 400 / 450])
    assert after.seen == pytest.approx([0.4, 0.6, 0.8, 1.0]), "the share of the online phase, after its warm-up"


def test_dqns_epsilon_moves_in_a_line_and_then_stays():
    algorithm = DQN(**SMALL, initial_epsilon=0.8, final_epsilon=0.2, epsilon_until=0.5)
    for xp in (np, jnp):
        epsilons = [float(algorithm.at(xp.asarray(p, xp.float32)).initial_epsilon) for p in (0, 0.25, 0.5, 0.75, 1)]
        assert epsilons == pytest.approx([0.8, 0.5, 0.2, 0.2, 0.2])


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.9), (0.25, 0.45), (0.5, 0.0), (1.0, 0.0)])
def test_a_share_of_epsilon_of_the_collected_actions_is_random(progress, share):
    """Of four equally likely random actions one is the greedy one."""
    algorithm = DQN(**SMALL, initial_epsilon=0.9, final_epsilon=0.0)
    spaces = Spaces(1, 4, discrete=True)
    policy = Policy(algorithm.at(np.asarray(progress, np.float32)), fresh(algorithm, spaces))
    states = np.zeros((20_000, 1), np.float32)
    explored = policy(states, np.random.default_rng(0), explore=True)
    other = (explored != policy(states)).mean()
    assert other == pytest.approx(0.75 * share, abs=0.015)
    if share == 0:
        assert other == 0


@pytest.mark.parametrize("name", ["dqn", pytest.param("discrete-bcq", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.9), (0.25, 0.5), (1.0, 0.1)])
def test_a_saved_policy_explores_with_the_epsilon_of_its_point_of_the_phase(name, progress, share, tmp_path):
    """As loaded, as off-policy evaluation judges it, and as it is exported."""
    algorithm = ALGORITHMS[name](**SMALL, initial_epsilon=0.9, final_epsilon=0.1)
    spaces = Spaces(1, 4, discrete=True)
    save(tmp_path / "saved", Checkpoint(algorithm, (), spaces, None, fresh(algorithm, spaces), progress=progress))
    saved = load(tmp_path / "saved")
    assert saved.algorithm == algorithm, "what is gone on with has all of its schedule before it"
    policy = saved.policy()
    assert float(policy.algorithm.initial_epsilon) == pytest.approx(share)
    states = np.zeros((20_000, 1), np.float32)
    for explored in (
        policy(states, np.random.default_rng(0), explore=True),
        export_policy(tmp_path / "saved", tmp_path / "exported").policy(
            states, explore=True, source=np.random.default_rng(0)
        ),
    ):
        assert (explored != policy(states)).mean() == pytest.approx(0.75 * share, abs=0.015)
    probabilities = judged(policy, explore=True).probabilities(states[:1])
    assert probabilities.min() == pytest.approx(share / 4)


def test_the_collecting_policys_epsilon_falls_while_the_online_phase_goes_on(monkeypatch):
    algorithm = DQN(**SMALL, initial_epsilon=0.8, final_epsilon=0.2, epsilon_until=0.5)
    acting = []

    class Noted(Bridge):
        def act(self, state, algorithm, nets, observation, acted, carry, source, explore):
            if explore:
                acting.append(float(algorithm.initial_epsilon))
            return acted

    spaces = Spaces(1, 3, discrete=True)
    learner = fresh(algorithm, spaces)
    learner = type(learner)(learner.nets, learner.optimisers, ((),), learner.step, learner.normaliser)
    Progress(monkeypatch, agent)
    plan = OnlineSettings(**(ONLINE | {"env_id": PICK}))
    replay = Replay.create(None, 100, spaces)
    train_online(algorithm, (Noted(),), OnlineOnly(), learner, replay, Notes(), plan)
    assert len(acting) == 100
    assert acting[0] == pytest.approx(0.8)
    assert acting[-1] == pytest.approx(0.2)
    assert all(later <= earlier for earlier, later in itertools.pairwise(acting))
    lag = [acting[step] - float(algorithm.at(np.asarray(step / 100)).initial_epsilon) for step in range(100)]
    assert min(lag) > -1e-6
    assert max(lag) < 0.6 * 0.45, "no staler than two chunks of twenty steps"
