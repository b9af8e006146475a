"""Conservatism that lets go: whole at the handover, gone when the fading is over."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handovers import KEY, attach, run
from hypothesis import given
from hypothesis import strategies as st

from helpers import (
    MEMBERS,
    actor_update,
    critic_update,
    few,
    for_each,
    random_learner,
    same_bits,
    small,
    transitions,
)
from segue.algorithms import ALGORITHMS, BC, Algorithm
from segue.bridges import LetGo
from segue.core import Learner, Metrics
from segue.errors import RecipeError
from segue.recipe import Recipe

HELD = {name: kind for name, kind in MEMBERS.values() if ALGORITHMS[name].conservatism}
#: One whose policy is held, one whose critic is and one without a policy; FQL, Cal-QL and ReBRAC with `-m slow`.
UNLIKE = {"td3-bc", "cql", "discrete-cql"}
every_held = pytest.mark.parametrize(
    ("name", "kind"),
    [pytest.param(*held, id=held[0], marks=() if held[0] in UNLIKE else pytest.mark.slow) for held in HELD.items()],
)


def at(bridge: LetGo, algorithm: Algorithm, progress: float) -> Algorithm:
    return bridge.adjust((), algorithm, jnp.asarray(progress, jnp.float32))


def one_update(algorithm: Algorithm, learner: Learner, kind: str) -> tuple[Learner, Metrics]:
    """Uncompiled: the compiler may round the same sums differently in another program."""
    batch = jax.tree.map(jnp.asarray, transitions(kind=kind))
    learner, critic_metrics = critic_update(algorithm, (), learner, batch, KEY)
    learner, metrics = actor_update(algorithm, (), learner, batch, KEY)
    return learner, {**critic_metrics, **metrics}


def weights(algorithm: Algorithm) -> list[float]:
    return [float(getattr(algorithm, name)) for name in algorithm.conservatism]


@every_held
def test_at_the_switch_nothing_is_changed_to_the_bit(name, kind):
    algorithm, learner = small(name), random_learner(small(name), kind=kind)
    assert min(weights(algorithm)) > 0
    held, freed = (one_update(at(LetGo(until=0.5), algorithm, p), learner, kind) for p in (0.0, 0.25))
    assert same_bits(held, one_update(algorithm, learner, kind))
    assert not same_bits(held[0], freed[0])


@every_held
def test_at_the_end_it_is_the_algorithm_with_a_weight_of_0(name, kind):
    algorithm, learner = small(name), random_learner(small(name), kind=kind)
    without = small(name, **dict.fromkeys(algorithm.conservatism, 0.0))
    for progress in (0.5, 1.0):
        freed = one_update(at(LetGo(until=0.5), algorithm, progress), learner, kind)
        assert same_bits(freed, one_update(without, learner, kind))


def test_a_dispatch_learns_with_the_weight_of_its_progress():
    algorithm, bridge = small("td3-bc"), LetGo(until=0.5)
    learner = attach((bridge,), algorithm)
    for progress, weight in ((0.125, 0.75), (0.75, 0.0)):
        plain = small("td3-bc", bc_weight=weight)
        expected, _ = run(attach((), plain), plain, (), progress=progress)
        after, _ = run(learner, algorithm, (bridge,), progress=progress)
        for a, b in zip(jax.tree.leaves(after.nets), jax.tree.leaves(expected.nets), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


@few
@given(
    progress=st.floats(0, 1, width=32),
    until=st.floats(0.01, 1),
    end=st.floats(0.01, 1),
    schedule=st.sampled_from(["linear", "exponential"]),
)
def test_the_weights_fade_linearly_or_exponentially_and_stay(progress, until, end, schedule):
    bridge, algorithm = LetGo(end=end, until=until, schedule=schedule), small("rebrac")
    share = min(progress / until, 1.0)
    factor = end**share if schedule == "exponential" else 1 + (end - 1) * share
    faded = at(bridge, algorithm, progress)
    assert weights(faded) == pytest.approx([factor * weight for weight in weights(algorithm)], rel=1e-4, abs=1e-7)
    assert faded.batch_size == algorithm.batch_size
    assert weights(algorithm) == weights(small("rebrac"))  # the recipe's own stays as it is


@for_each("name", [name for name, cls in ALGORITHMS.items() if "online" in cls.phases])
def test_it_is_refused_where_there_is_nothing_to_let_go_of(name):
    algorithm = small(name)
    assert all(field in algorithm.__dataclass_fields__ for field in algorithm.conservatism)

    def recipe():
        return Recipe(
            dataset="npz:log.npz",
            offline=BC(),
            offline_steps=1,
            online=algorithm,
            online_steps=2000,
            bridges=(LetGo(),),
        )

    if algorithm.conservatism:
        assert recipe().bridges == (LetGo(),)
        return
    with pytest.raises(RecipeError) as error:
        recipe()
    if algorithm.on_policy:
        assert "let-go cannot act on ppo, which learns on-policy" in str(error.value)
    else:
        assert str(error.value) == f"bridge let-go: {name} has no conservative weight to let go of"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"end": -0.1}, "end is -0.1; expected between 0 and 1"),
        ({"until": 0.0}, "until is 0.0; expected above 0 and at most 1"),
        ({"until": 1.1}, "until is 1.1; expected above 0 and at most 1"),
        ({"schedule": "exponential"}, "end is 0.0; expected above 0 for the exponential schedule"),
    ],
)
def test_a_hyper_parameter_out_of_range_names_the_range(options, expected):
    with pytest.raises(RecipeError) as error:
        LetGo(**options)
    assert str(error.value) == f"let-go: {expected}"
