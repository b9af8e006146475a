"""Every command on every page is one that the command line accepts: its flags exist, and their values are valid."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segue.algorithms import ALGORITHMS, BC, SAC
from segue.bridges import BRIDGES
from segue.cli import branch, learn, recipe_flags, resume
from segue.cli import parse as parsing
from segue.cli.main import COMMANDS, main
from segue.errors import SegueError
from segue.live.worlds import __main__ as worlds
from segue.plugins import register
from segue.presets import RECIPES
from segue.recipe import Recipe

ROOT = Path(__file__).parents[1]
#: Templates, and what commands were called in the past.
LEFT_OUT = ("docs/_new/", "CHANGELOG.md")
#: Of a command whose recipe is that of a run, or is not written out.
ANY = Recipe(dataset="segue:hopper-mixed", offline=BC(), offline_steps=10_000, online=SAC(), online_steps=10_000)
#: Commands that are not Segue's own.
OTHERS = {"pip", "git", "cd", "curl", "jupyter", "mlflow", "wandb", "source", "true"}


def pages() -> list[str]:
    """Every page of the repository."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if not name.startswith(LEFT_OUT)]


def commands() -> Iterator[tuple[str, str]]:
    """Page and command of every fenced block that is a shell's, continued lines joined."""
    for name in pages():
        for language, body in re.findall(r"^ *```(\w*)\n(.*?)^ *```", (ROOT / name).read_text(), re.M | re.S):
            for line in map(str.strip, body.replace("\\\n", " ").splitlines()):
                if line and (language == "bash" or (not language and re.match(r"(segue|python|make) ", line))):
                    yield name, line


def words_of(line: str) -> list[str]:
    """The words of a line up to a pipe or a redirection, without a comment, variables and the path of the program."""
    lexer = shlex.shlex(re.sub(r"\$[A-Z_]+", "1", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word and set(word) <= set("|&;<>()"):
            break
        words.append(word)
    while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] == "srun"):
        words.pop(0)
    return [word.removeprefix(".venv/bin/").replace("my-method", "td3-bc") for word in words]


class Accepted(BaseException):
    """Raised where a command would begin its work."""


@pytest.fixture
def only_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end where their flags are understood."""

    def accept(*arguments: Any, **options: Any) -> Any:
        raise Accepted

    def parse(*arguments: Any) -> Any:
        parsing.parse(*arguments)
        raise Accepted

    for module in (resume, worlds, *(importlib.import_module(f"segue.cli.{name}") for name in COMMANDS)):
        for name, stop in (("parse", parse), ("launch", accept)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, stop)
    monkeypatch.setattr("segue.sweeps.sweep", accept)
    monkeypatch.setattr("segue.presets.auto", lambda **task: RECIPES["promoted"]())  # it would look into the dataset
    for folder in ("research", "plugin/src"):
        monkeypatch.syspath_prepend(str(ROOT / "examples" / folder))
    for registry in (ALGORITHMS, BRIDGES):  # what is registered here is gone afterwards
        monkeypatch.setattr(registry, "_parts", dict(registry._parts))
    for place, name in (
        ("careful", "Careful"),
        ("segue_example.crr", "CRR"),
        ("segue_example.slow_start", "SlowStart"),
    ):
        register(getattr(importlib.import_module(place), name))


def begin(line: str) -> None:
    """A command up to where its work would begin.

    Raises:
        SegueError: if its flags are refused.
    """
    program, *flags = words_of(line) or ["true"]
    if program == "make":
        known = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.M)
        assert flags[0] in " ".join(known).split()
    elif program == "python":
        python(flags)
    elif program == "segue":
        command, *flags = [flag for i, flag in enumerate(flags) if "--import" not in flags[max(i - 1, 0) : i + 1]]
        if command in ("branch", "learn") or "…" in flags:
            extra = {"branch": branch.PLACE + branch.WHERE, "learn": learn.FLAGS}.get(command, branch.PLACE)
            flags = [flag for flag in flags[command == "branch" :] if flag != "…"]
            recipe_flags.recipe_from_flags(flags, command, "", extra, ANY)
        else:
            importlib.import_module(f"segue.cli.{command}").main(flags)
    else:
        assert program in OTHERS


def python(flags: list[str]) -> None:
    """A script or a module: it is there, and Segue's own take these flags."""
    if flags[0] == "-m" and flags[1] == "segue.live.worlds":
        worlds.main(flags[2:])
    elif flags[0] == "-m" and flags[1] != "pytest":
        assert importlib.util.find_spec(flags[1]) is not None
    elif flags[0] != "-m":
        assert list(ROOT.glob(f"examples/**/{flags[0]}"))


@pytest.mark.parametrize("page", sorted({page for page, _ in commands()}))
def test_every_command_of_the_page_is_accepted(page: str, only_parsed: None, capsys: pytest.CaptureFixture) -> None:
    refused = []
    for line in [line for of, line in commands() if of == page]:
        try:
            begin(line)
        except Accepted:
            continue
        except (SegueError, SystemExit) as error:
            refused.append(f"{line}\n  {error} {capsys.readouterr().err[-500:]}")
    assert refused == []


def test_a_flag_that_is_not_there_is_found(only_parsed: None) -> None:
    with pytest.raises(SegueError, match="unknown flag '--sedes'"):
        begin("segue run --dataset segue:hopper-mixed --offline bc --offline-steps 10 --sedes 2 --out runs/x")


def test_every_flag_that_a_sentence_names_with_its_command_is_there(capsys: pytest.CaptureFixture) -> None:
    named: dict[str, set[str]] = {}
    for page in pages():
        for command, rest in re.findall(r"`segue ([a-z]+)\b([^`]*)`", (ROOT / page).read_text()):
            named.setdefault(command, set()).update(re.findall(r"(--[a-z][a-z-]*)(?![\w.-])", rest))
    assert set(named) <= set(COMMANDS)
    missing = []
    for command, flags in named.items():
        with pytest.raises(SystemExit):
            main([command, "--help"])
        known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) | {"--help", "--import", "--resume"}
        missing += [f"segue {command} {flag}" for flag in sorted(flags - known)]
    assert missing == []
