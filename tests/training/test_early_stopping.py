"""A phase of updates ends when the fit to held-out episodes no longer improves, and not before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers import clone, random_learner, transitions
from segue.algorithms import BC
from segue.core import Spaces
from segue.evaluation.held_out import AGREEMENT, LOSS, Fit
from segue.replay import Replay
from segue.training import offline
from segue.training.checkpointing import Position
from segue.training.early_stopping import EarlyStopping
from segue.training.offline import alone, train_offline
from segue.training.recorder import Silent
from toys import SMALL

ALGORITHM = BC(**SMALL)


class Losses:
    """Stands for held-out episodes on which these losses are measured, one after the other."""

    def __init__(self, *losses: float) -> None:
        self.losses = list(losses)

    def fit(self, algorithm: Any, nets: Any) -> Fit:
        loss = self.losses.pop(0)
        return Fit(LOSS, -loss, loss * np.array([0.1, -0.1]))


class Agreements:
    """The same for agreements: each has a standard error of 0.1, a difference of two has none."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def fit(self, algorithm: Any, nets: Any) -> Fit:
        value = self.values.pop(0)
        return Fit(AGREEMENT, value, np.array([0.05, -0.05]))


class Kept:
    """Keeps the last position that a phase saved."""

    replay_log = None
    position: Position | None = None

    def due(self) -> bool:
        return False

    def save(self, position: Position) -> None:
        self.position = position


class Told(Silent):
    def __init__(self) -> None:
        self.events: list[tuple[int, str]] = []
        self.measured: list[float] = []
        self.of: list[tuple[int, int]] = []

    def event(self, phase: str, step: int, message: str) -> None:
        self.events.append((step, message))

    def metrics(self, phase: str, step: int, values: dict[str, float]) -> None:
        self.measured += [values[LOSS]] if LOSS in values else []

    def progress(self, phase: str, step: int, total: int) -> None:
        self.of.append((step, total))


@pytest.fixture
def phase(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A phase of 100 updates, evaluated every ten, in which nothing is computed."""
    monkeypatch.setattr(offline, "train", lambda asked: (asked.learner, {}))
    replay = Replay.create(transitions(8), 0, Spaces(3, 2))

    def run(stopping: EarlyStopping, told: Told, **options: Any) -> Any:
        return alone(
            train_offline(
                ALGORITHM,
                clone(random_learner(ALGORITHM, kind="continuous")),
                replay,
                told,
                steps=100,
                seed=0,
                env_id=None,
                eval_every=10,
                eval_episodes=1,
                stopping=stopping,
                **options,
            )
        )

    return run


def test_a_phase_ends_after_so_many_evaluations_without_improvement_and_says_so(phase):
    told = Told()
    phase(EarlyStopping(Losses(5, 4, 3, 3.1, 2, 2.1, 2.05, 2.2), patience=3), told)
    assert told.measured == [5, 4, 3, 3.1, 2, 2.1, 2.05, 2.2]
    [(step, message)] = told.events
    assert step == 80
    assert message == (
        "pretraining ends here: held_out_loss was 2 at update 50, and 3 evaluations since did not improve it "
        "beyond noise"
    )
    assert told.of[-1] == (80, 80), "the bar is full"


def test_a_phase_that_goes_on_improving_makes_all_of_its_updates(phase):
    told = Told()
    phase(EarlyStopping(Losses(*range(10, 0, -1)), patience=1), told)
    assert len(told.measured) == 10
    assert told.events == [
        (
            100,
            "patience did not end pretraining: all 100 updates were made. held_out_loss is 1 at the end, and was best "
            "at update 100",
        )
    ]


def test_small_steps_count_once_they_add_up_to_more_than_the_noise(phase):
    """The standard error of a difference of d is here 0.2 d: every step counts; with equal losses none does."""
    told = Told()
    phase(EarlyStopping(Losses(1, 1, 1), patience=2), told)
    assert told.events[0][0] == 30


def test_it_remembers_across_a_save_what_it_had_seen():
    rule = EarlyStopping(Losses(3, 4, 4), patience=3)
    for step in (10, 20):
        rule.look(ALGORITHM, None, step)
    plain, arrays = rule.position()
    again = EarlyStopping(Losses(4, 4), 3, Position(20, {}, plain, arrays))
    again.look(ALGORITHM, None, 30)
    assert again.reason() is None
    again.look(ALGORITHM, None, 40)
    assert "was 3 at update 10, and 3 evaluations" in str(again.reason())


def test_evaluations_of_a_phase_that_became_longer_keep_the_new_interval(phase):
    """A state saved at update 45 of evaluations every five goes on with evaluations every ten."""
    told = Told()
    learner = random_learner(ALGORITHM, kind="continuous")
    plain = {"evaluated": 45, "recovery": {"good_at": 40, "first": "", "last": {}}}
    position = Position(45, {"learner": clone(learner), "recovery": clone(learner)}, plain, {})
    phase(EarlyStopping(Losses(*range(10, 0, -1)), patience=9), told, position=position)
    assert len(told.measured) == 6, "at 50, 60, … and 100"


def test_a_phase_goes_on_until_anything_is_learnt_and_counts_from_there(phase):
    """Agreements of −0.2, −0.5 and 0.05 are no better than none: they are neither the best nor waited for."""
    told = Told()
    phase(EarlyStopping(Agreements(-0.2, -0.5, 0.05, 0.05, 0.6, 0.5, -0.3, 0.9), patience=2), told)
    [(step, message)] = told.events
    assert step == 70
    assert "held_out_agreement was 0.6 at update 50, and 2 evaluations" in message


def test_a_phase_that_never_learns_anything_says_so_at_its_end(phase):
    told = Told()
    phase(EarlyStopping(Agreements(*[-0.1] * 10), patience=1), told)
    [(step, message)] = told.events
    assert step == 100
    assert message.endswith("held_out_agreement is -0.1 at the end, and was never above 0 beyond noise")


def test_a_phase_that_had_ended_makes_no_update_when_it_goes_on_with_a_larger_budget(phase, monkeypatch):
    kept, told = Kept(), Told()
    ended = phase(EarlyStopping(Losses(1, 1, 1), patience=2), Told(), checkpointer=kept)
    assert kept.position is not None
    assert kept.position.step == 30

    def train(asked: Any) -> Any:
        raise AssertionError("it makes an update")

    monkeypatch.setattr(offline, "train", train)
    rule = EarlyStopping(Losses(), 2, kept.position)
    assert phase(rule, told, position=kept.position) is ended
    assert told.events == [], "its reason stands in the records already"
