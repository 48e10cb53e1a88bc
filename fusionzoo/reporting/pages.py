"""Self-contained HTML pages."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from fusionzoo._text import markup

#: What stands in red where the test split was looked at.
TEST_SELECTED = (
    "Selected on the test split. The epoch was chosen by its test score, as many published numbers were. "
    "The test score is therefore too high, by an unknown amount, and does not compare with runs selected on dev."
)

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.25rem .7rem;border-bottom:1px solid #d8dee4;text-align:right}
th:first-child,td:first-child{text-align:left}th{border-bottom:2px solid #8c959f}
.warning{color:#fff;background:#b42318;padding:.7rem 1rem;border-radius:4px;font-weight:600}
.note{color:#57606a}img{max-width:100%}pre{background:#f6f8fa;padding:1rem;overflow-x:auto}
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole HTML page."""
    name = markup(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style></head>\n'
        f"<body><h1>{name}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def image(data: bytes, alt: str) -> str:
    """A PNG inside the page."""
    return f'<img alt="{markup(alt)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text, optionally of class `warning` or `note`."""
    return f'<p class="{kind}">{markup(text)}</p>' if kind else f"<p>{markup(text)}</p>"


def warning(text: str) -> str:
    """A paragraph in red."""
    return paragraph(text, "warning")


def code(heading: str, text: str) -> str:
    """Text as it is, under a heading."""
    return f"<h2>{markup(heading)}</h2><pre>{markup(text)}</pre>"
