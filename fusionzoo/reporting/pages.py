"""Self-contained HTML pages: one style sheet, one script, and the parts that pages are made of."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from fusionzoo._text import markup
from fusionzoo.reporting import plots

#: What stands in red where the test split was looked at.
TEST_SELECTED = (
    "Selected on the test split. The epoch was chosen by its test score, as many published numbers were. "
    "The test score is therefore too high, by an unknown amount, and does not compare with runs selected on dev."
)
#: Where pictures are left out.
WITHOUT_PICTURES = 'Pictures for a paper need matplotlib: pip install "fusionzoo[report]".'


def page(title: str, parts: Sequence[str]) -> str:
    """A whole HTML page, which loads nothing.

    Parameters
    ----------
    title : its name and first heading.
    parts : its HTML.
    """
    name = markup(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{name}</title>\n<style>\n{_file('page.css')}</style></head>\n<body><h1>{name}</h1>\n"
        + "\n".join(parts)
        + f"\n<script>\n{_file('page.js')}</script></body></html>\n"
    )


@cache
def _file(name: str) -> str:
    return (files("fusionzoo.reporting") / name).read_text("utf-8")


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text, optionally of class `lede`, `warning` or `note`."""
    return f'<p class="{kind}">{markup(text)}</p>' if kind else f"<p>{markup(text)}</p>"


def warning(text: str) -> str:
    """A paragraph in red."""
    return paragraph(text, "warning")


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{markup(text)}</h{level}>"


def code(heading: str, text: str) -> str:
    """Text as it is, behind a heading that opens it."""
    return details(f"<b>{markup(heading)}</b>", [f"<pre>{markup(text)}</pre>"])


def details(summary: str, parts: Sequence[str], name: str = "") -> str:
    """What opens on demand.

    Parameters
    ----------
    summary : HTML that always shows.
    parts : HTML behind it.
    name : by which links on the page find it.
    """
    at = f' id="{markup(name)}"' if name else ""
    return f"<details{at}><summary>{summary}</summary>\n" + "\n".join(parts) + "\n</details>"


def columns(parts: Sequence[str]) -> str:
    """Parts side by side where there is room."""
    return '<div class="columns">' + "\n".join(f"<div>{part}</div>" for part in parts) + "</div>"


def links(pairs: Sequence[tuple[str, str]]) -> str:
    """Links in a row: text and address of each."""
    shown = [f'<a href="{markup(to)}">{markup(text)}</a>' for text, to in pairs]
    return f'<div class="links">{"".join(shown)}</div>'


def image(data: bytes, alt: str) -> str:
    """A PNG inside the page, on white."""
    return f'<img alt="{markup(alt)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def picture(figure: Any, alt: str) -> str:
    """A matplotlib figure inside the page, drawn in the page's own colours.

    Parameters
    ----------
    figure : of `fusionzoo.reporting.plots`.
    alt : what it shows, for whoever does not see it.
    """
    return f'<figure role="img" aria-label="{markup(alt)}">{plots.svg(figure)}</figure>'
