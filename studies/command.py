"""What the commands of the examples share: flags, a folder of results, and how they end."""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import segue
from segue.errors import SegueError, unknown
from segue.files import write_atomically
from segue.runner.stopping import Stopped, raising


def needs(modules: Sequence[str], extras: str) -> None:
    """End the command in a sentence if one of these modules is not installed."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"error: this example needs {', '.join(missing)}: pip install 'segue[{extras}]'")


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags; one that does not exist is answered with the one that is meant."""
    found, rest = parser.parse_known_args(arguments)
    if rest:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        parser.error(unknown("flag", rest[0].partition("=")[0], flags))
    return found


def positive(text: str) -> int:
    """A flag's whole number, at least 1."""
    if not (number := int(text)) >= 1:
        raise argparse.ArgumentTypeError(f"it is {number}; expected at least 1")
    return number


def not_negative(text: str) -> int:
    """A flag's whole number, at least 0."""
    if not (number := int(text)) >= 0:
        raise argparse.ArgumentTypeError(f"it is {number}; expected at least 0")
    return number


def claim(out: Path, made: Mapping[str, Any]) -> None:
    """Make the folder of a command, or continue in it.

    Args:
        out: the folder.
        made: the settings that decide what is in it.

    Raises:
        SegueError: if it cannot be written, or holds results of other settings.
    """
    file = out / "made-with.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        earlier = json.loads(file.read_text()) if file.exists() else made
    except OSError as error:
        raise SegueError(f"--out {out}: {error.strerror}; expected a folder that can be written") from None
    except ValueError:
        raise SegueError(f"{file} is damaged: it is no JSON. Delete it if the folder is of the same settings") from None
    if earlier != made:
        theirs, ours = (", ".join(f"{name} {value}" for name, value in one.items()) for one in (earlier, made))
        raise SegueError(f"--out {out} holds results of {theirs}; this command has {ours}. Choose another --out")
    write_atomically(file, json.dumps(made) + "\n")


def whole(result: segue.Result) -> segue.Result:
    """The result of a run that was not interrupted.

    Raises:
        KeyboardInterrupt: if it was, by Ctrl-C.
    """
    if result.status == "interrupted":
        raise KeyboardInterrupt
    return result


def ended(command: Callable[[], int]) -> int:
    """The exit code of a command: 0 done, 1 a run failed, 2 bad input, 130 stopped by Ctrl-C, 143 by SIGTERM."""
    try:
        with raising():
            return command()
    except SegueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, segue.RunFailed) else 2
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print("stopped; the same command goes on", file=sys.stderr)
        return 128 + (stopped.number if isinstance(stopped, Stopped) else signal.SIGINT)
