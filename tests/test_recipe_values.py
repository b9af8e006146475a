"""What people write in a recipe: names, lists, paths, NumPy's and JAX's numbers, and other libraries' keywords."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import segue
from segue.errors import RecipeError, nearest
from segue.recipe import read_recipes

KINDS: list[Any] = [int, np.int64, np.int32, np.uint16, np.array, jnp.int32, float, np.float32]


def scratch(**values: Any) -> segue.Recipe:
    return segue.Recipe(**{"env": "Pendulum-v1", "online": "sac", "online_steps": 2000, **values})


@given(st.integers(0, 60_000), st.sampled_from(KINDS))
def test_whole_numbers_of_any_library_become_pythons(number: int, kind: Any) -> None:
    recipe = scratch(seed=kind(number))
    assert (type(recipe.seed), recipe.seed) == (int, number)
    assert segue.Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@given(st.floats(0, 1, width=32), st.sampled_from([float, np.float32, np.float64, np.array, jnp.float32]))
def test_numbers_of_any_library_become_pythons_in_parts(discount: float, kind: Any) -> None:
    algorithm = segue.SAC(discount=kind(discount), hidden_sizes=np.array([8, 8]))
    assert (type(algorithm.discount), algorithm.discount) == (float, discount)
    assert algorithm.hidden_sizes == (8, 8)


def test_numbers_that_would_be_changed_are_refused() -> None:
    for value in (2.5, np.float32(2.5), True, np.bool_(True), "2", np.array([2, 3])):
        with pytest.raises(RecipeError, match=r"batch_size is .*; expected a whole number"):
            segue.SAC(batch_size=value)


def test_parts_may_be_named_and_sequences_be_lists_and_datasets_be_paths() -> None:
    budget = {"offline_steps": 1e5, "online_steps": 1e5}
    named = segue.Recipe(
        dataset=Path("log.npz"),
        offline="cql",
        online="sac",
        bridges=["q-filter", segue.Guard()],
        replay="mixed",
        **budget,
    )
    made = segue.Recipe(
        dataset="log.npz",
        offline=segue.CQL(),
        online=segue.SAC(),
        bridges=(segue.QFilter(), segue.Guard()),
        replay=segue.Mixed(),
        **budget,
    )
    assert named == made
    with pytest.raises(RecipeError, match=r"unknown algorithm 'sca': did you mean 'sac'"):
        scratch(online="sca")
    with pytest.raises(RecipeError, match=r"expected Algorithm or null; an instance: SAC\(\)"):
        scratch(online=segue.SAC)


@pytest.mark.parametrize(
    ("part", "keyword", "meant"),
    [
        (segue.SAC, "lr", "'actor_learning_rate' or 'critic_learning_rate'"),
        (segue.SAC, "actor_lr", "'actor_learning_rate'"),
        (segue.IQL, "gamma", "'discount'"),
        (segue.TD3, "tau", "'polyak'"),
        (segue.PPO, "hidden_dim", "'hidden_sizes'"),
        (segue.PPO, "n_epochs", "'epochs'"),
        (segue.FQE, "lr", "'learning_rate'"),
        (segue.Recipe, "offline_step", "'offline_steps'"),
        (segue.Recipe, "n_envs", "'environments'"),
        (segue.Recipe, "total_timesteps", "'online_steps'"),
        (segue.Table, "observaton", "'observation'"),
        (segue.Mixture, "weight", "'weights'"),
    ],
)
def test_keywords_of_other_libraries_and_misspelt_ones_are_answered_with_ours_alone(
    part: Any, keyword: str, meant: str
) -> None:
    with pytest.raises(RecipeError, match=rf"unknown field of .* '{keyword}': did you mean {meant}\?$"):
        part(**{keyword: 1})


def test_a_keyword_that_may_mean_anything_is_answered_with_all_there_are() -> None:
    with pytest.raises(RecipeError, match=r"unknown field of table 'speed': .* there is action, action_high, "):
        segue.Table("log.csv", speed=1)  # type: ignore[call-arg]
    with pytest.raises(RecipeError, match="table: data is missing"):
        segue.Table()  # type: ignore[call-arg]
    with pytest.raises(RecipeError, match="mixture: parts is given twice"):
        segue.Mixture(["a.npz"], parts=["b.npz"])  # type: ignore[misc]


@pytest.mark.parametrize("content", ["", " \n", "{", "[]", '"x"', "\x00"])
def test_a_recipe_file_that_holds_no_recipe_is_named_in_one_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(content)
    with pytest.raises(RecipeError, match=r"recipe\.json: .*; expected a recipe") as refused:
        read_recipes(file)
    assert "\n" not in str(refused.value)


def test_a_value_without_a_name_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"sac: 0\.0003 has no name; expected FIELD=VALUE, of discount"):
        segue.SAC(3e-4)  # type: ignore[misc]


def test_flags_of_other_libraries_are_answered_with_ours() -> None:
    flags = ["--seeds", "--environments", "--online.actor-learning-rate", "--offline.actor-learning-rate"]
    assert nearest("--n-envs", flags) == ["--environments"]
    assert nearest("--online.lr", flags) == ["--online.actor-learning-rate"]
    assert nearest("--lr", flags) == flags[2:]
