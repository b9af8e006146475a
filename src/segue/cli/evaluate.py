"""`segue evaluate`: judge a run's policies over more episodes, or from a dataset without acting at all."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from segue.cli.dataset_flags import NO_COLUMNS, ColumnFlags, named, with_one_dataset
from segue.cli.env_flags import environment_from_flags
from segue.cli.parse import parse
from segue.cli.trained import acting, find, is_exported, logged, of_offline_phase
from segue.console import PlainConsole
from segue.errors import SegueError


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to judge, and how."""

    run: tyro.conf.Positional[Path]
    """A run directory (every arm's last policy, and those its offline phases ended with), one checkpoint in it, or an
    exported policy. With --offline also module:function, which gets observations [rows, numbers] and returns the
    probabilities of the discrete actions [rows, actions]."""
    episodes: int = 100
    """Episodes per policy, without exploration noise."""
    env: str | None = None
    """Another environment than the one it was trained for: an id, module:Id, module:Class or module:function."""
    env_kwargs: str = "{}"
    """Keyword arguments of the environment's constructor, as JSON."""
    max_episode_steps: int | None = None
    """Time limit of an episode in steps; by default the environment's own."""
    cost: str | None = None
    """Key of the environment's `info` that holds the cost of a step; its sum per episode is shown beside the return."""
    cost_limit: float | None = None
    """Say whether the mean cost of an episode is at most this: with --cost by the 95 % interval of the episodes, with
    --offline by bounds from the dataset's costs."""
    seed: int = 0
    """Of the episodes (every policy gets the same starting states); with --offline, of fits and resamples."""
    json: bool = False
    """Print JSON: every return, or every estimate."""
    offline: bool = False
    """Judge from a dataset instead (off-policy evaluation): better than the behaviour policy?"""
    dataset: str | None = None
    """With --offline: a dataset other than the run's; columns of a table mean what they mean in the run's."""
    columns: ColumnFlags = NO_COLUMNS
    clip_actions: bool = False
    """With --offline: clip logged actions that lie outside their bounds."""
    method: str | None = None
    """With --offline: some of pdis,is,wdr,dr,wpdis,wis,fqe; by default all that apply."""
    confidence: float = 0.95
    """With --offline: of each one-sided bound."""
    discount: float | None = None
    """With --offline: γ; by default the algorithm's, or 1 where every episode has one step."""
    explore: bool = False
    """With --offline: judge the policy as it explores, not as it is evaluated."""
    fresh: bool = False
    """With --offline: the dataset was recorded independently of training, although some episodes are equal to ones that
    the policy has learnt from."""
    fqe_steps: int | None = None
    """With --offline: updates of fitted Q evaluation, if not its default."""


#: Flags of the one way to judge that mean nothing in the other.
OFFLINE_ONLY = ("dataset", "clip_actions", "method", "confidence", "discount", "explore", "fresh", "fqe_steps")
LIVE_ONLY = ("episodes", "env", "env_kwargs", "max_episode_steps", "cost")


def main(arguments: list[str]) -> int:
    """Print mean, standard error and range of the returns of every policy of a run; or what a dataset says of it."""
    about = "Judge the policies that a run and its offline phases ended with, over more episodes or from a dataset."
    flags = parse(Flags, with_one_dataset(arguments), "evaluate", about)
    for name in LIVE_ONLY if flags.offline else OFFLINE_ONLY:
        if getattr(flags, name) != getattr(Flags, name):
            flag, way = f"--{name.replace('_', '-')}", "without" if flags.offline else "with"
            raise SegueError(f"{flag} goes {way} --offline; see segue evaluate --help")
    if flags.offline:
        return _offline(flags)
    if flags.cost_limit is not None and flags.cost is None:
        raise SegueError("--cost-limit needs the costs: give --cost KEY, the key of the environment's info")
    if flags.episodes < 1:
        raise SegueError(f"--episodes is {flags.episodes}; expected at least 1")
    rows = [_judge(name, place, flags) for name, place in find(flags.run).items()]
    if flags.json:
        print(json.dumps(rows, indent=1))
        return 0
    table = Table(box=None, pad_edge=False)
    table.add_column("policy")
    headings = ["mean return", "± std. error", "lowest", "highest", "episodes"]
    headings += ["mean cost"] if flags.cost else []
    headings += [f"at most {flags.cost_limit:g}?"] if flags.cost_limit is not None else []
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        returns = row["returns"]
        table.add_row(
            row["policy"],
            f"{row['mean_return']:.1f}",
            "–" if row["standard_error"] is None else f"{row['standard_error']:.1f}",
            f"{min(returns):.1f}",
            f"{max(returns):.1f}",
            str(len(returns)),
            *([f"{row['mean_cost']:.2f}"] if flags.cost else []),
            *([row["within_limit"]] if flags.cost_limit is not None else []),
        )
    PlainConsole().print(table)
    return 0


def _offline(flags: Flags) -> int:
    from segue.data import PLUS
    from segue.data import load as load_dataset
    from segue.envs.make import logged_actions
    from segue.ope import FQE, BehaviourModel, evaluate_offline, propensities

    own = _own_datasets(flags.run)
    if flags.dataset is not None:
        uri, clip = flags.dataset, flags.clip_actions
        if len(own) == 1 and PLUS not in uri:
            uri = named(uri, {}, like=own[0][0])
    elif len(own) == 1:
        uri, clip = own[0]
    else:
        found = ", ".join(uri for uri, _ in own) or "no dataset that can be loaded again"
        raise SegueError(f"{flags.run}: the run names {found}; expected one dataset: give --dataset")
    dataset = load_dataset(uri, clip_actions=clip or flags.clip_actions)
    # Every policy's would be the same, and takes as long.
    behaviour = functools.cache(lambda: propensities(dataset, BehaviourModel(), flags.seed))
    # The policies that would go live before those that the offline phases handed over.
    places = sorted(find(flags.run).items(), key=lambda found: of_offline_phase(found[0]))
    console, rows = PlainConsole(), []
    for number, (name, place) in enumerate(places, 1):
        policy, spaces, environment = logged(place)
        if environment is not None and dataset.spaces.discrete and not dataset.bounds_known:
            dataset = dataset.in_space(logged_actions(environment).space)
        theirs = dataclasses.replace(dataset.spaces, image=None) if is_exported(place) else dataset.spaces
        if spaces is not None and spaces != theirs:
            raise SegueError(
                f"{place}: the policy has {spaces.describe()}, {dataset.source} has {theirs.describe()}; expected the "
                "same"
            )
        # On standard error: what is printed may be read by a program.
        print(f"segue: judging {name} ({number} of {len(places)})", file=sys.stderr, flush=True)
        result = evaluate_offline(
            policy,
            dataset,
            methods=None if flags.method is None else [method.strip() for method in flags.method.split(",")],
            confidence=flags.confidence,
            discount=flags.discount,
            explore=flags.explore,
            fqe=FQE() if flags.fqe_steps is None else FQE(steps=flags.fqe_steps),
            behaviour=behaviour,
            seed=flags.seed,
            fresh=flags.fresh,
            cost_limit=flags.cost_limit,
        )
        phase = None if place == flags.run else "offline" if of_offline_phase(name) else "online"
        if flags.json:
            rows.append({"policy": name, "phase": phase, "dataset": dataset.source, **result.to_dict()})
        else:
            when = " (as an offline phase ended)" if phase == "offline" else ""
            console.print(f"[bold]{name}[/bold]{when}, judged from {dataset.source}", result, "")
    if flags.json:
        print(json.dumps(rows, indent=1, allow_nan=False))
    return 0


def _own_datasets(run: Path) -> list[tuple[str, bool]]:
    """The datasets that a run, or the run of a checkpoint, learnt from, and whether their actions were clipped."""
    from segue.recipe import read_recipes

    home = next((place for place in (run, *run.resolve().parents) if (place / "recipe.json").exists()), None)
    arms = read_recipes(home).values() if home is not None else ()
    return sorted({(arm.dataset, arm.clip_actions) for arm in arms if isinstance(arm.dataset, str)})


def _judge(name: str, place: Path, flags: Flags) -> dict[str, Any]:
    import numpy as np

    from segue.evaluation import roll_out

    policy, environment = acting(place, environment_from_flags(flags.env, flags.env_kwargs, flags.max_episode_steps))
    found = roll_out(policy, environment, flags.episodes, flags.seed, cost_key=flags.cost)
    returns, costs = found.returns, found.costs
    return {
        "policy": name,
        "env": environment.plain(),
        "mean_return": float(np.mean(returns)),
        "standard_error": float(np.std(returns, ddof=1) / math.sqrt(len(returns))) if len(returns) > 1 else None,
        "returns": returns.tolist(),
        **({} if costs is None else {"mean_cost": float(np.mean(costs)), "costs": costs.tolist()}),
        **({} if flags.cost_limit is None else {"within_limit": _within(costs, flags.cost_limit)}),
    }


def _within(costs: Any, limit: float) -> str:
    """Whether the mean cost is at most the limit, by Student's t: each bound is one-sided, at 95 %."""
    import numpy as np

    from segue.student_t import student_t

    if len(costs) < 2:
        return "not enough evidence"
    width = student_t(0.95, len(costs) - 1) * float(np.std(costs, ddof=1)) / math.sqrt(len(costs))
    mean = float(np.mean(costs))
    return "yes" if mean + width <= limit else "no" if mean - width > limit else "not enough evidence"
