"""A new algorithm, bridge or format of this repository: its file, its registration, its test and its page.

make new-algorithm NAME=my-method      (python docs/new.py algorithm my-method)
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEMPLATES = Path(__file__).parent / "_new"
#: Where the parts of a kind, and their tests, are.
PLACES = {
    "algorithm": ("src/segue/algorithms", "tests/algorithms/references/{module}.py", "docs/algorithms"),
    "bridge": ("src/segue/bridges", "tests/bridges/test_{module}.py", "docs/bridges"),
    "format": ("src/segue/data", "tests/data/test_{module}.py", "docs/formats"),
}


def main(arguments: list[str]) -> str:
    """Write the files; returns what to do next."""
    kind, name = (*arguments, "", "")[:2]
    if kind not in PLACES or not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        return "expected a kind (algorithm, bridge, format) and a NAME of small letters, such as NAME=my-method"
    module, cls = name.replace("-", "_"), "".join(word.capitalize() for word in name.split("-"))
    folder, test, pages = PLACES[kind]
    written = {
        f"{folder}/{module}.py": f"{kind}.py",
        test.format(module=module): f"{kind}_test.py",
        f"{pages}/{name}.md": f"{kind}.md",
    }
    if taken := [path for path in written if (ROOT / path).exists()]:
        return f"{taken[0]} is there already; choose another NAME"
    for path, template in written.items():
        text = (TEMPLATES / template).read_text()
        text = text.replace("new_part", module).replace("NewPart", cls).replace("new-part", name)
        (ROOT / path).write_text(text)
    init = ROOT / folder / "__init__.py"
    init.write_text(registered(init.read_text(), kind, name, module, cls))
    ruff = [sys.executable, "-m", "ruff"]
    changed = [*(path for path in written if path.endswith(".py")), str(init)]
    subprocess.run([*ruff, "check", "--quiet", "--fix", *changed], cwd=ROOT)  # sorts imports and __all__
    subprocess.run([*ruff, "format", "--quiet", *changed], cwd=ROOT)
    check = f"python -m segue.conformance --part {name}"
    return f"wrote {', '.join(written)}; registered in {folder}/__init__.py. It works already: {check}"


def registered(text: str, kind: str, name: str, module: str, cls: str) -> str:
    """The package's `__init__` with the new part."""
    if kind == "format":
        text = re.sub(r"(from segue\.data import .*)", rf"\1, {module}", text, count=1)
        return re.sub(r'(        "live": live\.read,\n)', rf'\1        "{name}": {module}.read,\n', text)
    text = re.sub(r"(?=from segue\.plugins)", f"from segue.{kind}s.{module} import {cls}\n", text, count=1)
    text = re.sub(r"(_ALL\b[^=]*= \([^)]*?),?(\n?\))", rf"\1, {cls}\2", text, count=1)
    return re.sub(r"(__all__ = \[\n)", rf'\1    "{cls}",\n', text)


if __name__ == "__main__":
    print(main(sys.argv[1:]))
