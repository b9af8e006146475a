"""What the site takes from the code when it is built: `<!-- {name} argument -->` in a page becomes Markdown.

On a code host such a comment is invisible. Names that are not in `WRITERS` are Sphinx's own directives.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from studies.family.__main__ import STUDY as family
from studies.panels import panels
from studies.results import begun, tables

import segue
from segue.algorithms import ALGORITHMS
from segue.algorithms.base import Follow
from segue.bridges import BRIDGES
from segue.cli.main import COMMANDS, main
from segue.cli.parse import docs_of_fields
from segue.data import FORMATS
from segue.replay import REPLAYS

ROOT = Path(__file__).parents[1]
PARTS = {**ALGORITHMS, **BRIDGES, **REPLAYS}
#: The study whose results the pages of the algorithms show.
FAMILY = json.loads((family.folder / "results.json").read_text())


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; cells may hold any text."""
    lines = [list(head), None, *rows]
    cells = [["---"] * len(lines[0]) if row is None else row for row in lines]  # type: ignore[arg-type]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in cells)


def _cell(text: Any) -> str:
    return re.sub(r"([|<*])", r"\\\1", " ".join(str(text).split()))


def about(name: str) -> str:
    """What the part is, from its module and its class."""
    part = PARTS[name]
    said = [inspect.getdoc(sys.modules[part.__module__]), inspect.getdoc(part)]
    parts = "\n\n".join(map(str, said)).split("`")
    parts[::2] = [re.sub(r"([<*_|])", r"\\\1", part) for part in parts[::2]]  # not within code
    return "`".join(parts)


def hyper_parameters(name: str) -> str:
    """Field, default and meaning of every hyper-parameter, those of the class itself first."""
    part = PARTS[name]
    docs = docs_of_fields(part)
    fields = sorted(dataclasses.fields(part), key=lambda field: field.name not in vars(part).get("__annotations__", {}))
    rows = [(f"`{field.name}`", f"`{getattr(part(), field.name)!r}`", docs.get(field.name, "")) for field in fields]
    return table(("hyper-parameter", "default", "meaning"), rows)


def update(name: str) -> str:
    """The steps of an algorithm's update in their order, with the docstrings of their losses."""
    rows = []
    for step in ALGORITHMS[name]().steps():
        follows = isinstance(step, Follow)
        role = f"target of {step.target.removeprefix('target_')}" if follows else step.role
        said = ["follows by Polyak averaging" if follows else inspect.getdoc(step.loss)]
        if hasattr(step, "next_value"):
            said.append(f"The target is r + γ (1 − d) times {inspect.getdoc(step.next_value)}")
        rows.append((role, step.every, ". ".join(str(text).rstrip(".") for text in said)))
    return table(("network", "every", "loss"), rows)


def presets(name: str) -> str:
    """The published hyper-parameters of an algorithm, by domain."""
    rows = [
        (f"`{preset}`", ", ".join(f"`{field}={value!r}`" for field, value in values.items()) or "the defaults")
        for preset, values in ALGORITHMS[name].presets.items()
    ]
    return table(("preset", "changes"), rows) if rows else "None: the defaults are the published ones."


def results(name: str) -> str:
    """What the algorithm's runs of studies/family came to on both datasets: learning curves and a table."""
    arms = {label: arm for label, arm in begun(FAMILY)[0]["arms"].items() if name in _learners(arm["recipe"])}
    if not arms:
        return "No stored run yet."
    found = {**FAMILY, "arms": arms}
    rows = [
        [(task, {arm["method"]: label for label, arm in arms.items() if arm["run"] == task})]
        for task in dict.fromkeys(arm["run"] for arm in arms.values())
    ]
    picture = Path("docs/_made") / f"{name}.png"
    (ROOT / picture).parent.mkdir(exist_ok=True)
    (ROOT / picture).write_bytes(panels(found, rows))
    return f"![Learning curves of {name}](/{picture})\n\n{tables(found, family.columns)}"


def _learners(recipe: Mapping[str, Any]) -> set[str]:
    return {recipe[phase]["name"] for phase in ("offline", "online") if recipe[phase]}


def accepts(name: str) -> str:
    """What a bridge needs, and the symptoms that it helps against."""
    bridge = BRIDGES[name]
    needs = [f"the networks {', '.join(bridge.needs)}"] if bridge.needs else []
    needs += ["a dataset"] if bridge.needs_dataset else []
    needs += ["a pretrained policy"] if bridge.needs_pretrained else []
    lines = [f"- Needs {'; '.join(needs) or 'nothing beyond an online phase'}."]
    lines += [f"- Helps against *{remedy.against}*: {remedy.why}." for remedy in bridge.remedies]
    return "\n".join(lines)


def reader(scheme: str) -> str:
    """What the reader of a format says of itself."""
    return re.sub(r"\n+Raises:[\s\S]*", "", str(inspect.getdoc(FORMATS[scheme])))


def commands(_: str) -> str:
    """Every command with its flags."""
    return "\n\n".join(f"## segue {name}\n\n{command(name)}" for name in COMMANDS)


def command(name: str) -> str:
    """A command's description and a table of its flags, from the page that `--help` prints."""
    _, _, page = _help(name).partition("\n\n")
    about, *panels = re.split(r"^╭─ (.*?) ─+╮$", page, flags=re.MULTILINE)
    intro, *rest = about.strip().split("\n\n")
    parts = [part.strip("\n") for part in rest if part.strip()]
    said = [intro.replace("<", "\\<"), *(f"```text\n{part}\n```" if part.startswith(" ") else part for part in parts)]
    rows: list[list[str]] = []
    for title, panel in zip(panels[::2], panels[1::2], strict=True):
        for line in re.findall(r"^│ (.*?) *│$", panel, re.MULTILINE):
            if line.startswith("    ") and rows:
                rows[-1][1] += f" {line.strip()}"
            elif line.startswith("--") or title == "positional arguments":
                rows.append(re.split(r"  +|$", line, maxsplit=1)[:2])
    return "\n\n".join(said) + "\n\n" + table(("flag", "default", "meaning"), map(_flag, rows))


def _flag(row: list[str]) -> tuple[str, str, str]:
    """Its name, its default and what it means."""
    names, text = row
    meaning, _, default = text.replace("(required)", "").strip().partition("(default: ")
    name = names.split(",")[0].split()[0] if names.startswith("--") else re.sub(r"\{None\}\||[][]", "", names)
    return f"`{name}`", f"`{default.removesuffix(')')}`" if default not in ("", ")") else "", meaning.strip()


def _help(name: str) -> str:
    page = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # frames the flags
    wide = mock.patch.dict(os.environ, COLUMNS="2000")  # so that no line is wrapped
    with wide, contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        main([name, "--help"])
    page.seek(0)
    return page.read()


def api(module: str) -> str:
    """The documentation of a public module's names, from their docstrings; `module: A B` takes these only."""
    module, _, chosen = module.partition(":")
    names = chosen.split() or getattr(importlib.import_module(module), "__all__", ())
    return f"```{{eval-rst}}\n.. automodule:: {module}\n   :members: {', '.join(names)}\n```"


def names(_: str) -> str:
    """Every name of the package itself, and where it is documented."""
    rows = []
    for name in segue.__all__:
        if home := segue._HOME.get(name):
            first = str(inspect.getdoc(getattr(segue, name))).partition("\n\n")[0]
            rows.append((f"{{py:obj}}`segue.{name} <{home}.{name}>`", first))
    return table(("name", "what it is"), rows)


WRITERS = {
    writer.__name__.replace("_", "-"): writer
    for writer in (about, hyper_parameters, update, presets, results, accepts, reader, commands, api, names)
}


def fill(app: Sphinx, page: str, source: list[str]) -> None:
    """Write what the comments of a page ask for."""

    def write(match: re.Match[str]) -> str:
        name, argument = match[1], match[2].strip()
        if name in WRITERS:
            return WRITERS[name](argument)
        return f"```{{{name}}}{match[2].rstrip()}\n```"

    source[0] = re.sub(r"<!-- \{([\w-]+)\}(.*?)-->", write, source[0], flags=re.DOTALL)


def escape(app: Sphinx, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with backticks: their |x|, * and trailing _ mean nothing else."""
    parts = "\n".join(lines).split("`")
    parts[::2] = [re.sub(r"([|*]|_\b)", r"\\\1", part) for part in parts[::2]]
    lines[:] = "``".join(parts).split("\n")
    if what in ("attribute", "property"):  # napoleon would take what stands before a colon in the first line for a type
        lines.insert(0, "")


def mathml(self: Any, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers draw without a script."""
    block = isinstance(node, nodes.math_block)
    self.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", escape, priority=400)  # before napoleon
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
