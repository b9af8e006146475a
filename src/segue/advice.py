"""What to do with a dataset: what is in it, what its handover is likely to do, the recipe, and what it costs here.

Each sentence names its basis: the dataset, a short trial on this machine, or a study.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segue.data.dataset import Dataset
from segue.data.problems import counted, cut_short, earned_within, problems
from segue.envs.spec import NO_ENVIRONMENT
from segue.presets import (
    AUTO,
    BEST_SHARE,
    FEWEST_EPISODES,
    best_share,
    fixed,
    in_words,
    sparse_rewards,
    start_decides,
)
from segue.recipe import Recipe

if TYPE_CHECKING:
    from rich.console import RenderableType

#: States whose neighbours are looked for, and how many of them.
STATES, NEIGHBOURS = 1_000, 40
#: Updates and live steps of the trial, off-policy and on-policy: enough to outlast what is compiled first.
TRIAL_UPDATES, TRIAL_STEPS, TRIAL_ROLLOUTS = 400, 1_024, 4_096
#: Differences of actions in alike states, as a share of those of any two states: below, between and above.
NARROW, WIDE = 0.35, 0.65
#: Steps of cloned episodes below which a clone may earn far less than they do.
FEW_STEPS = 5_000
#: What to run where the dataset is in memory.
IN_PYTHON = 'segue.run(segue.preset("auto", dataset=dataset, seeds=3), "runs/first")'
HERE, INSPECT = "this dataset", "segue inspect says what it means and what to do"
STUDIES = {
    "collapse": "studies/collapse/README.md",
    "leaderboard": "studies/leaderboard/README.md",
    "driving": "examples/driving/README.md",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One sentence, and what it rests on."""

    text: str
    basis: str
    """The dataset, the command that says more, or the page of a study."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a recipe takes on this machine, by a short trial."""

    offline_minutes: float
    online_minutes: float
    """Of one seed, without evaluations."""


@dataclasses.dataclass(frozen=True)
class Advice:
    """`print`ed by rich as a page; `to_dict` for machines."""

    source: str
    findings: tuple[Finding, ...]
    outlook: tuple[Finding, ...]
    recipe: Recipe
    command: str
    cost: Cost | None

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, ready for JSON."""
        plain = {name: getattr(self, name) for name in ("source", "command")}
        lists = {name: [dataclasses.asdict(f) for f in getattr(self, name)] for name in ("findings", "outlook")}
        cost = None if self.cost is None else dataclasses.asdict(self.cost)
        return {**plain, **lists, "recipe": self.recipe.to_dict(), "cost": cost}

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.padding import Padding
        from rich.text import Text

        blocks: list[RenderableType] = []
        for title, findings in (("The dataset", self.findings), ("At the handover", self.outlook)):
            blocks.append(Text(title, style="bold"))
            for finding in findings:
                basis = "" if finding.basis == HERE else f"  [{finding.basis}]"
                blocks.append(Padding(Text.assemble(finding.text, (basis, "dim")), (0, 0, 0, 2)))
        blocks.append(Text("What to run", style="bold"))
        blocks.append(Padding(Text(in_words(self.recipe)), (0, 0, 0, 2)))
        blocks.append(Text(f"  {self.command}", no_wrap=True, overflow="ignore"))  # to be copied as one line
        if self.cost is not None:
            live = "" if self.recipe.online is None else f", about {_minutes(self.cost.online_minutes)} live"
            cost = (
                f"each seed takes about {_minutes(self.cost.offline_minutes)} on the dataset{live}, without evaluations"
            )
            basis = "  [a trial here, on a machine as busy as it is now]"
            blocks.append(Padding(Text.assemble(cost, (basis, "dim")), (0, 0, 0, 2)))
        return Group(*blocks)


def advise(dataset: str | Mapping[str, Any] | Dataset, trial: bool = True, **task: Any) -> Advice:
    """Look at a dataset, and say what to do with it.

    Args:
        dataset: a URI, a dict of arrays, or a dataset.
        trial: time some updates and live steps here, which takes about a minute.
        task: fields of a recipe that say more of the task: env, env_kwargs, clip_actions, max_episode_steps,
            online_steps.

    Raises:
        DataError: if the dataset cannot be read.
        RecipeError: if its environment cannot be made, or is another than the dataset's.
    """
    from segue.data import load
    from segue.envs.make import Looks
    from segue.runner.start import check_fit, dataset_of, environment_of

    loaded = dataset if isinstance(dataset, Dataset) else load(dataset, clip_actions=task.get("clip_actions", False))
    fields = fixed(AUTO, dataset=loaded, **task)
    if "online" not in fields:
        task.pop("online_steps", None)  # nothing goes live
    recipe = Recipe(**{**fields, "dataset": loaded, "seeds": 3, **task})
    environment = environment_of(recipe, loaded)
    look = Looks()
    check_fit(recipe, dataset_of(recipe), environment, look)
    limit = None if environment is None else look(environment).time_limit
    shorter = cut_short(loaded, limit)
    return Advice(
        loaded.source,
        (
            *_about(loaded),
            *(Finding(f"note: {note}", HERE) for note in loaded.notes),
            *(Finding(f"problem: {problem.found}", INSPECT) for problem in problems(loaded)),
            *([] if shorter is None else [Finding(f"problem: {shorter}", HERE)]),
        ),
        _outlook(loaded, recipe, limit if shorter else None),
        dataclasses.replace(recipe, dataset=dataset),
        _command(dataset, task) if isinstance(dataset, str) else IN_PYTHON,
        _cost(recipe) if trial else None,
    )


def best_episodes(dataset: Dataset) -> Dataset:
    """The episodes that `auto` would clone."""
    return dataset.best_episodes(best_share(dataset, len(dataset.episode_starts)))


def diversity(dataset: Dataset) -> float | None:
    """How different the actions of different episodes in alike states are, as a share of that of any two rows.

    0: the same action in the same state, always; 1: the state says nothing of the action. None where there is too
    little to compare, or observations are images.
    """
    if dataset.spaces.image or len(dataset.episode_starts) < 2 or len(dataset) < STATES:
        return None
    from scipy.spatial import cKDTree

    source = np.random.default_rng(0)
    observations = (dataset.observations - dataset.observations.mean(0)) / (dataset.observations.std(0) + 1e-6)
    episode = np.repeat(np.arange(len(dataset.episode_lengths)), dataset.episode_lengths)
    rows = source.choice(len(dataset), STATES, replace=False)
    _, near = cKDTree(observations).query(observations[rows], k=NEIGHBOURS)
    elsewhere = episode[near] != episode[rows][:, None]
    found = elsewhere.any(1)
    if found.sum() < STATES / 10:
        return None
    one, other = rows[found], near[found, elsewhere[found].argmax(1)]
    any_two = source.permutation(len(dataset))[: len(one)]

    def distance(left: np.ndarray, right: np.ndarray) -> float:
        a, b = dataset.actions[left], dataset.actions[right]
        return float((a != b).mean() if dataset.spaces.discrete else np.abs(a - b).mean())

    chance = distance(one, any_two)
    return None if chance == 0 else min(distance(one, other) / chance, 1.0)


def _about(dataset: Dataset) -> tuple[Finding, ...]:
    texts = [f"{counted(len(dataset), 'transition')} in {counted(len(dataset.episode_starts), 'episode')}"]
    if _differ(dataset):
        returns, best = dataset.episode_returns, best_episodes(dataset).episode_returns
        texts.append(
            f"returns: {returns.mean():,.4g} on average, {best.mean():,.4g} in the best "
            f"{counted(len(best), 'episode')}, {returns.max():,.4g} in the best"
        )
        # Where an episode succeeds or fails, the best ones all succeed, and a policy seldom does.
        alike, whose = (returns, "all") if sparse_rewards(dataset) else (best, "the best")
        if len(alike) > 1 and (spread := float(alike.std(ddof=1)) / np.sqrt(10)):
            texts.append(
                f"noise: by the spread of {whose} episodes, a mean of 10 evaluation episodes is uncertain by "
                f"±{2 * spread:,.3g}"
            )
    else:
        texts.append("no rewards that differ: it can be imitated, and nothing can be said of how good it is")
    found = diversity(dataset)
    if found is not None:
        kind = "narrow" if found < NARROW else "wide" if found > WIDE else "medium"
        texts.append(
            f"coverage of actions: {kind}; actions in alike states of different episodes differ by {found:.0%} of what "
            "any two differ by"
        )
    return tuple(Finding(text, HERE) for text in texts)


def _outlook(dataset: Dataset, recipe: Recipe, limit: int | None) -> tuple[Finding, ...]:
    """`limit` is the live time limit where it cuts many episodes of the dataset short."""
    found = []
    promoted = any(bridge.name == "promotion" for bridge in recipe.bridges)
    cloned = promoted or (recipe.offline is not None and recipe.offline.name == "bc")
    best = best_episodes(dataset) if cloned and _differ(dataset) else None
    scarce = best is not None and len(best) < FEW_STEPS
    if len(dataset.episode_starts) < 2 * FEWEST_EPISODES:
        found.append(
            Finding(f"{counted(len(dataset.episode_starts), 'episode')}: the best of so few are hardly a choice", HERE)
        )
    elif (dataset.episode_lengths == 1).all():
        words = "every episode has one step: the best of them were lucky; judge a policy from the dataset first"
        found.append(Finding(f"{words} (segue evaluate RUN --offline)", "docs/evaluation.md"))
    elif best is not None:
        earned = earned_within(best.excerpt() if limit else best, limit).mean()
        until = f" in {limit:,} steps" if limit else ""
        if scarce:
            words = f"a clone of only {len(best):,} steps may earn far less than these do{until}, {earned:,.4g} "
            words += "(−6, 9 and 42 % of it, seed by seed, from ten demonstrations of a hand that opens a door)"
        else:
            words = f"cloning the best episodes hands over about what they earn{until}, {earned:,.4g}"
            if earned > 0 and len(best.episode_starts) < len(dataset.episode_starts):
                words += " (90 to 105 % on four tasks of locomotion, 60 % in a maze)"
        found.append(Finding(words, STUDIES["leaderboard"]))
        if start_decides(dataset, BEST_SHARE):
            words = "most of the episodes with the highest returns begin with the highest reward, so all are cloned"
            found.append(Finding(words, HERE))
    values_first = recipe.offline is not None and recipe.offline.name == "iql"
    if values_first:
        words = "rewards are sparse, success or failure: values tell more than the best episodes do"
        found.append(Finding(words, HERE))
    if recipe.online is None:
        none = recipe.env == NO_ENVIRONMENT
        words = "there is no live environment" if none else "no environment is known (--env gives one)"
        found.append(Finding(f"{words}, so the recipe ends at the handover", HERE))
    elif dataset.spaces.discrete:
        words = "discrete CQL that goes on as it is kept what it had and climbed at once (CartPole)"
        found.append(Finding(words, STUDIES["leaderboard"]))
        words = "where a mistake is rare and costly its policy may be worse than a clone until live steps teach it"
        found.append(Finding(f"{words} (simulated driving)", STUDIES["driving"]))
    elif values_first:
        words = (
            "SAC goes on with IQL's critic and the dataset: in one maze nothing was lost, and no recipe clearly better"
        )
        found.append(Finding(words, STUDIES["leaderboard"]))
    elif promoted and scarce:
        words = "RLPD from scratch with the dataset may come further, later: at that door it earned more after 100,000 "
        words += "live steps than this recipe after 50,000, with two of three seeds; after 50,000 less with each"
        found.append(Finding(words, STUDIES["leaderboard"]))
    elif promoted and not dataset.episode_terminals.any():
        words = "no episode ends early; if nothing can fall over, as in HalfCheetah, a plain handover may lose little: "
        words += "there 7 % on average at most, a quarter in one seed; ReBRAC and WSRL ended above this recipe"
        found.append(Finding(words, STUDIES["leaderboard"]))
    else:
        words = "a plain handover to an off-policy algorithm is likely to lose much of the return at first"
        found.append(Finding(f"{words}: TD3 lost 38 to 100 % on three datasets of Hopper", STUDIES["collapse"]))
    if promoted:
        words = "the clone stays deployed until live episodes show a better policy; CQL's policy is tried first"
        found.append(
            Finding(f"{words}: it ended far above PPO on three of four tasks of locomotion", STUDIES["leaderboard"])
        )
    return tuple(found)


def _differ(dataset: Dataset) -> bool:
    """Whether rewards tell anything: also where every step earns the same, and some episodes are longer."""
    return dataset.rewards_known and bool(np.ptp(dataset.rewards) > 0 or np.ptp(dataset.episode_returns) > 0)


def _command(dataset: str, task: dict[str, Any]) -> str:
    words = ["segue", "run", "--dataset", dataset]
    if task.get("env_kwargs"):
        words += ["--env-kwargs", json.dumps(task["env_kwargs"])]
    for field in ("max_episode_steps", "online_steps"):
        if task.get(field):
            words += [f"--{field.replace('_', '-')}", str(task[field])]
    if isinstance(task.get("env"), str):
        words += ["--env", task["env"]]
    if task.get("clip_actions"):
        words.append("--clip-actions")
    return shlex.join([*words, "--seeds", "3", "--out", "runs/first"])


def _cost(recipe: Recipe) -> Cost:
    """Times a short form of the recipe, in a directory that is thrown away."""
    from segue.runner import run

    steps = TRIAL_ROLLOUTS if recipe.online is not None and recipe.online.on_policy else TRIAL_STEPS
    short = dataclasses.replace(
        recipe,
        seeds=1,
        offline_steps=min(TRIAL_UPDATES, recipe.offline_steps),
        online_steps=min(recipe.warmup_steps + steps, recipe.online_steps),
        eval_every=10**9,
        eval_episodes=1,
        held_out=0.0,
    )
    with tempfile.TemporaryDirectory(prefix="segue-trial-") as folder:
        summary = run(short, Path(folder) / "trial", progress=False, workers=1).summary
    (arm,) = summary["arms"].values()
    (seed,) = arm["seeds"].values()

    def minutes(phase: str, done: int, wanted: int) -> float:
        spent = seed["wall_time_s"][phase]
        if not spent or done <= 0:
            return 0.0
        once = (seed["compile_s"][phase] or 0.0) + (seed["handover_s"][phase] or 0.0)
        training = max(spent - once - (seed["evaluation_s"][phase] or 0.0), 0.0)
        return (once + training * wanted / done) / 60

    return Cost(
        minutes("offline", short.offline_steps, recipe.offline_steps),
        # Nothing is learnt in the warm-up, and learning takes most of the time.
        minutes("online", short.online_steps - recipe.warmup_steps, recipe.online_steps - recipe.warmup_steps),
    )


def _minutes(value: float) -> str:
    return f"{value:.0f} minutes" if value >= 1.5 else f"{60 * value:.0f} seconds"
