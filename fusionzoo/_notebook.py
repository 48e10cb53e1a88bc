"""What notebooks show of a result (`_repr_html_`): small tables and lists that bring no style sheet of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fusionzoo._text import markup

#: Rows of a table that are shown; the others are counted.
_ROWS = 40


def html_table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A titled table; of many rows the first ones."""
    cells = "".join(f"<th>{markup(c)}</th>" for c in header)
    head = f"<thead><tr>{cells}</tr></thead>" if any(header) else ""
    body = "".join(f"<tr>{''.join(f'<td>{markup(c)}</td>' for c in row)}</tr>" for row in rows[:_ROWS])
    more = f"<p>and {len(rows) - _ROWS} more</p>" if len(rows) > _ROWS else ""
    return f"<div><strong>{markup(title)}</strong><table>{head}<tbody>{body}</tbody></table>{more}</div>"


def html_list(title: str, grave: Iterable[str], others: Iterable[str]) -> str:
    """A titled list, what is grave first and in bold."""
    items = [f"<li><strong>{markup(t)}</strong></li>" for t in grave]
    items += [f"<li>{markup(t)}</li>" for t in others]
    head = f"<strong>{markup(title)}</strong>" if title else ""
    return f"<div>{head}<ul>{''.join(items)}</ul></div>"


def html_lines(text: str) -> str:
    """Lines of text as they are."""
    return f"<pre>{markup(text)}</pre>"
