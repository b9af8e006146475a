"""What is in a dataset: numbers, words and one picture."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segue.data.dataset import Dataset
from segue.data.problems import AT_BOUND, Problem, problems
from segue.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

#: Discrete actions in the table; of more, the half that ranks highest and the half that ranks lowest.
MOST_ACTIONS = 20


@dataclasses.dataclass(frozen=True)
class Spread:
    """Where a quantity lies."""

    minimum: float
    quartile1: float
    median: float
    quartile3: float
    maximum: float
    mean: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        """The spread of a one-dimensional array with at least one value."""
        low, quartile1, median, quartile3, high = map(float, np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
        return cls(low, quartile1, median, quartile3, high, float(values.mean(dtype=np.float64)))


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One dimension of the observations or of the continuous actions."""

    minimum: float
    maximum: float
    mean: float
    std: float


@dataclasses.dataclass(frozen=True)
class ActionDimension(Dimension):
    """One dimension of the continuous actions, in [-1, 1]."""

    at_bounds: float
    """Share of steps within 1 % of a bound."""


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What is in a dataset; `print`ed by rich as tables, `to_dict` for machines."""

    source: str
    env_id: str | None
    transitions: int
    episodes: int
    terminals: int
    """Episodes that ended in a true terminal state."""
    timeouts: int
    """Episodes that a time limit, or the end of the dataset, cut."""
    returns: Spread | None
    """Undiscounted, per episode; None without rewards."""
    lengths: Spread
    """Transitions per episode."""
    rewards: Spread | None
    """Per step; None without rewards."""
    costs: Spread | None
    """Summed per episode; None without costs."""
    observations: tuple[Dimension, ...]
    """Empty where observations are images."""
    image: tuple[int, ...] | None
    """Shape of the images that observations are, if they are."""
    actions: tuple[ActionDimension, ...]
    """Empty where actions are discrete."""
    action_shares: tuple[float, ...]
    """Share of steps that took each discrete action; empty where actions are continuous."""
    allowed_shares: tuple[float, ...]
    """Share of steps that allowed each discrete action; empty if the dataset does not say. Their sum is the mean number
    of allowed actions. A dataset that forbids a logged action is refused."""
    fewest_allowed: int | None
    """Actions allowed at the step that allowed the fewest; None if the dataset does not say."""
    one_allowed: float | None
    """Share of steps that allowed only one action; None if the dataset does not say."""
    notes: tuple[str, ...]
    """What loading did to the dataset."""
    problems: tuple[Problem, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, ready for JSON."""
        return dataclasses.asdict(self)

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        title = Text(self.source, style="bold")
        summary = Text(
            f"{self.transitions:,} transitions in {self.episodes:,} episodes"
            + (f" of {self.env_id}" if self.env_id else "")
            + f": {self.terminals:,} ended in a terminal, {self.timeouts:,} by a time-out or a cut\n"
        )
        blocks: list[RenderableType] = [
            title,
            summary,
            _spread_table(self),
            _action_table(self),
            Text(_observation_line(self)),
        ]
        if self.allowed_shares:
            mean, size = sum(self.allowed_shares), len(self.allowed_shares)
            blocks.append(
                Text(
                    f"allowed actions: {mean:,.2f} of {size:,} on average, at least {self.fewest_allowed:,}; "
                    f"{self.one_allowed:.1%} of steps allowed only one; every logged action was allowed"
                )
            )
        blocks += [_item("note", note) for note in self.notes]
        for problem in self.problems:
            blocks.append(Text.assemble("\n", ("! ", "yellow"), (problem.found, "bold")))
            blocks += [_item("for training", problem.meaning), _item("what to do", problem.advice)]
        if not self.problems:
            blocks.append(Text("\nno problems found", style="green"))
        return Group(*blocks)


def inspect(dataset: Dataset) -> Inspection:
    """Describe a dataset and look for problems."""
    discrete, seen = dataset.spaces.discrete, dataset.excerpt()
    ended = int(dataset.episode_terminals.sum())
    allowed, notes = seen.allowed_actions, dataset.notes
    counts = None if allowed is None else allowed.sum(1)
    if len(seen) < len(dataset):
        notes += (
            f"rewards, observations, actions and problems are those of {len(seen.episode_starts):,} random episodes "
            f"({len(seen):,} transitions); counts, lengths, returns and costs are of all",
        )
    return Inspection(
        source=dataset.source,
        env_id=dataset.env_id,
        transitions=len(dataset),
        episodes=len(dataset.episode_starts),
        terminals=ended,
        timeouts=len(dataset.episode_starts) - ended,
        returns=Spread.of(dataset.episode_returns) if dataset.rewards_known else None,
        lengths=Spread.of(dataset.episode_lengths),
        rewards=Spread.of(seen.rewards) if dataset.rewards_known else None,
        costs=None if dataset.episode_costs is None else Spread.of(dataset.episode_costs),
        observations=() if seen.spaces.image else tuple(Dimension(*_moments(column)) for column in seen.observations.T),
        image=dataset.spaces.image,
        actions=() if discrete else tuple(_action_dimension(column) for column in seen.actions.T),
        action_shares=tuple(map(float, _shares(seen))) if discrete else (),
        allowed_shares=() if allowed is None else tuple(map(float, allowed.mean(0))),
        fewest_allowed=None if counts is None else int(counts.min()),
        one_allowed=None if counts is None else float((counts == 1).mean()),
        notes=notes,
        problems=problems(seen),
    )


def plot(dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """Draw a dataset as one PNG: returns, episode ends, rewards, and what the actions cover.

    Raises:
        DataError: the picture cannot be written there.
    """
    from matplotlib.figure import Figure

    whole, dataset = dataset, dataset.excerpt()
    figure = Figure(figsize=(12, 8), layout="constrained")
    figure.suptitle(
        f"{dataset.source}: {len(whole):,} transitions, {len(whole.episode_starts):,} episodes"
        + (f" (drawn: {len(dataset.episode_starts):,})" if len(dataset) < len(whole) else ""),
        fontsize=13,
    )
    if dataset.spaces.discrete:
        axes = figure.subplot_mosaic("re;wa")
        _plot_discrete_actions(axes["a"], dataset)
    else:
        axes = figure.subplot_mosaic("ree;wab", width_ratios=[8, 6, 1])
        _plot_continuous_actions(figure, axes["a"], axes["b"], dataset)
    if dataset.rewards_known:
        _histogram(axes["r"], dataset.episode_returns, "Returns", "undiscounted return of an episode", "episodes")
        _histogram(axes["w"], dataset.rewards, "Rewards", "reward of a step", "steps (log scale)")
        axes["w"].set_yscale("log")
        axes["w"].set_ylim(bottom=0.7)
    else:
        for name, title in (("r", "Returns"), ("w", "Rewards")):
            axes[name].set(title=f"{title}: the dataset has none", xticks=(), yticks=())
    _plot_ends(axes["e"], dataset)
    for panel in axes.values():
        panel.spines[["top", "right"]].set_visible(False)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise DataError(f"the plot cannot be written to {path} ({error.strerror}); choose another file") from error


# Okabe and Ito's palette: told apart in every common form of colour blindness.
_BLUE, _ORANGE = "#0072B2", "#E69F00"


def _moments(column: np.ndarray) -> tuple[float, float, float, float]:
    return (
        float(column.min()),
        float(column.max()),
        float(column.mean(dtype=np.float64)),
        float(column.std(dtype=np.float64)),
    )


def _action_dimension(column: np.ndarray) -> ActionDimension:
    return ActionDimension(*_moments(column), at_bounds=float((np.abs(column) > AT_BOUND).mean()))


def _item(label: str, words: str) -> RenderableType:
    """A label with words that wrap beside it."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=14, justify="right", style="dim")
    grid.add_column()
    grid.add_row(label, words)
    return grid


def _shares(dataset: Dataset) -> np.ndarray:
    return np.bincount(dataset.actions, minlength=dataset.spaces.action_size) / len(dataset)


def _table(*headings: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table


def _spread_table(inspection: Inspection) -> RenderableType:
    table = _table("", "min", "25 %", "median", "75 %", "max", "mean")
    rows = {
        "return": inspection.returns,
        "length": inspection.lengths,
        "reward": inspection.rewards,
        "cost": inspection.costs,
    }
    for name, spread in rows.items():
        if spread is not None:
            table.add_row(name, *(f"{value:,.4g}" for value in dataclasses.astuple(spread)))
    return table


def _action_table(inspection: Inspection) -> RenderableType:
    if inspection.action_shares:
        masks, taken = inspection.allowed_shares, inspection.action_shares
        table = _table("action", "share of steps", *(["allowed in"] if masks else []))
        rows = [
            (str(index), *(f"{share:.1%}" for share in of))
            for index, of in enumerate(zip(taken, *([masks] if masks else []), strict=True))
        ]
        if len(rows) > MOST_ACTIONS:
            order = np.argsort(-np.array(masks or taken), kind="stable")
            few = MOST_ACTIONS // 2
            left = f"{len(rows) - 2 * few:,} between them"
            rows = [*(rows[i] for i in order[:few]), (f"… {left}",), *(rows[i] for i in order[-few:])]
            table.title, table.title_justify = (
                f"the actions most and least often {'allowed' if masks else 'taken'}",
                "left",
            )
        for row in rows:
            table.add_row(*row)
        return table
    table = _table("action dimension", "min", "max", "mean", "std", "at a bound")
    for index, action in enumerate(inspection.actions):
        values = (action.minimum, action.maximum, action.mean, action.std)
        table.add_row(str(index), *(f"{value:.3f}" for value in values), f"{action.at_bounds:.1%}")
    return table


def _observation_line(inspection: Inspection) -> str:
    if inspection.image is not None:
        return f"observations: images of {'×'.join(map(str, inspection.image))}, uint8"
    dimensions = inspection.observations
    low, high = min(d.minimum for d in dimensions), max(d.maximum for d in dimensions)
    stds = [d.std for d in dimensions]
    return (
        f"observations: {len(dimensions)} dimensions from {low:.4g} to {high:.4g}, "
        f"standard deviations from {min(stds):.3g} to {max(stds):.3g}"
    )


def _histogram(axes: Axes, values: np.ndarray, title: str, xlabel: str, ylabel: str) -> None:
    axes.hist(values, bins=int(np.clip(np.sqrt(len(values)), 10, 60)), color=_BLUE, edgecolor="white", linewidth=0.5)
    axes.axvline(float(values.mean(dtype=np.float64)), color="black", linestyle="--", linewidth=1, label="mean")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.locator_params(axis="y", integer=True)
    axes.legend(frameon=False)


def _plot_ends(axes: Axes, dataset: Dataset) -> None:
    ended = dataset.episode_terminals
    for chosen, label, colour, marker in (
        (ended, "terminal", _ORANGE, "o"),
        (~ended, "time-out or cut", _BLUE, "s"),
    ):
        axes.scatter(
            dataset.episode_lengths[chosen],
            dataset.episode_returns[chosen] if dataset.rewards_known else np.zeros(int(chosen.sum())),
            label=f"{label} ({int(chosen.sum()):,})",
            color=colour,
            marker=marker,
            s=16,
            alpha=0.6,
            linewidths=0,
        )
    axes.set(title="How episodes ended", xlabel="length (steps)", ylabel="return")
    axes.legend(frameon=False)


def _plot_discrete_actions(axes: Axes, dataset: Dataset) -> None:
    axes.bar(np.arange(dataset.spaces.action_size), _shares(dataset), color=_BLUE)
    axes.set(title="Actions taken", xlabel="action", ylabel="share of steps")
    axes.locator_params(axis="x", integer=True)


def _plot_continuous_actions(figure: Figure, axes: Axes, bounds: Axes, dataset: Dataset) -> None:
    size, bins = dataset.spaces.action_size, np.linspace(-1, 1, 41)
    shares = np.stack([np.histogram(column, bins)[0] for column in dataset.actions.T]) / len(dataset)
    image = axes.imshow(shares, aspect="auto", extent=(-1, 1, size - 0.5, -0.5), cmap="viridis", norm="log")
    axes.set(title="Action coverage", xlabel="action", ylabel="dimension", xticks=(-1, -0.5, 0, 0.5, 1))
    at_bounds = (np.abs(dataset.actions) > AT_BOUND).mean(0)
    bounds.barh(np.arange(size), at_bounds, color=_ORANGE, height=0.8)
    bounds.set(title="At a bound", xlabel="share", xlim=(0, 1), xticks=(0, 1), ylim=axes.get_ylim())
    bounds.tick_params(left=False, labelleft=False)
    for panel in (axes, bounds):
        panel.locator_params(axis="y", integer=True)
    figure.colorbar(image, ax=[axes, bounds], label="share of steps (white: never)")
