"""Three sentences first: what was best and by how much, whether it fell, how sure that is; never surer than it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from reading import merged, page, read

from segue.report import markdown_report
from segue.report.aggregate import aggregate
from segue.report.conclusion import conclusion
from segue.report.statistics import difference


def said(plain: dict[str, Any]) -> tuple[str, ...]:
    summary = read(plain)
    return conclusion(summary, aggregate(summary))


@pytest.fixture
def clear(arm: Any, seed: Any) -> dict[str, Any]:
    """Five seeds of two arms, each evaluated over three episodes; `steep` falls from 1,000 to 400 and ends at 2,000."""

    def made(*online: dict[int, float]) -> Any:
        records = [seed(of, of[0], {500: of[0]}) for of in online]
        for record in records:
            for e in (*record["online_evaluations"], *record["offline_evaluations"]):
                e["returns"] = [e["mean_return"] + noise for noise in (-10.0, 0.0, 10.0)]
        return arm(records, eval_episodes=3)

    return {
        "arms": {
            "flat": made(*({0: 1000.0, 1000: 1000.0, 2000: 1200.0 + 10 * i} for i in range(5))),
            "steep": made(*({0: 1000.0, 1000: 400.0, 2000: 2000.0 + 10 * i} for i in range(5))),
        }
    }


def test_the_best_arm_is_named_with_its_lead_and_the_interval_of_it(clear: dict[str, Any]) -> None:
    best, _, _ = said(clear)
    # Both have s² = 250 over five seeds: 800 ± t₀.₉₇₅(8) · √(2 · 250 / 5) = 2.306 · 10.
    assert best == "“steep” ended highest, with a mean return of 2,020: 800 above “flat” (95 % interval 777–823)."


def test_a_lead_that_may_be_chance_is_said_to_be(clear: dict[str, Any]) -> None:
    for i, record in enumerate(clear["arms"]["steep"]["seeds"].values()):
        record["online_evaluations"][-1]["mean_return"] = 1000.0 + 200 * i
    assert "which contains 0: it may be chance" in said(clear)[0]


def test_the_fall_is_named_with_its_depth_and_the_arm_that_held(clear: dict[str, Any]) -> None:
    _, fell, _ = said(clear)
    assert (
        fell
        == "After the handover the return fell in “steep” by 601 from 1,000. “flat” stayed within evaluation noise."
    )
    del clear["arms"]["steep"]
    assert said(clear)[1] == "“flat” showed no fall beyond evaluation noise in the first 2,000 online steps."


def test_a_drop_within_the_noise_of_few_episodes_is_not_passed_over(clear: dict[str, Any]) -> None:
    for arm in clear["arms"].values():
        for record in arm["seeds"].values():
            for e in (*record["online_evaluations"], *record["offline_evaluations"]):
                e["returns"] = [e["mean_return"] + noise for noise in (-9000.0, 0.0, 9000.0)]
    fell = said(clear)[1]
    assert fell.startswith(
        "No arm showed a fall beyond evaluation noise in the first 2,000 online steps, but in 1 of them"
    )
    assert fell.endswith("more than a tenth lower: more episodes per evaluation would tell.")
    del clear["arms"]["flat"]
    assert "its lowest mean return was 400 against 1,000" in said(clear)[1]


def test_one_episode_per_evaluation_leaves_the_fall_unknown(summary: dict[str, Any]) -> None:
    assert "unknown" in said(summary)[1]


def test_it_is_as_sure_as_there_are_seeds(clear: dict[str, Any]) -> None:
    assert said(clear)[2].startswith("This rests on 5 seeds per arm and 3 episodes per evaluation: the intervals")
    few = copy.deepcopy(clear)
    for arm in few["arms"].values():
        arm["seeds"] = {key: arm["seeds"][key] for key in ("0", "1")}
    assert "2 seeds per arm and 3 episodes per evaluation: too few seeds to be sure of an order" in said(few)[2]
    for arm in few["arms"].values():
        del arm["seeds"]["1"]
    assert "one seed, so no interval" in said(few)[0]
    assert "nothing is known of how other seeds would do" in said(few)[2]


def test_seeds_that_are_not_finished_are_counted(clear: dict[str, Any]) -> None:
    clear["arms"]["flat"]["seeds"]["0"]["status"] = "interrupted"
    assert said(clear)[2].endswith("1 seed is not finished.")


def test_one_arm_is_compared_with_its_own_start(clear: dict[str, Any]) -> None:
    del clear["arms"]["flat"]
    assert said(clear)[0].startswith("“steep” ended with a mean return of 2,020: 1,020 above its offline score (95 %")
    worse = copy.deepcopy(clear)
    for record in worse["arms"]["steep"]["seeds"].values():
        record["online_evaluations"][-1]["mean_return"] -= 1500
    assert "980" not in said(worse)[0]
    assert "480 below its offline score" in said(worse)[0]


def test_a_climb_that_was_lost_again_is_not_passed_over(clear: dict[str, Any]) -> None:
    del clear["arms"]["flat"]
    assert "best evaluation" not in said(clear)[0], "it ends at its best"
    for record in clear["arms"]["steep"]["seeds"].values():
        record["online_evaluations"][1] |= {"mean_return": 3000.0, "returns": [2990.0, 3000.0, 3010.0]}
    assert said(clear)[0].endswith("); its best evaluation was 3,000, at step 1,000.")
    for record in clear["arms"]["steep"]["seeds"].values():
        record["online_evaluations"][1]["returns"] = [-9000.0, 3000.0, 15_000.0]
    assert "best evaluation" not in said(clear)[0], "three episodes so far apart do not show it"


def test_several_tasks_are_concluded_by_method(clear: dict[str, Any]) -> None:
    other = copy.deepcopy(clear)
    for arm in other["arms"].values():
        arm["recipe"]["env"] = "Ant-v5"
    both = merged(clear, other)
    best = conclusion(both, aggregate(both))[0]
    assert best.startswith("steep ended highest over 2 tasks with an interquartile mean score of ")
    assert "a run of it beats one of flat in 100 % of pairs" in best
    assert conclusion(both, None)[0].startswith("No method is compared over the 2 tasks")


def test_an_offline_phase_alone_is_compared_with_its_dataset(arm: Any, seed: Any) -> None:
    only = {**arm([seed({}, 70.0, {500: 70.0})], online=None, online_steps=0), "dataset": {"mean_return": 60.0}}
    best, fell, _ = said({"arms": {"run": only}})
    assert best == "The run ended its offline phase with a mean return of 70.0; the dataset's episodes earn 60.0."
    assert fell == "There was no handover: the run ends with its offline phase."


def test_without_an_evaluation_nothing_is_concluded() -> None:
    assert said({"arms": {"x": {"seeds": {"0": {}}}}}) == ()


def test_page_and_markdown_begin_with_it(clear: dict[str, Any]) -> None:
    best, *_ = said(clear)
    assert page(clear).index(best) < page(clear).index("<figure>")
    assert markdown_report(read(clear)).startswith(best)


def test_welchs_interval_is_that_of_the_textbook() -> None:
    # Means 3 and 1, variances 1 and 4 over 3 and 5 seeds: s² = 1/3 + 4/5, 5.98 degrees of freedom, t = 2.4485.
    found = difference([2.0, 3.0, 4.0], [-1.0, 0.0, 1.0, 1.0, 4.0])
    assert found.value == pytest.approx(2.0)
    variance = 1 / 3 + 3.5 / 5
    degrees = variance**2 / ((1 / 3) ** 2 / 2 + (3.5 / 5) ** 2 / 4)
    from scipy.stats import t

    assert found.high - 2.0 == pytest.approx(t.ppf(0.975, degrees) * variance**0.5)
    assert difference([1.0, 1.0], [0.0, 0.0]).low == 1.0


def test_a_run_that_was_stopped_has_not_ended(clear: dict[str, Any]) -> None:
    del clear["arms"]["flat"]
    seeds = clear["arms"]["steep"]["seeds"]
    for key in list(seeds)[1:]:
        seeds[key]["status"] = "interrupted"
    assert said(clear)[0].startswith("“steep” did not finish all seeds; the last evaluations have a mean return of 2,0")
    seeds["0"]["status"] = "interrupted"
    clear["arms"]["steep"]["recipe"]["eval_episodes"] = 1
    best, _, sure = said(clear)
    assert best.startswith("“steep” did not finish; the last evaluations have a mean return of 2,020: 1,020 above")
    assert "5 seeds per arm and 1 episode per evaluation" in sure


def test_an_arm_that_was_stopped_has_not_ended_highest(clear: dict[str, Any]) -> None:
    clear["arms"]["flat"]["seeds"]["0"]["status"] = "interrupted"
    assert said(clear)[0].startswith("“steep” has the highest last evaluations, with a mean return of 2,020: 800 above")
