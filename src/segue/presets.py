"""Recipes by name: what a paper combines, as the fields of a recipe that it fixes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from segue.algorithms import BC, CQL, IQL, PPO, RLPD, SAC, CalQL, DiscreteCQL, DiscreteSAC
from segue.bridges import Promotion
from segue.data import load
from segue.data.dataset import Dataset
from segue.envs import Environment, environment_spaces
from segue.envs.spec import NO_ENVIRONMENT, Named
from segue.errors import RecipeError, unknown
from segue.recipe import Recipe
from segue.replay import Mixed, OnlineOnly

AUTO = "auto"
#: Updates on the dataset, and live steps, of `auto`: a budget, not a finding.
AUTO_STEPS = 50_000
#: Updates of its cloning, which takes less.
AUTO_CLONING = 10_000
#: Share of the episodes that it clones, those with the highest return, and their least number.
BEST_SHARE, FEWEST_EPISODES = 0.1, 10
#: Share of successful episodes above which a dataset is one of demonstrations.
MOST_SUCCEED = 0.9
#: Live episodes below which promotion has too little evidence.
FEWEST_LIVE_EPISODES = 30


def _wsrl(pretraining: type[CQL], offline_steps: int, values: Mapping[str, Any], online: Mapping[str, Any]) -> Any:
    """Warm-start RL (Zhou et al. 2024, arXiv 2412.07762): no dataset online, a warm-up, and a free, fast, wide critic.

    From the authors' configurations. Differences: their policy learns from the 1,024 transitions of all four critic
    updates, ours from the last 256; they draw the two critics of a target with replacement; their AntMaze recipe takes
    the best of ten next actions online too.
    """
    both = {
        "ensemble_size": 10,
        "subset_size": 2,
        "critic_layer_norm": "before",
        "actor_layer_norm": "before",
        "actor_learning_rate": 1e-4,
        "critic_learning_rate": 3e-4,
        "temperature_learning_rate": 1e-4,
        "backup_entropy": False,
        **online,
    }
    return {
        "offline": pretraining(**both, **values),
        "offline_steps": offline_steps,
        "online": SAC(**both, critic_updates_per_actor_update=4),
        "online_steps": 500_000,
        "replay": OnlineOnly(),
        "warmup_steps": 5_000,
        "updates_per_step": 4.0,
    }


def _promoted() -> dict[str, Any]:
    """Deploy a clone of the best tenth. Beside it pretrain CQL, go on with RLPD, and deploy what live episodes prove.

    CQL's policy is tried first. Compact networks, and CQL with two sampled actions of each kind instead of ten,
    because that is what was measured: studies/leaderboard.
    """
    both: dict[str, Any] = {"hidden_sizes": (128, 128), "batch_size": 128, "ensemble_size": 5, "subset_size": 2}
    rlpd = RLPD(**both, critic_updates_per_actor_update=4)
    return {
        "offline": CQL(**both, sampled_actions=2, critic_layer_norm=rlpd.critic_layer_norm),
        "offline_steps": AUTO_STEPS,
        "online": rlpd,
        "online_steps": AUTO_STEPS,
        "updates_per_step": 4.0,
        "warmup_steps": 2_500,
        "replay": Mixed(),
        "bridges": (Promotion(clone_steps=AUTO_CLONING, clone_share=BEST_SHARE),),
    }


def _bc_ppo() -> dict[str, Any]:
    """Clone the best tenth, go on with small steps of PPO, in less than a tenth of the time of `promoted`.

    It climbs where the clone is good already, and ends below `promoted`: studies/leaderboard.
    """
    return {
        "offline": BC(loss="nll", top_fraction=BEST_SHARE),
        "offline_steps": AUTO_CLONING,
        "online": PPO(actor_learning_rate=1e-4, value_learning_rate=1e-3),
        "online_steps": AUTO_STEPS,
    }


def _iql_sac() -> dict[str, Any]:
    """IQL, then SAC on half dataset and half live data: best where rewards are sparse (studies/leaderboard: one maze).

    Compact networks, because that is what was measured.
    """
    both: dict[str, Any] = {"hidden_sizes": (128, 128), "batch_size": 128}
    both |= {"ensemble_size": 3, "critic_layer_norm": "before"}
    return {
        "offline": IQL(**both, distribution="squashed"),
        "offline_steps": AUTO_STEPS,
        "online": SAC(**both, subset_size=2, backup_entropy=False, initial_temperature=0.1),
        "online_steps": AUTO_STEPS,
        "warmup_steps": 2_500,
        "replay": Mixed(),
    }


def _discrete_cql() -> dict[str, Any]:
    """Discrete CQL that goes on as it is, on half dataset and half live data: studies/leaderboard (CartPole).

    Huber's loss hides rare large costs: examples/driving. Compact networks, because that is what was measured.
    """
    squared = DiscreteCQL(hidden_sizes=(128, 128), batch_size=128, loss="mse")
    return {
        "offline": squared,
        "offline_steps": AUTO_STEPS,
        "online": squared,
        "online_steps": AUTO_STEPS,
        "replay": Mixed(),
    }


#: What `auto` looks at.
_TASK = ("dataset", "env", "clip_actions", "held_out", "env_kwargs", "online_steps", "max_episode_steps")
RECIPES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "promoted": _promoted,
    "bc-ppo": _bc_ppo,
    "iql-sac": _iql_sac,
    "discrete-cql": _discrete_cql,
    # On dense rewards the authors pretrain with CQL: returns-to-go are hard to have there.
    "wsrl": lambda: _wsrl(CQL, 250_000, {}, {}),
    "wsrl-antmaze": lambda: _wsrl(
        CalQL,
        1_000_000,
        {"failure_reward": -5.0},
        {"critic_hidden_sizes": (256, 256, 256, 256), "reward_scale": 10.0, "reward_shift": -5.0},
    ),
    "wsrl-adroit": lambda: _wsrl(
        CalQL,
        20_000,
        {"failure_reward": -5.0, "conservative_weight": 1.0},
        {
            "hidden_sizes": (512, 512),
            "critic_hidden_sizes": (512, 512, 512),
            "reward_scale": 10.0,
            "reward_shift": 5.0,
        },
    ),
}
"""The fields that each fixes; the dataset, the environment and the seeds are the caller's."""


def preset(name: str, **changes: Any) -> Recipe:
    """The recipe of this name, with these fields of `Recipe` changed or added, for example the dataset.

    `auto` is the one that our studies support for the task: see `auto`.

    Raises:
        RecipeError: if there is no such preset.
    """
    if name != AUTO and name not in RECIPES:
        raise RecipeError(unknown("preset", name, [AUTO, *RECIPES]))
    return Recipe(**{**fixed(name, **changes), **changes})


def fixed(name: str, **task: Any) -> dict[str, Any]:
    """The fields of `Recipe` that a preset fixes for a task; of few `online_steps` the warm-up is a fifth at most.

    Raises:
        DataError: if `auto` cannot read the dataset.
    """
    seen = {field: task[field] for field in _TASK if field in task}
    fields = auto(**seen) if name == AUTO else RECIPES[name]()
    steps = task.get("online_steps")
    if "online" in fields and isinstance(steps, int):  # the recipe refuses anything else
        fields["warmup_steps"] = min(fields.get("warmup_steps", Recipe.warmup_steps), steps // 5)
    return fields


def auto(
    dataset: str | Mapping[str, Any] | Dataset | None = None,
    env: Named | None = None,
    clip_actions: bool = False,
    held_out: float = Recipe.held_out,
    env_kwargs: Mapping[str, Any] | None = None,
    online_steps: int = AUTO_STEPS,
    max_episode_steps: int | None = None,
) -> dict[str, Any]:
    """The fields of the recipe that our studies support, by kind of actions and rewards, and with a dataset or without.

    docs/recipes.md says why, with the studies' figures. Where no live environment is known the recipe ends at the
    handover.

    Raises:
        RecipeError: if there is neither a dataset nor an environment.
        DataError: if the dataset cannot be read.
    """
    if dataset is None and env in (None, NO_ENVIRONMENT):
        raise RecipeError("nothing to do: give a dataset (--dataset), an environment (--env) or both")
    dataset = dataset if dataset is None or isinstance(dataset, Dataset) else load(dataset, clip_actions=clip_actions)
    if dataset is None:
        assert env is not None
        spaces = environment_spaces(Environment.of(env).changed(Environment("", env_kwargs or {})))
        return {"online": DiscreteSAC() if spaces.discrete else SAC(), "online_steps": AUTO_STEPS}
    recipe: dict[str, Any]
    nowhere = env == NO_ENVIRONMENT or not (env or dataset.env_id)
    if not dataset.rewards_known:  # what it did can be imitated, and only live rewards say what is better
        recipe = RECIPES["bc-ppo"]()
        recipe["offline"] = dataclasses.replace(recipe["offline"], top_fraction=1.0)
    elif dataset.spaces.discrete:
        recipe = RECIPES["discrete-cql"]()
    else:
        learnt = len(dataset.episode_starts) - dataset.held_out_count(held_out)
        share = best_share(dataset, learnt)
        if not dataset.spaces.image and share < 1 and sparse_rewards(dataset):
            recipe = RECIPES["iql-sac"]()
        else:
            # With images four updates per live step take hours, and no study has looked at them.
            # The live episodes are at first those of the clone.
            length = dataset.best_episodes(share).episode_lengths.mean()
            length = min(length, max_episode_steps or _time_limit(env, dataset))
            few = FEWEST_LIVE_EPISODES * length > online_steps
            if few or dataset.spaces.image or nowhere:
                recipe = RECIPES["bc-ppo"]()
                recipe["offline"] = dataclasses.replace(recipe["offline"], top_fraction=share)
            else:
                recipe = RECIPES["promoted"]()
                recipe["bridges"] = tuple(dataclasses.replace(b, clone_share=share) for b in recipe["bridges"])
    if nowhere:
        return {field: recipe[field] for field in ("offline", "offline_steps")}
    return recipe


def _time_limit(env: Named | None, dataset: Dataset) -> float:
    """Steps of a live episode at most, as far as is known without making the environment."""
    environment = Environment.of(env) if env not in (None, NO_ENVIRONMENT) else dataset.environment
    with contextlib.suppress(RecipeError):
        if environment is not None and (limit := environment.spec().max_episode_steps):
            return limit
    return math.inf


def best_share(dataset: Dataset, episodes: int) -> float:
    """The share of so many episodes of a dataset that `auto` clones: all that earn most, and at least a tenth.

    1 where the start decides which are best.
    """
    earn_most = float((dataset.episode_returns == dataset.episode_returns.max()).mean())
    share = max(BEST_SHARE, min(FEWEST_EPISODES / episodes, 1.0), earn_most)
    return 1.0 if start_decides(dataset, share) else share


def sparse_rewards(dataset: Dataset) -> bool:
    """Whether rewards say "there" or "not there", most rows are not there, and enough episodes never get there.

    Where nearly all get there they are demonstrations, and worth cloning.
    """
    lowest, highest = dataset.rewards.min(), dataset.rewards.max()
    there = dataset.rewards == highest
    if not (lowest < highest and (there | (dataset.rewards == lowest)).all() and there.mean() < 0.5):
        return False
    return bool(np.logical_or.reduceat(there, dataset.episode_starts).mean() <= MOST_SUCCEED)


def start_decides(dataset: Dataset, share: float) -> bool:
    """Whether at least half of the best episodes, and twice the share of all, begin with the highest reward there is.

    So it is where rewards say "at the goal" and some episodes begin there: the best ones show nothing to imitate.
    """
    best, highest = dataset.best_episodes(share), dataset.rewards.max()
    begin_there = [float((one.rewards[one.episode_starts] == highest).mean()) for one in (best, dataset)]
    return begin_there[0] >= max(0.5, 2 * begin_there[1])


def in_words(recipe: Recipe) -> str:
    """What a recipe does, in a line."""
    parts = []
    if recipe.offline is not None:
        parts.append(f"{recipe.offline.name} for {recipe.offline_steps:,} updates")
    if recipe.online is not None:
        parts.append(f"{recipe.online.name} for {recipe.online_steps:,} live steps")
    parts += [bridge.name for bridge in recipe.bridges]
    return ", ".join(parts)
