"""A sweep tries what it was told to, goes on after a kill, and judges its winner on seeds that chose nothing."""

from __future__ import annotations

import dataclasses
import json
import operator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import segue
from segue.cli import sweep as command
from segue.cli.read import read
from segue.errors import RecipeError, SegueError
from segue.recipe import Recipe
from segue.sweeps import Range, Sweep, sweep
from segue.sweeps.figure import sweep_picture
from segue.sweeps.search import searcher
from segue.sweeps.space import changed, parsed, title, whole
from segue.sweeps.words import in_words
from toys import SMALL, pendulum

STEPS = {"offline_steps": 4, "online": None, "online_steps": 0, "eval_every": 4, "eval_episodes": 2}
GRID = {"offline.alpha": [1.0, 2.5, 10.0, 40.0]}


pytestmark = pytest.mark.usefixtures("no_reports")


def recipe(**changes: Any) -> Recipe:
    return pendulum(**({**STEPS, "offline": segue.TD3BC(**SMALL), "seeds": 2} | changes))


def swept(out: Path, **options: Any) -> Sweep:
    return sweep(recipe(), out, **{"vary": GRID, "confirm": 2, "workers": 1, **options})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return swept(tmp_path_factory.mktemp("done") / "x")


def test_a_grid_tries_every_combination_with_the_same_seeds_and_the_best_wins(done: Sweep):
    trials = done.plain["trials"]
    assert [trial["values"]["offline.alpha"] for trial in trials] == GRID["offline.alpha"]
    assert {tuple(trial["by_seed"]) for trial in trials} == {("0", "1")}
    assert all(trial["score"] == pytest.approx(sum(trial["by_seed"].values()) / 2) for trial in trials)
    best = max(trials, key=lambda trial: trial["score"])
    assert done.status == "complete"
    assert (done.best, done.searched) == (best["values"], best["score"])
    assert done.search.summary["arms"][best["name"]]["seeds"]["1"]["final_score"] == best["by_seed"]["1"]


def test_the_winner_and_the_recipe_as_given_are_judged_on_fresh_seeds_and_both_numbers_are_said(done: Sweep):
    fresh = done.plain["winner"]["fresh"]
    assert set(fresh) == {"winner", "as given"} or done.best == {"offline.alpha": 2.5}
    assert all(set(of["by_seed"]) == {"2", "3"} for of in fresh.values())
    assert done.recipe.offline.alpha == done.best["offline.alpha"]
    said = str(done)
    assert "4 trials, 8 policies were judged" in said
    assert "on the seeds that chose it | 2 |" in said
    assert "on fresh seeds | 2 |" in said
    assert "best of 4, so it is biased upwards" in said
    assert said + "\n" == (done.directory / "sweep.md").read_text()
    assert len((done.directory / "trials.csv").read_text().splitlines()) == 1 + 8


def test_a_sweep_is_loaded_from_its_directory_and_says_what_its_winner_is_worth(done: Sweep):
    again = Sweep.load(done.directory)
    assert again.plain == done.plain
    assert again.confirmed == done.plain["winner"]["fresh"]["winner"]["score"]
    table = again.table()
    assert list(table["score"]) == [trial["score"] for trial in done.plain["trials"]]
    assert list(table["seeds"]) == [2] * 4


def test_the_winner_may_be_the_recipe_as_given(tmp_path: Path):
    result = swept(tmp_path / "x", vary={"offline.alpha": [2.5]}, confirm=1)
    assert set(result.plain["winner"]["fresh"]) == {"winner"}
    assert "The winner is the recipe as given." in str(result)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "holds no sweep.json; expected the directory of segue sweep"),
        ("{", r"sweep.json cannot be read .*its runs are whole: choose another --out"),
        ("[]", r"sweep.json is no sweep; choose another --out"),
        ('{"status": "complete", "spec": {}, "trials": []}', r"sweep.json is no sweep; choose another --out"),
        (
            '{"status": "complete", "spec": {}, "trials": [{"name": "a"}], "winner": null}',
            r"sweep.json is no sweep; choose another --out",
        ),
        ('{"status": "complete", "spec": [], "trials": [], "winner": null}', r"sweep.json is no sweep"),
        ('{"status": "failed", "spec": {}, "trials": [], "winner": null}', r"sweep.json is no sweep"),
        (
            '{"status": "failed", "spec": {"objective": "final", "halving": false, "vary": {}, "search": "grid"}, '
            '"trials": [], "winner": null}',
            "the sweep is failed and has no winner",
        ),
    ],
    ids=["none", "cut", "a list", "a part", "part of a trial", "of other kinds", "no spec", "no winner"],
)
def test_a_directory_without_a_winner_says_so(tmp_path: Path, content: str | None, words: str):
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(SegueError, match=words):
        _ = Sweep.load(tmp_path).best


def test_a_directory_that_holds_something_else_is_not_written_into(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(SegueError, match=r"is not empty and holds no sweep\.json; choose another --out"):
        swept(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def ended(status: str, fresh: dict[str, list[float]] | None = None, trials: int = 12) -> dict[str, Any]:
    """What sweep.json holds of so many trials of two kinds of part, of which the last failed."""
    parts = (["td3-bc", "iql"] * trials)[:trials]
    ranked: list[dict[str, Any]] = [
        {"name": f"{i:03d}", "values": {"offline": part}, "score": float(i), "by_seed": {"0": float(i)}}
        for i, part in enumerate(parts)
    ]
    ranked[-1] |= {"score": None, "by_seed": {}}
    winner = None if fresh is None else {
        **ranked[-2],
        "fresh": {
            name: {"score": None, "by_seed": {str(i): score for i, score in enumerate(scores)}}
            for name, scores in fresh.items()
        },
    }  # fmt: skip
    spec = {"vary": {"offline": []}, "search": "grid", "objective": "final", "halving": False, "confirm": 2}
    return {"status": status, "winner": winner, "trials": ranked, "spec": {**spec, "recipe": {"seeds": 1}}}


@pytest.mark.parametrize(
    ("plain", "said", "unsaid"),
    [
        (ended("failed", trials=1), "No trial came to its end.", "more are in trials.csv"),
        (ended("interrupted"), "1 more are in trials.csv.\n\nThe sweep has not ended.", "Not ranked"),
        (
            ended("complete", {"winner": [1.0, 2.0], "as given": []}),
            "Seeds failed, so the two are not compared.",
            "above",
        ),
        (
            ended("complete", {"winner": [3.0], "as given": [1.0]}),
            "2.0 above that of the recipe as",
            "contains 0",
        ),
        (ended("complete", {"winner": [1.0, 2.0]}), "The winner is the recipe as given.", "above"),
    ],
    ids=["failed", "interrupted", "seeds failed", "one seed", "as given"],
)
def test_what_came_of_a_sweep_is_said_for_every_way_in_which_it_ends(plain: Any, said: str, unsaid: str):
    words = in_words(plain)
    assert said in words
    assert unsaid not in words


def test_the_picture_of_a_sweep_of_parts_has_their_names(monkeypatch: pytest.MonkeyPatch):
    drawn: list[list[str]] = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.set_xticks",
        lambda self, ticks, labels=(), **_: drawn.append(list(labels)),
    )
    assert sweep_picture(ended("complete", {"winner": [1.0, 2.0]})).startswith(b"\x89PNG")
    assert drawn == [["td3-bc", "iql"], ["winner,\nold seeds", "winner,\nfresh seeds"]]


def test_the_report_of_a_sweep_is_that_of_its_trials(done: Sweep):
    assert list(read(done.directory).arms) == [trial["name"] for trial in done.plain["trials"]]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"halving": True}, marks=pytest.mark.slow)], ids=["grid", "halving"]
)
def test_a_sweep_that_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path, done: Sweep, options: Any):
    expected = swept(tmp_path / "whole", **options) if options else done
    ends = 0

    def kill(job: Any, event: Any) -> None:
        nonlocal ends
        if event["event"] == "end" and (job.seed + len(job.label) + ends) % 2 == 0:
            ends += 1
            raise Killed

    for _ in range(40):
        try:
            again = swept(tmp_path / "x", on_event=kill, **options)
            break
        except Killed:
            continue
    assert ends >= 3
    assert again.plain == expected.plain


def test_halving_gives_the_better_half_of_the_trials_twice_the_seeds(tmp_path: Path):
    result = sweep(recipe(seeds=4), tmp_path / "x", vary=GRID, halving=True, confirm=1, workers=1)
    seeds = sorted(len(trial["by_seed"]) for trial in result.plain["trials"])
    assert seeds == [1, 1, 2, 4], "four trials, of which two go on, of which one does"
    first = sorted(result.plain["trials"], key=lambda trial: -trial["by_seed"]["0"])
    assert {trial["name"] for trial in first[:2]} == {
        t["name"] for t in result.plain["trials"] if len(t["by_seed"]) > 1
    }
    assert len(next(t for t in result.plain["trials"] if t["name"] == result.plain["winner"]["name"])["by_seed"]) == 4


def test_a_trial_that_fails_is_not_ranked_and_the_others_are(tmp_path: Path):
    rates = {"offline.critic_learning_rate": [1e30, 3e-4]}
    diverging = recipe(offline=segue.SAC(**SMALL), offline_steps=40, seeds=1)
    result = sweep(diverging, tmp_path / "x", vary=rates, objective="offline", confirm=1, workers=1)
    failed, other = result.plain["trials"]
    assert failed["score"] is None
    assert result.best == other["values"]
    assert "Not ranked, because a seed failed or has no offline score: 1 of the trials." in str(result)


def test_another_sweep_in_the_same_directory_is_refused(done: Sweep):
    with pytest.raises(SegueError, match="holds a sweep with another objective"):
        swept(done.directory, objective="normalised")
    assert swept(done.directory).plain == done.plain


@pytest.mark.parametrize("kind", ["random", "tpe", "cma"])
def test_a_search_asks_the_same_questions_for_the_same_answers_and_stays_within_its_ranges(kind: str):
    pytest.importorskip("optuna", reason="needs Optuna: pip install 'segue[sweep]'")
    space = {"online_steps": Range(10, 50), "offline.alpha": Range(1e-3, 10, log=True)}

    def asked() -> list[dict[str, Any]]:
        source, found = searcher(kind, space, {"online_steps": True, "offline.alpha": False}, 30, 4, seed=3), []
        while batch := source.ask():
            found += batch
            source.tell([-abs(values["online_steps"] - 30) - values["offline.alpha"] for values in batch])
        return found

    first = asked()
    assert len(first) == 30
    assert first == asked()
    assert all(type(v["online_steps"]) is int and 10 <= v["online_steps"] <= 50 for v in first)
    assert all(1e-3 <= v["offline.alpha"] <= 10 for v in first)
    near = [abs(v["online_steps"] - 30) + v["offline.alpha"] for v in first]
    assert kind == "random" or sum(near[20:]) < sum(near[:10]), "it learns"


def test_a_search_is_replayed_when_the_sweep_goes_on(tmp_path: Path):
    pytest.importorskip("optuna", reason="needs Optuna: pip install 'segue[sweep]'")
    options = {"vary": {"offline.alpha": Range(1, 40, log=True)}, "search": "tpe", "trials": 3, "batch": 2}
    first = swept(tmp_path / "x", confirm=1, **options)
    plain = json.loads((tmp_path / "x/sweep.json").read_text())
    (tmp_path / "x/sweep.json").write_text(json.dumps({**plain, "status": "interrupted", "winner": None}))
    heard: list[str] = []
    again = swept(tmp_path / "x", confirm=1, on_event=lambda job, event: heard.append(event["event"]), **options)
    assert again.plain == first.plain
    assert not heard, "everything was there"
    plain["trials"][1]["values"]["offline.alpha"] += 1e-9
    (tmp_path / "x/sweep.json").write_text(json.dumps({**plain, "status": "interrupted"}))
    with pytest.raises(SegueError, match="another version of Optuna"):
        swept(tmp_path / "x", confirm=1, **options)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("offline.alpha=1,2.5,5", [1, 2.5, 5]),
        ("online.actor-learning-rate=1e-5:1e-3:log", Range(1e-5, 1e-3, log=True)),
        ("online-steps=100:200", Range(100, 200)),
        ("online=sac,td3", ["sac", "td3"]),
        ("online.hidden-sizes=[64,64],[256,256]", [[64, 64], [256, 256]]),
        ("normalise-observations=true,false", [True, False]),
        ("dataset=segue:hopper-mixed,npz:x.npz", ["segue:hopper-mixed", "npz:x.npz"]),
        ("dataset=npz:x.npz", ["npz:x.npz"]),
    ],
)
def test_values_are_read_as_people_write_them(text: str, values: Any):
    assert parsed(text) == (text.partition("=")[0], values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("offline.alpha", "--vary offline.alpha: expected FIELD=VALUE,VALUE"),
        ("=1,2", "expected FIELD=VALUE,VALUE"),
        ("offline.alpha=", "expected FIELD=VALUE,VALUE"),
        ("offline.alpha=3:1", "a range is 3 to 1; expected the lower number first"),
        ("offline.alpha=0:1:log", "a logarithmic range begins at 0; expected a number above 0"),
        ("offline.alpha=0:inf", "inf; expected a finite number"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(text: str, message: str):
    with pytest.raises(RecipeError, match=message):
        parsed(text)


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({"seed": [0, 1]}, "seeds are no hyper-parameters"),
        ({"eval-episodes": [1, 2]}, "how policies are judged"),
        ({"env": ["A", "B"]}, "returns of different tasks"),
        ({"offline.alfa": [1]}, "did you mean 'alpha'"),
        ({"online.discount": [0.9]}, "the recipe has no online algorithm"),
        ({"bridges.q-filter.percentile": [1]}, "unknown bridge of the recipe 'q-filter'"),
        ({"offlin.alpha": [1]}, "did you mean 'offline'"),
        ({"alpha": [1]}, "^unknown field of a recipe 'alpha': did you mean 'offline.alpha'\\?$"),
        ({"aplha": [1]}, "^unknown field of a recipe 'aplha': did you mean 'offline.alpha'\\?$"),
        ({"foo": [1]}, "^unknown field of a recipe 'foo': a hyper-parameter is named with its part, as offline.alpha"),
        ({"offline.alpha": ["much"]}, "alpha is 'much'; expected a finite number"),
        ({"offline.alpha": []}, "no value is given"),
        ({"offline.alpha": "1,2"}, "vary offline.alpha: '1,2' is no list of values, and no segue.Range"),
        ({"offline.alpha.beta": [1]}, "vary offline.alpha.beta: offline has no such field"),
        ({"bridges.q-filter": [1]}, "expected a field of this bridge, as bridges.q-filter.percentile"),
        ({"offline.alpha": [1, 1]}, "1 is given twice"),
        ({"offline.alpha": Range(1, 2)}, "a grid needs values"),
        ({}, "nothing to vary"),
    ],
)
def test_what_cannot_be_varied_is_refused_before_anything_is_written(tmp_path: Path, vary: Any, message: str):
    with pytest.raises(RecipeError, match=message):
        swept(tmp_path / "x", vary=vary)
    assert not (tmp_path / "x").exists()


def test_trials_that_are_not_evaluated_are_refused_before_training(tmp_path: Path):
    with pytest.raises(RecipeError, match="with env none there are none; give the environment"):
        sweep(recipe(env="none"), tmp_path / "x", vary=GRID)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "recovery"}, "unknown objective 'recovery'"),
        ({"objective": "dip"}, "dip is measured in the online phase, and the recipe has none"),
        ({"search": "tpe"}, "trials is None; expected how many"),
        ({"trials": 3}, "trials has no use"),
        ({"search": "cma", "trials": 3}, "cma needs ranges"),
        ({"search": "best"}, "search is 'best'; expected grid, random, tpe, cma"),
        ({"confirm": 0}, "confirm is 0"),
        ({"halving": True, "recipe": recipe(seeds=1)}, "the recipe has one; give --seeds 4 or more"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(tmp_path: Path, options: Any, message: str):
    with pytest.raises(RecipeError, match=message):
        sweep(options.pop("recipe", recipe()), tmp_path / "x", **{"vary": GRID, "confirm": 2, "workers": 1, **options})
    assert not (tmp_path / "x").exists()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(alpha=st.floats(0.1, 100), rate=st.floats(1e-6, 1e-2), steps=st.integers(1, 10**6))
def test_a_changed_recipe_has_the_values_and_everything_else_as_before(alpha: float, rate: float, steps: int):
    base = dataclasses.replace(recipe(), dataset="segue:hopper-mixed")
    values = {"offline.alpha": alpha, "offline.critic_learning_rate": rate, "offline_steps": steps}
    found = changed(base, values)
    assert (found.offline.alpha, found.offline.critic_learning_rate, found.offline_steps) == (alpha, rate, steps)
    back = {path: operator.attrgetter(path)(base) for path in values}
    assert changed(found, back) == base


def test_a_part_is_replaced_before_its_hyper_parameters_and_whole_numbers_stay_whole():
    base = pendulum(online="td3")
    found = changed(base, {"online.discount": 0.9, "online": "sac"})
    assert (found.online.name, found.online.discount) == ("sac", 0.9)
    bridged = changed(pendulum(online="td3", bridges=["q-filter", "guard"]), {"bridges.q-filter.percentile": 30})
    assert [getattr(bridge, "percentile", None) for bridge in bridged.bridges] == [30, None]
    assert [whole(base, path) for path in ("online_steps", "updates_per_step", "online.discount")] == [
        True,
        False,
        False,
    ]


def test_trials_are_named_by_the_shortest_names_that_tell_them_apart():
    assert title(3, {"offline.alpha": 2.5, "online_steps": 10}) == "003 alpha=2.5 online_steps=10"
    assert (
        title(0, {"offline.discount": 0.9, "online.discount": 0.99}) == "000 offline.discount=0.9 online.discount=0.99"
    )


def test_the_command_takes_vary_several_times_among_its_other_flags():
    flags, vary = command._split(["--seeds", "2", "--vary", "offline.alpha=1,2", "--vary=online=sac,td3", "--out", "x"])
    assert flags == ["--seeds", "2", "--out", "x"]
    assert vary == {"offline.alpha": [1, 2], "online": ["sac", "td3"]}
    with pytest.raises(RecipeError, match="given twice"):
        command._split(["--vary", "offline.alpha=1", "--vary", "offline.alpha=2"])
