"""The guard: its bets against a slow reference, false alarms and power by simulation, what an alarm does, and costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import (
    KINDS,
    actor_update,
    clone,
    few,
    for_each,
    random_learner,
    same_bits,
    small,
    transitions,
)
from segue.bridges import Bridge, Guard, LetGo, Promotion, Report
from segue.bridges.guard import BETS, STARTS
from segue.errors import RecipeError
from segue.training.update import replace
from toys import pendulum

KEY = jax.random.key(0)
NEVER = 10**9


def slow_evidence(returns: list[float], floor: float, ceiling: float) -> list[float]:
    """After each return: Σ_s 1/(s(s+1)) · mean over bets of Π_{t≥s} (1 + λ (m − min(x_t, B))); every start is kept."""
    wealth: list[list[float]] = []
    values = []
    for x in returns:
        wealth.append([1.0] * len(BETS))
        for gambler in wealth:
            for i, share in enumerate(BETS):
                gambler[i] *= 1 + share / (ceiling - floor) * (floor - min(x, ceiling))
        weights = [1 / (s * (s + 1)) for s in range(1, len(wealth) + 1)]
        values.append(sum(w * sum(g) / len(g) for w, g in zip(weights, wealth, strict=True)))
    return values


def guards_evidence(returns: list[float], floor: float, ceiling: float) -> list[float]:
    guard, wealth, values = Guard(), np.full((STARTS, len(BETS)), -np.inf), []
    for episode, x in enumerate(returns):
        wealth = guard.bet(wealth, episode, x, floor, ceiling)
        values.append(guard.evidence(wealth, episode + 1))
    return values


def first_alarms(guard: Guard, references: np.ndarray, streams: np.ndarray) -> np.ndarray:
    """The episode (from 1) of each stream's alarm, or NEVER; every stream is judged by a reference of its own.

    The gambler of s has exp(C_t − C_{s−1}) at t, C the running sum of dataset factors: one pass serves all starts.
    """
    return alarms_between(
        guard, streams, *(np.array(x)[:, None] for x in zip(*map(guard.bounds, references), strict=True))
    )


def first_cost_alarms(guard: Guard, references: np.ndarray, streams: np.ndarray) -> np.ndarray:
    """The same of costs: returns of the other sign. Without a cost so far the limit is ∞: bets are 0."""
    lowest = np.minimum(references.min(1), 0.0)[:, None]
    stated = guard.cost_limit
    worst = references.max(1) if stated is None else np.ones(len(references))
    for i in np.flatnonzero(worst <= lowest[:, 0]):
        worst[i] = streams[i][streams[i] > lowest[i]][:1].sum() or 1.0
    bounds = np.array([guard.bound(*one) for one in zip(references, worst, strict=True)]) if stated is None else stated
    limits = np.broadcast_to(np.reshape(bounds, (-1, 1)), streams.shape)
    highest = np.maximum.accumulate(np.column_stack([references.max(1), streams]), 1)[:, :-1]
    known = (highest > lowest) | (stated is not None)
    return alarms_between(guard, streams=np.where(known, -streams, -limits), floor=-limits, ceiling=-lowest)


def alarms_between(guard: Guard, streams: np.ndarray, floor: np.ndarray, ceiling: np.ndarray) -> np.ndarray:
    """The first alarm of each stream, for these bounds."""
    floor, ceiling = floor[:, :, None], ceiling[:, :, None]
    factors = 1 + BETS / (ceiling - floor) * (floor - np.minimum(streams[:, :, None], ceiling))
    total = np.cumsum(np.log(factors), 1)
    before = np.concatenate([np.zeros_like(total[:, :1]), total[:, :-1]], 1)
    starts = np.arange(1, streams.shape[1] + 1)
    mixed = np.logaddexp.accumulate(-np.log(starts * (starts + 1.0))[:, None] - before, axis=1)
    evidence = np.exp(np.minimum(total + mixed, 700)).mean(2)
    hit = evidence >= guard.threshold
    return np.where(hit.any(1), hit.argmax(1) + 1, NEVER)


Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def two_modes(share: float, high: float, low: float) -> Draw:
    """Runs to the end with this probability, falls early otherwise: Hopper's returns."""
    return lambda rng, n: np.where(rng.random(n) < share, rng.normal(high, 50, n), rng.normal(low, 150, n))


RETURNS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(1000, 200, n),
    "bounded and skewed": lambda rng, n: 1000 * rng.beta(8, 1, n),
    "at its bounds": lambda rng, n: 1000 * rng.beta(2, 0.3, n),
    "skewed to the right": lambda rng, n: rng.exponential(1000, n),
    "two modes": two_modes(0.5, 3000, 1000),
    "two modes, falls rarely": two_modes(0.9, 3000, 500),
    "two modes, falls in 1 of 20": two_modes(0.95, 3000, 300),
    "success or not": lambda rng, n: (rng.random(n) < 0.85).astype(float),
    "seldom a success": lambda rng, n: (rng.random(n) < 0.1).astype(float),
    "heavy tails": lambda rng, n: 1000 + 300 * rng.standard_t(3, n),
    "infinite variance": lambda rng, n: 1000 + 300 * rng.standard_t(2, n),
    "heavy tail of losses": lambda rng, n: -100 * rng.pareto(2.5, n),
    "hardly any variance": lambda rng, n: rng.normal(1000, 1e-3, n),
    "negative": lambda rng, n: rng.normal(-800, 300, n),
    "negative and skewed": lambda rng, n: -rng.exponential(200, n),
    "about zero": lambda rng, n: rng.normal(0, 1, n),
    "constant": lambda rng, n: np.full(n, 500.0),
    "zero": lambda rng, n: np.zeros(n),
}


def learner_with(guard: Guard, name: str = "sac", kind: str = "continuous", **state: object):
    """A learner whose only bridge is the guard, with these parts of its state."""
    learner = random_learner(small(name), kind=kind)
    return replace(learner, bridges=(guard.state(learner.nets.actor)._replace(**state),))


def report(learner, returns, reference=(90.0, 100.0, 110.0, 100.0), step=50) -> Report:
    return Report(step, np.asarray(returns, float), np.ones(len(returns), bool), np.asarray(reference, float), learner)


def test_the_gambler_at_work():
    """By hand: m = 8, B = 10, two returns of 6; λ (m − x) = share · 2 / 2."""
    first = np.mean(1 + BETS)
    second = 0.5 * np.mean((1 + BETS) ** 2) + np.mean(1 + BETS) / 6
    assert guards_evidence([6.0, 6.0], 8.0, 10.0) == pytest.approx([0.5 * first, second])


@few
@given(st.lists(st.floats(-50, 150), min_size=1, max_size=60), st.floats(-20, 90), st.floats(0.5, 100))
def test_evidence_is_that_of_every_gambler_who_ever_began(returns, floor, width):
    expected = slow_evidence(returns, floor, floor + width)
    assert guards_evidence(returns, floor, floor + width) == pytest.approx(expected, rel=1e-9)


def test_giving_up_the_oldest_gamblers_can_only_lower_the_evidence():
    rng = np.random.default_rng(0)
    returns = np.concatenate([rng.normal(100, 10, 200), rng.normal(95, 20, 200)]).tolist()
    ring, everyone = guards_evidence(returns, 90.0, 120.0), slow_evidence(returns, 90.0, 120.0)
    assert ring[:STARTS] == pytest.approx(everyone[:STARTS], rel=1e-9)
    assert all(a <= b * (1 + 1e-9) for a, b in zip(ring, everyone, strict=True))
    assert ring[-1] < everyone[-1]


def test_a_late_fall_is_seen_when_the_ring_has_gone_round_and_no_earlier():
    returns = [100.0] * (3 * STARTS) + [10.0] * 60
    values = guards_evidence(returns, 85.0, 110.0)
    assert max(values[: 3 * STARTS]) < 1
    assert max(values) > Guard().threshold


def test_the_simulation_below_bets_as_the_guard_does():
    rng = np.random.default_rng(1)
    references, streams = rng.normal(100, 20, (20, 8)), rng.normal(50, 20, (20, 60))
    guard, expected = Guard(), []
    for known, stream in zip(references, streams, strict=True):
        values = guards_evidence(stream.tolist(), *guard.bounds(known))
        expected.append(next((t for t, v in enumerate(values, 1) if v >= guard.threshold), NEVER))
    assert np.array_equal(first_alarms(guard, references, streams), expected)
    assert 5 < sum(t < NEVER for t in expected) < 20


@pytest.mark.parametrize("name", RETURNS)
def test_false_alarms_stay_below_alpha(name):
    """Over 2000 policies that never change, each with 20 reference episodes and 250 live ones."""
    rng = np.random.default_rng(0)
    references, streams = RETURNS[name](rng, (2000, 20)), RETURNS[name](rng, (2000, 250))
    assert (first_alarms(Guard(), references, streams) < NEVER).mean() <= 0.05


@pytest.mark.parametrize("alpha", [0.01, 0.2])
def test_alpha_is_the_users(alpha):
    """Without a tolerance, so that alarms do come: at α = 0.2 more than at α = 0.01, and both hold."""
    rng = np.random.default_rng(0)
    references, streams = rng.normal(1000, 200, (4000, 20)), rng.normal(1000, 200, (4000, 250))
    share = (first_alarms(Guard(alpha=alpha, tolerance=0.0), references, streams) < NEVER).mean()
    assert share <= alpha
    assert (share > 0.01) == (alpha == 0.2)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_reference_and_bets_share_alpha(alpha):
    """Ville: the e-value ever reaches 1/a with probability a at most; the reference's bound fails with α/2."""
    guard = Guard(alpha=alpha, tolerance=0.0)
    assert alpha / 2 + 1 / guard.threshold == pytest.approx(alpha)
    references = np.random.default_rng(0).normal(50, 7, (5_000, 6))
    failed = np.mean([guard.bounds(known)[0] > 50 for known in references])
    assert failed == pytest.approx(alpha / 2, abs=4 * math.sqrt(alpha / 2 / 5_000))


def test_without_a_tolerance_disasters_that_the_reference_missed_break_the_level():
    """The limit that the module's docstring names: 20 episodes miss a fall in 1 of 20 with probability 0.36."""
    rng, draw = np.random.default_rng(0), RETURNS["two modes, falls in 1 of 20"]
    references, streams = draw(rng, (2000, 20)), draw(rng, (2000, 250))
    assert (first_alarms(Guard(tolerance=0.0), references, streams) < NEVER).mean() > 0.2


@pytest.mark.parametrize(
    ("share", "after", "spread", "within"),
    [
        (0.5, 0, 100, 14),
        (0.2, 0, 100, 9),
        (0.5, 100, 100, 30),
        (0.2, 100, 100, 20),
        (0.5, 0, 200, 27),
        (0.2, 0, 200, 15),
        (0.5, 100, 200, 60),
        (0.2, 100, 200, 33),
    ],
)
def test_a_fall_is_noticed_within_so_many_episodes(share, after, spread, within):
    """Normal returns of 1000 ± spread, which fall to a share of that; in 99 % of 2000 runs, and never before."""
    rng = np.random.default_rng(0)
    references, good = rng.normal(1000, spread, (2000, 20)), rng.normal(1000, spread, (2000, after))
    fallen = share * rng.normal(1000, spread, (2000, 80))
    episodes = first_alarms(Guard(), references, np.concatenate([good, fallen], 1)) - after
    assert episodes.min() > 0
    assert np.quantile(episodes, 0.99) <= within


def test_a_loss_within_the_tolerance_is_no_alarm():
    rng = np.random.default_rng(0)
    references, streams = rng.normal(1000, 50, (1000, 20)), rng.normal(920, 50, (1000, 250))
    assert (first_alarms(Guard(), references, streams) < NEVER).mean() <= 0.05
    assert (first_alarms(Guard(tolerance=0.0), references, streams) < NEVER).mean() > 0.95


def test_the_floor_is_students_lower_bound_less_the_tolerance():
    """t of 97.5 % at 3 degrees is 3.182446; mean 100, standard deviation √(200/3), 4 episodes."""
    floor, ceiling = Guard(tolerance=0.1).bounds(np.array([90.0, 100.0, 110.0, 100.0]))
    assert floor == pytest.approx(100 - 3.182446 * math.sqrt(200 / 3) / 2 - 10, rel=1e-6)
    assert ceiling == 110
    negative, _ = Guard(tolerance=0.1).bounds(-np.array([90.0, 100.0, 110.0, 100.0]))
    assert negative == pytest.approx(-100 - 3.182446 * math.sqrt(200 / 3) / 2 - 10, rel=1e-6)


@for_each("value", [0.0, 0.1, -3.0, 500.0, 123456.7])
@for_each("tolerance", [0.0, 0.1])
def test_equal_returns_are_a_reference_too(value, tolerance):
    """Going on as before is no alarm even after many reviews, each of which rounds the state; worse returns are one."""
    guard = Guard(tolerance=tolerance)
    floor, ceiling = guard.bounds(np.full(20, value))
    assert np.float32(floor) < np.float32(ceiling) == np.float32(value)
    learner = learner_with(guard)
    state = learner.bridges[0]
    for _ in range(20):
        review = guard.review(state, report(learner, [value] * 20, [value] * 20))
        assert review.verdict != "roll back"
        state = review.state
    worse = guard.review(state, report(learner, [value - 0.5 * abs(value) - 1] * 100, [value] * 20))
    assert worse.verdict == "roll back"


def test_one_reference_episode_says_nothing_so_nothing_is_an_alarm():
    guard = Guard()
    assert guard.bounds(np.array([7.0])) == (-math.inf, 7.0)
    learner = learner_with(guard)
    review = guard.review(learner.bridges[0], report(learner, [7.0, 6.0, -1e6], [7.0]))
    assert review.verdict == "mark"
    assert np.isfinite(list(review.metrics.values())).all()
    again = guard.review(review.state, report(learner, [-1e6] * 50, [7.0]))
    assert again.verdict == "mark"
    assert not np.isnan(np.asarray(again.state.log_wealth)).any()


def test_two_reference_episodes_or_ten_thousand_are_fine():
    assert np.isfinite(Guard().bounds(np.array([1.0, 3.0]))).all()
    many = np.random.default_rng(0).normal(100, 10, 10_000)
    assert Guard(tolerance=0.0).bounds(many)[0] == pytest.approx(many.mean(), abs=0.5)


def test_returns_reviewed_together_or_one_by_one_leave_the_same_evidence():
    guard, returns = Guard(), [95.0, 60.0, 101.0, 70.0, 88.0]
    learner = learner_with(guard)
    together = guard.review(learner.bridges[0], report(learner, returns))
    state = learner.bridges[0]
    for x in returns:
        last = guard.review(state, report(learner, [x]))
        state = last.state
    assert last.metrics["guard_log_evidence"] == pytest.approx(together.metrics["guard_log_evidence"], rel=1e-5)
    assert int(state.episodes) == int(together.state.episodes) == 5
    floor, ceiling = guard.bounds(np.array([90.0, 100.0, 110.0, 100.0]))
    expected = math.log(slow_evidence(returns, floor, ceiling)[-1])
    assert together.metrics["guard_log_evidence"] == pytest.approx(expected, rel=1e-6)


def test_nothing_ended_nothing_changes():
    guard = Guard()
    learner = learner_with(guard)
    review = guard.review(learner.bridges[0], report(learner, []))
    assert review.verdict == "go on"
    assert review.metrics == {}
    assert review.state is learner.bridges[0]


def test_a_learner_is_kept_once_what_followed_it_was_as_good_as_handed_over():
    """Not the learner of now: its last update may have broken it, and no return shows that yet."""
    guard = Guard()
    learner = learner_with(guard)
    handed_over = learner.bridges[0].marked
    first, second = (random_learner(small("sac"), seed=seed).nets for seed in (8, 9))
    one = guard.review(learner.bridges[0], report(replace(learner, nets=first), [200.0]))
    assert one.verdict == "go on"  # of at least half as many episodes as the reference had
    assert np.array_equal(one.state.since, [200, 0, 1])
    assert same_bits(one.state.marked, handed_over)
    kept = guard.review(one.state, report(replace(learner, nets=first), [100.0]))
    assert (kept.verdict, kept.event) == ("keep", None)
    assert np.array_equal(kept.state.since, [0, 0, 0])
    assert same_bits(kept.state.anchor, handed_over)
    assert same_bits(kept.state.marked, first.actor)
    again = guard.review(kept.state, report(replace(learner, nets=second), [100.0] * 2))
    assert again.verdict == "keep"
    assert same_bits(again.state.anchor, first.actor)
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((again.state.marked, second.actor))]
    assert len(pointers) == len(set(pointers))


def test_a_little_worse_is_neither_kept_nor_an_alarm_and_the_next_learner_gets_its_chance():
    guard = Guard()
    learner = learner_with(guard)
    now = replace(learner, nets=random_learner(small("sac"), seed=9).nets)
    review = guard.review(learner.bridges[0], report(now, [99.0] * 30))
    assert review.verdict == "mark"
    assert np.array_equal(review.state.since, [0, 0, 0])
    assert same_bits(review.state.anchor, learner.bridges[0].anchor)
    assert same_bits(review.state.marked, now.nets.actor)


def test_it_guards_an_algorithm_that_has_no_actor():
    guard, algorithm = Guard(), small("dqn")
    learner = random_learner(algorithm, kind="discrete")
    learner = replace(learner, bridges=(guard.state(None),))
    kept = guard.review(learner.bridges[0], report(learner, [100.0] * 10))
    assert kept.verdict == "keep"
    assert guard.review(kept.state, report(learner, [10.0] * 40)).verdict == "roll back"


def test_an_alarm_rolls_back_starts_the_test_anew_and_says_so():
    guard = Guard()
    learner = learner_with(guard)
    good = guard.review(learner.bridges[0], report(learner, [100.0] * 10))
    now = replace(learner, nets=random_learner(small("sac"), seed=9).nets)
    alarm = guard.review(good.state, report(now, [10.0] * 40, step=1234))
    assert alarm.verdict == "roll back"
    assert alarm.metrics["guard_alarms"] == 1
    assert alarm.metrics["guard_log_evidence"] >= math.log(guard.threshold)
    assert alarm.event.startswith("alarm 1 at step 1234: returns (10 on average since the last look) are below 77.0")
    assert "≥ 40; rolled back" in alarm.event
    assert int(alarm.state.alarms) == 1
    assert int(alarm.state.episodes) == 0
    assert np.array_equal(alarm.state.since, [0, 0, 0])
    assert np.isneginf(np.asarray(alarm.state.log_wealth)).all()
    assert float(alarm.state.floor) == pytest.approx(float(good.state.floor))
    assert same_bits(alarm.state.anchor, good.state.anchor)
    second = guard.review(alarm.state, report(now, [10.0] * 40))
    assert int(second.state.alarms) == 2
    assert second.event.startswith("alarm 2 ")


def test_from_a_learner_that_was_not_good_again_it_goes_back_to_the_switch():
    guard = Guard()
    learner = learner_with(guard)
    state = guard.review(learner.bridges[0], report(learner, [100.0] * 10)).state
    lucky = replace(learner, nets=random_learner(small("sac"), seed=9).nets)
    state = guard.review(state, report(lucky, [100.0] * 10)).state  # marked, with the policy that is lucky next
    state = guard.review(state, report(lucky, [100.0] * 10)).state
    assert same_bits(state.anchor, lucky.nets.actor)

    again = guard.review(state, report(lucky, [10.0] * 40))
    assert again.verdict == "roll back"
    assert same_bits(again.state.anchor, lucky.nets.actor)
    over = guard.review(again.state, report(lucky, [10.0] * 40))  # it was luck
    assert (over.verdict, int(over.state.alarms)) == ("start over", 2)
    assert same_bits(over.state.anchor, learner.nets.actor)
    assert "rolled back to the learner handed over" in over.event
    good = guard.review(again.state, report(lucky, [100.0] * 10))
    assert (good.verdict, bool(good.state.proved)) == ("keep", True)
    assert guard.review(good.state, report(lucky, [10.0] * 40)).verdict == "roll back"


def test_a_review_changes_numbers_only_so_that_updates_are_compiled_once():
    guard = Guard()
    learner = learner_with(guard)

    def kinds(state):
        return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype, jnp.asarray(leaf).weak_type), state)

    before = kinds(learner.bridges[0])
    for returns in ([100.0], [120.0] * 5, [1.0] * 40):
        assert kinds(guard.review(learner.bridges[0], report(learner, returns)).state) == before
    skeleton = guard.skeleton(small("sac"), KINDS["continuous"])
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(skeleton)] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(learner.bridges[0])
    ]


@pytest.mark.parametrize("name", ["sac", "ppo"])
def test_the_policys_step_halves_with_each_alarm_and_the_critic_goes_on(name):
    guard, algorithm = Guard(), small(name)
    state = learner_with(guard, name).bridges[0]
    for alarms, factor in enumerate((1, 0.5, 0.25, 0.125)):
        now = state._replace(alarms=jnp.asarray(alarms))
        assert float(guard.actor_rate(now)) == pytest.approx(factor)
        assert guard.pace(now) == 1
        assert guard.adjust(now, algorithm, jnp.zeros(())) is algorithm


def test_without_an_actor_the_pace_halves():
    guard = Guard()
    state = guard.state(None)
    assert guard.actor_rate(state) is None
    assert [guard.pace(state._replace(alarms=jnp.asarray(n))) for n in range(4)] == [1, 0.5, 0.25, 0.125]
    assert Guard(slow_down=1.0).pace(state._replace(alarms=jnp.asarray(5))) == 1


@pytest.mark.parametrize(("name", "kind"), [("sac", "continuous"), ("discrete-sac", "discrete"), ("bc", "continuous")])
def test_the_pull_is_nothing_before_an_alarm_and_doubles_with_each(name, kind):
    """In units of the mean absolute loss of the policy, here 2."""
    guard = Guard(pull=0.5)
    learner = learner_with(guard, name, kind)
    actor, anchor, nets = learner.nets.actor, random_learner(small(name), seed=4, kind=kind).nets.actor, learner.nets
    batch = jax.tree.map(jnp.asarray, transitions(kind=kind))
    if kind == "discrete":
        ours, theirs = (np.asarray(a(batch.observation), np.float64) for a in (actor, anchor))
        distance = (np.exp(ours) * (ours - theirs)).sum(1).mean()
    else:
        ours, theirs = (np.asarray(a.mode(batch.observation), np.float64) for a in (actor, anchor))
        distance = ((ours - theirs) ** 2).mean()
    loss = jnp.asarray([-3.0, 1.0] * (len(batch.reward) // 2))
    for alarms, weight in enumerate([0, 0.5, 1, 2, 4]):
        state = learner.bridges[0]._replace(alarms=jnp.asarray(alarms, jnp.int32), anchor=anchor)
        penalty, aux = guard.actor_penalty(state, actor, nets, batch, loss, KEY)
        assert float(penalty) == pytest.approx(weight * 2 * distance, rel=1e-4)
        assert float(aux["guard_distance"]) == pytest.approx(distance, rel=1e-4)


def test_before_the_first_alarm_the_policy_learns_as_without_a_guard():
    algorithm, batch = small("sac"), jax.tree.map(jnp.asarray, transitions())
    learner = learner_with(Guard(pull=100.0))
    learner = replace(learner, bridges=(learner.bridges[0]._replace(anchor=random_learner(algorithm, 7).nets.actor),))
    alarmed = replace(learner, bridges=(learner.bridges[0]._replace(alarms=jnp.asarray(1, jnp.int32)),))
    # The actor's key depends on how many bridges there are: compare with one that does nothing.
    idle, _ = actor_update(algorithm, (Bridge(),), replace(clone(learner), bridges=((),)), batch, KEY)
    guarded, _ = actor_update(algorithm, (Guard(pull=100.0),), clone(learner), batch, KEY)
    pulled, _ = actor_update(algorithm, (Guard(pull=100.0),), alarmed, batch, KEY)
    assert same_bits(guarded.nets, idle.nets)
    assert not same_bits(guarded.nets.actor, pulled.nets.actor)


def crashes(rate: float) -> Draw:
    """Cost 1 in this share of the episodes, as a crash that ends them."""
    return lambda rng, n: (rng.random(n) < rate).astype(float)


COSTS: dict[str, Draw] = {
    "never a crash": crashes(0.0),
    "a crash in 1 of 100": crashes(0.01),
    "a crash in 1 of 20": crashes(0.05),
    "a crash in 1 of 5": crashes(0.2),
    "a crash in most": crashes(0.8),
    "always a crash": crashes(1.0),
    "seconds too close": lambda rng, n: rng.gamma(1.0, 5.0, n),
    "seconds too close, and a crash": lambda rng, n: rng.gamma(2.0, 2.0, n) + 20 * (rng.random(n) < 0.1),
    "fuel": lambda rng, n: rng.normal(50, 2, n),
    "above and below nothing": lambda rng, n: rng.normal(0, 1, n),
}


def costly_report(learner, costs, before=(0.0, 0.0, 1.0, 0.0), returns=None, **changes) -> Report:
    """Episodes with these costs, and returns as of the reference."""
    known = report(learner, np.full(len(costs), 100.0) if returns is None else returns, np.full(len(before), 100.0))
    return dataclasses.replace(
        known, costs=np.asarray(costs, float), reference_costs=np.asarray(before, float), **changes
    )


def test_the_limit_is_clopper_and_pearsons_bound_and_the_tolerance():
    """One crash in four episodes: P(at most 1 of 4 | p) = 2.5 % at p = 0.805880."""
    p = 0.805880
    assert (1 - p) ** 4 + 4 * p * (1 - p) ** 3 == pytest.approx(0.025, rel=1e-4)
    assert Guard().bound(np.array([0.0, 0.0, 1.0, 0.0]), 1.0) == pytest.approx(1.1 * p, rel=1e-4)
    assert Guard(tolerance=0.0).bound(np.array([0.0, 0.0, 30.0, 0.0]), 30.0) == pytest.approx(30 * p, rel=1e-4)
    assert Guard(tolerance=0.0).bound(np.zeros(20), 1.0) == pytest.approx(1 - 0.025 ** (1 / 20))
    assert Guard(tolerance=0.0).bound(np.ones(20), 1.0) == 1
    assert Guard().bound(np.zeros(20), 0.0) == math.inf


def test_costs_are_bet_on_as_returns_of_the_other_sign():
    """By hand: limit 0.5, costs of 1 and 1; the stake is share · (1 − 0.5) / 0.5."""
    guard = Guard(cost_limit=0.5)
    learner = learner_with(guard)
    review = guard.review(learner.bridges[0], costly_report(learner, [1.0, 1.0]))
    expected = 0.5 * np.mean((1 + BETS) ** 2) + np.mean(1 + BETS) / 6
    assert review.metrics["guard_log_cost_evidence"] == pytest.approx(math.log(expected), rel=1e-5)


@few
@given(st.lists(st.floats(0, 100), min_size=2, max_size=20), st.floats(0, 100), st.floats(0, 1000))
def test_the_limit_lies_between_the_mean_cost_and_the_worst_and_grows_with_the_worst(costs, more, further):
    guard, known = Guard(tolerance=0.0), np.array(costs)
    worst = max(costs) + more
    limit = guard.bound(known, worst)
    if worst > 0:
        assert known.mean() <= limit * (1 + 1e-9)
        assert limit <= worst * (1 + 1e-9)
        assert guard.bound(known, worst + further) >= limit * (1 - 1e-6)


@pytest.mark.parametrize("name", COSTS)
def test_false_alarms_about_costs_stay_below_alpha(name):
    """Over 2000 policies that never change, each with 20 reference episodes and 250 live ones."""
    rng = np.random.default_rng(0)
    references, streams = COSTS[name](rng, (2000, 20)), COSTS[name](rng, (2000, 250))
    assert (first_cost_alarms(Guard(tolerance=0.0), references, streams) < NEVER).mean() <= 0.05


@pytest.mark.parametrize("limit", [None, 0.2])
def test_the_simulation_of_costs_bets_as_the_guard_does(limit):
    rng, guard, expected = np.random.default_rng(1), Guard(cost_limit=limit), []
    references, streams = crashes(0.04)(rng, (12, 20)), crashes(0.7)(rng, (12, 40))
    learner = learner_with(guard)
    for before, stream in zip(references, streams, strict=True):
        state = learner.bridges[0]
        for episode, cost in enumerate([*stream, None], 1):
            if cost is None:
                expected.append(NEVER)
                break
            review = guard.review(state, costly_report(learner, [cost], before))
            state = review.state
            if review.metrics["guard_alarms"]:
                expected.append(episode)
                break
    assert 0 < references.max(1).sum() < 12, "some have seen a crash"
    assert np.array_equal(first_cost_alarms(guard, references, streams), expected)


def test_a_stated_limit_is_kept_whatever_the_reference_is():
    """At its limit it seldom alarms, above it soon."""
    rng, guard = np.random.default_rng(0), Guard(cost_limit=0.2)
    before, at, above = np.zeros((2000, 20)), crashes(0.2)(rng, (2000, 250)), crashes(0.6)(rng, (2000, 250))
    assert (first_cost_alarms(guard, before, at) < NEVER).mean() <= 0.025
    assert np.quantile(first_cost_alarms(guard, before, above), 0.9) <= 25
    assert np.array_equal(first_cost_alarms(guard, before, above), first_cost_alarms(guard, before + 1, above))


def test_of_a_limit_of_0_the_first_cost_is_an_alarm():
    guard = Guard(cost_limit=0.0)
    learner = learner_with(guard)
    free = guard.review(learner.bridges[0], costly_report(learner, [0.0] * 30, np.zeros(20)))
    assert free.metrics["guard_alarms"] == 0
    assert guard.review(free.state, costly_report(learner, [0.1], np.zeros(20))).metrics["guard_alarms"] == 1


@pytest.mark.parametrize(("rate", "within"), [(0.6, 60), (0.9, 15)])
def test_more_crashes_are_noticed_within_so_many_episodes(rate, within):
    """Of policies that crashed in 1 of 20 episodes, nine in ten; 20 reference episodes say little of rare ones."""
    rng = np.random.default_rng(0)
    references, streams = crashes(0.05)(rng, (2000, 20)), crashes(rate)(rng, (2000, 250))
    assert np.quantile(first_cost_alarms(Guard(), references, streams), 0.9) <= within


def test_an_alarm_about_costs_names_them_and_rolls_back_though_returns_are_good():
    guard = Guard()
    learner = learner_with(guard)
    alarm = guard.review(learner.bridges[0], costly_report(learner, [1.0] * 40, np.zeros(20), [200.0] * 40))
    assert alarm.verdict == "roll back"
    assert alarm.event.startswith("alarm 1 at step 50: costs (1 on average since the last look) are above 0.185")
    assert alarm.metrics["guard_log_cost_evidence"] >= math.log(guard.threshold) > alarm.metrics["guard_log_evidence"]
    assert np.isneginf(np.asarray(alarm.state.cost_log_wealth)).all()
    assert float(alarm.state.limit) == pytest.approx(0.1853, rel=1e-3)


def test_a_learner_that_costs_more_is_not_good_whatever_it_earns():
    for guard, cost, good in ((Guard(), 0.3, False), (Guard(), 0.2, True), (Guard(cost_limit=0.5), 0.3, True)):
        learner = learner_with(guard)
        looked = costly_report(learner, [cost] * 4, [0.25] * 4, [200.0] * 4)
        assert guard.review(learner.bridges[0], looked).verdict == ("keep" if good else "mark")


def test_a_start_above_the_limit_is_told_once():
    guard = Guard(cost_limit=0.1)
    learner = learner_with(guard)
    first = guard.review(learner.bridges[0], costly_report(learner, [0.0]))
    assert first.event == (
        "the handed-over policy costs 0.25 an episode, above cost_limit 0.1: rolling back to it will not keep the limit"
    )
    assert guard.review(first.state, costly_report(learner, [0.0])).event is None


def test_without_costs_it_judges_returns_alone_and_a_limit_is_refused():
    guard = Guard()
    learner = learner_with(guard)
    review = guard.review(learner.bridges[0], report(learner, [100.0] * 3))
    assert "guard_log_cost_evidence" not in review.metrics
    with pytest.raises(
        RecipeError, match=r"bridge guard limits the cost of episodes, but the recipe records none.*--cost"
    ):
        pendulum(bridges=(Guard(cost_limit=1.0),))
    assert pendulum(bridges=(Guard(cost_limit=1.0),), cost="cost").cost == "cost"


@pytest.mark.parametrize("bridge", [Guard, Promotion])
def test_the_recipes_limit_on_cost_is_that_of_a_bridge_that_has_none_of_its_own(bridge):
    assert bridge().with_cost_limit(0.3) == bridge(cost_limit=0.3)
    assert bridge(cost_limit=0.1).with_cost_limit(0.3) == bridge(cost_limit=0.1)
    assert LetGo().with_cost_limit(0.3) == LetGo()


@for_each(
    ("field", "value", "expected"),
    [
        (f, v, e)
        for f, e, values in (
            ("alpha", "between 0 and 1, both excluded", (0.0, 1.0)),
            ("alpha", "a finite number", (float("nan"),)),
            ("tolerance", "at least 0 and below 1", (-0.1, 1.0)),
            ("slow_down", "above 0 and at most 1", (0.0, 1.1)),
            ("pull", "at least 0", (-1.0,)),
            ("cost_limit", "at least 0", (-1.0,)),
        )
        for v in values
    ],
)
def test_a_hyper_parameter_out_of_range_names_the_range(field, value, expected):
    with pytest.raises(RecipeError, match=f"guard: {field} is {value!r}; expected {expected}$"):
        Guard(**{field: value})
