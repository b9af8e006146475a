"""`--preset auto`: what happens when a task is named and nothing says what to do with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue.cli.main import main
from segue.cli.recipe_flags import recipe_from_flags
from segue.data import npz
from segue.data.dataset import Columns
from segue.errors import DataError, RecipeError, SegueError
from toys import PENDULUM, pendulum_log


def flags(*arguments: str) -> segue.Recipe:
    return recipe_from_flags(arguments, "run", "")[0]


@pytest.mark.parametrize(
    ("arguments", "task"),
    [
        (("--dataset", "segue:hopper-mixed"), {"dataset": "segue:hopper-mixed"}),
        (("--dataset=segue:cartpole-mixed",), {"dataset": "segue:cartpole-mixed"}),
        (("--env", "Pendulum-v1"), {"env": "Pendulum-v1"}),
        (("--env", "CartPole-v1"), {"env": "CartPole-v1"}),
    ],
)
def test_the_command_line_and_python_agree(arguments: tuple[str, ...], task: dict[str, str]) -> None:
    recipe = segue.preset("auto", **task)
    assert flags(*arguments) == recipe
    assert flags(*arguments, "--preset", "auto") == recipe
    assert recipe.online is not None
    assert (recipe.offline is not None) == ("dataset" in task)


def test_actions_decide() -> None:
    for task, kind in ({"env": "Pendulum-v1"}, "continuous"), ({"dataset": "segue:cartpole-mixed"}, "discrete"):
        recipe = segue.preset("auto", **task)
        for algorithm in filter(None, (recipe.offline, recipe.online)):
            assert kind in algorithm.actions


def test_a_dataset_without_an_environment_ends_at_the_handover(tmp_path: Path) -> None:
    ends = np.arange(40) % 20 == 19
    zeros = np.zeros(40)
    columns = Columns(
        observations=np.zeros((40, 3)), actions=np.zeros((40, 1)), rewards=zeros, terminals=zeros, timeouts=ends
    )
    npz.write(tmp_path / "log.npz", columns)
    recipe = segue.preset("auto", dataset=f"npz:{tmp_path / 'log.npz'}")
    assert recipe.offline is not None
    assert recipe.online is None
    assert recipe.bridges == ()


def test_flags_go_before_it() -> None:
    recipe = flags("--dataset", "segue:cartpole-mixed", "--offline-steps", "70", "--replay", "appended")
    assert recipe.offline_steps == 70
    assert recipe.replay == segue.Appended()
    assert recipe.offline == segue.preset("auto", dataset="segue:cartpole-mixed").offline


def test_of_few_episodes_it_clones_at_least_ten() -> None:
    def shares(dataset: Any, env: str | None) -> tuple[float, float]:
        """Of the clone that is deployed beside a learner, and of the one that is all there is."""
        beside = segue.preset("auto", dataset=dataset, env=env).bridges[0]
        alone = segue.preset("auto", dataset=dataset, env="none").offline
        assert isinstance(beside, segue.Promotion)
        assert isinstance(alone, segue.BC)
        return beside.clone_share, alone.top_fraction

    assert shares("segue:hopper-mixed", None) == (0.1, 0.1)
    differ = {**logged(400, 20), "rewards": np.arange(400.0)}
    share, same = shares(differ, "Pendulum-v1")
    assert share == same
    assert round(share * 18) == 10  # 2 of the 20 are held out


def logged(rows: int, length: int, **observations: np.ndarray) -> dict[str, np.ndarray]:
    states = {"observations": np.zeros((rows, 3)), **observations}
    ends = np.arange(rows) % length == length - 1
    return {**states, "actions": np.zeros((rows, 1)), "rewards": np.zeros(rows), "terminals": ends}


def test_where_promotion_has_evidence_or_is_affordable_it_decides_and_elsewhere_ppo_climbs() -> None:
    def online(dataset: dict[str, np.ndarray], **limit: int) -> str:
        recipe = segue.preset("auto", dataset=dataset, env="Pendulum-v1", **limit)
        assert recipe.online is not None
        assert (recipe.online.name == "rlpd") == ("promotion" in [bridge.name for bridge in recipe.bridges])
        nowhere = segue.preset("auto", dataset=dataset).offline
        assert isinstance(nowhere, segue.BC), "what is handed over is the end there"
        return recipe.online.name

    assert online(logged(400, 20)) == "rlpd"
    assert online(logged(4000, 2000), max_episode_steps=2000) == "ppo"
    assert online(logged(40, 20, observations=np.zeros((40, 32, 32), np.uint8))) == "ppo"
    few = flags("--dataset", "segue:hopper-mixed", "--online-steps", "11000")
    assert few.online is not None
    assert few.online.name == "ppo", "an episode of the dataset has 79 steps, one of those that are cloned 376"
    assert few == segue.preset("auto", dataset="segue:hopper-mixed", online_steps=11_000)


@pytest.mark.parametrize(
    ("preset", "whole"), [("auto", 2_500), ("promoted", 2_500), ("bc-ppo", 1_000), ("wsrl", 5_000)]
)
@pytest.mark.parametrize("steps", [200, 1_000, 20_000, 50_000])
def test_the_warm_up_of_a_preset_is_at_most_a_fifth_of_the_live_steps(preset: str, whole: int, steps: int) -> None:
    short = segue.preset(preset, dataset="segue:hopper-mixed", online_steps=steps)
    if preset == "auto" and short.online is not None and short.online.on_policy:
        whole = 1_000  # `bc-ppo`: too few live episodes for `promoted`
    assert short.warmup_steps == min(whole, steps // 5)
    assert short == flags("--dataset", "segue:hopper-mixed", "--preset", preset, "--online-steps", str(steps))


def test_a_warm_up_that_is_given_is_kept_and_live_steps_that_are_no_number_are_refused_by_the_recipe() -> None:
    given = flags("--dataset", "segue:hopper-mixed", "--online-steps", "1000", "--warmup-steps", "700")
    assert given.warmup_steps == 700
    wrong: Any = "1000"
    with pytest.raises(segue.errors.RecipeError, match="online_steps"):
        segue.preset("promoted", dataset="segue:hopper-mixed", online_steps=wrong)


def test_live_episodes_are_counted_by_the_live_time_limit_where_that_is_shorter() -> None:
    def online(**limit: int) -> str:
        """Thirty episodes of 1,000 steps, or of 900, are more than 10,000 steps; of Pendulum's 200 they are fewer."""
        recipe = segue.preset("auto", dataset=logged(4000, 1000), env="Pendulum-v1", online_steps=10_000, **limit)
        assert recipe.online is not None
        return recipe.online.name

    assert online() == "rlpd"
    assert online(max_episode_steps=900) == "ppo"


def test_a_misspelt_flag_of_the_dataset_is_named_although_auto_cannot_read_it_without(tmp_path: Path) -> None:
    log = logged(100, 20) | {"actions": np.full((100, 1), 5.0)}
    np.savez(tmp_path / "log.npz", allow_pickle=False, **log)
    of = ("--dataset", f"npz:{tmp_path / 'log.npz'}", "--env", "Pendulum-v1")
    with pytest.raises(SegueError, match="unknown flag '--clip-action': did you mean --clip-actions"):
        flags(*of, "--clip-action", "--replay", "mixed", "--replay.ratio", "0.5")
    with pytest.raises(DataError, match="outside"):
        flags(*of)


@pytest.mark.parametrize(
    ("rewards", "values"),
    [
        (lambda step, episode: (episode % 5 == 0) & (step > 10), True),  # one episode in five gets there
        (lambda step, episode: (episode % 5 == 0) & (step > 10) | (step == 0) & (episode % 5 == 1), True),
        (lambda step, episode: (episode % 5 == 0) | (step > 17), False),  # one in five begins there: the best are lucky
        (lambda step, episode: (episode % 20 > 0) & (step == 19), False),  # 95 % succeed: demonstrations
        (lambda step, episode: step < 19, False),  # most rows have the higher one
        (lambda step, episode: (episode % 5 == 0) * step, False),  # says more than "there" or "not there"
        (lambda step, episode: step * 0.0, False),
    ],
)
def test_where_rewards_are_sparse_it_learns_values(
    rewards: Callable[[np.ndarray, np.ndarray], np.ndarray], values: bool
) -> None:
    step, episode = np.arange(2000) % 20, np.arange(2000) // 20
    dataset = {**logged(2000, 20), "rewards": rewards(step, episode).astype(float)}
    recipe = segue.preset("auto", dataset=dataset, env="Pendulum-v1")
    assert recipe.offline is not None
    assert recipe.online is not None
    assert (recipe.offline.name, recipe.online.name) == (("iql", "sac") if values else ("cql", "rlpd"))


def test_the_critics_of_the_pretraining_go_on_beside_the_clone_that_is_deployed(tmp_path: Path) -> None:
    log = segue.load(pendulum_log())
    log = dataclasses.replace(log, rewards=log.rewards + 100)  # more than any live episode earns
    recipe = segue.preset("promoted", dataset=log, env=PENDULUM)
    assert recipe.offline is not None
    assert recipe.online is not None
    small = {"hidden_sizes": (8, 8), "batch_size": 4}
    recipe = dataclasses.replace(
        recipe,
        offline=dataclasses.replace(recipe.offline, **small),
        online=dataclasses.replace(recipe.online, **small),
        bridges=(segue.Promotion(clone_steps=3),),
        offline_steps=8,
        online_steps=24,
        warmup_steps=4,
        eval_every=24,
        eval_episodes=1,
    )
    summary = segue.run(recipe, tmp_path / "run", workers=1, progress=False).summary
    told = "; ".join(summary["arms"]["run"]["handover"])
    assert "critic: carried over from cql" in told
    assert "promotion: a clone of the best 10% of the episodes" in told
    assert "what was handed over is the first candidate" in told
    assert "has no effect" not in told
    (seed,) = summary["arms"]["run"]["seeds"].values()
    assert seed["handover_s"]["online"] > 0
    weak = [event["message"] for event in seed["events"] if "the dataset's episodes" in event["message"]]
    assert [text[:45] for text in weak] == ["a clone of the dataset's best episodes earns "]
    assert weak[0].endswith("it stays deployed until another policy proves to be better")


def test_a_policy_that_is_worth_less_than_its_dataset_is_said_so(tmp_path: Path) -> None:
    log = segue.load(pendulum_log())
    log = dataclasses.replace(log, rewards=log.rewards + 100)
    small = {"hidden_sizes": (8, 8), "batch_size": 4}
    steps = {"offline_steps": 4, "online_steps": 24, "warmup_steps": 4, "eval_every": 24, "eval_episodes": 1}
    recipe = segue.Recipe(dataset=log, env=PENDULUM, offline=segue.TD3(**small), online=segue.TD3(**small), **steps)
    (seed,) = segue.run(recipe, tmp_path / "run", progress=False).summary["arms"]["run"]["seeds"].values()
    (weak,) = [event["message"] for event in seed["events"] if "the dataset's episodes" in event["message"]]
    assert weak.startswith("the policy handed over earns ")
    assert weak.endswith("a longer offline phase, or another offline algorithm, may hand over more")


@pytest.mark.parametrize(
    ("env", "actions"),
    [
        ("Pendulum-v1", np.zeros((40, 1))),
        pytest.param("CartPole-v1", np.arange(40) % 2, marks=pytest.mark.slow),
    ],
)
def test_without_rewards_all_is_cloned_and_ppo_learns_from_live_ones(
    env: str, actions: np.ndarray, tmp_path: Path
) -> None:
    states = np.random.default_rng(0).normal(size=(40, 3 if env == "Pendulum-v1" else 4))
    dataset = {"observations": states, "actions": actions, "terminals": np.arange(40) % 20 == 19}
    if env == "Pendulum-v1":
        dataset |= {"action_low": np.array([-2.0]), "action_high": np.array([2.0])}
    recipe = segue.preset("auto", dataset=dataset, env=env)
    assert isinstance(recipe.offline, segue.BC)
    assert recipe.offline.top_fraction == 1
    assert isinstance(recipe.online, segue.PPO)
    small = dataclasses.replace(recipe, offline_steps=2, online_steps=recipe.online.rollout_steps, eval_episodes=1)
    assert segue.run(small, tmp_path / "run", progress=False).status == "complete"
    assert segue.advise(dataset, trial=False, env=env).recipe.online == recipe.online


def test_a_named_part_means_that_the_user_knows_what_to_do() -> None:
    with pytest.raises(RecipeError, match="online_steps is 0"):
        flags("--dataset", "segue:hopper-mixed", "--online", "sac")


def test_nothing_at_all_is_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 2
    assert "nothing to do" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="give a dataset"):
        segue.preset("auto")


@pytest.mark.parametrize("flag", [["--reference", "10,300"], ["--reference=-20,300"]])
def test_reference_returns_are_two_numbers_with_a_comma(flag: list[str]) -> None:
    arguments = ["--env", "CartPole-v1", "--online", "dqn", "--online-steps", "2000", *flag]
    recipe, _ = recipe_from_flags(arguments, "segue run", "")
    assert recipe.reference == tuple(map(float, flag[-1].removeprefix("--reference=").split(",")))
