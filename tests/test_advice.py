"""The advice for a dataset follows from the dataset."""

from __future__ import annotations

import dataclasses
import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest

import segue
from segue.advice import advise, best_episodes, diversity
from segue.cli.main import main
from segue.cli.recipe_flags import recipe_from_flags
from segue.data import load
from segue.presets import best_share
from segue.recipe import Recipe


def made(actions: np.ndarray, observations: np.ndarray, **columns: np.ndarray):
    ends = np.zeros(len(actions), bool)
    ends[49::50] = True
    arrays = {"observations": observations, "actions": actions, "rewards": observations[:, 0].copy(), "timeouts": ends}
    return load({**arrays, "terminals": np.zeros(len(actions), bool), **columns})


def test_actions_that_follow_from_the_state_are_narrow_and_random_ones_wide():
    source = np.random.default_rng(0)
    observations = source.uniform(-1, 1, (4000, 2)).astype(np.float32)
    decided = np.tanh(observations[:, :1])
    drawn = source.uniform(-1, 1, (4000, 1)).astype(np.float32)
    assert diversity(made(decided, observations)) < 0.1
    assert diversity(made(drawn, observations)) > 0.9


def test_what_is_too_little_to_compare_is_not_compared():
    observations = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    assert diversity(made(np.tanh(observations[:, :1]), observations)) is None


def test_episodes_that_visit_different_states_are_not_compared():
    source = np.random.default_rng(0)
    observations = source.normal(size=(1500, 2)).astype(np.float32) + 100 * (np.arange(1500) // 50)[:, None]
    assert diversity(made(source.uniform(-1, 1, (1500, 1)), observations)) is None


def test_the_best_episodes_are_those_that_auto_clones():
    dataset = load("segue:hopper-mixed")
    (promotion,) = segue.preset("auto", dataset="segue:hopper-mixed", held_out=0.0).bridges
    cloned = dataset.best_episodes(promotion.clone_share)
    assert sorted(cloned.episode_returns.tolist(), reverse=True) == pytest.approx(
        sorted(best_episodes(dataset).episode_returns.tolist(), reverse=True)
    )


@pytest.mark.parametrize("alive", [False, True])
def test_where_the_best_episodes_begin_at_the_goal_or_are_no_better_all_are_cloned(alive):
    """One episode in ten begins at the goal and stays, others get there for their last steps; or all earn the same."""
    observations = np.random.default_rng(0).uniform(-1, 1, (5000, 2)).astype(np.float32)
    step, episode = np.arange(5000) % 50, np.arange(5000) // 50
    rewards = np.ones(5000) if alive else ((episode % 10 == 0) | (step > 40)).astype(float)
    dataset = made(np.tanh(observations[:, :1]), observations, rewards=rewards)
    assert best_share(dataset, len(dataset.episode_starts)) == 1.0
    told = any("begin with the highest reward" in finding.text for finding in advise(dataset, trial=False).outlook)
    assert told == (not alive)


def test_all_that_earn_most_are_cloned():
    observations = np.random.default_rng(0).uniform(-1, 1, (5000, 2)).astype(np.float32)
    step, episode = np.arange(5000) % 50, np.arange(5000) // 50
    dataset = made(np.tanh(observations[:, :1]), observations, rewards=((episode % 4 > 0) & (step == 48)).astype(float))
    assert best_share(dataset, len(dataset.episode_starts)) == 0.75


def test_where_rewards_are_sparse_the_outlook_is_that_of_values_and_not_of_a_clone():
    observations = np.random.default_rng(0).uniform(-1, 1, (5000, 2)).astype(np.float32)
    step, episode = np.arange(5000) % 50, np.arange(5000) // 50
    rewards = ((episode % 10 == 0) & (step > 20)).astype(float)
    dataset = made(np.tanh(observations[:, :1]), observations, rewards=rewards)
    advice = advise(dataset, trial=False)
    texts = [finding.text for finding in advice.outlook]
    assert any("rewards are sparse" in text for text in texts)
    assert not any("cloning" in text for text in texts)
    assert advice.recipe.offline.name == "iql"
    noise = 2 * dataset.episode_returns.std(ddof=1) / np.sqrt(10)  # the best episodes all earn the same
    assert any("by the spread of all episodes" in f.text and f"±{noise:.3g}" in f.text for f in advice.findings)


def test_the_advice_for_a_dataset_with_an_environment_is_auto_and_says_what_it_rests_on():
    advice = advise("segue:hopper-mixed", trial=False)
    assert advice.recipe == segue.preset("auto", dataset="segue:hopper-mixed", seeds=3)
    assert advice.command == "segue run --dataset segue:hopper-mixed --seeds 3 --out runs/first"
    earned = best_episodes(load("segue:hopper-mixed")).episode_returns.mean()
    assert any(f"{earned:,.4g}" in finding.text for finding in advice.outlook)
    assert all(finding.basis.startswith(("this dataset", "docs/", "studies/")) for finding in advice.outlook)


def test_without_an_environment_it_says_that_the_recipe_ends_at_the_handover():
    advice = advise("segue:hopper-mixed", trial=False, env="none")
    assert advice.recipe.online is None
    assert any("there is no live environment" in finding.text for finding in advice.outlook)


def test_the_environment_of_another_task_is_refused(capsys):
    assert main(["advise", "segue:hopper-mixed", "--env", "Walker2d-v5", "--no-trial"]) == 2
    assert "Walker2d-v5" in capsys.readouterr().err


def test_what_is_wrong_with_a_dataset_stands_among_the_findings():
    observations = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    advice = advise(made(np.tanh(observations[:, :1]), observations), trial=False)
    assert any(finding.text.startswith("problem: a short dataset") for finding in advice.findings)


def test_episodes_that_outlast_the_live_time_limit_stand_among_the_findings_and_the_notes_of_a_run(tmp_path):
    dataset = in_the_env(np.linspace(0, 1, 2000), length=400)
    assert not any(
        "longer" in f.text for f in advise(dataset, False, env="Pendulum-v1", max_episode_steps=400).findings
    )
    long = in_the_env(np.linspace(0, 1, 60_000), length=400)
    cut = [finding.text for finding in advise(long, trial=False, env="Pendulum-v1").outlook]
    assert any("hands over about what they earn in 200 steps, " in text for text in cut)
    words = "problem: 5 episodes of 5 longer than the 200 steps after which the live environment ends one"
    assert any(finding.text.startswith(words) for finding in advise(dataset, trial=False, env="Pendulum-v1").findings)
    recipe = segue.Recipe(dataset=dataset, env="Pendulum-v1", offline=segue.BC(), offline_steps=1, eval_episodes=1)
    notes = []
    segue.run(recipe, tmp_path / "run", on_event=lambda job, event: notes.append(event.get("message", "")))
    assert any("5 episodes of 5 longer than the 200 steps" in note for note in notes)


def in_the_env(rewards: np.ndarray, length: int = 50):
    """Random steps of Pendulum's spaces."""
    source = np.random.default_rng(0)
    observations = source.uniform(-1, 1, (len(rewards), 3)).astype(np.float32)
    ends = np.arange(len(rewards)) % length == length - 1
    following = np.where(ends[:, None], observations + 1, np.roll(observations, -1, axis=0))
    columns = {"rewards": rewards, "next_observations": following, "action_low": [-2.0], "action_high": [2.0]}
    return made(source.uniform(-2, 2, (len(rewards), 1)), observations, timeouts=ends, **columns)


@pytest.mark.parametrize(
    ("rewards", "length", "words"),
    [
        (np.linspace(0, 1, 200), 1, "every episode has one step: the best of them were lucky"),
        (np.linspace(0, 1, 200), 200, "1 episode: the best of so few are hardly a choice"),
        (np.tile(np.repeat([0.0, 1.0], [480, 20]), 10), 50, "SAC goes on with IQL's critic and the dataset"),
        (np.linspace(0, 1, 5000), 50, "the clone stays deployed until live episodes show a better policy"),
    ],
    ids=["a bandit's", "one episode", "sparse", "dense"],
)
def test_the_outlook_is_that_of_the_dataset(rewards, length, words):
    advice = advise(in_the_env(rewards, length), trial=False, env="Pendulum-v1")
    assert [words in finding.text for finding in advice.outlook].count(True) == 1


def test_what_happens_to_a_plain_handover_depends_on_whether_anything_can_fall_over():
    dataset = in_the_env(np.linspace(0, 1, 60_000), 200)
    falls = dataclasses.replace(dataset, terminals=np.arange(60_000) % 200 == 199)

    def said(dataset, words, **task):
        return any(words in f.text for f in advise(dataset, trial=False, env="Pendulum-v1", **task).outlook)

    if_not, much = "if nothing can fall over, as in HalfCheetah", "likely to lose much of the return at first"
    assert said(dataset, if_not)
    assert said(falls, much)
    assert said(dataset, much, online_steps=2_000), "what ended above another recipe says nothing of this one"


def test_of_a_few_demonstrations_it_says_that_a_clone_may_earn_less_and_what_comes_further():
    less, further = (
        "a clone of only 500 steps may earn far less than these do",
        "RLPD from scratch with the dataset may",
    )

    def said(words, rows, **task):
        demonstrations = in_the_env(np.linspace(0, 1, rows))
        return any(words in f.text for f in advise(demonstrations, trial=False, env="Pendulum-v1", **task).outlook)

    assert said(less, 5_000)
    assert said(further, 5_000)
    assert said(further, 750), "fifteen episodes"
    assert not said(further, 5_000, online_steps=1_000), "that was another recipe"


def test_what_else_is_said_of_the_task_is_in_the_recipe():
    advice = advise(load("segue:hopper-mixed"), trial=False, reference=(0.0, 100.0))
    assert advice.recipe.reference == (0.0, 100.0)


def test_the_live_steps_that_there_are_to_be_decide_between_recipes(capsys):
    assert main(["advise", "segue:hopper-mixed", "--no-trial", "--online-steps", "9000"]) == 0
    page = capsys.readouterr().out
    assert "bc for 10,000 updates, ppo for 9,000 live steps" in page
    assert "--online-steps 9000" in page
    nowhere = advise(load("segue:hopper-mixed"), trial=False, env="none", online_steps=9_000)
    assert nowhere.recipe.online is None
    assert "--online-steps" not in nowhere.command


def test_where_every_step_earns_the_same_the_longest_episodes_are_the_best():
    dataset = load("segue:cartpole-mixed")
    texts = [finding.text for finding in advise(dataset, trial=False).findings]
    assert any(f"returns: {dataset.episode_returns.mean():,.4g} on average" in text for text in texts)
    alike = in_the_env(np.ones(5000))
    texts = [finding.text for finding in advise(alike, trial=False, env="Pendulum-v1").findings]
    assert any("nothing can be said of how good it is" in text for text in texts)


def test_the_command_is_the_recipe_of_the_task_that_was_asked_about():
    task = {"env": "CartPole-v1", "env_kwargs": {"sutton_barto_reward": True}, "max_episode_steps": 90}
    advice = advise("segue:cartpole-mixed", trial=False, clip_actions=True, **task)
    given, flags = recipe_from_flags(shlex.split(advice.command)[2:], "run", "", [("out", str, "")])
    assert given == advice.recipe
    assert (given.max_episode_steps, flags.out) == (90, "runs/first")


def timed(monkeypatch, **phases):
    """A trial of so many seconds, those of compilation, evaluation and handover among them; returns what was run."""
    ran = []

    def run(recipe, folder, **_):
        ran.append(recipe)
        seed = {
            name: {phase: seconds[i] for phase, seconds in phases.items()}
            for i, name in enumerate(("wall_time_s", "compile_s", "evaluation_s", "handover_s"))
        }
        return SimpleNamespace(summary={"arms": {"only": {"seeds": {"0": seed}}}})

    monkeypatch.setattr("segue.runner.run", run)
    return ran


def test_the_page_says_what_a_seed_costs_by_a_short_trial_without_compiling_and_evaluating(monkeypatch, capsys):
    ran = timed(monkeypatch, offline=(21.0, 8.0, 1.0, 0.0), online=(69.192, None, 1.0, 60.0))
    assert main(["advise", "segue:cartpole-mixed"]) == 0
    page = capsys.readouterr().out
    words = " ".join(page.split())  # lines are broken at the width of the screen
    # 12 s for 400 of 50,000 updates and 8 s of compilation; 8.192 s for 1,024 of 49,000 live steps, after a minute.
    assert "each seed takes about 25 minutes on the dataset, about 8 minutes live, without evaluations" in words
    assert "discrete CQL that goes on as it is kept what it had" in words
    assert "  segue run --dataset segue:cartpole-mixed --seeds 3 --out runs/first\n" in page
    (recipe,) = ran
    assert (recipe.seeds, recipe.offline_steps, recipe.online_steps) == (1, 400, 1000 + 1024)
    assert recipe.held_out == 0


def test_without_an_environment_the_cost_is_that_of_the_dataset_alone(monkeypatch, capsys):
    timed(monkeypatch, offline=(4.0, 3.68, None, 0.0), online=(None, None, None, None))
    assert main(["advise", "segue:cartpole-mixed", "--env", "none"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "each seed takes about 44 seconds on the dataset, without evaluations" in words
    assert main(["advise", "segue:cartpole-mixed", "--env", "none", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cost"] == {"offline_minutes": pytest.approx(43.68 / 60), "online_minutes": 0}
    assert told["source"] == "segue:cartpole-mixed"
    assert any("there is no live environment" in finding["text"] for finding in told["outlook"])


@pytest.mark.slow
def test_a_trial_times_both_phases(capsys, monkeypatch):
    """Of a recipe with environment: one that ends at the handover has the offline half only."""
    monkeypatch.setattr("segue.advice.TRIAL_UPDATES", 40)
    monkeypatch.setattr("segue.advice.TRIAL_STEPS", 256)
    assert main(["advise", "segue:cartpole-mixed", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cost"]["offline_minutes"] > 0
    assert told["cost"]["online_minutes"] > 0
    assert Recipe.from_dict(told["recipe"]).offline.name == "discrete-cql"


def test_a_dataset_that_is_not_there_is_one_line(capsys):
    assert main(["advise", "no-such.npz"]) == 2
    assert "no-such.npz" in capsys.readouterr().err
