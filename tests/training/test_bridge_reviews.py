"""BridgeReviews: which returns count, what verdicts do to the learner, and a policy that is made to collapse on
purpose."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import random_learner, same_bits, small
from segue.algorithms import PPO, TD3
from segue.bridges import Bridge, Guard, Promotion, Review
from segue.bridges.base import acting_nets
from segue.core import Learner, Normaliser, Spaces
from segue.errors import Diverged
from segue.replay import OnlineOnly, Replay
from segue.training import on_policy, recovery
from segue.training.bridge_reviews import BridgeReviews
from segue.training.on_policy import train_on_policy
from segue.training.online import OnlineSettings, train_online
from segue.training.update import init_learner, replace
from toys import AIM, CLOCK, Notes

ONE = Spaces(1, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scripted(Bridge):
    """Says what it was told to, and remembers (as its state) how often it was asked."""

    verdicts: tuple[str, ...]
    event: bool = False
    factor: float = 1.0

    def review(self, state: Any, report: Any) -> Review:
        verdict: Any = self.verdicts[min(int(state), len(self.verdicts) - 1)]
        return Review(state + 1, verdict, {}, f"look {int(state)}" if self.event else None)

    def pace(self, state: Any) -> float:
        return self.factor ** int(state)


def learner_of(seed: int, *states: int) -> Learner:
    learner = random_learner(small("td3"), seed=seed)
    return replace(learner, bridges=tuple(jnp.asarray(state) for state in states), step=jnp.asarray(10 * seed))


def reviewed(*bridges: Scripted, times: int) -> tuple[list[Learner], list[Learner], BridgeReviews]:
    """The learners given (0, 1, …, a new one each time) and what came back."""
    given = [learner_of(0, *[0] * len(bridges))]
    reviews = BridgeReviews(bridges, given[0], np.zeros(0), Notes(), 1)
    back = []
    for i in range(times):
        states = back[-1].bridges if back else given[0].bridges
        given.append(replace(learner_of(i + 1), bridges=states))
        back.append(reviews.review(given[-1], step=i))
    return given, back, reviews


def test_returns_are_summed_per_environment_and_reported_once():
    notes, looks = Notes(), []

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Looking(Bridge):
        def review(self, state: Any, report: Any) -> Review:
            looks.append(report.returns.tolist())
            return Review(state)

    reviews = BridgeReviews((Looking(),), learner_of(0, 0), np.zeros(0), notes, 2)
    for rewards, done in [((1, 10), (0, 0)), ((2, 20), (1, 0)), ((4, 40), (0, 1)), ((8, 80), (1, 0))]:
        reviews.watch(np.array(rewards, float), np.array(done, bool))
    reviews.review(learner_of(0, 0), 4)
    reviews.review(learner_of(0, 0), 5)
    assert looks == [[3, 70, 12], []]
    assert notes.measured == [(4, {"training_return": pytest.approx(85 / 3)})]


def test_costs_are_summed_and_reported_beside_the_returns():
    notes, looks = Notes(), []

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Looking(Bridge):
        def review(self, state: Any, report: Any) -> Review:
            looks.append((report.returns.tolist(), report.costs.tolist(), report.reference_costs.tolist()))
            return Review(state)

    reviews = BridgeReviews((Looking(),), learner_of(0, 0), np.zeros(1), notes, 2, np.full(1, 0.5))
    for costs, done in [((1, 10), (0, 0)), ((2, 20), (1, 0)), ((4, 40), (0, 1)), ((8, 80), (1, 0))]:
        reviews.watch(np.ones(2), np.array(done, bool), cost=np.array(costs, float))
    reviews.review(learner_of(0, 0), 4)
    assert looks == [([2, 3, 2], [3, 70, 12], [0.5])]
    assert notes.measured == [(4, {"training_return": pytest.approx(7 / 3), "training_cost": pytest.approx(85 / 3)})]


def test_without_a_verdict_the_learner_goes_on_with_the_next_states():
    given, back, _ = reviewed(Scripted(verdicts=("go on",)), times=1)
    assert same_bits(back[0].nets, given[1].nets)
    assert int(back[0].bridges[0]) == 1


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("roll back",), 0),  # to the handover
        (("go on", "roll back"), 0),
        (("mark", "roll back"), 0),  # marked, but not yet proved good
        (("mark", "keep", "roll back"), 1),  # what was marked has proved good
        (("mark", "keep", "keep", "roll back"), 2),
        (("mark", "mark", "keep", "roll back"), 2),
        (("keep", "roll back"), 0),  # the one at the handover has
        (("mark", "keep", "roll back", "keep", "roll back"), 1),  # after a roll-back it is marked anew
        (("mark", "keep", "keep", "start over"), 0),
        (("mark", "keep", "start over", "roll back"), 0),  # what was kept before is forgotten
        (("mark", "keep", "start over", "mark", "keep", "roll back"), 4),
    ],
)
def test_a_roll_back_returns_to_the_learner_that_was_marked_when_last_kept(verdicts, expected):
    given, back, _ = reviewed(Scripted(verdicts=verdicts), times=len(verdicts))
    assert same_bits(back[-1].nets, given[expected].nets)
    assert same_bits(back[-1].optimisers, given[expected].optimisers)
    assert int(back[-1].step) == int(given[-1].step), "keys are folded from the step: it must not repeat"


def test_who_asks_for_it_keeps_its_state_and_the_others_return_to_theirs_and_their_events_are_not_told():
    wants = Scripted(verdicts=("go on", "roll back"), event=True)
    other = Scripted(verdicts=("go on",), event=True)
    _, back, reviews = reviewed(wants, other, times=2)
    assert [int(state) for state in back[-1].bridges] == [2, 0]
    assert reviews.recorder.events == [
        (0, "bridge: look 0"),
        (0, "bridge: look 0"),
        (1, "bridge: look 1"),
    ]


def test_after_a_roll_back_an_episode_that_two_policies_share_does_not_count():
    reviews = BridgeReviews((Scripted(verdicts=("roll back",)),), learner_of(0, 0), np.zeros(0), Notes(), 2)
    reviews.watch(np.ones(2), np.array([False, True]))  # the second environment's next episode has not begun
    reviews.review(learner_of(1, 0), 1)
    assert reviews.ended == []
    reviews.watch(np.ones(2), np.array([True, False]))
    assert reviews.ended == []
    reviews.watch(np.full(2, 5.0), np.array([True, True]))
    assert sorted((one.value, one.whole) for one in reviews.ended) == [(5.0, True), (6.0, True)]


def test_episodes_are_reviewed_in_the_order_in_which_they_began():
    """Episodes that end early are not like the others: in the order of their ends they would be judged first."""
    looks = []

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Looking(Bridge):
        def review(self, state: Any, report: Any) -> Review:
            looks.append(report.returns.tolist())
            return Review(state)

    reviews = BridgeReviews((Looking(),), learner_of(0, 0), np.zeros(0), Notes(), 2)
    for step, done in enumerate([(0, 1), (0, 1), (1, 0), (0, 1)]):
        reviews.watch(np.array([1.0, 10.0]), np.array(done, bool))
        reviews.review(learner_of(0, 0), step)
    assert looks == [[], [], [3, 10, 10], [20]], "the first environment's episode began first and ended third"


@pytest.mark.parametrize("verdict", ["mark", "keep", "renewed"])
def test_an_episode_begun_before_a_mark_counts_but_does_not_show_what_followed_it(verdict):
    looks = []

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Marking(Bridge):
        def review(self, state: Any, report: Any) -> Review:
            looks.append((report.returns.tolist(), report.whole.tolist()))
            return Review(state, renewed=True) if verdict == "renewed" else Review(state, verdict)

    reviews = BridgeReviews((Marking(),), learner_of(0, 0), np.zeros(0), Notes(), 2)
    reviews.watch(np.ones(2), np.array([False, True]))  # the second environment's next episode has not begun
    reviews.review(learner_of(1, 0), 1)
    reviews.watch(np.full(2, 4.0), np.array([True, True]))
    reviews.watch(np.full(2, 7.0), np.array([True, False]))
    reviews.review(learner_of(1, 0), 3)
    assert looks == [([], []), ([5, 1, 4, 7], [False, False, True, True])]


def test_the_pace_is_the_product_of_the_bridges():
    slow, slower = Scripted(verdicts=("go on",), factor=0.5), Scripted(verdicts=("go on",), factor=0.1)
    _, _, reviews = reviewed(slow, slower, times=2)
    assert reviews.pace == pytest.approx(0.05**2)


def test_what_is_kept_has_buffers_of_its_own():
    """The next dispatch takes over the buffers of the learner it is given."""
    given, back, reviews = reviewed(Scripted(verdicts=("mark", "keep")), times=2)
    kept = [leaf.unsafe_buffer_pointer() for tree in (reviews.good, reviews.marked) for leaf in jax.tree.leaves(tree)]
    live = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((given[-1], back[-1]))}
    assert not live & set(kept)


def settings(**changes: Any) -> OnlineSettings:
    values: dict[str, Any] = {
        "env_id": AIM,
        "steps": 600,
        "warmup_steps": 0,
        "random_warmup": False,
        "updates_per_step": 1.0,
        "environments": 1,
        "eval_every": 100,
        "eval_episodes": 20,
        "seed": 0,
    }
    return OnlineSettings(**(values | changes))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ruinous(TD3):
    """Learns to do −1 whatever it sees."""

    def actor_loss(self, actor: Any, nets: Any, batch: Any, key: Any) -> Any:
        loss = ((actor.mode(batch.observation) + 1) ** 2).mean(-1)
        return loss, {}


def good(algorithm: TD3) -> Learner:
    """A learner whose policy is right: half the state."""
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), ONE), Normaliser.identity(1))
    actor, adam = learner.nets.actor, optax.adam(1e-2)
    states = jnp.array([[-1.0], [1.0]])

    def step(carry: Any, _: None) -> Any:
        actor, state = carry
        move, state = adam.update(jax.grad(lambda a: ((a.mode(states) - states / 2) ** 2).mean())(actor), state)
        return (optax.apply_updates(actor, move), state), None

    (actor, _), _ = jax.lax.scan(step, (actor, adam.init(actor)), None, length=500)
    nets = learner.nets.replace(actor=actor, target_actor=jax.tree.map(jnp.copy, actor))
    return replace(learner, nets=nets)


def fine_tuned(*bridges: Bridge) -> Notes:
    algorithm, notes = Ruinous(hidden_sizes=(16,), batch_size=16, actor_learning_rate=3e-3), Notes()
    learner = good(algorithm)
    learner = replace(learner, bridges=tuple(bridge.state(learner.nets.actor) for bridge in bridges))  # type: ignore[attr-defined]
    train_online(algorithm, bridges, OnlineOnly(), learner, Replay.create(None, 600, ONE), notes, settings())
    return notes


def test_the_guard_saves_a_policy_that_is_made_to_collapse():
    plain, guarded = fine_tuned(), fine_tuned(Guard(pull=10.0))
    assert plain.evaluated[0].mean() > 0.99
    assert plain.evaluated[600].mean() < 0.2
    assert plain.events == []
    alarms = [message for _, message in guarded.events]
    assert 1 <= len(alarms) <= 10
    assert all(message.startswith("guard: alarm") for message in alarms)
    assert guarded.evaluated[600].mean() > 0.8


def test_promotion_goes_on_showing_a_policy_that_the_learner_ruins():
    algorithm, notes, bridge = (
        Ruinous(hidden_sizes=(16,), batch_size=16, actor_learning_rate=3e-3),
        Notes(),
        Promotion(),
    )
    learner = good(algorithm)
    learner = replace(learner, bridges=(bridge.state(acting_nets(learner.nets)),))
    train_online(algorithm, (bridge,), OnlineOnly(), learner, Replay.create(None, 600, ONE), notes, settings())
    assert min(returns.mean() for returns in notes.evaluated.values()) > 0.99
    lived = [values["training_return"] for _, values in notes.measured if "training_return" in values]
    assert min(lived) < 0.2, "the learner itself did fall"


def test_an_on_policy_learner_that_is_slowed_down_makes_fewer_passes_but_one_at_least(monkeypatch):
    epochs = []

    def note(learner: Any, *given: Any, **options: Any) -> Any:
        epochs.append(options["epochs"])
        return learner, {}

    monkeypatch.setattr(on_policy, "learn", note)
    algorithm = PPO(hidden_sizes=(4,), batch_size=8, rollout_steps=8, epochs=6, value_fit_epochs=0)
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), ONE), Normaliser.identity(1))
    slow = Scripted(verdicts=("go on",), factor=0.5)
    learner = replace(learner, bridges=(jnp.asarray(0),))
    train_on_policy(algorithm, (slow,), learner, Notes(), settings(env_id=CLOCK, steps=40, eval_every=40))
    assert epochs == [6, 3, 2, 1, 1]


@pytest.mark.parametrize(
    ("loop", "eval_every", "lost_at", "expected"),
    [
        # The clock's episodes last three and four steps in turn. One of four steps began at step 59.
        pytest.param(
            "online", 20, 60, (100, [3, 4] * 5), id="at an evaluation", marks=pytest.mark.slow
        ),
        # Found at step 100; an episode of three steps began at step 98.
        pytest.param("online", 100, 50, (150, [4, 3] * 7), id="at an update"),
        pytest.param("on-policy", 20, 60, (80, [3, 4, 3, 4, 3]), id="on-policy"),
    ],
)
def test_what_was_earned_before_a_divergence_does_not_count_for_or_against_the_learner_gone_back_to(
    monkeypatch, loop, eval_every, lost_at, expected
):
    """Wherever the divergence is found: the next review sees only episodes that began after it."""
    reviews: list[tuple[int, list[float]]] = []
    fetch = recovery.fetch

    class Noted(Bridge):
        def review(self, state: Any, report: Any) -> Review:
            reviews.append((report.step, report.returns.tolist()))
            return Review(state)

    def fetched(phase: str, step: int, metrics: Any) -> Any:
        if step == lost_at:
            raise Diverged("critic_loss is nan. Try something")
        return fetch(phase, step, metrics)

    monkeypatch.setattr("segue.training.recovery.fetch", fetched)
    settings = OnlineSettings(
        env_id=CLOCK,
        steps=2 * eval_every if eval_every > 50 else 100,
        warmup_steps=0,
        random_warmup=False,
        updates_per_step=1.0,
        environments=1,
        eval_every=eval_every,
        eval_episodes=1,
        seed=0,
    )
    small_nets: dict[str, Any] = {"hidden_sizes": (8,), "batch_size": 8}
    algorithm = PPO(**small_nets, rollout_steps=20, epochs=1) if loop == "on-policy" else TD3(**small_nets)
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), ONE), Normaliser.identity(1))
    learner, notes = replace(learner, bridges=((),)), Notes()
    if isinstance(algorithm, PPO):
        train_on_policy(algorithm, (Noted(),), learner, notes, settings)
    else:
        train_online(algorithm, (Noted(),), OnlineOnly(), learner, Replay.create(None, 200, ONE), notes, settings)
    assert [message for _, message in notes.events if "went back" in message]
    assert next(review for review in reviews if review[0] > lost_at) == expected
    recorded = [step for step, values in notes.measured if "training_return" in values]
    assert lost_at in recorded or lost_at + 50 in recorded, "what was earned is recorded all the same"
