"""Which episodes judge a policy, the range that rewards allow, and how often noise looks like a better policy."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pytest
from mdps import MDP, random_policy, tabular
from scipy import special
from studies.verdict.noise import fitted, noise
from test_ope_bounds import EXACT
from test_ope_evaluate import ALWAYS_1, QUICK, shown, steps

import segue
from segue.data.dataset import Dataset
from segue.ope import FQE, DiscretePolicy, Propensities, betting, bootstrap, evaluate_offline, fit
from segue.ope.limits import Limits
from segue.ope.unseen import unseen

DATASETS = 100
#: Answers of "yes" that a rate of exactly 5 % exceeds in one of a thousand such counts.
ALLOWED = int(special.bdtrik(0.999, DATASETS, 0.05))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 100)
    monkeypatch.setattr(betting, "BISECTIONS", 25)


def learnt(kept: Dataset) -> Any:
    """A policy fitted to these episodes, which it remembers."""
    return fitted(kept, seen=np.sort(kept.episode_fingerprints()))


#: Actions change only how the noise is fitted.
both_kinds = pytest.mark.parametrize("discrete", [True, pytest.param(False, marks=pytest.mark.slow)])
KINDS: dict[str, dict[str, Any]] = {
    "one step, small": {"episodes": 100},
    "one step, large": {"episodes": 1500},
    "two steps, small": {"episodes": 60, "steps": 2},
    "two steps, large": {"episodes": 800, "steps": 2},
}


@pytest.mark.parametrize(
    ("kind", "discrete"),
    [
        pytest.param(kind, discrete, marks=() if kind == "two steps, small" and discrete else pytest.mark.slow)
        for kind in KINDS
        for discrete in (True, False)
    ],
)
def test_noise_is_called_better_in_at_most_a_twentieth_of_the_datasets(kind: str, discrete: bool) -> None:
    yes = dict.fromkeys(EXACT, 0)
    for seed in range(DATASETS):
        dataset = noise(seed, **KINDS[kind], discrete=discrete)
        kept, held = dataset.split(0.1, 0)
        assert held is not None
        result = evaluate_offline(learnt(kept), dataset, methods=EXACT, discount=1.0)
        assert (result.episodes, result.seen_episodes) == (len(held.episode_starts), len(kept.episode_starts))
        for method in EXACT:
            yes[method] += result[method].verdict.answer == "yes"
    assert max(yes.values()) <= ALLOWED


@both_kinds
def test_on_the_episodes_that_it_has_learnt_from_noise_looks_better_and_yes_is_refused(discrete: bool) -> None:
    believed = 0
    for seed in range(20):
        dataset = noise(seed, 1500, discrete=discrete)
        policy = learnt(dataset)
        result = evaluate_offline(policy, dataset, methods=["pdis"], discount=1.0)
        assert (result.episodes, result.seen_episodes) == (1500, 1500)
        assert result.verdict.answer == "not enough evidence"
        forgetful = dataclasses.replace(policy, seen=None)
        if evaluate_offline(forgetful, dataset, methods=["pdis"], discount=1.0).verdict.answer == "yes":
            believed += 1
            assert "points to better" in result.verdict.reason
            assert "the policy has learnt from all 1,500 episodes" in result.verdict.reason
    assert believed >= 5, "or nothing was refused"


@both_kinds
def test_a_better_policy_is_recognised_on_the_episodes_held_out(discrete: bool) -> None:
    yes = 0
    for seed in range(20):
        dataset = noise(seed, 3000, discrete=discrete, gain=0.6)
        kept, _ = dataset.split(0.1, 0)
        result = evaluate_offline(learnt(kept), dataset, methods=["pdis"], discount=1.0)
        yes += result.verdict.answer == "yes"
        if yes:
            assert "of 300 episodes that the policy has not learnt from" in result.verdict.reason
    assert yes >= 16


def test_with_estimated_propensities_nothing_is_decided() -> None:
    # Chances of actions that are estimated as half of what they are make every weight twice what it is.
    dataset = noise(0, 2000)
    halved = Propensities(np.full(2000, np.log(1 / 6)), estimated=True)
    for estimated, answer in ((True, "not enough evidence"), (False, "yes")):
        known = partial(dataclasses.replace, halved, estimated=estimated)
        policy = fitted(noise(1, 100), seen=numbers())
        result = evaluate_offline(policy, dataset, methods=["pdis"], discount=1.0, behaviour=known)
        assert result["pdis"].bounds.difference_lower > 0
        assert result.verdict.answer == answer
        assert ("a verdict needs the column behaviour_log_prob" in shown(result)) == estimated


def numbers(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


@pytest.mark.parametrize(
    ("dataset", "seen", "kept", "matched", "refused"),
    [
        (numbers(1, 2, 3), numbers(), [1, 1, 1], 0, None),
        (numbers(1, 2, 3), numbers(7, 8), [1, 1, 1], 0, None),
        # The dataset of the run itself, also where episodes repeat each other.
        (numbers(3, 1, 2, 4), numbers(1, 3), [0, 0, 1, 1], 2, None),
        (numbers(5, 5, 5, 6, 6), numbers(5, 5, 6), [0, 0, 1, 0, 1], 3, None),
        # Some of them beside new ones.
        (numbers(1, 2, 3, 4), numbers(1, 9), [0, 1, 1, 1], 1, None),
        # Nothing is left, or too little.
        (numbers(1, 2), numbers(1, 2), [1, 1], 2, "all 2 episodes"),
        (numbers(1, 2, 3), numbers(1, 2), [1, 1, 1], 2, "2 of the 3 episodes, and"),
        # New data of a discrete problem, or not: nobody knows.
        (numbers(1, 1, 2, 3), numbers(1, 8), [1, 1, 1, 1], 1, "1 of the 4 episodes equal ones"),
        (numbers(1, 2, 3), numbers(1, 1, 8), [1, 1, 1], 1, "recorded independently of training"),
    ],
)
def test_which_episodes_judge_a_policy(
    dataset: np.ndarray, seen: np.ndarray, kept: list[int], matched: int, refused: str | None
) -> None:
    found = unseen(dataset, seen)
    assert found.kept.tolist() == [bool(one) for one in kept]
    assert found.seen == matched
    assert (found.refusal is None) == (refused is None)
    assert refused is None or refused in str(found.refusal)
    fresh = unseen(dataset, seen, fresh=True)
    assert fresh.kept.all()
    assert fresh.refusal is None


def test_new_data_of_a_discrete_problem_needs_to_be_called_new() -> None:
    mdp = MDP.random(2, ending=1.0)
    behaviour = np.full((4, 3), 1 / 3)
    old, new = (mdp.log(behaviour, 1000, seed) for seed in (0, 1))
    policy = dataclasses.replace(tabular(np.eye(3)[mdp.reward.argmax(1)]), seen=np.sort(old.episode_fingerprints()))
    result = evaluate_offline(policy, new, methods=["is"], discount=1.0)
    assert (result.verdict.answer, result.episodes) == ("not enough evidence", 1000)
    assert "points to better" in result.verdict.reason
    assert "fresh=True, --fresh" in result.verdict.reason
    assert "of which equal ones that the policy has learnt from" in shown(result)
    assert evaluate_offline(policy, new, methods=["is"], discount=1.0, fresh=True).verdict.answer == "yes"
    worst = dataclasses.replace(policy, probabilities=tabular(np.eye(3)[mdp.reward.argmin(1)]).probabilities)
    assert evaluate_offline(worst, new, methods=["is"], discount=1.0).verdict.answer == "no"


def test_the_table_and_json_say_which_episodes_were_used() -> None:
    dataset = noise(0, 50)
    kept, _ = dataset.split(0.1, 0)
    result = evaluate_offline(learnt(kept), dataset, methods=["pdis"], discount=1.0)
    assert "judged on 5 of 50 episodes: those that the policy has not learnt from" in shown(result)
    plain = result.to_dict()
    assert (plain["episodes"], plain["dataset_episodes"], plain["seen_episodes"]) == (5, 50, 45)


@pytest.mark.parametrize(
    ("lengths", "rewards", "cut", "expected"),
    [
        # Of one length: exactly that many steps. Values of states have 1 to 2 of them.
        ((2, 2), (1.0, 3.0), False, [(1.5, 4.5), (1, 4.5), (1.5, 4.5)]),
        ((2, 2), (-3.0, -1.0), False, [(-4.5, -1.5), (-4.5, -1), (-4.5, -1.5)]),
        # Of different lengths: 1 to 3 steps, and another policy may live longer.
        ((1, 3), (1.0, 3.0), False, [(1, 5.25), (1, 6), (1, 6)]),
        # Cut: a critic goes on beyond that.
        ((2, 2), (-1.0, 3.0), True, [(-1.5, 4.5), (-2, 6), (-2, 6)]),
    ],
)
def test_the_range_that_rewards_allow(
    lengths: tuple[int, ...], rewards: tuple[float, float], cut: bool, expected: list[tuple[float, float]]
) -> None:
    rows, ends = sum(lengths), np.cumsum(lengths) - 1
    dataset = segue.load(
        {
            "observations": np.ones((rows, 1)),
            "actions": np.zeros(rows, int),
            "rewards": np.resize(rewards, rows),
            "next_observations": np.ones((rows, 1)),
            "terminals": np.isin(np.arange(rows), ends) & (not cut),
            "timeouts": np.isin(np.arange(rows), ends) & cut,
        }
    )
    found = [of(dataset, 0.5) for of in (Limits.of_episodes, Limits.of_states, Limits.of_starts)]
    assert [(one.low, one.high) for one in found] == [pytest.approx(pair) for pair in expected]
    if cut:
        assert Limits.of_states(dataset, 1.0) == Limits(-np.inf, np.inf)


def test_values_and_bounds_of_fqe_stay_in_the_range_and_a_note_says_what_was_cut() -> None:
    source = np.random.default_rng(0)
    observations, last = source.normal(size=(60, 1)), np.arange(60)[:, None] % 3 == 2
    dataset = segue.load(
        {
            "observations": observations,
            "actions": np.arange(60) % 2,
            "rewards": source.uniform(1, 2, 60),
            "next_observations": np.where(last, source.normal(size=(60, 1)), np.roll(observations, -1, 0)),
            "terminals": np.zeros(60),
            "timeouts": np.arange(60) % 3 == 2,
        }
    )
    wild = FQE(hidden_sizes=(), steps=6, learning_rate=30.0, polyak=1.0, members=3)
    low, high = float(dataset.rewards.min()), float(dataset.rewards.max()) / (1 - 0.9)
    found = fit(wild, ALWAYS_1, dataset, 0.9, 0)
    assert found.outside > 0.1
    for values in (found.values, found.q[found.q != 0], found.v[found.v != 0], found.behaviour_values):
        assert values.min() >= low
        assert values.max() <= high * (1 + 1e-12)
    result = evaluate_offline(ALWAYS_1, dataset, methods=["fqe"], discount=0.9, fqe=wild)
    assert low <= result["fqe"].bounds.value_lower <= result["fqe"].value <= high
    assert any("lay outside the range" in note and "its critic extrapolates" in note for note in result.notes)


@pytest.mark.parametrize("seed", range(5))
def test_no_estimate_and_no_bound_leaves_the_range_that_rewards_allow(seed: int) -> None:
    mdp = MDP.random(seed)
    dataset = mdp.log(random_policy(seed, mdp, floor=0.1), 30, seed)
    policy = tabular(random_policy(seed + 50, mdp, floor=0.0))
    result = evaluate_offline(policy, dataset, discount=0.9, fqe=QUICK)
    limits = Limits.of_states(dataset, 0.9)
    for estimate in result.estimates:
        assert limits.low <= estimate.value <= limits.high
        assert limits.low <= estimate.bounds.value_lower <= limits.high
        assert abs(estimate.bounds.difference_lower) <= limits.high - limits.low
        assert abs(estimate.bounds.difference_upper) <= limits.high - limits.low


def test_a_policy_of_another_library_that_says_nothing_of_its_past_gets_a_note() -> None:
    dataset = steps([[1], [0]] * 10, [[1.0], [0.0]] * 10)
    note = "does not say which episodes it has learnt from"
    for policy, noted in ((ALWAYS_1, True), (DiscretePolicy(ALWAYS_1.probabilities, seen=numbers()), False)):
        result = evaluate_offline(policy, dataset, methods=["is"], discount=1.0)
        assert any(note in one for one in result.notes) == noted


def test_what_the_seen_episodes_earned_bounds_the_rewards_too() -> None:
    """A rare disaster that only the seen episodes show keeps the answer from being yes."""
    answers = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = 2000
        action = rng.integers(0, 2, rows)
        disaster = (action == 1) & (rng.random(rows) < 1 / 400)
        dataset = segue.load(
            {
                "observations": rng.normal(size=(rows, 2)),
                "actions": action,
                "rewards": action - 2000.0 * disaster,
                "terminals": np.ones(rows),
                "behaviour_log_prob": np.full(rows, np.log(0.5)),
                "discrete_actions": 2,
            }
        )
        kept, _ = dataset.split(0.1, 0)
        if not (kept.rewards < -1).any():
            continue
        policy = DiscretePolicy(lambda s: np.eye(2)[np.ones(len(s), int)], seen=np.sort(kept.episode_fingerprints()))
        judged = evaluate_offline(policy, dataset, methods=["pdis", "is"], discount=1.0)
        answers += [estimate.verdict.answer for estimate in judged.estimates]
    assert len(answers) >= 20
    assert "yes" not in answers
