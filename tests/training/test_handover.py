"""The handover: every offline algorithm to every online one, each role carried or fresh as said, nothing shared."""

from __future__ import annotations

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import segue
from helpers import (
    KINDS,
    LOGS,
    SPACES,
    SUITE,
    changed_roles,
    clone,
    finite,
    for_each,
    random_learner,
    same_bits,
    small,
    updated,
)
from segue.algorithms import ALGORITHMS
from segue.core import Learner, Normaliser, origin, same_shape
from segue.envs import Environment
from segue.recipe import Recipe
from segue.runner.checkpoint import Checkpoint
from segue.runner.start import hand_over_to_online, normaliser_of
from segue.training.handover import hand_over
from segue.training.update import init_learner, run_updates
from toys import AIM, PICK, Notes, pendulum, pendulum_log

#: Every algorithm of a phase with every kind of actions; on-policy ones too.
OFFLINE, ONLINE = (
    {
        kind: [
            name
            for name, cls in ALGORITHMS.items()
            if phase in cls.phases and kind in cls.actions and name != "fql"  # whose actor is built unlike all others
        ]
        for kind in KINDS
    }
    for phase in ("offline", "online")
)
#: Every offline algorithm with two online ones and the other way round: roles are handed over one by one, by name, so
#: that a pair can go wrong only where one of its roles does.
PAIRS = sorted(
    {
        (OFFLINE[kind][i % len(OFFLINE[kind])], ONLINE[kind][(i + shift) % len(ONLINE[kind])], kind)
        for kind in KINDS
        for i in range(max(len(OFFLINE[kind]), len(ONLINE[kind])))
        for shift in (0, 1)
    }
)
every_pair = for_each(("offline", "online", "kind"), PAIRS)
#: One source for each online algorithm that is built unlike the others.
_UNLIKE = ("sac", "td3", "iql", "cql", "rlpd", "dqn", "ppo")
#: Those whose roles SAC has too; their updates are long to compile.
_LONG = ("cql", "rlpd")
a_pair_of_each = pytest.mark.parametrize(
    ("offline", "online", "kind"),
    [
        pytest.param(next(a for a in OFFLINE[kind] if a != b), b, kind, marks=pytest.mark.slow if b in _LONG else ())
        for kind in KINDS
        for b in ONLINE[kind]
        if b in _UNLIKE
    ],
    ids=lambda name: name,
)
KEY = jax.random.key(5)
#: Raw states of a dataset, and as the learners' normaliser has them.
STATES = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
NORMALISED = (STATES - np.arange(3, dtype=np.float32)) / 2


@cache
def pretrained(name: str, kind: str, **options) -> Learner:
    """A learner that has come some way, with a normaliser and a step count of its own."""
    algorithm = small(name, **options)
    learner = random_learner(algorithm, seed=1, kind=kind)
    states = jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), learner.optimisers)
    normaliser = Normaliser(jnp.arange(3, dtype=jnp.float32), jnp.full(3, 2, jnp.float32))
    return Learner(learner.nets, states, (), jnp.asarray(123, jnp.int32), normaliser)


def fine_tuned(name: str):
    """The online algorithm; PPO with its term that holds on to the pretrained policy, for the role that this adds."""
    return small(name, **({"kl_weight": 1.0} if name == "ppo" else {}))


@cache
def handed(offline: str, online: str, kind: str):
    source = pretrained(offline, kind)
    return source, *hand_over(source, small(offline), fine_tuned(online), KINDS[kind], KEY, STATES)


def same_policy(a, b) -> bool:
    """Bit for bit, or the same mean in another distribution."""
    return same_bits(a, b) if same_shape(a, b) else same_bits(a.mode(NORMALISED), b.mode(NORMALISED))


@every_pair
def test_roles_of_the_same_name_are_carried_bit_for_bit_and_the_others_are_fresh(offline, online, kind):
    """An actor of another distribution keeps its mean."""
    source, learner, said = handed(offline, online, kind)
    given, got = source.nets.roles(), learner.nets.roles()
    initial = fine_tuned(online).init(KEY, KINDS[kind]).roles()
    assert got.keys() == initial.keys()
    assert set(said.carried) | set(said.fresh) == set(got)
    assert not set(said.carried) & set(said.fresh)
    for role, net in got.items():
        followed = origin(role) or role
        if role in given:
            assert role in said.carried
            assert (same_policy if role == "actor" else same_bits)(net, given[role])
        elif followed in given:
            assert role in said.carried
            assert (same_policy if followed == "actor" else same_bits)(net, given[followed])
        else:
            assert role in said.fresh
            assert same_bits(net, initial[role])


def test_the_pairs_hold_sources_without_an_actor_and_sinks_without_one_and_a_reference():
    """What the claims about every pair would be empty without."""
    for kind in KINDS:
        without = {name for name in OFFLINE[kind] if "actor" not in pretrained(name, kind).nets.roles()}
        assert without == ({"dqn", "discrete-cql", "discrete-bcq"} if kind == "discrete" else {"bcq"})
        for offline in OFFLINE[kind]:
            _, learner, said = handed(offline, "ppo", kind)
            fresh = offline in without
            assert ({"actor", "frozen_actor"} <= set(said.fresh)) == fresh
            assert ({"actor", "frozen_actor"} <= set(said.carried)) == (not fresh)
            assert same_bits(learner.nets.frozen_actor, learner.nets.actor)
            sentence = "frozen_actor: " + (
                "fresh, equal to the actor" if fresh else "copied from the actor, and frozen"
            )
            assert sentence in said.lines
            assert "frozen_actor" not in learner.optimisers
    _, learner, said = handed("iql", "dqn", "discrete")
    assert set(said.carried) == set(learner.nets.roles()) == {"critic", "target_critic"}


@every_pair
def test_a_target_without_a_source_starts_where_its_network_does(offline, online, kind):
    source, learner, _ = handed(offline, online, kind)
    roles = learner.nets.roles()
    for copied in {role for role in roles if origin(role)} - set(source.nets.roles()):
        assert same_bits(roles[copied], roles[origin(copied)])


@every_pair
def test_optimisers_of_carried_roles_are_carried_and_the_others_are_fresh(offline, online, kind):
    """Carried where they are of one build: PPO's clip gradients, so an actor's and a V's state do not fit there."""
    source, learner, said = handed(offline, online, kind)
    fresh = init_learner(fine_tuned(online), learner.nets, learner.normaliser).optimisers
    assert learner.optimisers.keys() == fine_tuned(online).optimisers().keys()
    for role, state in learner.optimisers.items():
        given = source.optimisers.get(role)
        carried = role in said.carried and jax.tree.structure(given) == jax.tree.structure(fresh[role])
        recast = role == "actor" and given is not None and not same_shape(source.nets.actor, learner.nets.actor)
        assert carried == (role in source.optimisers and online != "ppo" and not recast)
        assert same_bits(state, given if carried else fresh[role])
        assert not same_bits(given, fresh[role])


@every_pair
def test_the_phase_starts_anew_on_the_same_normalised_observations(offline, online, kind):
    source, learner, _ = handed(offline, online, kind)
    assert learner.step == 0
    assert learner.bridges == ()
    assert same_bits(learner.normaliser, source.normaliser)


@every_pair
def test_every_role_gets_a_sentence(offline, online, kind):
    source, learner, said = handed(offline, online, kind)
    roles = [line.split(":")[0] for line in said.lines]
    assert sorted(roles[:-1]) == sorted({*learner.nets.roles(), *source.nets.roles()})
    assert roles[-1] == "optimisers"
    sentences = dict(line.split(": ", 1) for line in said.lines)
    for role in learner.nets.roles():
        assert sentences[role].startswith("fresh" if role in said.fresh else ("carried over", "copied from"))
    for role in set(source.nets.roles()) - set(learner.nets.roles()):
        assert sentences[role] == f"not used by {online}"


@a_pair_of_each
def test_the_learner_can_be_donated_and_updated_without_touching_its_source(offline, online, kind):
    """Updated if the shared update runs the algorithm; buffers are its own in any case."""
    source, learner, _ = handed.__wrapped__(offline, online, kind)
    before = clone(source)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((learner, source))]
    assert len(buffers) == len(set(buffers))
    if online not in SUITE:
        return
    started = clone(learner)
    after, metrics = run_updates(
        learner,
        LOGS[kind],
        jax.random.key(0),
        jnp.zeros(()),
        algorithm=small(online),
        bridges=(),
        strategy=None,
        blocks=5,
    )
    assert finite((after, metrics))
    assert changed_roles(started, after) == set(after.nets.roles())
    assert same_bits(source, before)


def test_a_role_of_another_shape_is_fresh_and_said_so():
    source = pretrained("cql", "continuous", ensemble_size=2)
    learner, said = hand_over(source, small("cql", ensemble_size=2), small("sac"), SPACES, KEY)
    assert said.fresh == ("critic", "target_critic")
    assert learner.nets.critic.size == 3
    assert any(line.startswith("critic: fresh (cql's is built differently: (2, ") for line in said.lines)
    assert same_bits(learner.nets.target_critic, learner.nets.critic)
    assert same_bits(
        learner.optimisers["critic"], init_learner(small("sac"), learner.nets, source.normaliser).optimisers["critic"]
    )


def test_handing_over_to_itself_goes_on_as_if_nothing_had_happened():
    """But for the step count, which restarts."""
    source, learner, said = handed("sac", "sac", "continuous")
    assert said.fresh == ()
    again = Learner(learner.nets, learner.optimisers, (), source.step, learner.normaliser)
    assert same_bits(again, source)
    assert same_bits(updated(small("sac"), again)[0], updated(small("sac"), source)[0])


#: Other values of what a role starts from than the defaults.
STARTS = {"initial_temperature": 0.5, "orthogonal_init": True}


@pytest.mark.parametrize(("offline", "online", "kind"), [("cql", "sac", "continuous"), ("iql", "awac", "discrete")])
def test_what_a_carried_over_role_makes_void_is_said(offline, online, kind):
    fields = {field.name for field in dataclasses.fields(ALGORITHMS[online])}
    options = {name: value for name, value in STARTS.items() if name in fields}
    source = pretrained(offline, kind)
    _, plain = hand_over(source, small(offline), small(online), KINDS[kind], KEY, STATES)
    assert not any("has no effect" in line for line in plain.lines), "the user set nothing"
    _, said = hand_over(source, small(offline), small(online, **options), KINDS[kind], KEY, STATES)
    for role in ("actor", "critic"):
        assert f"{role}: carried over from {offline}; orthogonal_init True has no effect" in said.lines
    if online == "sac":
        alpha = float(np.exp(source.nets.temperature))
        expected = f"temperature: carried over from cql ({alpha:.3g}); initial_temperature 0.5 has no effect"
        assert expected in said.lines


def test_what_is_as_the_user_set_it_is_not_said_to_have_no_effect():
    """The value that is carried over is the one asked for, or the pretraining began in that way already."""
    source = pretrained("cql", "continuous", orthogonal_init=True)
    alpha = float(np.exp(source.nets.temperature))
    for before, after in ((1.0, alpha), (0.5, 0.5)):
        offline = small("cql", initial_temperature=before, orthogonal_init=True)
        online = small("sac", initial_temperature=after, orthogonal_init=True)
        _, said = hand_over(source, offline, online, SPACES, KEY, STATES)
        assert not any("has no effect" in line for line in said.lines)


def test_a_fresh_role_starts_from_what_the_user_set():
    learner, said = hand_over(
        pretrained("td3-bc", "continuous"),
        small("td3-bc"),
        small("sac", initial_temperature=0.5),
        SPACES,
        KEY,
        STATES,
    )
    assert "temperature: fresh (td3-bc has none)" in said.lines
    assert float(np.exp(learner.nets.temperature)) == pytest.approx(0.5)


@pytest.mark.parametrize(("offline", "online"), [("fql", "td3"), ("iql", "fql")])
def test_an_actor_that_is_built_unlike_the_other_is_fresh(offline, online):
    _, _, said = handed(offline, online, "continuous")
    assert "actor" in said.fresh
    assert any(line.startswith(f"actor: fresh ({offline}'s is built differently") for line in said.lines)


@pytest.mark.parametrize(
    ("offline", "online", "kind", "changes", "said"),
    [
        (
            small("td3-bc"),
            small("fql", chunk=2),
            "continuous",
            {"offline": small("fql", chunk=2)},  # `segue learn` begins with the end of a run, which another one learnt
            "actor: not taught: fql decides on 2 actions at once",
        ),
        (
            small("bc"),
            small("dqn"),
            "discrete",
            {},
            "policy: lost: dqn acts by its critic alone, and bc has none that fits; an algorithm with an actor",
        ),
        (
            small("td3-bc"),
            small("td3"),
            "continuous",
            {"distil_steps": 7},
            "policy: distil_steps 7 has no effect: the actor is carried over",
        ),
        (
            small("discrete-bcq"),
            small("dqn"),
            "discrete",
            {"distil_steps": 7},
            "policy: distil_steps 7 has no effect: dqn has no actor",
        ),
        (
            small("sac"),
            small("redq", critic_updates_per_actor_update=20),
            "continuous",
            {"updates_per_step": 2.0},
            "policy: moves only every 10 live steps; redq is published with",
        ),
    ],
    ids=["chunks", "lost", "carried over", "no actor", "seldom"],
)
def test_a_user_is_told_what_becomes_of_the_policy(offline, online, kind, changes, said):
    learner, spaces, env = random_learner(offline, kind=kind), KINDS[kind], {"continuous": AIM, "discrete": PICK}[kind]
    source = Checkpoint(offline, (), spaces, Environment(env), learner, np.zeros(0, np.uint64))
    steps = {"dataset": pendulum_log(), "offline_steps": 1, "online_steps": 100, "warmup_steps": 0}
    recipe = Recipe(env=env, **({"offline": offline, "online": online} | steps | changes))
    _, lines = hand_over_to_online(source, recipe, None, None, spaces, Notes(), 0)
    assert [line for line in lines if line.startswith(said)], lines


def test_before_the_live_steps_a_normaliser_is_the_datasets_or_changes_nothing():
    log = segue.load(pendulum_log())
    recipe = pendulum(normalise_observations=True)
    assert not np.allclose(normaliser_of(recipe, log).mean, 0)
    for given in (log, None):
        same = normaliser_of(dataclasses.replace(recipe, normalise_observations=False), given)
        assert (same.mean.tolist(), same.std.tolist()) == ([0.0] * 3, [1.0] * 3)
