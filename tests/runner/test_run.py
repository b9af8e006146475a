"""A run on disk: what it writes, what it repeats, what it refuses."""

from __future__ import annotations

import dataclasses
import functools
import gc
import itertools
import json
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv

import segue
from segue.data.dataset import Dataset
from segue.data.problems import problems
from segue.errors import RecipeError, SegueError
from segue.ope import FQE
from segue.recipe import Recipe, read_recipes
from segue.runner import compare, load_checkpoint
from segue.runner import run as run_recipe
from segue.runner.directory import RunDirectory, read_lines
from segue.runner.job import Inputs
from toys import PENDULUM, SMALL, pendulum, pendulum_log

SCRATCH = {"dataset": None, "offline": None, "offline_steps": 0, "online": segue.TD3(**SMALL)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> segue.runner.Result:  # type: ignore[name-defined]
    return run_recipe(pendulum(bridges=(segue.QFilter(),)), tmp_path_factory.mktemp("run") / "a", workers=1)


@pytest.mark.pictures
def test_a_run_leaves_everything_it_promises(finished: object) -> None:
    directory = finished.directory
    for name in ("recipe.json", "metrics.csv", "summary.json", "learning_curves.png", "report.html", "report.md"):
        assert (directory / name).stat().st_size > 0
    assert list(directory.glob("tensorboard/**/events*"))
    assert list(directory.glob("checkpoints/run/seed-0/final/arrays.safetensors"))


def test_the_summary_holds_every_evaluation_with_its_returns(finished: object) -> None:
    seed = finished.summary["arms"]["run"]["seeds"]["0"]
    assert [e["step"] for e in seed["online_evaluations"]] == [0, 20, 40]
    for evaluation in seed["online_evaluations"]:
        assert evaluation["mean_return"] == pytest.approx(np.mean(evaluation["returns"]))
        assert len(evaluation["returns"]) == 2
    assert seed["offline_score"] == seed["online_evaluations"][0]["mean_return"]
    assert seed["final_score"] == seed["online_evaluations"][-1]["mean_return"]


def test_the_summary_holds_what_the_dataset_earned(finished: object) -> None:
    of_run = finished.summary["arms"]["run"]
    data = segue.load(read_recipes(finished.directory)["run"].dataset)
    described = dict(of_run["dataset"])
    notes = described.pop("notes")
    assert any("were shifted within each episode" in note for note in notes)
    assert set(map(str, problems(data))) <= set(notes)
    assert described == {
        "steps": len(data),
        "episodes": 3,
        "held_out": 0,
        "mean_return": pytest.approx(data.episode_returns.mean()),
    }


def test_a_recipe_file_repeats_the_run_to_the_bit(finished: object, tmp_path: Path) -> None:
    again = compare(read_recipes(finished.directory / "recipe.json"), tmp_path / "b", workers=1)

    def essence(result: object) -> list[object]:
        seed = result.summary["arms"]["run"]["seeds"]["0"]
        return [seed["parameters_sha256"], seed["online_evaluations"], seed["offline_evaluations"]]

    assert essence(again) == essence(finished)


def test_a_run_that_was_complete_says_that_nothing_is_run_again(
    finished: object, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(read_recipes(finished.directory / "recipe.json"), finished.directory, workers=1, progress=True)
    assert "this recipe has run to its end before; nothing is run again" in capsys.readouterr().out
    with pytest.raises(SegueError, match=r"recipe.json is a file; choose another --out"):
        compare(read_recipes(finished.directory / "recipe.json"), finished.directory / "recipe.json")


def test_a_checkpoint_acts_like_the_policy_that_was_saved(finished: object) -> None:
    saved = load_checkpoint(finished.directory / "checkpoints/run/seed-0/final")
    action = saved.policy()(np.zeros((5, 3), np.float32))
    assert action.shape == (5, 1)
    assert np.abs(action).max() <= 1
    assert str(saved.environment) == PENDULUM


@pytest.mark.parametrize(("reward", "told"), [(0.0, True), (-1e5, False)])
def test_a_policy_that_is_worth_less_than_its_dataset_is_said_to_be(tmp_path: Path, reward: float, told: bool) -> None:
    columns = pendulum_log() | {"rewards": np.full(60, reward)}
    result = run_recipe(pendulum(dataset=columns, online_steps=12, eval_episodes=1), tmp_path / "x", workers=1)
    events = result.summary["arms"]["run"]["seeds"]["0"]["events"]
    assert [event["step"] for event in events if "the dataset's episodes 0" in event["message"]] == [0] * told
    assert told or not events


def test_a_checkpoint_knows_its_point_of_the_phase(tmp_path: Path) -> None:
    result = run_recipe(pendulum(keep_policies=True, eval_episodes=1), tmp_path / "a", workers=1)
    places = result.directory / "checkpoints"
    points = {place.name: load_checkpoint(place).progress for place in (places / "run/seed-0").iterdir()}
    assert points == {"step-0": 0.0, "step-20": 0.5, "step-40": 1.0, "final": 1.0}
    offline = load_checkpoint(places / "offline-td3-bc/seed-0/final")
    assert offline.progress == 0.0
    names = ["run/seed-0/step-0", "run/seed-0/step-20", "run/seed-0/final"]
    ranges = [offline.observed, *(load_checkpoint(places / name).observed for name in names)]
    assert ranges[0].plain() == ranges[1].plain()
    for range_, later in itertools.pairwise(ranges):
        assert (later.low <= range_.low).all()
        assert (later.high >= range_.high).all()
        assert later.episodes >= range_.episodes > 0
    assert ranges[1].plain() != ranges[-1].plain(), "the simulator shows what the dataset has not"


@pytest.mark.slow
def test_teaching_steps_that_have_no_effect_are_said(finished: object, tmp_path: Path) -> None:
    """TD3+BC's actor is carried over, so that none is taught."""
    recipe = pendulum(eval_episodes=1, offline_steps=1, online_steps=20, warmup_steps=10, distil_steps=7)
    lines = run_recipe(recipe, tmp_path / "a", workers=1).summary["arms"]["run"]["handover"]
    sentence = "policy: distil_steps {} has no effect: the actor is carried over"
    assert sentence.format(7) in lines
    assert sentence.format(Recipe.distil_steps) not in finished.summary["arms"]["run"]["handover"]


def test_recipes_on_disk_name_what_they_leave_to_the_algorithm(tmp_path: Path) -> None:
    """So that a report shows the updates per step of SAC and of RLPD as different."""
    ratios = {}
    for name, online in {"sac": segue.SAC(**SMALL), "rlpd": segue.RLPD(**SMALL)}.items():
        recipe = pendulum(online=online, online_steps=12, eval_episodes=1)
        run_recipe(recipe, tmp_path / name, workers=1)
        (written,) = read_recipes(tmp_path / name).values()
        ratios[name] = written.updates_per_step
        assert written.replay == recipe.effective_replay
    assert ratios == {"sac": 1, "rlpd": 20}


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])  # in the last array


@pytest.mark.parametrize("damaged", [flipped, lambda data: data[:-5], lambda data: b"", None])
def test_a_damaged_checkpoint_is_refused(finished: object, tmp_path: Path, damaged: Any) -> None:
    place = tmp_path / "copy"
    shutil.copytree(finished.directory / "checkpoints/run/seed-0/final", place)
    file = place / "arrays.safetensors"
    file.unlink() if damaged is None else file.write_bytes(damaged(file.read_bytes()))
    expected = "safetensors is missing" if damaged is None else "is damaged .arrays.safetensors is not what was written"
    with pytest.raises(SegueError, match=expected):
        load_checkpoint(place)


def test_what_is_held_out_is_seen_by_nothing_in_the_run_and_every_policy_remembers_the_rest(tmp_path: Path) -> None:
    notes: list[str] = []
    recipe = pendulum(dataset=pendulum_log(400), held_out=0.25, held_out_seed=3, eval_episodes=1)
    arms = {"plain": recipe, "other": dataclasses.replace(recipe, bridges=(segue.QFilter(),))}
    result = compare(
        arms, tmp_path / "x", workers=1, on_event=lambda job, event: notes.append(str(event.get("message")))
    )
    assert result.status == "complete"
    assert notes.count("5 of 20 episodes are held out to judge the policies") == 1
    assert {arm["dataset"]["held_out"] for arm in result.summary["arms"].values()} == {5}
    whole = segue.load(read_recipes(tmp_path / "x")["plain"].dataset)
    kept, held = whole.split(0.25, 3)
    assert held is not None
    finals = [load_checkpoint(place) for place in (tmp_path / "x/checkpoints").glob("*/seed-*/final")]
    assert len(finals) == 3, "of the offline phase and of both arms"
    for final in finals:
        assert final.seen.tolist() == np.sort(kept.episode_fingerprints()).tolist()
        np.testing.assert_array_equal(final.learner.normaliser.mean, kept.normaliser().mean)
    judged = segue.evaluate_offline(finals[0].policy(), whole, methods=["fqe"], fqe=FQE(steps=2))
    assert (judged.episodes, judged.dataset_episodes) == (5, 20)
    job = RunDirectory(tmp_path / "x", read_recipes(tmp_path / "x")).jobs()[0]
    assert Inputs(job).dataset.rewards.tolist() == kept.rewards.tolist()


def test_a_policy_from_scratch_has_seen_no_dataset(tmp_path: Path) -> None:
    scratch = pendulum(dataset=None, offline=None, offline_steps=0, eval_episodes=1)
    result = run_recipe(scratch, tmp_path / "x", workers=1)
    (final,) = result.directory.glob("checkpoints/run/seed-0/final")
    assert len(load_checkpoint(final).seen) == 0


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_held_out_that_makes_no_sense_is_refused(share: float) -> None:
    with pytest.raises(RecipeError, match=r"held_out is .*; expected at least 0 and below 1"):
        pendulum(held_out=share)


def test_another_recipe_in_the_same_directory_is_refused_and_nothing_changes(finished: object) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.directory.rglob("*")}
    with pytest.raises(SegueError, match="already holds a run of another recipe"):
        run_recipe(pendulum(online_steps=60), finished.directory, workers=1)
    assert {p: p.stat().st_mtime_ns for p in finished.directory.rglob("*")} == before


def test_a_comparison_may_be_given_more_arms_and_only_they_run(tmp_path: Path) -> None:
    plain = pendulum(eval_episodes=1)
    first = compare({"plain": plain}, tmp_path / "x", workers=1)
    one = first.summary["arms"]["plain"]["seeds"]["0"]
    arms = {
        "filtered": pendulum(eval_episodes=1, bridges=(segue.QFilter(),)),  # shares the offline phase
        "longer": pendulum(eval_episodes=1, offline_steps=6),
        "plain": plain,
        "scratch": pendulum(eval_episodes=1, dataset=None, offline=None, offline_steps=0),
    }
    with pytest.raises(SegueError, match=r"of its arms 'plain' is another; nothing was changed: give those"):
        compare({**arms, "plain": pendulum(online_steps=60)}, tmp_path / "x", workers=1)
    with pytest.raises(SegueError, match="holds a comparison, and of its arms 'plain' is not among these"):
        compare({"scratch": arms["scratch"]}, tmp_path / "x", workers=1)
    assert compare({"plain": plain}, tmp_path / "x", workers=1).summary == first.summary

    began = []
    grown = compare(arms, tmp_path / "x", workers=1, on_event=lambda job, event: began.append((job.label, event)))
    ran = [label for label, event in began if event["event"] == "start"]
    assert ran[0].startswith("offline td3-bc ")
    assert ran[1:] == ["filtered · seed 0", "longer · seed 0", "scratch · seed 0"]
    assert (grown.status, list(grown.summary["arms"])) == ("complete", ["plain", "filtered", "longer", "scratch"])
    assert grown.summary["arms"]["plain"]["seeds"]["0"] == one
    assert list(read_recipes(tmp_path / "x")) == list(grown.summary["arms"])
    again = compare(arms, tmp_path / "x", workers=1, on_event=lambda job, event: pytest.fail("nothing is left to do"))
    assert again.summary == grown.summary

    alone = compare({"longer": arms["longer"]}, tmp_path / "y", workers=1).summary["arms"]["longer"]["seeds"]["0"]
    kept = ("parameters_sha256", "online_evaluations", "offline_score")
    assert {k: alone[k] for k in kept} == {k: grown.summary["arms"]["longer"]["seeds"]["0"][k] for k in kept}


def test_a_finished_run_is_not_done_again(finished: object) -> None:
    events: list[object] = []
    recipes = read_recipes(finished.directory / "recipe.json")
    result = compare(recipes, finished.directory, workers=1, on_event=lambda job, event: events.append(event))
    assert events == []
    assert result.summary == finished.summary


def test_a_dataset_that_changed_since_is_noticed(tmp_path: Path) -> None:
    from segue.data import npz

    def write(seed: int) -> str:
        columns = pendulum_log() | {"rewards": np.random.default_rng(seed).normal(size=60)}
        npz.write(tmp_path / "log.npz", segue.load(columns).columns())
        return f"npz:{tmp_path / 'log.npz'}"

    only_offline = {"online": None, "online_steps": 0}
    first = run_recipe(pendulum(dataset=write(1), **only_offline), tmp_path / "x", workers=1)
    assert run_recipe(pendulum(dataset=write(1), **only_offline), tmp_path / "x", workers=1).summary == first.summary
    with pytest.raises(SegueError, match="the dataset has changed since"):
        run_recipe(pendulum(dataset=write(2), **only_offline), tmp_path / "x", workers=1)


def test_a_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    def again(job: object, event: dict) -> None:
        if event["event"] == "start":
            with pytest.raises(SegueError, match="in use by another process"):
                run_recipe(pendulum(), tmp_path / "x", workers=1)

    assert run_recipe(pendulum(), tmp_path / "x", workers=1, on_event=again).status == "complete"


def test_a_dataset_that_does_not_name_its_action_bounds_is_not_guessed_at(tmp_path: Path) -> None:
    unnamed = {name: column for name, column in pendulum_log().items() if not name.startswith("action_")}
    with pytest.raises(RecipeError, match=r"does not name its action bounds, and those of .*Pendulum-v. are not ±1"):
        run_recipe(pendulum(dataset=unnamed), tmp_path / "x")


def test_a_worker_that_fails_says_why_and_where_the_trace_is(tmp_path: Path) -> None:
    with pytest.raises(segue.RunFailed) as failed:
        run_recipe(pendulum(env="Pendulum-v1", seeds=2, eval_episodes=10**12, **SCRATCH), tmp_path / "x", workers=2)
    error = failed.value.result.summary["arms"]["run"]["seeds"]["0"]["error"]
    assert error in str(failed.value)
    assert "Error" in error
    assert (tmp_path / "x/records/run/seed-0/error.log").exists()
    assert "error.log" in error


@pytest.mark.slow
def test_what_a_failed_job_held_is_let_go_before_the_next_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, of_next = [], []
    load = Inputs.dataset.func

    def loaded(inputs: Inputs) -> object:
        of_next.extend(reference() for reference in held)
        dataset = load(inputs)
        held.append(weakref.ref(dataset))
        return dataset

    kept = functools.cached_property(loaded)
    kept.__set_name__(Inputs, "dataset")
    monkeypatch.setattr(Inputs, "dataset", kept)
    gc.disable()
    try:
        with pytest.raises(segue.RunFailed):
            run_recipe(pendulum(online=segue.SAC(**SMALL, critic_learning_rate=1e30), seeds=2), tmp_path, workers=1)
    finally:
        gc.enable()
    assert len(held) == 4
    assert set(of_next) == {None}


def test_arms_with_the_same_offline_phase_share_it(tmp_path: Path) -> None:
    arms = {
        "scratch": pendulum(offline=None, offline_steps=0, replay=segue.OnlineOnly()),
        "plain": pendulum(),
        "filtered": pendulum(bridges=(segue.QFilter(),)),
    }
    result = compare(arms, tmp_path / "x", workers=1)
    folders = {path.name for path in (tmp_path / "x/records").iterdir()}
    assert folders == {"scratch", "plain", "filtered", "offline-td3-bc"}
    seeds = {name: arm["seeds"]["0"] for name, arm in result.summary["arms"].items()}
    assert seeds["plain"]["offline_score"] == seeds["filtered"]["offline_score"]
    assert seeds["scratch"]["offline_score"] is None
    assert seeds["plain"]["parameters_sha256"] != seeds["filtered"]["parameters_sha256"]


def test_an_interrupted_run_is_readable_and_goes_on_where_jobs_are_missing(tmp_path: Path) -> None:
    def interrupt(job: object, event: dict) -> None:
        if event["event"] == "evaluation" and event["phase"] == "online" and event["step"] == 20:
            raise KeyboardInterrupt

    first = run_recipe(pendulum(), tmp_path / "x", workers=1, on_event=interrupt)
    assert first.status == "interrupted"
    seed = first.summary["arms"]["run"]["seeds"]["0"]
    assert [e["step"] for e in seed["online_evaluations"]] == [0, 20]
    assert seed["parameters_sha256"] is None
    assert "interrupted" in first.report.read_text()

    phases: set[str] = set()
    again = compare(
        read_recipes(tmp_path / "x/recipe.json"),
        tmp_path / "x",
        workers=1,
        on_event=lambda job, event: phases.add(job.phase),
    )
    assert again.status == "complete"
    assert phases == {"online"}
    whole = run_recipe(pendulum(), tmp_path / "whole", workers=1)
    hashes = [r.summary["arms"]["run"]["seeds"]["0"]["parameters_sha256"] for r in (again, whole)]
    assert hashes[0] == hashes[1]


def test_divergence_stops_the_job_with_phase_step_and_quantity_and_keeps_the_offline_checkpoint(tmp_path: Path) -> None:
    broken = segue.SAC(**SMALL, critic_learning_rate=1e30)
    with pytest.raises(segue.RunFailed) as failed:
        run_recipe(pendulum(online=broken), tmp_path / "x", workers=1)
    error = failed.value.result.summary["arms"]["run"]["seeds"]["0"]["error"]
    assert "online phase, step" in error
    assert "diverged" in error
    load_checkpoint(tmp_path / "x/checkpoints/offline-td3-bc/seed-0/final")


def test_a_dataset_that_does_not_fit_the_environment_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"3 observation dimensions.*CartPole-v1 has 4 observation"):
        run_recipe(pendulum(env="CartPole-v1"), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_recipe_survives_json() -> None:
    original = pendulum(dataset="npz:x.npz", bridges=(segue.QFilter(percentile=10),), replay=segue.Annealed(start=0.7))
    assert Recipe.from_dict(json.loads(json.dumps(original.to_dict()))) == original


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offline": None, "offline_steps": 0, "online": None, "online_steps": 0}, "nothing to do"),
        ({"online_steps": -1}, "online_steps is -1; expected at least 0"),
        ({"offline_steps": 0}, "offline_steps is 0"),
        ({"dataset": None}, "needs a dataset"),
        ({"online": segue.BC()}, "bc does not learn online; there is"),
        ({"warmup_steps": 40}, "nothing would be learnt"),
        ({"updates_per_step": 0}, "updates_per_step is 0.0; expected above 0"),
        ({"bridges": (segue.QFilter(), segue.QFilter())}, "named twice"),
        ({"eval_every": 7, "environments": 2}, "eval_every is 7; expected a multiple of the 2 environments"),
        ({"online": None, "online_steps": 0, "bridges": (segue.QFilter(),)}, "need an online phase"),
        ({"bridges": [segue.SAC()]}, r"expected a list or tuple, each Bridge"),
    ],
)
def test_a_recipe_whose_parts_do_not_fit_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        pendulum(**changes)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_recipe_that_an_editor_of_windows_saved_is_read(encoding: str, tmp_path: Path) -> None:
    recipe = pendulum(dataset="npz:log.npz")
    text = json.dumps(recipe.to_dict(), indent=1).replace("\n", "\r\n")
    (tmp_path / "recipe.json").write_bytes(text.encode(encoding))
    assert read_recipes(str(tmp_path)) == {"run": recipe}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("[]", "holds a list"),
        ('{"online": "sacc", "online_steps": 10}', "unknown algorithm 'sacc': did you mean 'sac'"),
        ('{"online": {"name": "sac", "discout": 1}, "online_steps": 10}', "did you mean 'discount'"),
        ('{"online": "sac", "online_steps": "ten"}', "recipe: online_steps is 'ten'; expected a whole number"),
        ('{"online": "sac", "online_steps": 9, "clip_actions": "no"}', "clip_actions is 'no'; expected true or false"),
        (
            '{"online": {"name": "sac", "activation": "foo"}, "online_steps": 9}',
            "sac: activation is 'foo'; expected relu",
        ),
        ('{"onlin": "sac"}', "did you mean 'online'"),
        ('{"arms": {"a": 3}}', "not a recipe"),
    ],
)
def test_a_bad_recipe_file_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_recipes(file)


@pytest.mark.slow
def test_a_fresh_critic_can_be_fitted_to_the_handed_over_policy_before_the_policy_moves(tmp_path: Path) -> None:
    refit = segue.CriticRefit(evaluate_steps=10, align_steps=5)
    plain = run_recipe(pendulum(offline=segue.BC(**SMALL)), tmp_path / "plain", workers=1)
    fitted = run_recipe(pendulum(offline=segue.BC(**SMALL), bridges=(refit,)), tmp_path / "fitted", workers=1)
    lines = [run.summary["arms"]["run"]["handover"] for run in (plain, fitted)]
    assert all("critic: fresh (bc has none)" in said for said in lines)
    assert [any("evaluated the policy on the dataset for 10 updates" in line for line in said) for said in lines] == [
        False,
        True,
    ]
    seeds = [run.summary["arms"]["run"]["seeds"]["0"] for run in (plain, fitted)]
    assert seeds[0]["offline_score"] == seeds[1]["offline_score"]
    assert seeds[0]["online_evaluations"][0] == seeds[1]["online_evaluations"][0]
    assert seeds[0]["parameters_sha256"] != seeds[1]["parameters_sha256"]


def test_what_is_no_recipe_is_named(tmp_path: Path) -> None:
    for given, words in (({"env": "X-v0"}, "the recipe is a dict"), (segue.Recipe, "the recipe is a class")):
        with pytest.raises(RecipeError, match=words):
            run_recipe(given, tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="the arms are a list; expected recipes by name"):
        compare([pendulum()], tmp_path / "x")  # type: ignore[arg-type]
    assert pendulum(bridges=["Q_filter"]).bridges[0].name == "q-filter"
    assert not (tmp_path / "x").exists()


def test_before_anything_trains_the_environment_is_made_and_a_dataset_in_memory_validated_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, validated, before = [], [], []
    make, read = gym.make, Dataset.from_columns
    monkeypatch.setattr(gym, "make", lambda *given, **named: made.append(given) or make(*given, **named))
    monkeypatch.setattr(Dataset, "from_columns", lambda *given: validated.append(given) or read(*given))

    def started(job: object, event: Any) -> None:
        if event["event"] == "start" and not before:
            before[:] = len(made), len(validated)

    log = pendulum_log()
    arms = {name: pendulum(dataset=log, eval_episodes=episodes) for name, episodes in (("a", 1), ("b", 2))}
    compare(arms, tmp_path / "x", workers=1, on_event=started)
    assert before == [1, 1]


def test_a_run_that_only_pretrains_counts_its_seed_as_complete(tmp_path: Path) -> None:
    said = str(run_recipe(pendulum(env="none", online=None, online_steps=0, warmup_steps=0), tmp_path / "x", workers=1))
    assert "Seeds 1." in said
    assert " of 1" not in said
    assert "Online steps" not in said


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "nothing to compare: no arm was given"),
        (["low rate", "low-rate"], "arm 'low rate' and another one would both be stored as 'low-rate'; rename one"),
        (["offline only"], "names starting with 'offline' are kept for offline phases; rename it"),
    ],
)
def test_names_that_arms_cannot_have_are_refused(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        compare(dict.fromkeys(names, pendulum()), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(SegueError, match=r"is not empty and holds no recipe\.json; choose another --out"):
        run_recipe(pendulum(), tmp_path)
    with pytest.raises(SegueError, match=r"thesis\.tex is a file; choose another --out"):
        run_recipe(pendulum(), tmp_path / "thesis.tex")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("thesis.tex", "mine")]


def test_a_run_that_finds_the_disk_full_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("segue.runner.directory.write_atomically", full)
    with pytest.raises(SegueError, match=r"x cannot be used for a run: .*No space left on device"):
        run_recipe(pendulum(), tmp_path / "x")
    monkeypatch.undo()
    assert not (tmp_path / "x" / "recipe.json").exists()


def test_an_error_that_nobody_expected_is_one_line_and_its_trace_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise ZeroDivisionError("of no user's making")

    monkeypatch.setattr("segue.runner.executor.execute", fails)
    with pytest.raises(segue.RunFailed) as failed:
        run_recipe(pendulum(), tmp_path / "x", workers=1)
    error = failed.value.result.summary["arms"]["run"]["seeds"]["0"]["error"]
    assert "ZeroDivisionError: of no user's making" in error
    assert "ZeroDivisionError" in next(tmp_path.glob("x/records/*/seed-0/error.log")).read_text()
    assert not (tmp_path / "x/records/run").exists(), "what needs the offline phase is not begun"


def test_a_run_outside_the_main_thread_hears_no_signals_and_is_the_same(finished: object, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(run_recipe, pendulum(bridges=(segue.QFilter(),)), tmp_path / "x", workers=1).result()
    scores = [result.summary["arms"]["run"]["seeds"]["0"]["online_evaluations"] for result in (again, finished)]
    assert scores[0] == scores[1]


def test_ctrl_c_while_the_report_is_drawn_leaves_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(out: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segue.runner.write_report", interrupted)
    assert run_recipe(pendulum(online=None, online_steps=0), tmp_path / "x", workers=1).status == "complete"
    assert f"the report is not finished: segue report {tmp_path / 'x'} writes it" in capfd.readouterr().err


def test_an_environment_that_no_other_process_can_make_needs_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PendulumEnv, "__module__", "__main__")
    gym.register("SegueTestOfAScript-v0", PendulumEnv, max_episode_steps=20)
    recipe = pendulum(env="SegueTestOfAScript-v0", seeds=2)
    with pytest.raises(RecipeError, match=r"SegueTestOfAScript-v0"):
        run_recipe(recipe, tmp_path / "x", workers=2)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("damaged", ["5", '"text"', "[1]", "{", ""])
def test_records_are_read_up_to_what_is_damaged(damaged: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{{"step": 2}}\n{damaged}\n{{"step": 3}}\n')
    assert [record["step"] for record in read_lines(tmp_path / "metrics.jsonl")] == [1, 2]
    assert list(read_lines(tmp_path / "none.jsonl")) == []
