"""The page holds everything it says, says everything it should, and trusts nothing it is given."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from reading import merged, page, read

from segue.report import markdown_report, render
from segue.report.figures import DARK, LIGHT

VOID = {"meta", "img", "source", "br"}


class Page(HTMLParser):
    """The page's text by section heading, its tags with attributes, and whether they nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {"": ""}
        self.heading = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "h2":
            self.heading = ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.heading = data
        elif "style" not in self.open:
            self.sections[self.heading] = self.sections.get(self.heading, "") + " " + data


def test_the_page_needs_no_other_file_and_no_network(tmp_path: Path, summary: dict[str, Any]) -> None:
    text = render(read(summary), tmp_path).read_text(encoding="utf-8")
    shown = Page(text)
    sources = [v for _, attrs in shown.tags for k, v in attrs.items() if k in {"src", "srcset", "href", "data"}]
    assert len(sources) == 4, "two pictures, each for light and for dark"
    assert all(source and source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?://|@import|url\(", text)
    assert not {tag for tag, _ in shown.tags} & {"script", "link", "iframe", "object", "embed"}


def test_the_page_is_well_formed(summary: dict[str, Any]) -> None:
    assert Page(page(summary)).open == []


NASTY = "<script>alert('x')</script>\"&"


def test_nothing_from_the_summary_becomes_markup(summary: dict[str, Any]) -> None:
    plain = {tag for tag, _ in Page(page(summary)).tags}
    nasty = dict(summary, run=NASTY, segue_version=NASTY, status=NASTY, command=NASTY, machine={NASTY: NASTY})
    nasty["versions"] = {NASTY: NASTY}
    arm = summary["arms"]["fine-tune"]
    arm["handover"] = [NASTY]
    arm["recipe"] |= {"env": NASTY, "dataset": NASTY, NASTY: NASTY, "offline": {"name": NASTY, NASTY: NASTY}}
    for key in list(arm["seeds"]):
        arm["seeds"][key + NASTY] = arm["seeds"].pop(key) | {
            "status": NASTY,
            "error": NASTY,
            "parameters_sha256": NASTY,
        }
    nasty["arms"] = {NASTY: arm, "scratch": summary["arms"]["scratch"]}
    shown = Page(page(nasty))
    assert {tag for tag, _ in shown.tags} - plain <= {"div", "ul", "li", "p", "strong", "span"}
    assert "<script" not in markdown_report(read(nasty))
    assert shown.open == []
    assert not any(name.startswith("on") for _, attrs in shown.tags for name in attrs)
    assert {attrs["title"] for tag, attrs in shown.tags if tag == "code" and "title" in attrs} >= {NASTY}
    for heading in ("Measures", "Where the arms differ", "Networks at the handover", "Seeds", f"Run {NASTY}"):
        assert NASTY in shown.sections[heading]


def test_a_complete_run_has_no_banner_and_a_broken_one_says_why(summary: dict[str, Any]) -> None:
    assert "Status:" not in Page(page(summary)).sections[""]
    summary["status"] = "failed"
    summary["arms"]["fine-tune"]["seeds"]["1"] |= {
        "status": "failed",
        "error": "critic loss is NaN at step 7",
    }
    top = Page(page(summary)).sections[""]
    assert "Status: failed." in top
    assert "fine-tune, seed 1: failed – critic loss is NaN at step 7" in top
    assert "seed 0" not in top


def test_the_measures_are_those_of_the_tables(summary: dict[str, Any]) -> None:
    section = Page(page(summary)).sections["Measures"]
    for figure in ("2,000", "1,900–2,100", "1,175", "50 %", "Few seeds (2)"):
        assert figure in section


def test_the_interval_is_there_on_hovering_even_for_few_seeds(summary: dict[str, Any]) -> None:
    titles = [attrs["title"] for _, attrs in Page(page(summary)).tags if "title" in attrs]
    # 2,000 ± 12.7062 · 141.42 / √2.
    assert "95 % interval (Student's t, 2 seeds): 729–3,271" in titles


def test_differences_and_shared_settings_are_kept_apart(summary: dict[str, Any]) -> None:
    shown = Page(page(summary))
    assert "cql" in shown.sections["Where the arms differ"]
    assert "tau" not in shown.sections["Where the arms differ"]
    assert "Hopper-v5" not in shown.sections["Where the arms differ"]
    assert "tau" in shown.sections["All other settings"]


def test_of_many_arms_each_has_a_row_of_what_differs(summary: dict[str, Any]) -> None:
    heads = re.compile(r"<h2>Where the arms differ</h2>.*?</thead>", re.DOTALL)
    few = heads.search(page(summary))
    summary["arms"] |= {f"again {i}": summary["arms"]["scratch"] for i in range(4)}
    many = heads.search(page(summary))
    assert few is not None
    assert "scratch" in few[0]
    assert many is not None
    assert "offline" in many[0]
    assert "scratch" not in many[0]


@pytest.mark.slow
def test_the_caption_explains_only_what_is_drawn(summary: dict[str, Any]) -> None:
    assert "Dot and dashed level" in Page(page(summary)).sections[""]
    assert "Grey" not in Page(page(summary)).sections[""]
    summary["arms"]["again"] = summary["arms"]["fine-tune"]
    assert "Grey: pretraining that arms share." in Page(page(summary)).sections[""]
    del summary["arms"]["fine-tune"], summary["arms"]["again"]
    top = Page(page(summary)).sections[""]
    assert "dashed level" not in top
    assert "Band: from the lowest to the highest seed. Thin lines are seeds." in top
    seeds = summary["arms"]["scratch"]["seeds"]
    seeds |= {str(i): seeds["0"] for i in range(2, 6)}
    top = Page(page(summary)).sections[""]
    assert "Band: 95 % interval of the mean." in top
    assert "Thin lines" not in top
    summary["arms"]["scratch"]["seeds"] = {"0": seeds["0"]}
    assert "Band" not in Page(page(summary)).sections[""]


def test_one_arm_differs_from_nobody(summary: dict[str, Any]) -> None:
    del summary["arms"]["scratch"]
    sections = Page(page(summary)).sections
    assert "Where the arms differ" not in sections
    assert "sac" in sections["Recipe"]


def test_seeds_show_time_speed_and_fingerprint(summary: dict[str, Any]) -> None:
    shown = Page(page(summary))
    for text in ("2 min 05 s", "8.2 s", "1,234 updates/s", "0123456789 "):
        assert text in shown.sections["Seeds"] + " "
    digests = [attrs["title"] for tag, attrs in shown.tags if tag == "code" and "title" in attrs]
    assert digests == ["0123456789abcdef" * 4] * 4


def test_an_arm_has_the_colour_of_its_line_in_light_and_in_dark(summary: dict[str, Any]) -> None:
    text = page(summary)
    assert re.findall(r"\.arm-1 \{ --arm: (#\w+) \}", text) == [LIGHT.arms[1], DARK.arms[1]]
    assert re.search(r"\.swatch \{[^}]*border-top: 3px solid var\(--arm\)", text)
    swatches = [attrs["class"] for _, attrs in Page(text).tags if "swatch" in (attrs.get("class") or "")]
    # Measures (two tables), statistics, the handover, then handover (scratch has none), then the seeds.
    assert swatches == [f"swatch arm-{i}" for i in (0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 0, 1, 1)]


def test_handover_machine_versions_and_command_are_there(summary: dict[str, Any]) -> None:
    sections = Page(page(summary)).sections
    assert "critic: fresh" in sections["Networks at the handover"]
    for text in ("a processor", "0.10.0", "segue compare --out runs/x", "1 h 02 min"):
        assert text in sections["Run"]


def test_a_merged_page_names_every_run(summary: dict[str, Any]) -> None:
    sections = Page(page(merged({**summary, "run": "a"}, {**summary, "run": "b"}))).sections
    assert {"Run a", "Run b"} <= set(sections)
    assert any("was there before: counted once" in text for text in sections.values()), "equal recipes, equal seeds"
    other = copy.deepcopy(summary)
    other["arms"]["scratch"]["recipe"]["online_steps"] = 7
    sections = Page(page(merged({**summary, "run": "a"}, {**other, "run": "b"}))).sections
    assert "a/scratch" in sections["Measures"]


def test_a_run_that_has_only_begun_has_a_page(summary: dict[str, Any]) -> None:
    bare = {"status": "interrupted", "arms": {"x": {"recipe": {}, "handover": [], "seeds": {"0": {}}}}}
    assert "x, seed 0: pending" in Page(page(bare)).sections[""]
    assert Page(page({"arms": {}})).open == []


@pytest.mark.parametrize("module", ["jax", "matplotlib", "rich"])
def test_importing_the_report_is_cheap(module: str) -> None:
    code = f"import sys, segue.report; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
