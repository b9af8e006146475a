"""The table of docs/recipes.md says what the leaderboard's tables say."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Column of docs/recipes.md: arm and column of the study.
COLUMNS = {
    "handed over": ("auto", "offline score"),
    "`auto`": ("auto", "final"),
    "BC of the best tenth → PPO": ("BC of the best tenth → PPO", "final"),
    "RLPD from scratch": ("RLPD", "final"),
    "the same, four updates": ("RLPD, four updates", "final"),
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows(lines: list[str]) -> dict[str, dict[str, str]]:
    """Of a table, by the first cell."""
    head, _, *body = [cells(line) for line in lines]
    return {row[0]: dict(zip(head, row, strict=True)) for row in body}


def test_the_recipes_page_quotes_the_leaderboard() -> None:
    study = (ROOT / "studies/leaderboard/README.md").read_text()
    quoted = (ROOT / "docs/recipes.md").read_text().splitlines()
    first = next(i for i, line in enumerate(quoted) if line.strip().startswith("| task | handed over |"))
    last = next(i for i in range(first, len(quoted)) if not quoted[i].strip())
    found = rows(quoted[first:last])
    assert found
    for task, row in found.items():
        table = re.search(rf"^\*\*{task}\*\*\n\n((?:\|.*\n)+)", study, re.MULTILINE)
        assert table, task
        arms = rows(table[1].splitlines())
        for column, (arm, measure) in COLUMNS.items():
            value = arms[arm][measure]
            assert row[column] == (value.split(" (")[0] if measure == "offline score" else value), (task, column)
