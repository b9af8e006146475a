"""What came of a run: its summary as tables, curves, a picture and policies."""

from __future__ import annotations

import dataclasses
import io
import tempfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.errors import SegueError, unknown
from segue.policy import Policy
from segue.recipe import read_recipes
from segue.report import figures_curves, read_run, terminal_report
from segue.report.export import curve_rows
from segue.report.frame import frame
from segue.report.summary import Seed, Summary, read_plain
from segue.report.tables import mean_rows
from segue.report.text import number
from segue.runner import checkpoint
from segue.runner.directory import RUNNING, RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """Where a run is and what came of it."""

    directory: Path
    summary: Mapping[str, Any]
    """What `summary.json` holds."""

    @classmethod
    def load(cls, directory: str | Path) -> Result:
        """The result of a run on disk; of one that has not ended, what it recorded so far.

        Raises:
            SegueError: if that is no run, or what it wrote cannot be read.
        """
        directory = Path(directory)
        if not (directory / "recipe.json").exists():
            return cls(directory, read_plain(directory))
        run = RunDirectory(directory, read_recipes(directory))
        summary = run.earlier_summary()
        if summary is not None and summary["status"] != RUNNING:
            return cls(directory, summary)
        with tempfile.TemporaryDirectory() as place:
            return cls(directory, run.so_far(Path(place)))

    @property
    def status(self) -> str:
        """`complete`, `interrupted` or `failed`."""
        return self.summary["status"]

    @property
    def report(self) -> Path:
        """The page."""
        return self.directory / "report.html"

    @cached_property
    def _read(self) -> Summary:
        """The typed summary, with the metrics that pictures show."""
        return read_run(self.directory, self.summary)

    def table(self) -> Any:
        """The measures of the report, a row per arm: the mean over its seeds, of steps the median.

        A pandas DataFrame if pandas is installed; otherwise lists by the names of the columns. Both print as a table.
        """
        return frame(mean_rows(self._read))

    def curves(self) -> Any:
        """A row per evaluation, with the columns of `curves.csv` (docs/measures.md); of the same type as `table`."""
        return frame(curve_rows(self._read))

    def plot(self) -> Figure:
        """The learning curves as a Matplotlib figure; `.savefig("curves.png")` writes it."""
        return figures_curves.learning_curves_figure(self._read)

    def policy(self, arm: str | None = None, seed: int | None = None) -> Policy:
        """The policy that an arm ends with; takes and raises what `checkpoint` does."""
        return checkpoint.load(self.checkpoint(arm, seed)).policy()

    def checkpoint(self, arm: str | None = None, seed: int | None = None) -> Path:
        """The directory of the policy that an arm ends with, as `segue.export_policy` takes it.

        Args:
            arm: its name; by default the only one.
            seed: by default the first of its seeds that is complete.

        Raises:
            SegueError: if there is no such arm or seed, several arms, or a seed that did not get to its end.
        """
        arms: Mapping[str, Any] = self._read.arms
        if arm is None and len(arms) > 1:
            raise SegueError(f"{self.directory} has the arms {', '.join(arms)}; say which: arm=NAME")
        name = next(iter(arms)) if arm is None else arm
        if name not in arms:
            raise SegueError(unknown("arm", name, arms))
        seeds: Mapping[str, Seed] = arms[name].seeds
        key = next((k for k, s in seeds.items() if s.finished), next(iter(seeds))) if seed is None else str(seed)
        if key not in seeds:
            raise SegueError(f"{self.directory}: {name!r} has no seed {key}; it has {', '.join(seeds)}")
        if not seeds[key].finished:
            raise SegueError(f"{self.directory}: seed {key} of {name!r} is {seeds[key].status}; it has no final policy")
        run = RunDirectory(self.directory, read_recipes(self.directory))
        return run.final(name, int(key))

    def resume(self, *, seeds: int | None = None, online_steps: int | None = None) -> Result:
        """Go on with the run, with so many seeds and online steps in all; by default with those that it has.

        The seeds that it has stay as they are.

        Raises:
            RecipeError: for fewer seeds or steps than it has.
            SegueError: as `segue.compare` does; also if the dataset has changed.
        """
        from segue.runner import compare
        from segue.runner.longer import lengthen

        return compare(lengthen(self.directory, online_steps, seeds=seeds), self.directory)

    def __repr__(self) -> str:
        arms = [f"{arm.name}: {_finals(arm.seeds)}" for arm in self._read.arms.values()]
        return f"Result({self.directory}, {self.status}; {'; '.join(arms)})"

    def __str__(self) -> str:
        """The report's conclusion and tables, as text."""
        return _printed(self._read)

    def _repr_html_(self) -> str:
        return _printed(self._read, html=True)


class RunFailed(SegueError):
    """Seeds of a run failed. `result` holds what the others came to.

    Attributes:
        result: the run's; the directory keeps it, and running the same again tries the failed seeds once more.
    """

    def __init__(self, result: Result) -> None:
        super().__init__(result)  # so that it can be pickled
        self.result = result

    def __str__(self) -> str:
        causes: dict[str, list[str]] = {}
        for name, seed, error in self.causes():
            causes.setdefault(error, []).append(f"seed {seed}" if name == "run" else f"{name}, seed {seed}")
        total = sum(len(arm["seeds"]) for arm in self.result.summary["arms"].values())
        failed = sum(map(len, causes.values()))
        what = "; ".join(f"{' · '.join(where)}: {error}" for error, where in causes.items())
        return f"{self.result.directory}: {failed} of {total} seeds failed. {what}"

    def causes(self) -> Iterator[tuple[str, str, str]]:
        """Arm, seed and error of each that failed."""
        for name, arm in self.result.summary["arms"].items():
            for seed, outcome in arm["seeds"].items():
                if outcome["error"]:
                    yield name, seed, outcome["error"]


def _finals(seeds: Mapping[str, Seed]) -> str:
    done = [seed.final_score for seed in seeds.values() if seed.finished]
    mean = f", final return {number(sum(done) / len(done), 1)}" if done else ""
    return f"{len(done)} of {len(seeds)} seeds complete{mean}"


def _printed(summary: Summary, html: bool = False) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=100, record=True, force_jupyter=False)
    console.print(terminal_report(summary))
    if html:
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
    return console.export_text()
