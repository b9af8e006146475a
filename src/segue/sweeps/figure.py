"""The picture of a sweep: the objective by every field that was varied, and the winner on old and fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from segue.report.figures import LIGHT, frame, picture
from segue.sweeps.objectives import measure_of
from segue.sweeps.space import shown
from segue.sweeps.words import GIVEN, WINNER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches of a panel, and panels in a row.
WIDE, TALL, ROW = 3.3, 2.9, 3
#: Values that span such a factor are shown on a logarithmic axis.
SPAN = 8.0
#: Values up to which the axis names those that were tried, and no others.
FEW = 5


def sweep_picture(plain: Mapping[str, Any]) -> bytes:
    """PNG bytes; `plain` is what `sweep.json` holds, of a sweep with a winner."""
    panels = len(plain["spec"]["vary"]) + 1
    columns, rows = min(panels, ROW), -(-panels // ROW)
    return picture((WIDE * columns, TALL * rows), LIGHT, lambda figure: _draw(figure, plain, rows, columns))


def _draw(figure: Figure, plain: Mapping[str, Any], rows: int, columns: int) -> None:
    fields = list(plain["spec"]["vary"])
    first: Axes | None = None
    for i, field in enumerate([*fields, None]):
        axes = figure.add_subplot(rows, columns, i + 1, sharey=first)
        frame(axes, LIGHT, field or "")
        axes.margins(y=0.12)
        if field is None:
            _verdict(axes, plain["winner"], plain["trials"])
        else:
            _field(axes, field, plain)
        if i % columns == 0:
            axes.set_ylabel(measure_of(plain["spec"]["objective"]), color=LIGHT.ink)
        else:
            axes.tick_params(labelleft=False)
        first = first or axes
    figure.tight_layout()


def _field(axes: Axes, field: str, plain: Mapping[str, Any]) -> None:
    """Every trial at its value: its seeds as small dots, its mean as a large one."""
    values = [trial["values"][field] for trial in plain["trials"]]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numbers:
        places = dict(enumerate(values))
        low, high = min(values), max(values)
        if low > 0 and high / low >= SPAN:
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")  # a new scale has brought its own
        if len(set(values)) <= FEW:
            axes.set_xticks(sorted(set(values)), [shown(value) for value in sorted(set(values))])
    else:
        names = list(dict.fromkeys(shown(value) for value in values))
        places = {i: names.index(shown(value)) for i, value in enumerate(values)}
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
    for i, trial in enumerate(plain["trials"]):
        won = trial["name"] == plain["winner"]["name"]
        _seeds(axes, places[i], list(trial["by_seed"].values()), LIGHT.arm(1 if won else 0)[0], won)


def _verdict(axes: Axes, winner: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> None:
    """The winner on the seeds that chose it and on fresh ones, and the recipe as given."""
    old = next(trial["by_seed"] for trial in trials if trial["name"] == winner["name"])
    fresh = {name: of["by_seed"] for name, of in winner["fresh"].items()}
    rows = {"winner,\nold seeds": old, "winner,\nfresh seeds": fresh[WINNER]}
    if GIVEN in fresh:
        rows["as given,\nfresh seeds"] = fresh[GIVEN]
    for place, (name, scores) in enumerate(rows.items()):
        _seeds(axes, place, list(scores.values()), LIGHT.arm(2 if name.startswith("as") else 1)[0], True)
    axes.set_xticks(range(len(rows)), list(rows), fontsize=8.5)
    axes.set_xlim(-0.6, len(rows) - 0.4)


def _seeds(axes: Axes, place: float, scores: Sequence[float], colour: str, strong: bool) -> None:
    if not scores:
        return
    axes.plot([place] * len(scores), scores, "o", color=colour, markersize=3, alpha=0.45, mec="none")
    mean = sum(scores) / len(scores)
    axes.plot(place, mean, "o", color=colour, markersize=8 if strong else 6, mec=LIGHT.paper, zorder=4 if strong else 3)
