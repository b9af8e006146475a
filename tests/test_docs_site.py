"""The documentation has a page for every part, a mention of every public name, and plain sentences."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import segue
from segue.algorithms import ALGORITHMS
from segue.bridges import BRIDGES
from segue.data import FORMATS
from segue.replay import REPLAYS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
API = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))


def shown(module: str) -> set[str]:
    """Names of a module that the pages of the Python API ask for."""
    names: set[str] = set()
    for chosen in re.findall(rf"<!-- {{api}} {re.escape(module)}(:[^>]*)? -->", API):
        home = importlib.import_module(module)
        names |= set(chosen.strip(": ").split() or getattr(home, "__all__", vars(home)))
    return names


def test_every_public_name_is_in_the_python_api() -> None:
    missing = [name for name, home in segue._HOME.items() if name not in shown(home)]
    assert missing == [], "name them in docs/api/*.md"
    documented = set(re.findall(r"{api} segue\.(\w+)", API))
    assert {*segue._PACKAGES, "live", "sweeps", "evidence"} <= documented


@pytest.mark.parametrize(("folder", "parts"), [("algorithms", ALGORITHMS), ("bridges", BRIDGES), ("formats", FORMATS)])
def test_every_part_has_a_page_with_what_the_code_says_of_it(folder: str, parts: dict[str, object]) -> None:
    own = {name for name, part in parts.items() if part.__module__.startswith("segue.")}  # type: ignore[attr-defined]
    pages = {page.stem: page.read_text() for page in (DOCS / folder).glob("*.md")}
    assert own == set(pages)
    generator = "reader" if folder == "formats" else "hyper-parameters"
    assert [name for name, text in pages.items() if f"<!-- {{{generator}}} {name} -->" not in text] == []


def test_every_replay_strategy_is_on_its_page() -> None:
    page = (DOCS / "replay.md").read_text()
    assert [name for name in REPLAYS if f"{{hyper-parameters}} {name} " not in page] == []


def test_the_lint_of_sentences_finds_banned_words_and_long_sentences(tmp_path: Path) -> None:
    sys.path.insert(0, str(DOCS))
    prose = importlib.import_module("prose")
    page = tmp_path / "page.md"
    page.write_text("# Whatever\n\n`whatever` is code.\n\nWhoever reads this is warned. " + "word " * 40 + "end.\n")
    found = list(prose.problems(page))
    assert len(found) == 2
    assert ":5: 'Whoever'" in found[0]
    assert f":5: 41 words, at most {prose.LONGEST}" in found[1]


def test_the_lint_of_sentences_reads_what_errors_and_flags_say(tmp_path: Path) -> None:
    sys.path.insert(0, str(DOCS))
    prose = importlib.import_module("prose")
    long = "word " * 13
    code = tmp_path / "code.py"
    code.write_text(
        f"""def check(self, where):
    "Whatever a function does is its own."
    raise ValueError(
        f"{{where}}: {long}"
        f"{{self!r}} {long}"
    )
    self.fail("whatever it is")
    raise self.fail(f"{{'short' if where else 'whatever'}}") from None
parser.add_argument("--seed", help="this is said once")
"""
    )
    found = [line.removeprefix(str(code)) for line in prose.problems(code)]
    assert [line.split(":")[1] for line in found] == ["7", "9", "4"]
    assert ["'whatever'" in found[0], "'is said'" in found[1], "27 words" in found[2]] == [True, True, True]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "--conf-dir", "docs", ".", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "docs/index.html").exists()
    remote = re.compile(r"<(script|link|img)[^>]+(src|href)=\"https?://")
    assert [page.name for page in tmp_path.rglob("*.html") if remote.search(page.read_text())] == []
