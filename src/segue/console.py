"""The console that commands, and runs started from Python, print to."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console


class PlainConsole(Console):
    """Colours only what is marked; a reader who has gone is told to the command line as any other failed write is."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to `main`, where rich would exit with 1."""
        raise BrokenPipeError
