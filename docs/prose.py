"""Plain English, checked: `python docs/prose.py` names long sentences and banned words in Markdown and help texts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST = 25
"""Words of a sentence at most."""
#: Pages, and where the help of a flag comes from.
READ = [
    "*.md",
    "src/segue/recipe.py",
    *(f"src/segue/{folder}/*.py" for folder in ("cli", "algorithms", "bridges", "replay")),
]
BANNED = re.compile(
    r"\b(whoever|whatever|lest|hitherto|thereof|therein|whereby|mend(s|ed)?|riddles?|is said|by itself|"
    r"to the last digit|seam|somebody else's)\b",
    re.IGNORECASE,
)


def prose(markdown: str) -> str:
    """The running text, line by line: without code, comments, formulas and tables."""
    for block in (r"^```.*?^```", r"<!--.*?-->", r"\$\$.*?\$\$"):
        markdown = re.sub(block, _blank, markdown, flags=re.DOTALL | re.MULTILINE)
    markdown = re.sub(r"^( *\||    |#).*$", "", markdown, flags=re.MULTILINE)
    return re.sub(r"`[^`]*`|\$[^$]*\$|\]\([^)]*\)", "x", markdown)


def _blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def docstrings(source: str) -> str:
    """The triple-quoted texts of a module that become help and reference, in their lines."""
    parts = re.sub(r"^ +segue .*$", "", source, flags=re.MULTILINE).split('"""')
    parts[::2] = ["\n" * part.count("\n") + "\n" for part in parts[::2]]
    return "".join(parts)


def problems(path: Path) -> Iterator[str]:
    """One line per finding."""
    text = path.read_text()
    text = prose(text if path.suffix == ".md" else docstrings(text))
    for found in BANNED.finditer(text):
        yield f"{path}:{text[: found.start()].count(chr(10)) + 1}: {found[0]!r}: write it plainly"
    for sentence in re.finditer(r"[^\s.!?:;].*?(?=[.!?:;](?=[*)\"]*\s)|\n\s*(\n|[-*>] |\d+\. )|\Z)", text, re.DOTALL):
        if (length := len(sentence[0].split())) > LONGEST:
            line = text[: sentence.start()].count("\n") + 1
            yield f"{path}:{line}: {length} words, at most {LONGEST}: {' '.join(sentence[0].split()[:8])} …"


def main() -> int:
    """Print what is found; 1 if there is something."""
    listed = subprocess.run(["git", "ls-files", *READ], cwd=ROOT, capture_output=True, text=True)
    found = [problem for name in listed.stdout.split() for problem in problems(Path(name))]
    print(*found, sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
