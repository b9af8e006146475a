"""Every bridge on every kind of algorithm that it declares to support, and every two bridges that may be combined.

They are traced, which shows whether shapes, types and keys fit; some are also run. What cannot fail differently, such
as a bridge on a second algorithm of a kind, is traced and run with `-m slow`.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from itertools import combinations
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handovers import KEY, attach, run

from helpers import (
    KINDS,
    changed_roles,
    finite,
    for_each,
    fresh_learner,
    policy_role,
    same_bits,
    small,
    transitions,
)
from segue.algorithms import ALGORITHMS, REDQ, Algorithm
from segue.bridges import (
    BRIDGES,
    SAMG,
    AveragedActor,
    Bridge,
    ConservativeUpdate,
    CriticRefit,
    EarnedFreedom,
    Guard,
    JumpStart,
    LetGo,
    PolicyExpansion,
    Promotion,
    QFilter,
    Report,
)
from segue.core import Learner
from segue.errors import RecipeError
from segue.policy import Policy
from segue.recipe import Recipe
from segue.replay import REPLAYS, OnlineOnly
from segue.runner.checkpoint import Checkpoint, load, save
from segue.training.on_policy import learn
from segue.training.update import replace

SHORT: dict[str, Any] = {"fit_steps": 2, "hidden_sizes": (8,)}
#: Every bridge: as it is by default (but for the length of its fits), then its other forms.
FORMS: dict[str, tuple[Bridge, ...]] = {
    "q-filter": (
        QFilter(),
        QFilter(on="advantage", rule="average", low_weight=0.1),
        QFilter(on="advantage", rule="fixed"),
    ),
    "conservative-update": (ConservativeUpdate(), ConservativeUpdate(distance="kl")),
    "samg": (
        SAMG(**SHORT),
        SAMG(coefficient="elbo", adaptive=True, **SHORT),
        SAMG(coefficient="kl", soft=True, target="next_observation", **SHORT),
        SAMG(coefficient="even", **SHORT),
        SAMG(coefficient="random", **SHORT),
        SAMG(coefficient="off", **SHORT),
    ),
    "let-go": (LetGo(), LetGo(schedule="exponential", end=0.1)),
    "critic-refit": (
        CriticRefit(evaluate_steps=2, align_steps=2),
        CriticRefit(evaluate_steps=2, align_steps=0, fresh=False),
    ),
    "policy-expansion": (PolicyExpansion(),),
    "jump-start": (JumpStart(), JumpStart(rule="conservative", longest=3)),
    "guard": (Guard(), Guard(cost_limit=1.0)),
    "promotion": (Promotion(), Promotion(share=0.5, clone_steps=1)),
    "averaged-actor": (AveragedActor(),),
    "earned-freedom": (EarnedFreedom(), EarnedFreedom(distance="kl")),
}
DEFAULT = {name: forms[0] for name, forms in FORMS.items()}
#: (algorithm, kind of actions) for all that learn online.
ONLINE = {
    name if len(cls.actions) == 1 else f"{name}-{kind}": (name, kind)
    for name, cls in ALGORITHMS.items()
    if "online" in cls.phases
    for kind in cls.actions
}


def pretraining(name: str) -> Algorithm:
    """An offline algorithm that hands over all that this one has."""
    online = small(name)
    if "offline" in online.phases:
        return online
    if isinstance(online, REDQ):
        return REDQ(**{field.name: getattr(online, field.name) for field in dataclasses.fields(REDQ)})
    return small("bc")


def refusal(name: str, *bridges: Bridge, **options: Any) -> str | None:
    """What a recipe of these says, if it refuses them."""
    online = small(name)
    given = {"dataset": "npz:log.npz", "offline": pretraining(name), "offline_steps": 1, "cost": "cost"}
    if not online.on_policy:
        given["replay"] = OnlineOnly()
    try:
        Recipe(**{"online": online, "online_steps": 2000, "bridges": bridges, **given, **options})
    except RecipeError as error:
        return str(error)
    return None


SUPPORTED = {
    f"{bridge}-{member}": (bridge, name, kind)
    for bridge in BRIDGES
    for member, (name, kind) in ONLINE.items()
    if refusal(name, DEFAULT[bridge]) is None
}
#: One algorithm of each kind that a bridge can tell apart: by its policy, its critic, what else it learns, its loop.
KINDS_OF_ALGORITHM = {
    ("td3-bc", "continuous"),  # a deterministic policy
    ("sac", "continuous"),  # a stochastic one with a temperature
    ("iql", "continuous"),  # a value network; a Gaussian
    ("fql", "continuous"),  # a policy without a density
    ("awac", "discrete"),  # a categorical policy
    ("discrete-cql", "discrete"),  # no policy network
    ("ppo", "continuous"),  # on-policy
}
#: Those of them that differ most, which are looked at by default.
NEAREST = {("td3-bc", "continuous"), ("awac", "discrete"), ("ppo", "continuous")}
#: Where the other forms are traced.
ELSEWHERE = {
    f"{name}-{i}-{algorithm}-{kind}": ((form,), algorithm, kind)
    for name, forms in FORMS.items()
    for i, form in enumerate(forms[1:], 1)
    for algorithm, kind in sorted(KINDS_OF_ALGORITHM)
    if refusal(algorithm, form) is None
}
#: Pairs on a continuous algorithm and, in the other order, on the first discrete one that supports both.
PAIRS = {
    f"{a.name}+{b.name}-{algorithm}": ((a, b), algorithm, kind)
    for candidates, kind, step in [(("td3-bc",), "continuous", 1), (("awac", "discrete-cql"), "discrete", -1)]
    for a, b in (pair[::step] for pair in combinations(DEFAULT.values(), 2))
    for algorithm in [name for name in candidates if refusal(name, a, b) is None][:1]
}
#: Bridges that hold on to the policy that was handed over, while another puts a fresh one in its place.
AT_ODDS = (
    {frozenset(("policy-expansion", name)) for name in ("guard", "conservative-update")}
    | {frozenset(("promotion", name)) for name in ("guard", "jump-start", "policy-expansion", "averaged-actor")}
    | {frozenset(("policy-expansion", "averaged-actor"))}
    | {
        frozenset(("earned-freedom", name))
        for name in ("promotion", "jump-start", "policy-expansion", "conservative-update", "guard")
    }
)
#: Bridges that are at odds with several others.
APART = {"policy-expansion", "promotion", "earned-freedom"}
#: Everything at once, as far as the algorithm supports it, but for those.
TOGETHER = {
    name: (
        tuple(b for b in DEFAULT.values() if refusal(name, b) is None and b.name not in APART),
        name,
        kind,
    )
    for name, kind in [("td3-bc", "continuous"), ("awac", "discrete")]
}
TRACED = {member: ((DEFAULT[bridge],), name, kind) for member, (bridge, name, kind) in SUPPORTED.items()}
TRACED |= ELSEWHERE | PAIRS | {f"together-{name}": case for name, case in TOGETHER.items()}
#: What is traced by default: each bridge on three kinds, its other forms on one, and the pairs of what does not act
#: with everything else at once, which is also run.
NEAR = {
    member
    for member, (bridges, name, kind) in TRACED.items()
    if member.startswith("together-")
    or (member in SUPPORTED and (name, kind) in NEAREST)
    or (member in ELSEWHERE and name == "td3-bc")
    or (member in PAIRS and kind == "continuous" and APART & {b.name for b in bridges})
}
#: What is run by default beside everything at once: what acts on PPO, and what the algorithms with everything lack.
RUN = {
    "conservative-update-ppo-continuous",
    "let-go-discrete-cql",
}

cases = pytest.mark.parametrize


def types(tree: Any) -> Any:
    """Structure, shapes and types."""
    return jax.tree.structure(tree), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def weak(tree: Any) -> list[str]:
    """Where a type is weak: what computes with it compiles again once it has become strong."""
    return [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if leaf.weak_type]


def abstract(bridges: tuple[Bridge, ...], algorithm: Algorithm, kind: str) -> Learner:
    """The shapes and types of an attached learner."""
    return eqx.filter_eval_shape(lambda: attach(bridges, algorithm, kind, fresh_learner(algorithm, kind=kind)))


def update(learner: Learner, algorithm: Algorithm, bridges: tuple[Bridge, ...], kind: str) -> tuple[Learner, Any]:
    """A few updates as a run does them: on a replay, or on a rollout of two environments."""
    if not algorithm.on_policy:
        return run(learner, algorithm, bridges, kind)
    batch = jax.tree.map(jnp.asarray, transitions(32, kind=kind))
    batch = batch._replace(action=learner.nets.actor.draw(batch.observation, KEY))
    rollout = jax.tree.map(lambda column: column.reshape(-1, 2, *column.shape[1:]), batch)
    return learn(
        jax.tree.map(jnp.copy, learner),
        rollout,
        np.arange(32).reshape(-1, 2) % 7 == 6,
        KEY,
        jnp.asarray(0.25),
        algorithm=algorithm,
        bridges=bridges,
        epochs=2,
    )


@cases(
    ("bridges", "name", "kind"),
    [
        pytest.param(*case, id=member, marks=() if member in NEAR else pytest.mark.slow)
        for member, case in TRACED.items()
    ],
)
def test_attaching_gives_what_the_skeleton_says_and_updates_keep_every_type(bridges, name, kind):
    """Or a checkpoint could not be read back, and updates would compile again."""
    algorithm = small(name)
    before = abstract(bridges, algorithm, kind)
    for bridge, state in zip(bridges, before.bridges, strict=True):
        assert types(state) == types(bridge.skeleton(algorithm, KINDS[kind]))
    after, metrics = eqx.filter_eval_shape(lambda learner: update(learner, algorithm, bridges, kind), before)
    assert types(after) == types(before)
    assert weak(before) == weak(after) == []
    assert {leaf.shape for leaf in jax.tree.leaves(metrics)} == {()}


@cases(
    ("bridge", "name", "kind"),
    [
        pytest.param(*case, id=member, marks=() if member in RUN else pytest.mark.slow)
        for member, case in SUPPORTED.items()
    ],
)
def test_updates_run_and_stay_finite(bridge, name, kind):
    algorithm, bridges = small(name), (DEFAULT[bridge],)
    before = attach(bridges, algorithm, kind)
    after, metrics = update(before, algorithm, bridges, kind)
    assert changed_roles(before, after) >= {
        "value" if algorithm.on_policy else "critic",
        policy_role(algorithm) or "critic",
    }
    assert after.step > before.step
    assert finite((after.nets, metrics))


@pytest.mark.slow
@cases(("bridges", "name", "kind"), PAIRS.values(), ids=PAIRS)
def test_pairs_of_bridges_run_and_stay_finite(bridges, name, kind):
    algorithm = small(name)
    before = attach(bridges, algorithm, kind)
    after, metrics = update(before, algorithm, bridges, kind)
    assert changed_roles(before, after) >= {"critic", policy_role(algorithm) or "critic"}
    assert finite((after.nets, metrics))


@cache
def together(name: str) -> tuple[Learner, Learner, Any]:
    """A learner with all bridges before and after four blocks, and the metrics."""
    bridges, _, kind = TOGETHER[name]
    algorithm = small(name)
    before = attach(bridges, algorithm, kind)
    return before, *run(before, algorithm, bridges, kind, blocks=4)


everything = pytest.mark.parametrize("name", ["td3-bc", pytest.param("awac", marks=pytest.mark.slow)])


@everything
def test_all_bridges_act_at_once(name):
    bridges, _, kind = TOGETHER[name]
    before, after, metrics = together(name)
    assert finite((after.nets, metrics))
    for bridge, old, new in zip(bridges, before.bridges, after.bridges, strict=True):
        moves = bridge.name in ("conservative-update", "averaged-actor")
        assert same_bits(old, new) != moves, bridge.name
    reported = {"q_filter_kept", "constraint", "constraint_multiplier", "samg_coefficient", "guard_distance"}
    assert reported <= set(metrics)
    _, plain = eqx.filter_eval_shape(lambda: run(fresh_learner(small(name), kind=kind), small(name), (), kind))
    assert set(metrics) - reported >= set(plain)


@everything
def test_with_bridges_too_four_blocks_are_two_and_two(name):
    bridges, _, kind = TOGETHER[name]
    before, at_once, _ = together(name)
    half, _ = run(before, small(name), bridges, kind)
    assert same_bits(run(half, small(name), bridges, kind)[0], at_once)


@everything
def test_nothing_attached_shares_a_buffer_with_the_learner_so_that_all_can_be_donated(name):
    before, _, _ = together(name)
    places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(before) if leaf.size]
    assert len(set(places)) == len(places)


STATES = {
    f"{form.name}-{i}-{kind}": (form, name, kind)
    for forms in FORMS.values()
    for i, form in enumerate(forms)
    for name, kind in [("td3", "continuous"), ("awac", "discrete")][: 2 if i == 0 else 1]
    if type(form).skeleton is not Bridge.skeleton
}


@cases(("bridge", "name", "kind"), STATES.values(), ids=STATES)
def test_a_saved_state_is_read_back_bit_for_bit(bridge, name, kind, tmp_path):
    """With every number of the learner random, so that none is taken for another."""
    algorithm, rng = small(name), np.random.default_rng(0)
    shapes = abstract((bridge,), algorithm, kind)
    learner = jax.tree.map(lambda leaf: jnp.asarray(rng.integers(1, 100, leaf.shape), leaf.dtype), shapes)
    save(tmp_path / "checkpoint", Checkpoint(algorithm, (bridge,), KINDS[kind], None, learner))
    back = load(tmp_path / "checkpoint")
    assert back.bridges == (bridge,)
    assert same_bits(back.learner, learner)
    assert weak(back.learner) == []


@everything
def test_a_saved_learner_with_all_bridges_goes_on_where_it_stopped(name, tmp_path):
    bridges, _, kind = TOGETHER[name]
    _, after, _ = together(name)
    save(tmp_path / "checkpoint", Checkpoint(small(name), bridges, KINDS[kind], None, after))
    back = load(tmp_path / "checkpoint")
    assert same_bits(back.learner, after)
    there, here = (run(learner, small(name), bridges, kind, blocks=4)[0] for learner in (back.learner, after))
    assert same_bits(there, here)


REFERENCE = np.array([90.0, 100.0, 110.0, 104.0, 96.0] * 4)
REPORTS = {
    "nothing": np.zeros(0),
    "as before": REFERENCE[:12],
    "better": REFERENCE + 20,
    "one": np.array([99.0]),
    "far worse": np.full(60, -50.0),
}


@cases("form", [form for forms in FORMS.values() for form in forms], ids=lambda form: form.name)
def test_reviews_keep_the_types_of_the_state_so_that_updates_go_on_without_compiling(form):
    algorithm = small("td3-bc")
    fits = form.name in ("samg", "critic-refit")
    learner = fresh_learner(algorithm) if fits else attach((form,), algorithm)
    if fits:
        states = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), abstract((form,), algorithm, "continuous"))
        learner = replace(learner, bridges=states.bridges)
    state = learner.bridges[0]
    expected = types(state)
    for step, (name, returns) in enumerate(REPORTS.items()):
        reference = REFERENCE if form.needs_reference else np.zeros(0)
        known = Report(step, returns, np.ones(len(returns), bool), reference, learner)
        if form.wants_cost():
            known = dataclasses.replace(known, costs=-returns / 100, reference_costs=np.zeros(len(reference)))
        review = form.review(state, known)
        state = jax.tree.map(jnp.asarray, review.state)
        assert types(state) == expected, name
        assert weak(state) == [], name
        assert 0 < form.pace(state) <= 1
        assert all(np.isfinite(value) for value in review.metrics.values())
    assert all(isinstance(line, str) for line in form.describe(state))


ACTING = {member: case for member, case in SUPPORTED.items() if BRIDGES[case[0]].act is not Bridge.act}


@cases(("bridge", "name", "kind"), ACTING.values(), ids=ACTING)
def test_what_a_bridge_does_is_an_action_of_the_environment(bridge, name, kind):
    """Exploring or not, at the start of an episode and later; its probability has a number per action."""
    algorithm, spaces, bridges = small(name), KINDS[kind], (DEFAULT[bridge],)
    policy = Policy(algorithm, attach(bridges, algorithm, kind), bridges)
    rng = np.random.default_rng(0)
    for explore in (False, True):
        carry = policy.start(7)
        for _ in range(3):
            observation = rng.normal(size=(7, spaces.observation_size)).astype(np.float32)
            acted = policy.act(observation, carry, rng, explore)
            carry = acted.carry
            assert isinstance(acted.action, np.ndarray)
            assert acted.action.shape == ((7,) if spaces.discrete else (7, spaces.action_size))
            assert acted.action.dtype == (np.int32 if spaces.discrete else np.float32)
            assert acted.action.min() >= (0 if spaces.discrete else -1)
            assert acted.action.max() <= (spaces.action_size - 1 if spaces.discrete else 1)
            assert np.shape(acted.log_prob()) == (7,)


ACTORLESS = {"dqn", "discrete-bcq", "discrete-cql"}
CONSERVATIVE = {"td3-bc", "rebrac", "fql", "cql", "cql-lagrangian", "cal-ql", "discrete-cql"}
REFUSED = {
    "q-filter": ACTORLESS | {"ppo"},
    "conservative-update": ACTORLESS,
    "samg": {"ppo"},
    "let-go": {name for name, _ in ONLINE.values()} - CONSERVATIVE,
    "critic-refit": ACTORLESS | {"ppo"},
    "policy-expansion": ACTORLESS | {"ppo"},
    "jump-start": {"ppo"},
    "guard": set(),
    "promotion": {"ppo"},
    "averaged-actor": {"ppo"},
    "earned-freedom": ACTORLESS,
}


def test_every_bridge_is_in_the_matrix_and_the_combinations_are_those_that_make_sense():
    assert set(FORMS) == set(BRIDGES) == set(REFUSED)
    assert all(form.name == name for name, forms in FORMS.items() for form in forms)
    members = {(bridge, name) for bridge, name, _ in SUPPORTED.values()}
    everything = {(bridge, name) for bridge in BRIDGES for name, _ in ONLINE.values()}
    assert everything - members == {(bridge, name) for bridge, names in REFUSED.items() for name in names}


def test_all_pairs_but_those_at_odds_may_be_combined_where_both_have_what_they_need():
    pairs = {frozenset(bridge.name for bridge in bridges): kind for bridges, _, kind in PAIRS.values()}
    assert set(pairs) == {frozenset(pair) for pair in combinations(BRIDGES, 2)} - AT_ODDS
    continuous = {frozenset(b.name for b in bridges) for bridges, _, kind in PAIRS.values() if kind == "discrete"}
    # A discrete algorithm with something to let go of has no actor.
    assert set(pairs) - continuous == {
        frozenset(("let-go", name)) for name in BRIDGES if "actor" in BRIDGES[name].needs
    }


@for_each(
    ("name", "bridge", "reason"),
    [
        ("ppo", "q-filter", "bridge q-filter needs the role critic, which ppo lacks"),
        ("ppo", "samg", "bridge samg needs the role critic, which ppo lacks"),
        ("dqn", "q-filter", "bridge q-filter needs the role actor, which dqn lacks"),
        ("dqn", "conservative-update", "bridge conservative-update needs the role actor, which dqn lacks"),
        ("discrete-cql", "policy-expansion", "needs the role actor, which discrete-cql lacks"),
        ("ppo", "jump-start", "bridge jump-start cannot act on ppo, which learns on-policy"),
        ("ppo", "let-go", "bridge let-go cannot act on ppo, which learns on-policy"),
        ("sac", "let-go", "bridge let-go: sac has no conservative weight to let go of"),
    ],
)
def test_a_bridge_says_what_the_algorithm_lacks(name, bridge, reason):
    assert reason in refusal(name, DEFAULT[bridge])


@for_each("form", [form for forms in FORMS.values() for form in forms], ids=lambda form: form.name)
def test_a_bridge_that_needs_a_dataset_or_a_pretrained_policy_says_so(form):
    scratch = {"offline": None, "offline_steps": 0}
    from_dataset = form.name in ("samg", "critic-refit", "jump-start") or getattr(form, "rule", None) == "average"
    pretrained = form.name in ("samg", "critic-refit", "policy-expansion", "jump-start", "guard", "promotion")
    pretrained |= form.name == "earned-freedom"  # and it needs its returns
    online = "sac" if getattr(form, "distance", None) == "kl" else "td3-bc"
    no_log = refusal(online, form, dataset=None, **scratch)
    no_policy = refusal(online, form, **scratch)
    if from_dataset:
        assert no_log == f"bridge {form.name} needs a dataset, but the recipe names no dataset"
    if pretrained:
        assert no_policy == f"bridge {form.name} needs a pretrained policy, but there is no offline phase"
    assert (no_log is None) == (not from_dataset and not pretrained)
    assert (no_policy is None) == (not pretrained)


@for_each("replay", REPLAYS)
@for_each("bridge", BRIDGES)
def test_only_samg_minds_what_is_sampled(bridge, replay):
    """It leaves the dataset behind at the handover."""
    reason = refusal("td3-bc", DEFAULT[bridge], replay=REPLAYS[replay]())
    if bridge == "samg" and replay != "online-only":
        assert reason == (f"bridge samg: its replay holds live data only; expected replay online-only, not {replay}")
    else:
        assert reason is None


def test_samg_refuses_the_replay_that_a_dataset_means_by_default():
    assert "expected replay online-only, not mixed" in refusal("td3", DEFAULT["samg"], replay=None)


@cases("other", ["guard", "conservative-update"])
def test_who_holds_on_to_the_handed_over_policy_is_not_combined_with_a_fresh_one(other):
    for pair in [("policy-expansion", other), (other, "policy-expansion")]:
        reason = f"bridge policy-expansion: it learns with a fresh actor, which {other} would hold on to"
        assert reason in refusal("td3-bc", *(DEFAULT[name] for name in pair))


@cases(
    ("offline", "online", "bridge", "reason"),
    [
        ("bc", "sac", "samg", "rests on the critic that was learnt offline, and bc has none; bridge critic-refit fits"),
        ("td3-bc", "iql", "samg", "rests on the critic that was learnt offline, and td3-bc has one built differently"),
        ("dqn", "awac", "guard", "rests on the actor that was learnt offline, and dqn has none"),
        ("edac", "sac", "samg", "rests on the critic that was learnt offline, and edac has one built differently"),
        ("bc", "dqn", "jump-start", "rests on the critic that was learnt offline, and bc has none"),
        ("bc", "dqn", "guard", "rests on the critic that was learnt offline, and bc has none"),
    ],
)
def test_a_bridge_that_rests_on_what_the_offline_phase_did_not_learn_is_refused(offline, online, bridge, reason):
    assert f"bridge {bridge} {reason}" in refusal(
        online, DEFAULT[bridge], offline=ALGORITHMS[offline](), distil_steps=0
    )


def test_what_another_bridge_fits_first_or_distillation_teaches_may_be_rested_on():
    given = {"offline": ALGORITHMS["bc"]()}
    for order in ([CriticRefit(), SAMG()], [SAMG(), CriticRefit()]):
        assert refusal("sac", *order, **given) is None
    bcq = {"offline": ALGORITHMS["bcq"](), "replay": None}
    assert refusal("sac", Guard(), **bcq) is None
    assert "rests on the actor" in refusal("sac", Guard(), distil_steps=0, **bcq)


def test_a_learnt_multiplier_is_not_combined_with_letting_go():
    assert "multiplier" in refusal("cql", LetGo(), online=small("cql", lagrange_threshold=1.0))


def test_a_bridge_named_twice_is_refused():
    assert refusal("td3", QFilter(), QFilter(percentile=50)) == "a bridge is named twice: q-filter, q-filter"
