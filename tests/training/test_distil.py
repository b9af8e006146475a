"""Distillation: a policy without an actor teaches one, on the dataset's states, and the run says so."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import segue
from helpers import changed_roles, clone, same_bits
from segue import rng
from segue.algorithms import BCQ, DQN, PPO, SAC, TD3, DiscreteSAC
from segue.core import Learner, Normaliser, Spaces
from segue.policy import Policy
from segue.recipe import Recipe
from segue.runner import Result, compare, load_checkpoint
from segue.runner.checkpoint import parameters_sha256
from segue.training import agent, offline
from segue.training.distil import distil
from segue.training.update import init_learner
from toys import AIM, PICK, log_of

WIDE = {"hidden_sizes": (64, 64), "actor_learning_rate": 3e-3}
#: teacher, its spaces, and a student of it
PAIRS = {
    "dqn": (DQN(hidden_sizes=(16, 16)), Spaces(3, 4, discrete=True), DiscreteSAC(**WIDE, batch_size=64)),
    "bcq": (
        BCQ(hidden_sizes=(16, 16), behaviour_hidden_sizes=(16, 16), acting_samples=10),
        Spaces(3, 2),
        SAC(**WIDE, batch_size=64),
    ),
}
UPDATES = 1500
every_pair = pytest.mark.parametrize("pair", PAIRS)
NORMALISER = Normaliser(np.array([5, -3, 0], np.float32), np.array([2, 0.5, 1], np.float32))
STATES = (np.random.default_rng(0).normal(size=(400, 3)) * NORMALISER.std + NORMALISER.mean).astype(np.float32)


def learner_of(algorithm, spaces, shake=0.0) -> Learner:
    rng = np.random.default_rng(0)
    nets = algorithm.init(jax.random.key(2), spaces)
    nets = jax.tree.map(lambda leaf: leaf + jnp.asarray(shake * rng.normal(size=leaf.shape), leaf.dtype), nets)
    return init_learner(algorithm, nets, NORMALISER)


@cache
def taught(pair, seed=0):
    """The teacher, the student before and after, and its last loss."""
    teaching, spaces, algorithm = PAIRS[pair]
    teacher = Policy(teaching, learner_of(teaching, spaces, shake=0.4))
    before = learner_of(algorithm, spaces)
    return teacher, before, *distil(teacher, clone(before), algorithm, STATES, UPDATES, seed)


@every_pair
def test_the_student_does_what_the_teacher_does_on_raw_states_of_the_dataset(pair):
    teacher, before, after, _ = taught(pair)
    algorithm = PAIRS[pair][2]
    wanted = teacher(STATES, rng.generator(0, "distil", "teacher"))
    fresh, learnt = (Policy(algorithm, learner)(STATES) for learner in (before, after))
    if pair == "dqn":
        assert len(np.unique(wanted)) >= 3
        assert (fresh == wanted).mean() < 0.7
        assert (learnt == wanted).mean() > 0.97
    else:
        spread = wanted.var(0).mean()
        assert ((fresh - wanted) ** 2).mean() > 0.5 * spread
        assert ((learnt - wanted) ** 2).mean() < 0.05 * spread


@every_pair
def test_the_loss_it_reports_is_that_of_the_last_updates(pair):
    teacher, _, after, loss = taught(pair)
    wanted, seen = teacher(STATES, rng.generator(0, "distil", "teacher")), NORMALISER(STATES)
    if pair == "dqn":
        now = -after.nets.actor.log_prob(jnp.asarray(seen), jnp.asarray(wanted)).mean()
    else:
        now = ((after.nets.actor.mode(jnp.asarray(seen)) - wanted) ** 2).mean()
    assert loss == pytest.approx(float(now), rel=0.5)


@every_pair
def test_only_the_actor_and_its_optimiser_change(pair):
    _, before, after, _ = taught(pair)
    assert changed_roles(before, after) == {"actor"}
    states = before.optimisers
    assert {role for role in states if not same_bits(states[role], after.optimisers[role])} == {"actor"}
    assert after.optimisers["actor"][0].count == UPDATES
    assert after.step == before.step == 0
    assert same_bits(after.normaliser, before.normaliser)


def test_the_standard_deviation_stays_near_where_it_was_initialised():
    """Its head is not trained; what moves it is the layers below, which it shares with the mean."""
    _, before, after, _ = taught("bcq")
    heads = [learner.nets.actor.mlp.layers[-1] for learner in (before, after)]
    assert np.array_equal(heads[0].weight[:, 2:], heads[1].weight[:, 2:])
    assert np.array_equal(heads[0].bias[2:], heads[1].bias[2:])
    assert not np.array_equal(heads[0].weight[:, :2], heads[1].weight[:, :2])


def test_the_same_seed_teaches_the_same_bits_and_another_seed_others():
    teacher, before, after, loss = taught("dqn")
    again = distil(teacher, clone(before), PAIRS["dqn"][2], STATES, UPDATES, 0)
    assert same_bits(again[0], after)
    assert again[1] == loss
    other, _ = distil(teacher, clone(before), PAIRS["dqn"][2], STATES, UPDATES, 1)
    assert not same_bits(other.nets.actor, after.nets.actor)


TINY = {"hidden_sizes": (8, 8), "batch_size": 16}
LEARNING = {"sac": SAC(**TINY), "td3": TD3(**TINY), "ppo": PPO(**TINY, rollout_steps=20, epochs=1, kl_weight=1.0)}


def arm(offline, online, env_id, **changes) -> Recipe:
    values = {
        "dataset": log_of(env_id),
        "env": env_id,
        "offline": offline,
        "offline_steps": 4,
        "online": online,
        "online_steps": 40,
        "warmup_steps": 20,
        "distil_steps": 30,
        "eval_every": 40,
        "eval_episodes": 2,
        "keep_policies": True,
    }
    return Recipe(**(values | changes))


@pytest.fixture(scope="module")
def discrete(tmp_path_factory) -> Result:
    teaching, learning = DQN(**TINY), DiscreteSAC(**TINY)
    arms = {name: arm(teaching, learning, PICK, distil_steps=n) for name, n in (("taught", 30), ("fresh", 0))}
    return compare(arms, tmp_path_factory.mktemp("discrete") / "run", workers=1)


@pytest.fixture(scope="module")
def continuous(tmp_path_factory) -> Result:
    """Whole runs but for the updates from replay, which what happens at the handover does not depend on."""
    teaching = BCQ(**TINY, behaviour_hidden_sizes=(8,), acting_samples=5)
    arms = {name: arm(teaching, algorithm, AIM) for name, algorithm in LEARNING.items()}
    with pytest.MonkeyPatch.context() as patch:
        for loop in (offline, agent):
            patch.setattr(loop, "train", lambda asked: (asked.learner, {}))
        return compare(arms, tmp_path_factory.mktemp("continuous") / "run", workers=1)


def started(result: Result, name: str) -> Learner:
    return load_checkpoint(Path(result.directory) / f"checkpoints/{name}/seed-0/step-0").learner


def initial(algorithm, spaces):
    """The networks that a run's online phase would start from by itself."""
    return algorithm.init(rng.stream(0, "online-init"), spaces)


@pytest.mark.parametrize("name", LEARNING)
def test_a_run_from_bcq_teaches_the_online_actor_and_says_so(continuous, name):
    assert continuous.status == "complete"
    lines = continuous.summary["arms"][name]["handover"]
    assert "actor: fresh (bcq has none)" in lines
    said = [
        line for line in lines if line.startswith("actor: taught in 30 updates what bcq does on the dataset's states")
    ]
    assert len(said) == 1
    fresh = initial(LEARNING[name], Spaces(1, 1))
    assert not same_bits(started(continuous, name).nets.actor, fresh.actor)


def test_what_copies_the_actor_starts_as_the_taught_one(continuous):
    for name, role in (("td3", "target_actor"), ("ppo", "frozen_actor")):
        nets = started(continuous, name).nets
        assert same_bits(getattr(nets, role), nets.actor)
    final = load_checkpoint(Path(continuous.directory) / "checkpoints/ppo/seed-0/final").learner.nets
    assert same_bits(final.frozen_actor, started(continuous, "ppo").nets.actor)
    assert not same_bits(final.actor, final.frozen_actor)


@pytest.mark.slow
def test_a_run_from_dqn_teaches_a_discrete_actor_unless_it_is_told_not_to(discrete):
    assert discrete.status == "complete"
    lines = {name: discrete.summary["arms"][name]["handover"] for name in ("taught", "fresh")}
    assert all("actor: fresh (dqn has none)" in said for said in lines.values())
    assert all("critic: carried over from dqn" in said for said in lines.values())
    assert any(line.startswith("actor: taught in 30 updates what dqn does") for line in lines["taught"])
    assert not any("taught" in line for line in lines["fresh"])
    plain = initial(DiscreteSAC(**TINY), Spaces(1, 3, discrete=True))
    assert same_bits(started(discrete, "fresh").nets.actor, plain.actor)
    assert not same_bits(started(discrete, "taught").nets.actor, plain.actor)
    assert same_bits(started(discrete, "fresh").nets.critic, started(discrete, "taught").nets.critic)


@pytest.mark.slow
def test_a_taught_policy_is_in_the_public_api_a_run_like_any_other(discrete):
    saved = segue.load_checkpoint(Path(discrete.directory) / "checkpoints/taught/seed-0/final")
    assert set(saved.policy()(np.array([[-1.0], [1.0]], np.float32)).tolist()) <= {0, 1, 2}
    seed = discrete.summary["arms"]["taught"]["seeds"]["0"]
    assert parameters_sha256(saved.learner) == seed["parameters_sha256"]
