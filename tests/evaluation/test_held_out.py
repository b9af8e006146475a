"""How well a learner fits held-out episodes: the measure, its noise, and which rows count."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

import segue
from helpers import random_learner
from segue.core import Normaliser
from segue.errors import RecipeError
from segue.evaluation import held_out
from segue.evaluation.held_out import ROWS, HeldOut, check_judges, judged_rows, negative_mean, rank_correlation
from toys import SMALL

EPISODE = np.repeat(np.arange(10), 4)


def log(lengths: list[int], ended: bool | list[bool], **columns: np.ndarray) -> segue.Dataset:
    """Noise, in episodes of these lengths that reach a terminal or are cut; `columns` replace some of it."""
    source, rows = np.random.default_rng(0), sum(lengths)
    last, observations = np.isin(np.arange(rows), np.cumsum(lengths) - 1), source.normal(size=(rows, 3))
    terminals = last & np.repeat(np.broadcast_to(ended, len(lengths)), lengths)
    return segue.load(
        {
            "observations": observations,
            "next_observations": np.where(last[:, None], 0.5, np.roll(observations, -1, axis=0)),
            "actions": source.uniform(-1, 1, (rows, 2)),
            "rewards": source.normal(size=rows),
            "terminals": terminals,
            "timeouts": last & ~terminals,
            "action_low": -np.ones(2),
            "action_high": np.ones(2),
        }
        | columns
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
    with pytest.raises(RecipeError) as refused:
        check_judges(segue.TD3BC(**SMALL), log(9 * [30] + 11 * [20], ended=9 * [True] + 11 * [False]))
    assert str(refused.value) == (
        "patience needs 10 held-out episodes that can judge td3-bc, and 9 of 20 can. The others end by time-out within "
        "20 steps, and a return counts only from 161 steps before a cut (discount 0.99). Give a lower discount, hold "
        "out more (--held-out), or leave patience out"
    )
    check_judges(segue.TD3BC(**SMALL), log(10 * [30] + 10 * [20], ended=10 * [True] + 10 * [False]))


def test_holding_out_more_is_no_advice_where_every_episode_is_cut_too_soon():
    with pytest.raises(RecipeError, match=r"and 0 of 20 can\. .* Give a lower discount, or leave patience out"):
        check_judges(segue.TD3BC(**SMALL), log(20 * [20], ended=False))
    with pytest.raises(RecipeError, match=r"a return counts only up to a terminal \(discount 1\)"):
        check_judges(segue.TD3BC(**SMALL, discount=1.0), log(20 * [20], ended=False))
    check_judges(segue.TD3BC(**SMALL, discount=0.9), log(20 * [20], ended=False))


def test_an_algorithm_that_selects_too_few_held_out_episodes_is_refused():
    best = segue.BC(**SMALL, top_fraction=0.1)
    with pytest.raises(RecipeError, match="can judge bc, which selects 9: hold out more"):
        check_judges(best, best.select(log(90 * [2], ended=True)))
    check_judges(best, best.select(log(100 * [2], ended=True)))


def test_returns_to_go_that_do_not_differ_are_refused_since_no_critic_can_agree_with_them():
    rewards = np.zeros(240)
    never = log(12 * [20], True, rewards=rewards)
    with pytest.raises(RecipeError) as refused:
        check_judges(segue.TD3BC(**SMALL), never)
    assert str(refused.value) == (
        "patience compares Q with returns-to-go, and in all 12 held-out episodes that judge td3-bc they are 0. It "
        "needs some that differ, such as those of a success: hold out more (--held-out), or leave patience out"
    )
    check_judges(segue.BC(**SMALL), never)
    once = log(12 * [20], True, rewards=np.where(np.arange(240) == 99, 1.0, rewards))
    check_judges(segue.TD3BC(**SMALL), once)


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


def test_rows_in_blocks_give_the_numbers_of_all_rows_at_once(monkeypatch):
    dataset, algorithm = log([201, 330], ended=True), segue.TD3BC(**SMALL)
    learner, sizes, real = random_learner(algorithm, kind="continuous"), [], held_out._of_each_row

    def counted(algorithm, nets, block):
        sizes.append(len(block.reward))
        return real(algorithm, nets, block)

    monkeypatch.setattr(held_out, "_of_each_row", counted)
    fit = HeldOut(algorithm, dataset, Normaliser.identity(3)).fit(algorithm, learner.nets)
    assert sizes == [256, 256, 256]
    q = np.asarray(learner.nets.critic(dataset.observations, dataset.actions)).min(0)
    whole = rank_correlation(q, dataset.returns_to_go(0.99), np.repeat([0, 1], [201, 330]))
    assert fit.value == pytest.approx(whole.value)
    np.testing.assert_allclose(fit.parts, whole.parts, atol=1e-6)


def test_an_agreement_tells_nothing_until_it_is_above_0_by_its_standard_error():
    """With forty episodes of one row, that error is about 0.16 where nothing is learnt."""
    source = np.random.default_rng(0)
    y = source.normal(size=40)
    for x, tells in [(-y, False), (source.permutation(y), False), (y + source.normal(size=40), True)]:
        assert rank_correlation(x, y, np.arange(40)).tells == tells
    assert negative_mean(np.ones(10), np.arange(10)).tells, "a loss is below 0 for ever, and tells all the same"
