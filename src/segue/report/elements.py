"""Pieces of the page: tables, lists of fields and arm names, escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape

from segue.report.runs import Summary
from segue.report.tasks import places
from segue.report.text import ABSENT
from segue.report.theme import LIGHT


def table(head: Iterable[str], rows: Iterable[Iterable[str]], numbers: bool = True) -> str:
    """A table whose first column names the rows. The cells are HTML already, the head is plain text."""
    kind = ' class="number"' if numbers else ""
    top = "".join(f'<th scope="col"{kind if i else ""}>{escape(name)}</th>' for i, name in enumerate(head))
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td{kind}>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def picture(light: bytes, dark: bytes, alt: str, caption: str) -> str:
    """PNG bytes for a light and for a dark screen, inside the page; the texts are plain."""
    day, night = ("data:image/png;base64," + base64.b64encode(content).decode() for content in (light, dark))
    return (
        f'<figure><picture><source media="screen and (prefers-color-scheme: dark)" srcset="{night}">'
        f'<img src="{day}" alt="{escape(alt)}"></picture>'
        + (f'<figcaption class="note">{escape(caption)}</figcaption>' if caption else "")
        + "</figure>"
    )


def fields(values: Mapping[str, object]) -> str:
    """Names and values of plain text, one pair a line."""
    pairs = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{ABSENT if v is None else escape(str(v))}</dd></div>" for k, v in values.items()
    )
    return f"<dl>{pairs}</dl>"


def field_name(path: Iterable[str]) -> str:
    """A recipe field's path in words."""
    return " · ".join(part.replace("_", " ") for part in path)


def arm_name(summary: Summary, name: str, status: str = "complete") -> str:
    """An arm's name behind a stroke in its colour and line style, with its status if that is worth saying."""
    return swatch(places(summary)[name], name, status)


def swatch(place: int, name: str, status: str = "complete") -> str:
    """A name behind a stroke in the colour and line style of this place."""
    tag = "" if status == "complete" else f' <span class="tag">{escape(status)}</span>'
    stroke = (
        f'<span class="swatch arm-{place % len(LIGHT.arms)}" style="border-top-style:{LIGHT.arm(place)[1]}"></span>'
    )
    return f'<span class="arm">{stroke}{escape(name)}{tag}</span>'


def fingerprint(digest: str | None) -> str:
    """The first figures of a hash, the whole of it on hovering."""
    return f'<code title="{escape(digest)}">{escape(digest[:10])}</code>' if digest else ABSENT
