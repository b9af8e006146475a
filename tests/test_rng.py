"""Random draws: every purpose has a key of its own, and draws keep within their bounds."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import (
    KINDS,
    LOGS,
    MEMBERS,
    SMALL,
    actor_update,
    bellman_target,
    for_each,
    fresh_learner,
    random_learner,
    small,
    transitions,
)
from segue import rng
from segue.algorithms import ALGORITHMS, PPO
from segue.bridges import Bridge
from segue.core import Spaces, origin
from segue.data import load
from segue.noise import DRAW
from segue.ope import FQE, BehaviourModel, ContinuousPolicy, DiscretePolicy, fit
from segue.ope.behaviour import propensities
from segue.replay import REPLAYS, Replay, append
from segue.training.on_policy import learn
from segue.training.update import replace, run_updates

DRAWS = ("normal", "uniform", "randint", "gumbel", "permutation", "choice")


def data(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


class Keys:
    """The keys that were made, and those that were drawn from."""

    def __init__(self):
        self.children = defaultdict(dict)
        self.asked = Counter()
        self.draws = Counter()

    def check(self):
        """No two names of one parent agree, no key has two parents, and none serves twice."""
        assert self.children
        assert self.draws
        made = Counter(child for children in self.children.values() for child in children.values())
        assert max(made.values()) == 1
        assert max(self.asked.values()) == 1, "one name, asked for twice"
        assert max(self.draws.values()) == 1, "drawn from twice"
        assert not self.draws.keys() & self.children.keys(), "drawn from, and a parent"
        for parent, children in self.children.items():
            kinds = {kind for kind, _ in children}
            assert len(kinds) == 1, f"{parent} has children of several kinds: {list(children)}"


@contextmanager
def recorded(monkeypatch):
    """Record every key while nothing is compiled; those inside a `vmap` have no numbers, and are passed over."""
    keys, named, fold_in, split = Keys(), rng.named, jax.random.fold_in, jax.random.split

    def known(*values):
        return all(isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer) for value in values)

    def note_named(source, *names):
        child = named(source, *names)
        if known(source, child):
            keys.asked[data(source), *(name if isinstance(name, str) else int(name) for name in names)] += 1
        return child

    def note_fold_in(key, number):
        child = fold_in(key, number)
        if known(child):
            keys.children[data(key)]["word" if int(number) >= 2**31 else "count", int(number)] = data(child)
        return child

    def note_split(key, count=2):
        children = split(key, count)
        for i, child in enumerate(children):
            keys.children[data(key)]["split", i] = data(child)
        return children

    def noting(draw):
        def note(source, *given, **options):
            if known(source):
                keys.draws[data(source)] += 1
            return draw(source, *given, **options)

        return note

    with monkeypatch.context() as patch, jax.disable_jit():
        patch.setattr(rng, "named", note_named)
        patch.setattr(rng, "uniform_from_host", noting(rng.uniform_from_host))
        patch.setattr(jax.random, "fold_in", note_fold_in)
        patch.setattr(jax.random, "split", note_split)
        for draw in DRAWS:
            patch.setattr(jax.random, draw, noting(getattr(jax.random, draw)))
        yield keys


def one_update(algorithm, learner, replay, kind, strategy=None, bridges=()):
    return run_updates(
        learner,
        replay,
        rng.stream(0, "online"),
        jnp.zeros(()),
        algorithm=algorithm,
        bridges=bridges,
        strategy=strategy,
        blocks=1,
    )


#: Those that draw the same numbers as the algorithm that they are made of.
DRAW_ALIKE = {"dqn", "redq", "rlpd", "bc", "discrete-bcq", "sac-n", "edac", "cal-ql"}
DRAW_ALIKE |= {"td3-bc", "rebrac", "awac", "discrete-cql"}
#: And those whose draws CQL, TD3, BCQ and FQL make too.
DRAW_ALIKE |= {"sac", "sac-lagrangian", "cql-lagrangian", "iql", "discrete-sac"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [pytest.param(*pair, id=m, marks=pytest.mark.slow if pair[0] in DRAW_ALIKE else ()) for m, pair in MEMBERS.items()],
)
def test_every_name_of_a_parent_gives_another_key(name, kind, monkeypatch):
    algorithm = small(name)
    with recorded(monkeypatch) as keys:
        learner = fresh_learner(algorithm, kind=kind)
        one_update(algorithm, learner, LOGS[kind], kind)
    keys.check()


def test_so_it_is_on_policy(monkeypatch):
    algorithm, rows = PPO(**{**SMALL, "batch_size": 8}), transitions(16)
    rollout = jax.tree.map(lambda column: jnp.asarray(column)[:, None], rows)
    with recorded(monkeypatch) as keys:
        learner, done = fresh_learner(algorithm), jnp.zeros((16, 1), bool)
        options = {"algorithm": algorithm, "bridges": (), "epochs": 2}
        learn(learner, rollout, done, rng.stream(0, "online"), jnp.zeros(()), **options)
    keys.check()


@pytest.mark.parametrize("name", REPLAYS)
def test_so_it_is_with_every_replay(name, monkeypatch):
    algorithm, strategy = small("td3"), REPLAYS[name]()
    replay = append(
        Replay.create(LOGS["continuous"].offline, 64, KINDS["continuous"], costs=True), transitions(40, seed=2)
    )
    with recorded(monkeypatch) as keys:
        learner = fresh_learner(algorithm)
        sampler = strategy.init(replay, KINDS["continuous"], rng.stream(0, "sampler"))
        one_update(algorithm, replace(learner, sampler=sampler), replay, "continuous", strategy)
    keys.check()


@pytest.mark.parametrize("kind", ["continuous", pytest.param("discrete", marks=pytest.mark.slow)])  # it draws less
def test_so_it_is_in_off_policy_evaluation(kind, monkeypatch):
    rows, spaces = transitions(32, kind=kind), KINDS[kind]
    columns = {
        "observations": rows.observation,
        "actions": rows.action,
        "rewards": rows.reward,
        "next_observations": rows.next_observation,
        "terminals": np.arange(32) % 4 == 3,
    }
    log = load({**columns, "discrete_actions": spaces.action_size} if spaces.discrete else columns)
    policy = (
        DiscretePolicy(lambda s: np.full((len(s), spaces.action_size), 1 / spaces.action_size))
        if spaces.discrete
        else ContinuousPolicy(lambda s, source: source.uniform(-1, 1, (len(s), spaces.action_size)))
    )
    with recorded(monkeypatch) as keys:
        fit(FQE(steps=2, batch_size=4, hidden_sizes=(4,), members=3), policy, log, 0.9, 0)
        propensities(log, BehaviourModel(steps=2, batch_size=4, hidden_sizes=(4,)), 0)
    keys.check()


@for_each(("name", "kind"), [(name, kind) for name, cls in ALGORITHMS.items() for kind in cls.actions], ids=str)
def test_no_two_networks_start_with_a_layer_in_common(name, kind):
    """Also no two members of an ensemble; all layers but the heads have the same shape."""
    spaces = Spaces(8, 8, discrete=kind == "discrete")
    critic = {"ensemble_size": 3} if "ensemble_size" in ALGORITHMS[name].__dataclass_fields__ else {}
    behaviour = {"behaviour_hidden_sizes": (8, 8)} if name == "bcq" else {}
    nets = ALGORITHMS[name](hidden_sizes=(8, 8), **critic, **behaviour).init(jax.random.key(0), spaces)
    layers = []
    for role, net in nets.roles().items():
        for leaf in [] if origin(role) else jax.tree.leaves(net):
            rows = np.asarray(leaf).reshape(-1, leaf.shape[-1] if leaf.ndim else 1)
            layers += [row for row in rows if len(row) > 1 and row.std() > 0]
    assert len(layers) > 10
    directions = np.stack([row / np.linalg.norm(row) for row in layers if len(row) == 8])
    alike = np.abs(directions @ directions.T) - np.eye(len(directions))
    assert alike.max() < 0.999


class First(Bridge):
    """Notes the keys that it is given."""

    name = "first"

    def note(self, hook, key):
        noted.setdefault((self.name, hook), data(key))

    def bootstrap(self, state, algorithm, nets, batch, next_value, value_key, key):
        self.note("bootstrap", key)
        self.note("value", value_key)
        return next_value, {}

    def actor_weight(self, state, nets, batch, key):
        self.note("actor_weight", key)
        return None, {}

    def actor_penalty(self, state, actor, nets, batch, loss, key):
        self.note("actor_penalty", key)
        return None, {}

    def update(self, state, algorithm, nets, batch, aux, key):
        self.note("update", key)
        return state, {}


class Second(First):
    """The same under another name."""

    name = "second"


noted = {}


def keys_of(*bridges):
    noted.clear()
    algorithm, batch = small("td3"), jax.tree.map(jnp.asarray, transitions())
    learner = replace(random_learner(algorithm), bridges=((),) * len(bridges))
    bellman_target(algorithm, bridges, learner, batch, jax.random.key(0))
    actor_update(algorithm, bridges, learner, batch, jax.random.key(1))
    return dict(noted)


def test_a_bridge_has_keys_of_its_own_which_no_other_bridge_changes():
    alone, together = keys_of(First()), keys_of(Second(), First())
    assert len(alone) == 5
    assert alone.items() < together.items()
    assert together.pop(("first", "value")) == together.pop(("second", "value")), "the algorithm's own draws again"
    assert len(set(together.values())) == len(together) == 8


def test_a_number_is_never_the_key_of_a_word():
    words = {"step", "split", "critic", "actor", "0", "1", ""}
    key = jax.random.key(0)
    numbers = {data(rng.stream(0, i)) for i in range(100)} | {data(child) for child in jax.random.split(key, 100)}
    assert numbers == {data(rng.named(key, i)) for i in range(100)}
    assert len(numbers | {data(rng.named(key, word)) for word in words}) == 107
    assert all(rng._number(word) >= 2**31 for word in words)


def test_a_generators_stream_is_not_that_of_a_longer_name():
    first = {rng.generator(0, *names).integers(2**60) for names in ((), (0,), (0, 0), ("a",), ("a", 0), ("a", 1))}
    assert len(first) == 6


class Largest(np.random.Generator):
    """Draws the largest number there is below 1."""

    def random(self, size=None, dtype=np.float64, out=None):
        return np.full(size, np.nextafter(dtype(1), dtype(0)), dtype)


LARGEST = Largest(np.random.PCG64(0))


@given(st.floats(-1e6, 1e6, width=32), st.floats(2**-10, 1e6, width=32))
def test_the_upper_end_is_never_drawn(low, width):
    high = np.float32(low) + np.float32(width)
    drawn = rng.uniform(LARGEST, (2, 3), low, float(high))
    assert drawn.dtype == np.float32
    assert drawn.shape == (2, 3)
    assert (low <= drawn).all() if high > low else True
    assert (drawn < high).all() or high <= np.float32(low)


def test_no_action_is_beyond_the_last():
    count = np.arange(1, 100_000)
    which = rng.uniform(LARGEST, (), 0.0, 1.0)
    assert (np.floor(which * count.astype(np.float32)) == count - 1).all()
    algorithm = small("dqn", initial_epsilon=1.0, final_epsilon=1.0)
    nets = jax.tree.map(np.asarray, fresh_learner(algorithm).nets)
    action = algorithm.act(nets, np.zeros((5, 3), np.float32), (), LARGEST, True).action
    assert (action <= 3).all()


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 1, 5)])
def test_fresh_weights_are_the_same_whether_or_not_they_are_traced(shape):
    key = rng.stream(0, "weight")
    fresh = rng.uniform_from_host(key, shape, -0.5, 0.5)
    assert isinstance(fresh, jax.Array)
    assert fresh.shape == shape
    assert fresh.dtype == jnp.float32
    traced = jax.jit(lambda key: rng.uniform_from_host(key, shape, -0.5, 0.5))(key)
    np.testing.assert_array_equal(traced, fresh)


def test_fresh_weights_are_uniform():
    drawn = np.asarray(rng.uniform_from_host(jax.random.key(0), (400, 100), -0.5, 0.5))
    counts, _ = np.histogram(drawn, 20, (-0.5, 0.5))
    assert counts.sum() == 40_000
    assert ((counts - 2000) ** 2 / 2000).sum() < 50  # χ² with 19 degrees of freedom: the 99.99th percentile


def test_a_tape_hands_out_its_numbers_as_a_generator_would_have_drawn_them():
    def drawn(source):
        low = rng.uniform(rng.named(source, "any"), (3, 2), -1.0, 2.0)
        return low, rng.normal(source, (4,)), rng.gumbel(source, (2,))

    noted = rng.Tape()
    drawn(noted)
    assert noted.noted == [("uniform", (3, 2)), ("normal", (4,)), ("gumbel", (2,))]
    generator = np.random.default_rng(0)
    numbers = [DRAW[distribution](generator, shape) for distribution, shape in noted.noted]
    for ours, expected in zip(drawn(rng.Tape(numbers)), drawn(np.random.default_rng(0)), strict=True):
        assert np.array_equal(ours, expected)
