"""How well a learner fits held-out episodes: the measure, its noise, and which rows count."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

import segue
from helpers import random_learner
from segue.core import Normaliser
from segue.errors import RecipeError
from segue.evaluation.held_out import ROWS, HeldOut, judged_rows, negative_mean, rank_correlation
from toys import SMALL

EPISODE = np.repeat(np.arange(10), 4)


def log(lengths: list[int], ended: bool) -> segue.Dataset:
    """Noise, in episodes of these lengths that reach a terminal or are cut."""
    source, rows = np.random.default_rng(0), sum(lengths)
    last, observations = np.isin(np.arange(rows), np.cumsum(lengths) - 1), source.normal(size=(rows, 3))
    return segue.load(
        {
            "observations": observations,
            "next_observations": np.where(last[:, None], 0.5, np.roll(observations, -1, axis=0)),
            "actions": source.uniform(-1, 1, (rows, 2)),
            "rewards": source.normal(size=rows),
            "terminals": last & ended,
            "timeouts": last & (not ended),
            "action_low": -np.ones(2),
            "action_high": np.ones(2),
        }
    )


def test_agreement_is_spearmans_correlation_also_with_ties():
    source = np.random.default_rng(0)
    x, y = source.integers(5, size=40), source.normal(size=40)
    assert rank_correlation(x, y, EPISODE).value == pytest.approx(spearmanr(x, y).statistic)


def test_a_constant_critic_agrees_with_nothing():
    assert rank_correlation(np.ones(40), np.arange(40.0), EPISODE).value == 0


def test_agreement_does_not_depend_on_the_scale_of_q():
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    assert rank_correlation(np.exp(3 * x) - 100, y, EPISODE).value == rank_correlation(x, y, EPISODE).value


def test_noise_is_the_spread_over_other_held_out_episodes():
    """Rows of an episode share an offset, so forty rows tell less than forty episodes would."""
    source, values, errors = np.random.default_rng(0), [], []
    for _ in range(300):
        x = np.repeat(source.normal(size=10), 4)
        y = x + np.repeat(source.normal(size=10), 4) + 0.1 * source.normal(size=40)
        fit = rank_correlation(x, y, EPISODE)
        values.append(fit.value)
        errors.append((fit.parts**2).sum() ** 0.5)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.25)


def test_an_improvement_counts_if_it_exceeds_one_standard_error_of_the_difference():
    before = negative_mean(np.ones(10), np.arange(10))
    one = negative_mean(np.array([0.0] + 8 * [1.0] + [1.2]), np.arange(10))
    most = negative_mean(np.array(8 * [0.5] + 2 * [1.2]), np.arange(10))
    assert one.value > before.value
    assert not one.better_than(before), "nine of ten episodes say nothing of the kind"
    assert most.better_than(before)
    assert not before.better_than(before)


def test_rows_count_up_to_a_terminal_but_not_shortly_before_a_cut():
    algorithm = segue.TD3BC(**SMALL, discount=0.9)
    assert judged_rows(algorithm, log([20, 30], ended=True)).tolist() == list(range(50))
    # 0.9 ** 16 is below a fifth: the last fifteen rows of a cut episode do not count.
    assert judged_rows(algorithm, log([20, 30], ended=False)).tolist() == [*range(5), *range(20, 35)]
    assert len(judged_rows(segue.BC(**SMALL), log([20, 30], ended=False))) == 50, "a policy needs no returns"


def test_episodes_cut_before_their_returns_are_known_are_refused_with_the_reason():
    with pytest.raises(RecipeError, match=r"two held-out episodes .* of 2 nearly all are cut before rewards 30 steps"):
        judged_rows(segue.TD3BC(**SMALL), log([20, 30], ended=False))


def test_an_algorithm_that_selects_one_held_out_episode_is_refused():
    best = segue.BC(**SMALL, top_fraction=0.1)
    with pytest.raises(RecipeError, match="bc selects 1 of them"):
        judged_rows(best, best.select(log([20, 30], ended=True)))


def test_many_rows_are_thinned_evenly_and_keep_both_ends():
    rows = judged_rows(segue.TD3BC(**SMALL), log([6000, 3000, 1], ended=True))
    assert len(rows) == ROWS
    assert (rows[0], rows[-1]) == (0, 9000)


def test_a_critic_is_compared_with_returns_to_go_and_a_policy_by_its_loss():
    dataset, identity = log([20, 30], ended=True), Normaliser.identity(3)
    algorithm = segue.TD3BC(**SMALL, reward_scale=2.0)
    learner = random_learner(algorithm, kind="continuous")
    fit = HeldOut(algorithm, dataset, identity).fit(algorithm, learner.nets)
    q = np.asarray(learner.nets.critic(dataset.observations, dataset.actions)).min(0)
    assert fit.measure == "held_out_agreement"
    assert fit.value == pytest.approx(spearmanr(q, dataset.returns_to_go(0.99)).statistic)

    cloning = segue.BC(**SMALL)
    learner = random_learner(cloning, kind="continuous")
    fit = HeldOut(cloning, dataset, identity).fit(cloning, learner.nets)
    loss = (np.asarray(learner.nets.actor.mode(dataset.observations)) - dataset.actions) ** 2
    assert (fit.measure, fit.shown) == ("held_out_loss", pytest.approx(loss.mean(), rel=1e-5))
    assert fit.value == -fit.shown
