"""`segue`: the command line. Each command is one file, imported only when it is the one that was called."""

from __future__ import annotations

import codecs
import importlib
import io
import os
import sys

from segue import __version__
from segue.compiled import keep_programs
from segue.errors import SegueError, unknown
from segue.plugins import import_module

#: Command by name: its module in segue.cli and what it does.
COMMANDS = {
    "run": "pretrain on a dataset, hand over, fine-tune live; or repeat a recipe.json",
    "branch": "from the end of a run's offline phase with another online algorithm, or other bridges",
    "compare": "several recipes as arms of one report",
    "sweep": "try values of hyper-parameters, and judge the best again on fresh seeds",
    "report": "write the report of one or more runs again",
    "handover": "what happened at the handover, and what the numbers say about it",
    "evaluate": "judge a run's final policies over more episodes",
    "watch": "a video of a run's policy",
    "export": "write a trained policy for use elsewhere, without the training stack",
    "serve": "a policy as a service: decides, logs what it decides and what comes of it",
    "learn": "fine-tune from the log of a live service, and stage candidates in it",
    "policies": "the policies of a live log: candidates, canary, promotion, rollback",
    "ab": "which of two policies is better, from units that they shared or from a dataset",
    "advise": "what to do with a dataset: what to expect at the handover, a recipe, and its cost here",
    "inspect": "what is in a dataset, and what is wrong with it",
    "convert": "write a dataset in another format",
    "collect": "record policies in an environment into a dataset",
    "list": "the algorithms, bridges, replay strategies and datasets there are",
}
#: Commands that need the packages of `segue[live]`.
LIVE = ("serve", "learn", "policies", "ab")

USAGE = f"""segue {__version__}: offline-to-online reinforcement learning

usage: segue COMMAND [OPTIONS]        segue COMMAND --help says more
       every command takes --import MODULE, which registers your own algorithms, bridges, replays or datasets

{chr(10).join(f"  {name:<10}{what}" for name, what in COMMANDS.items())}

for example:
  segue inspect segue:hopper-mixed
  segue run --dataset segue:hopper-mixed --offline td3-bc --offline-steps 20000 \\
            --online sac --online-steps 20000 --bridges q-filter --out runs/first
"""


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a run failed, 2 bad input, 130 stopped by Ctrl-C, 143 by SIGTERM (both can go on)."""
    _write_any_text()
    try:
        try:
            return _main(sys.argv[1:] if arguments is None else arguments)
        finally:
            if sys.stdout is not None:  # a caller may have closed it
                sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        _drop_output()
        return 0
    except OSError as error:  # what no code nearer to it put into words
        where = f"{error.filename}: " if error.filename else ""
        print(f"segue: {where}{error.strerror or error}", file=sys.stderr)
        _drop_output()
        return 2


#: What is written for a character that the encoding of the output lacks; "?" for all others. A minus has to stay one.
SUBSTITUTES = {"−": "-", "–": "-", "—": "-", "·": "-", "…": "...", "“": '"', "”": '"', "±": "+/-", "─": "-", "│": "|"}


def _write_any_text() -> None:
    """Make no error of a character that the terminal, or a redirected output on Windows, has no code for."""

    def substitute(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        lacking = error.object[error.start : error.end]
        return "".join(SUBSTITUTES.get(character, "?") for character in lacking), error.end

    codecs.register_error("segue", substitute)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="segue")


def _drop_output() -> None:
    """Leave the interpreter nothing that it could not write as it ends, and would complain about."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if arguments[0] in ("-V", "--version"):
        print(__version__)
        return 0
    try:
        command, *rest = _with_imports(arguments)
        if command not in COMMANDS:
            raise SegueError(unknown("command", command, COMMANDS))
        keep_programs()
        return _command(command, rest)
    except SegueError as error:
        print(f"segue: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print("segue: interrupted; the same command goes on", file=sys.stderr)
        return getattr(interrupt, "exit_code", 130)


def _command(command: str, arguments: list[str]) -> int:
    try:
        return importlib.import_module(f"segue.cli.{command}").main(arguments)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if command not in LIVE or package in ("", "segue"):
            raise
        raise SegueError(f"segue {command} needs {package}: pip install 'segue[live]'") from None


def _with_imports(arguments: list[str]) -> list[str]:
    """The arguments without `--import MODULE`, once these modules are imported."""
    kept, words = [], iter(arguments)
    for word in words:
        if word != "--import" and not word.startswith("--import="):
            kept.append(word)
            continue
        module = word.partition("=")[2] or next(words, "")
        if not module or module.startswith("-"):
            raise SegueError("--import: no module is named; expected --import MODULE")
        import_module(module, "--import: ")
    return kept


if __name__ == "__main__":
    sys.exit(main())
