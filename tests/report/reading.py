"""Reports of plain summaries, as the command line makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segue.report import Summary, decode, merge
from segue.report.aggregate import aggregate
from segue.report.page import html_page


def read(plain: Mapping[str, Any]) -> Summary:
    return decode(plain, str(plain.get("run", "")))


def page(plain: Mapping[str, Any] | Summary) -> str:
    summary = plain if isinstance(plain, Summary) else read(plain)
    return html_page(summary, aggregate(summary))


def merged(*plain: Mapping[str, Any]) -> Summary:
    return merge([read(one) for one in plain])
