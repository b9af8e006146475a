"""On an accelerator offline phases that differ in numbers only are one program; here a processor plays one."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import segue
from helpers import same_bits
from segue.data import mapped
from segue.errors import Diverged
from segue.recipe import Recipe, read_recipes
from segue.replay import Replay
from segue.runner import RunFailed, compare, executor, load_checkpoint, vmapped
from segue.runner import run as run_recipe
from segue.runner.directory import RunDirectory
from segue.training import recovery
from toys import SMALL, pendulum, pendulum_log

SEEDS = 3


def recipe(**changes: Any) -> Recipe:
    values = {"offline_steps": 250, "eval_every": 150, "eval_episodes": 1, "online": None, "online_steps": 0}
    return pendulum(**(values | {"seeds": SEEDS} | changes))


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[int]]]:
    """Step and seeds (by their keys) of every program that ran for several."""
    programs: list[tuple[int, list[int]]] = []
    run_together = vmapped.run_updates_together

    def seen(learners: Any, replay: Replay, keys: Any, *given: Any, **options: Any) -> Any:
        programs.append((int(learners[0].step), [int(jax.random.key_data(key)[-1]) for key in keys]))
        return run_together(learners, replay, keys, *given, **options)

    monkeypatch.setattr(vmapped, "run_updates_together", seen)
    monkeypatch.setattr(executor, "has_accelerator", lambda: True)
    return programs


def td3_bc(**numbers: float) -> Recipe:
    return recipe(seeds=1, offline=segue.TD3BC(**SMALL, **numbers))


def final(directory: Path, arm: str, seed: int = 0) -> Any:
    return load_checkpoint(RunDirectory(directory, read_recipes(directory)).final(arm, seed))


def offline(directory: Path) -> list[Any]:
    places = [directory / f"checkpoints/offline-td3-bc/seed-{seed}/final" for seed in range(SEEDS)]
    return [load_checkpoint(place).learner for place in places]


def close(one: Any, other: Any) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), atol=2e-5, rtol=1e-4)


def records(directory: Path, seed: int, name: str) -> list[dict[str, Any]]:
    lines = (directory / f"records/offline-td3-bc/seed-{seed}/{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(directory: Path, seed: int) -> list[float]:
    return [line["critic_loss"] for line in records(directory, seed, "metrics") if "critic_loss" in line]


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every seed alone."""
    return run_recipe(recipe(), tmp_path_factory.mktemp("apart") / "x", workers=1).directory


def test_each_seed_is_what_it_is_alone_with_records_of_its_own(apart: Path, accelerator, tmp_path: Path):
    notes: list[str] = []
    heard = lambda job, event: notes.append(event.get("message", ""))  # noqa: E731
    result = compare({"run": recipe()}, tmp_path / "x", workers=1, on_event=heard)
    assert result.status == "complete"
    assert [step for step, _ in accelerator] == [0, 100, 150], "and no updates of one seed only"
    assert all(len(set(keys)) == SEEDS for _, keys in accelerator)
    assert "3 offline phases are one program on the accelerator" in notes
    for one, other in zip(offline(apart), offline(tmp_path / "x"), strict=True):
        close(one.nets, other.nets)
    for seed in range(SEEDS):
        for name in ("metrics", "evaluations"):
            there, here = records(apart, seed, name), records(tmp_path / "x", seed, name)
            assert [line["step"] for line in here] == [line["step"] for line in there]
        assert len(losses(apart, seed)) == 3
        assert losses(tmp_path / "x", seed) == pytest.approx(losses(apart, seed), rel=1e-3)


def test_the_dataset_is_on_the_device_once(accelerator, monkeypatch, tmp_path: Path):
    made = []
    create = Replay.create
    monkeypatch.setattr(Replay, "create", lambda *args, **given: made.append(args) or create(*args, **given))
    assert run_recipe(recipe(), tmp_path / "x", workers=1).status == "complete"
    assert len(made) == 1


def test_one_seed_that_diverges_does_not_stop_the_others(accelerator, monkeypatch, tmp_path: Path):
    fetch = recovery.fetch
    calls = []

    def fetched(phase: str, step: int, metrics: Any) -> Any:
        calls.append(step)
        if phase == "offline" and step >= 150 and calls.count(step) == 2:  # the second seed
            raise Diverged(f"{phase} phase, step {step}: bc_loss is nan. Learning has diverged; try something")
        return fetch(phase, step, metrics)

    monkeypatch.setattr(recovery, "fetch", fetched)
    with pytest.raises(segue.RunFailed) as failed:
        run_recipe(recipe(), tmp_path / "x", workers=1)
    seeds = failed.value.result.summary["arms"]["run"]["seeds"]
    assert "and again at step 250 after going back to the learner of step 0" in seeds["1"]["error"]
    assert seeds["0"]["status"] == seeds["2"]["status"] == "complete"
    assert [len(keys) for _, keys in accelerator] == [3, 3, 3]


@pytest.mark.slow
def test_asked_to_stop_every_seed_saves_and_those_behind_go_first(apart: Path, accelerator, tmp_path: Path):
    def asks(job: Any, event: dict[str, Any]) -> None:
        if event["event"] == "progress" and job.seed == 1 and event["step"] == 100:
            signal.raise_signal(signal.SIGINT)

    result = compare({"run": recipe()}, tmp_path / "x", workers=1, on_event=asks)
    assert result.status == "interrupted"
    states = [
        max(int(path.name.removeprefix("step-")) for path in (tmp_path / "x").glob(f"states/*/seed-{seed}/step-*"))
        for seed in range(SEEDS)
    ]
    assert states == [150, 100, 100], "the first seed had passed its place to save"
    del accelerator[:]
    assert compare({"run": recipe()}, tmp_path / "x", workers=1).status == "complete"
    assert [(step, len(keys)) for step, keys in accelerator] == [(100, 2), (150, 3)]
    for one, other in zip(offline(apart), offline(tmp_path / "x"), strict=True):
        close(one.nets, other.nets)


def test_trials_and_seeds_are_one_program_and_each_is_what_it_is_alone(apart: Path, accelerator, tmp_path: Path):
    trials = {"one": recipe(seeds=2), "two": td3_bc(alpha=9.0, actor_learning_rate=1e-3)}
    alone = compare({"two": trials["two"]}, tmp_path / "alone", workers=1).directory
    assert accelerator == []
    together = compare(trials, tmp_path / "x", workers=1).directory
    assert [(step, len(keys)) for step, keys in accelerator] == [(0, 3), (100, 3), (150, 3)]
    for directory, arm, seed in ((apart, "run", 0), (apart, "run", 1), (alone, "two", 0)):
        own, mine = final(directory, arm, seed), final(together, "one" if arm == "run" else arm, seed)
        assert mine.algorithm == own.algorithm
        close(mine.learner.nets, own.learner.nets)


def test_a_trial_that_diverges_does_not_stop_the_others(apart: Path, accelerator, tmp_path: Path):
    trials = {"one": recipe(seeds=2), "lost": td3_bc(critic_learning_rate=1e30)}
    trials = {arm: dataclasses.replace(trial, offline_steps=150) for arm, trial in trials.items()}
    with pytest.raises(RunFailed, match="diverged") as failed:
        compare(trials, tmp_path / "x", workers=1)
    arms = failed.value.result.summary["arms"]
    assert {arm: of["seeds"]["0"]["status"] for arm, of in arms.items()} == {"one": "complete", "lost": "failed"}
    assert [(step, len(keys)) for step, keys in accelerator] == [(0, 3), (100, 3)]
    for seed in (0, 1):
        assert losses(tmp_path / "x", seed) == pytest.approx(losses(apart, seed)[:2], rel=1e-3)


def groups(arms: dict[str, Recipe]) -> list[list[int]]:
    """The seeds of the jobs that would be together; nothing is read or written."""
    arms = {arm: dataclasses.replace(trial, dataset="segue:pendulum") for arm, trial in arms.items()}
    jobs = RunDirectory(Path("nowhere"), arms).jobs()
    found = executor._differing_in_numbers(jobs, {job.label: executor.Outcome() for job in jobs})
    return [[job.seed for job in group] for group in found]


def test_only_what_shares_a_dataset_and_a_program_is_together():
    arms = {
        "given": recipe(),
        "another number": td3_bc(alpha=9.0),
        "another dataset": td3_bc(discount=0.9),
        "another program": recipe(seeds=1, offline=segue.TD3BC(**(SMALL | {"batch_size": 8}))),
        "another length": dataclasses.replace(td3_bc(), offline_steps=200),
        "and a number": dataclasses.replace(td3_bc(alpha=9.0), offline_steps=200),
        "imitation": recipe(seeds=1, offline=segue.BC(**SMALL)),
        "of the best": recipe(seeds=1, offline=segue.BC(**SMALL, top_fraction=0.5)),
    }
    assert [len(group) for group in groups(arms)] == [4, 1, 1, 2, 1, 1]


def test_a_program_has_so_many_members_at_most(monkeypatch):
    monkeypatch.setattr(executor, "MOST_TOGETHER", 2)
    assert groups({"run": recipe(seeds=5)}) == [[0, 1], [2, 3], [4]]


@pytest.mark.slow
def test_trials_that_are_stopped_go_on_to_the_same_numbers(accelerator, tmp_path: Path):
    def asks(job: Any, event: dict[str, Any]) -> None:
        if event["event"] == "progress" and job.recipe["offline"]["alpha"] == 9 and event["step"] == 100:
            signal.raise_signal(signal.SIGINT)

    trials = {f"alpha {alpha}": td3_bc(alpha=alpha) for alpha in (1.0, 9.0, 4.0)}
    whole = compare(trials, tmp_path / "whole", workers=1).directory
    del accelerator[:]
    assert compare(trials, tmp_path / "x", workers=1, on_event=asks).status == "interrupted"
    assert compare(trials, tmp_path / "x", workers=1).status == "complete"
    assert [(step, len(keys)) for step, keys in accelerator] == [(0, 3), (100, 2), (150, 3)]
    for arm in trials:
        close(final(tmp_path / "x", arm).learner.nets, final(whole, arm).learner.nets)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_all_at_once(accelerator, tmp_path: Path):
    def asks(job: Any, event: dict[str, Any]) -> None:
        if event["event"] == "progress" and job.seed == 1 and event["step"] == 100:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    assert compare({"run": recipe()}, tmp_path / "x", workers=1, on_event=asks).status == "interrupted"
    assert not list((tmp_path / "x").glob("states/offline-td3-bc/seed-2/step-000000000100"))
    assert run_recipe(recipe(), tmp_path / "x", workers=1).status == "complete"


@pytest.mark.slow
def test_arms_with_other_algorithms_are_programs_of_their_own(accelerator, tmp_path: Path):
    arms = {
        "one": recipe(seeds=2),
        "two": recipe(seeds=2, offline=segue.BC(**SMALL)),
        "three": recipe(seeds=1, offline=segue.IQL(**SMALL)),
    }
    assert compare(arms, tmp_path / "x", workers=1).status == "complete"
    assert [len(keys) for _, keys in accelerator] == [2] * 6


@pytest.mark.parametrize("fits", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_learners_that_do_not_fit_into_memory_together_are_halved_and_said(
    accelerator, monkeypatch, apart: Path, tmp_path: Path, fits: int
):
    run_together = vmapped.run_updates_together

    def limited(learners: Any, *given: Any, **options: Any) -> Any:
        if len(learners) > fits:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return run_together(learners, *given, **options)

    monkeypatch.setattr(vmapped, "run_updates_together", limited)
    notes: list[str] = []
    heard = lambda job, event: notes.append(event.get("message", ""))  # noqa: E731
    assert compare({"run": recipe()}, tmp_path / "x", workers=1, on_event=heard).status == "complete"
    assert [note for note in notes if "memory" in note or "alone" in note] == [
        f"{count} learners do not fit into the accelerator's memory together; {count - 1} at a time"
        for count in range(SEEDS, fits, -1)
    ]
    assert [step for step, keys in accelerator if len(keys) == 2] == ([0, 100, 150] if fits == 2 else [])
    for one, other in zip(offline(apart), offline(tmp_path / "x"), strict=True):
        close(one.nets, other.nets)


@pytest.mark.slow
def test_one_that_does_not_fit_beside_the_others_starts_again_alone(accelerator, monkeypatch, tmp_path: Path):
    train, failed = vmapped.train, []

    def full(*given: Any, **options: Any) -> Any:
        if len(failed) < 3:  # with all three, with two, and with one of them
            failed.append(given)
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return train(*given, **options)

    monkeypatch.setattr(vmapped, "run_updates_together", full)
    monkeypatch.setattr(vmapped, "train", full)
    notes: list[str] = []
    heard = lambda job, event: notes.append(event.get("message", ""))  # noqa: E731
    assert compare({"run": recipe()}, tmp_path / "x", workers=1, on_event=heard).status == "complete"
    assert sum("it starts again alone" in note for note in notes) == 1


@pytest.mark.parametrize("others", [0, 1])
def test_memory_that_is_full_outside_of_an_update_has_it_start_again_alone_unless_it_is_alone(others: int):
    def evaluates(fails: bool) -> Iterator[Any]:
        if fails:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        yield from ()

    loops: Any = [evaluates(fails=True), *(evaluates(fails=False) for _ in range(others))]
    first, *rest = vmapped.run_vmapped(loops, lambda line: None)
    assert type(first) is (vmapped.NotTogether if others else RuntimeError)
    assert rest == [None] * others


@pytest.mark.slow
def test_what_fails_as_one_program_is_done_one_by_one_and_said(accelerator, monkeypatch, apart: Path, tmp_path: Path):
    def fails(*given: Any, **options: Any) -> Any:
        raise RuntimeError("INTERNAL: no such program")

    monkeypatch.setattr(vmapped, "run_updates_together", fails)
    notes: list[str] = []
    heard = lambda job, event: notes.append(event.get("message", ""))  # noqa: E731
    assert compare({"run": recipe()}, tmp_path / "x", workers=1, on_event=heard).status == "complete"
    assert sum("INTERNAL: no such program); it starts again alone" in note for note in notes) == SEEDS
    for one, other in zip(offline(apart), offline(tmp_path / "x"), strict=True):
        assert same_bits(one, other), "alone it is the same program"


@pytest.mark.slow
def test_with_a_dataset_on_disk_each_is_alone_and_that_is_said(accelerator, apart: Path, tmp_path: Path):
    mapped.write(tmp_path / "log", [segue.load(pendulum_log())])
    notes: list[str] = []
    heard = lambda job, event: notes.append(event.get("message", ""))  # noqa: E731
    given = {"run": recipe(dataset=f"mapped:{tmp_path / 'log'}")}
    assert compare(given, tmp_path / "x", workers=1, on_event=heard).status == "complete"
    assert accelerator == []
    told = [note for note in notes if "alone" in note]
    assert told == [
        f"{SEEDS} offline phases are each one alone: the dataset is on disk, and each reads other rows of it"
    ]
    for one, other in zip(offline(apart), offline(tmp_path / "x"), strict=True):
        assert same_bits(one, other)


@pytest.mark.slow
def test_updates_of_one_seed_that_fail_do_not_stop_the_others(accelerator, monkeypatch, tmp_path: Path):
    """The last seed is behind when the run goes on, and fails before it has caught up."""

    def asks(job: Any, event: dict[str, Any]) -> None:
        if event["event"] == "progress" and job.seed == 2 and event["step"] == 100:
            signal.raise_signal(signal.SIGINT)

    def fails(asked: Any) -> Any:
        raise RuntimeError("these updates fail")

    assert compare({"run": recipe()}, tmp_path / "x", workers=1, on_event=asks).status == "interrupted"
    monkeypatch.setattr(vmapped, "train", fails)
    with pytest.raises(RunFailed, match="these updates fail") as failed:
        compare({"run": recipe()}, tmp_path / "x", workers=1)
    seeds = failed.value.result.summary["arms"]["run"]["seeds"]
    assert "these updates fail" in seeds["2"]["error"]
    assert seeds["0"]["status"] == seeds["1"]["status"] == "complete"


@pytest.mark.slow
def test_seeds_of_an_offline_phase_that_arms_share_are_one_program_and_go_on_live(accelerator, tmp_path: Path):
    live = {"online": segue.SAC(**SMALL), "online_steps": 20, "eval_every": 250}
    arms = {"two": recipe(seeds=2, **live), "three": recipe(seeds=3, **(live | {"bridges": (segue.QFilter(),)}))}
    result = compare(arms, tmp_path / "x", workers=1)
    assert result.status == "complete"
    assert {len(keys) for _, keys in accelerator} == {3}
    assert [len(result.summary["arms"][name]["seeds"]) for name in arms] == [2, 3]
