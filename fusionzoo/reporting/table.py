"""One table, as text, Markdown, HTML and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fusionzoo._text import markdown, markup, visible

#: What stands in a cell: a float is shown with four digits, None as nothing.
Cell = str | int | float | None

_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
}  # fmt: skip


class Strong(str):
    """A cell that stands out."""

    __slots__ = ()


@dataclass
class Table:
    """A header, rows of as many cells, and notes below. Names in it may hold anything: each form escapes what it must.

    Parameters
    ----------
    header : the columns' names.
    rows : their cells, see `Cell`; a `Strong` one stands out where the form can show it.
    notes : sentences that stand below the table.

    Examples
    --------
    >>> table = Table(["fusion", "W-F1"], [["concat", 0.5], [Strong("lmam"), 0.6123456]])
    >>> print(table.text())
    fusion  W-F1
    concat  0.5000
    lmam    0.6123
    >>> table.markdown().splitlines()[-1]
    '| **lmam** | 0.6123 |'
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """For a terminal: columns in line, the notes below."""
        lines = [[visible(c) for c in line] for line in self._lines()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([*shown, *self.notes])

    def markdown(self) -> str:
        """A Markdown table, and the notes as a paragraph."""
        header, *rows = [[_shown(c, markdown, "**{}**") for c in line] for line in self._lines()]
        lines = [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)]
        return "\n".join([*lines, *(["", *self.notes] if self.notes else [])])

    def html(self) -> str:
        """A `<table>`, and each note as a paragraph."""
        header, *rows = [[_shown(c, markup, "<strong>{}</strong>") for c in line] for line in self._lines()]
        head = "".join(f"<th>{c}</th>" for c in header)
        body = "\n".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
        return "\n".join([table, *(f'<p class="note">{markup(n)}</p>' for n in self.notes)])

    def latex(self) -> str:
        """A `tabular` for a paper, which needs no package; the notes as comments."""
        header, *rows = [[_shown(c, _latex, r"\textbf{{{}}}") for c in line] for line in self._lines()]
        lines = [f"\\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}", "\\hline"]
        lines += [" & ".join(header) + r" \\", "\\hline"]
        lines += [*(" & ".join(row) + r" \\" for row in rows), "\\hline", "\\end{tabular}"]
        return "\n".join([*lines, *(f"% {visible(n)}" for n in self.notes)])

    def _lines(self) -> list[list[str]]:
        """Header and rows as text."""
        return [[_text(c) for c in line] for line in (self.header, *self.rows)]


def _text(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell
    return "" if cell is None else f"{cell:.4f}" if isinstance(cell, float) else str(cell)


def _shown(text: str, escape: Callable[[str], str], strong: str) -> str:
    return strong.format(escape(text)) if isinstance(text, Strong) else escape(text)


def _latex(text: str) -> str:
    return re.sub(r"[&%$#_{}\\~^±]", lambda m: _LATEX[m[0]], visible(text))
