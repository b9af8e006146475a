"""What a person sees while jobs run: a bar each on a terminal or in a notebook, a line per evaluation elsewhere."""

from __future__ import annotations

import importlib.util
from types import TracebackType

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from segue.console import PlainConsole
from segue.runner.jobs import Event, Job


class Watcher:
    """Receives the events of `segue.compare`; use as a context manager.

    Args:
        shown: whether to show anything; None only where a person looks on: on a terminal or in a notebook.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self.console = PlainConsole()
        watched = self.console.is_terminal or self.console.is_jupyter
        self.console.quiet = not (watched if shown is None else shown)
        # Without ipywidgets a notebook cannot redraw bars.
        drawn = importlib.util.find_spec("ipywidgets") is not None if self.console.is_jupyter else watched
        self.live = drawn and not self.console.quiet
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[score]}"),
            console=self.console,
            disable=not self.live,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Watcher:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, job: Job, event: Event) -> None:
        """Show one event."""

        if event["event"] == "start":
            self.tasks[job.label] = self.progress.add_task(job.label, total=None, score="")
            if not self.live:
                self.console.print(f"{job.label}: started")
        elif event["event"] == "progress":
            self.progress.update(self.tasks[job.label], completed=event["step"], total=event["total"])
        elif event["event"] == "evaluation":
            self.progress.update(self.tasks[job.label], score=f"return {event['mean_return']:.0f}")
            if not self.live:
                cost = f", cost {event['mean_cost']:.2f}" if "mean_cost" in event else ""
                self.console.print(
                    f"{job.label}: {event['phase']} step {event['step']}: return {event['mean_return']:.1f}{cost}"
                )
        elif event["event"] == "note":
            self.progress.console.print(f"  [dim]{escape(job.label)} · {escape(event['message'])}[/dim]")
        elif event["event"] == "end" and event["status"] != "complete":
            self.progress.console.print(f"[red]{escape(job.label)}: {event['status']}[/red]")
