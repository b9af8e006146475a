"""What does not fit together is refused before anything is trained or written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import pytest

import segue
from helpers import for_each
from segue.algorithms import ALGORITHMS
from segue.core import Spaces
from segue.errors import RecipeError, SegueError
from segue.recipe import Recipe
from segue.runner import run
from toys import AIM, PICK, log_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollouts(segue.SAC):
    """SAC that says it learns from rollouts."""

    name: ClassVar[str] = "rollouts"
    on_policy: ClassVar[bool] = True


SCRATCH = {"online": segue.PPO(), "online_steps": 4000, "env": AIM}
ENDS = {"dataset": "npz:x.npz", "offline": segue.BC(), "offline_steps": 10}
PRETRAINED = {**SCRATCH, "dataset": "npz:x.npz", "offline": segue.BC(), "offline_steps": 10}


@for_each(
    ("recipe", "message"),
    [
        (SCRATCH | {"replay": segue.OnlineOnly()}, "replay online-only has no use: ppo learns from its own rollouts"),
        (PRETRAINED | {"replay": segue.Mixed()}, "replay mixed has no use: ppo learns from its own rollouts"),
        (SCRATCH | {"updates_per_step": 2.0}, "updates_per_step has no use: ppo learns from its own rollouts"),
        (SCRATCH | {"online": segue.PPO(kl_weight=1.0)}, "ppo: kl_weight pulls towards a pretrained policy, and there"),
        (PRETRAINED | {"bridges": (segue.QFilter(),)}, "bridge q-filter needs the role critic, which ppo lacks"),
        (
            PRETRAINED | {"offline": segue.SAC(), "online": segue.DQN()},
            "sac has continuous actions, dqn discrete ones: no environment fits both",
        ),
        (PRETRAINED | {"offline": segue.PPO()}, "ppo does not learn offline; there is bc"),
        (PRETRAINED | {"online": segue.BCQ()}, "bcq does not learn online; there is"),
        (PRETRAINED | {"distil_steps": -1}, "distil_steps is -1; expected at least 0"),
        ({"online_steps": 4000}, "the recipe names no algorithm"),
        (PRETRAINED | {"online": None}, "online_steps is 4000 but no online algorithm is named"),
        (PRETRAINED | {"offline": None}, "offline_steps is 10 but no offline algorithm is named"),
        (ENDS | {"max_lag": 3}, "max_lag is about live environments and needs an online phase; leave it out"),
        (ENDS | {"hindsight": 2}, "hindsight relabels live transitions and needs an online phase; leave it out"),
        (ENDS | {"bridges": (segue.Guard(),)}, r"bridges \(guard\) need an online phase to act in"),
        (
            SCRATCH | {"online": segue.SAC(), "replay": segue.Mixed()},
            "replay mixed samples a dataset, but the recipe names no dataset",
        ),
        (SCRATCH | {"online": Rollouts()}, "rollouts: on_policy is for PPO and its subclasses"),
        (
            PRETRAINED | {"reference": (60.0, 10.0)},
            r"reference is \(60.0, 10.0\); expected two returns, the lower",
        ),
    ],
)
def test_a_recipe_that_asks_for_what_has_no_meaning_is_refused_when_it_is_built(recipe, message):
    with pytest.raises(RecipeError, match=message):
        Recipe(**recipe)


def test_a_limit_on_cost_asks_where_the_environment_reports_it():
    recipe = Recipe(**(SCRATCH | {"cost_limit": 1.0}))
    with pytest.raises(RecipeError, match="does not say where the environment reports the cost: give --cost KEY"):
        recipe.check_fit(None, Spaces(1, 1))


def test_a_recipe_with_a_dataset_in_memory_runs_and_cannot_be_written():
    with pytest.raises(RecipeError, match="in memory cannot be written to JSON; save the dataset to a file first"):
        Recipe(**(ENDS | {"dataset": log_of(AIM)})).to_dict()


def test_one_bridge_needs_no_list():
    live = PRETRAINED | {"online": segue.SAC()}
    assert Recipe(**live, bridges=segue.QFilter()) == Recipe(**live, bridges=["q-filter"])


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(RecipeError, match="unknown preset 'promote': did you mean 'promoted'"):
        segue.preset("promote")


def test_what_the_refusals_leave_is_accepted():
    Recipe(**SCRATCH)
    Recipe(**PRETRAINED)
    Recipe(**(PRETRAINED | {"online": segue.PPO(kl_weight=1.0)}))


@for_each("name", ALGORITHMS)
@for_each("kind", ["continuous", "discrete"])
def test_an_algorithm_is_refused_on_exactly_the_actions_it_does_not_name(name, kind):
    cls = ALGORITHMS[name]
    phase = "offline" if "offline" in cls.phases else "online"
    recipe = Recipe(dataset="npz:x.npz", **{phase: cls(), f"{phase}_steps": 4000})
    spaces = Spaces(3, 2, discrete=kind == "discrete")
    if kind in cls.actions:
        recipe.check_fit(None, spaces)
        return
    with pytest.raises(RecipeError, match=f"^{name} has no {kind}-action form; there is ") as error:
        recipe.check_fit(None, spaces)
    able = str(error.value).split("there is ")[1].split(", ")
    assert able == [other for other, cls in ALGORITHMS.items() if kind in cls.actions]


@pytest.mark.parametrize(
    ("env_id", "parts", "message"),
    [
        (PICK, {"offline": segue.TD3BC(), "offline_steps": 10}, "td3-bc has no discrete-action form"),
        (AIM, {"offline": segue.DQN(), "offline_steps": 10}, "dqn has no continuous-action form"),
        (PICK, {"online": segue.SAC(), "online_steps": 4000}, "sac has no discrete-action form"),
        (AIM, {"online": segue.DiscreteSAC(), "online_steps": 4000}, "discrete-sac has no continuous-action form"),
    ],
)
def test_a_dataset_with_the_wrong_kind_of_actions_is_refused_before_anything_is_written(
    tmp_path: Path, env_id, parts, message
):
    with pytest.raises(RecipeError, match=message):
        run(Recipe(dataset=log_of(env_id), env=env_id, **parts), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_discrete_dataset_does_not_fit_a_continuous_environment(tmp_path: Path):
    with pytest.raises(SegueError, match="holds integers up to 2, and the environment has continuous ones"):
        run(Recipe(dataset=log_of(PICK), env=AIM, offline=segue.BC(), offline_steps=10), tmp_path / "x")
