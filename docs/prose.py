"""Plain English, checked: `python docs/prose.py` names long sentences and banned words in Markdown, help and errors."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST = 25
"""Words of a sentence at most."""
#: Pages, and code that raises errors and explains flags.
READ = ["*.md", "*.py", ":!tests"]
#: Whose docstrings are the help of a flag.
FLAGS = re.compile(r"src/segue/(recipe\.py|(cli|algorithms|bridges|replay)/|.*(__main__|settings)\.py)")
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


def messages(source: str) -> str:
    """The texts of errors and of argparse's help, each in the line where it begins."""
    lines = [""] * (source.count("\n") + 1)
    for node in ast.walk(ast.parse(source)):
        match node:
            case (
                ast.Raise(exc=ast.Call() as said)
                | (ast.Call(func=ast.Attribute(attr="fail") | ast.Name(id="fail")) as said)
                | ast.keyword(arg="help", value=said)
            ):
                for line, text in literals(said):
                    lines[line - 1] += f"{' '.join(text.split())}. "
    return "\n".join(lines)


def literals(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Strings of an expression with their lines; what is formatted into one counts as a word."""
    match node:
        case ast.Constant(value=str(text)):
            yield node.lineno, text
        case ast.JoinedStr(values=parts):
            yield node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in parts)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from literals(child)


def problems(path: Path) -> Iterator[str]:
    """One line per finding."""
    text = path.read_text()
    if path.suffix == ".md":
        yield from judge(path, prose(text))
        return
    yield from judge(path, messages(text))
    if FLAGS.match(str(path)):
        yield from judge(path, prose(docstrings(text)))


def judge(path: Path, text: str) -> Iterator[str]:
    """What is wrong with a text whose lines are those of the file."""
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
