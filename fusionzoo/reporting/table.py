"""One table, as text, Markdown, HTML, LaTeX, CSV and a pandas data frame."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusionzoo._csv import csv_text
from fusionzoo._text import markdown, markup, visible
from fusionzoo.errors import MissingDependency

if TYPE_CHECKING:
    import pandas

#: Where a table is shown, from the narrowest place to the widest.
PHONE, TERMINAL, SCREEN, FILE = range(4)

#: What stands in a cell: a number is shown as its column says, None as nothing.
Cell = str | int | float | None

_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
}  # fmt: skip
_NUMBER = re.compile(r"([+-]?[\d.,]+( ?%)?( ± [\d.]+)?|–)?")


class Strong(str):
    """A cell that stands out."""

    __slots__ = ()


class StrongNumber(float):
    """A number that stands out."""

    __slots__ = ()


class Link(str):
    """A cell that leads somewhere, where the form can.

    Parameters
    ----------
    text : what is shown.
    to : an address, `#name` of a place on the same page.
    """

    to: str

    def __new__(cls, text: str, to: str) -> Link:
        """Text, and where it leads."""
        link = super().__new__(cls, text)
        link.to = to
        return link


class Column(str):
    """A column's name that also says how the column is shown.

    Parameters
    ----------
    name : in the header.
    format : of its numbers.
    narrowest : the narrowest place that has room for it: `PHONE`, `TERMINAL`, `SCREEN` or `FILE`.
    about : what it is, for whoever points at it.
    """

    format: str
    narrowest: int
    about: str

    def __new__(cls, name: str, format: str = "", *, narrowest: int = PHONE, about: str = "") -> Column:
        """A name, and how the column is shown."""
        column = super().__new__(cls, name)
        column.format, column.narrowest, column.about = format, narrowest, about
        return column


@dataclass
class Table:
    """A header, rows of as many cells, and notes below. Names in it may hold anything: each form escapes what it must.

    Parameters
    ----------
    header : the columns' names; a `Column` says more about one.
    rows : their cells, see `Cell`; a `Strong` one stands out where the form can show it, a `Link` leads somewhere.
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

    def fitting(self, place: int) -> Table:
        """The table with the columns that one of the places has room for."""
        return self._with([i for i, name in enumerate(self.header) if _narrowest(name) <= place])

    def filled(self) -> Table:
        """The table without columns in which nothing stands."""
        return self._with([i for i in range(len(self.header)) if any(r[i] not in (None, "") for r in self.rows)])

    def _with(self, columns: Sequence[int]) -> Table:
        rows = [[row[i] for i in columns] for row in self.rows]
        return Table([self.header[i] for i in columns], rows, self.notes)

    def text(self) -> str:
        """For a terminal: columns in line, the notes below."""
        lines = [[visible(c) for c in line] for line in self.lines()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([*shown, *self.notes])

    def markdown(self) -> str:
        """A Markdown table, and the notes as a paragraph."""
        header, *rows = [[_shown(c, markdown, "**{}**") for c in line] for line in self.lines()]
        lines = [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)]
        return "\n".join([*lines, *(["", *self.notes] if self.notes else [])])

    def html(self, *, sortable: bool = False) -> str:
        """A `<table>` that scrolls sideways where it must, and each note as a paragraph.

        Parameters
        ----------
        sortable : a click on a column's name sorts by it, where the page's script runs.
        """
        header, *rows = [[_shown(c, markup, "<strong>{}</strong>") for c in line] for line in self.lines()]
        kinds = [self._kind(i) for i in range(len(header))]
        abouts = [f' title="{markup(h.about)}"' if isinstance(h, Column) and h.about else "" for h in self.header]
        head = "".join(f"<th{k}{a}>{c}</th>" for c, k, a in zip(header, kinds, abouts, strict=True))
        body = "\n".join(
            "<tr>" + "".join(f"<td{k}>{c}</td>" for c, k in zip(row, kinds, strict=True)) + "</tr>" for row in rows
        )
        opened = '<table class="sortable">' if sortable else "<table>"
        table = f'<div class="scroll">{opened}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
        return "\n".join([table, *(f'<p class="note">{markup(n)}</p>' for n in self.notes)])

    def latex(self) -> str:
        """A `tabular` for a paper, which needs no package; the notes as comments."""
        header, *rows = [[_shown(c, _latex, r"\textbf{{{}}}") for c in line] for line in self.lines()]
        lines = [f"\\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}", "\\hline"]
        lines += [" & ".join(header) + r" \\", "\\hline"]
        lines += [*(" & ".join(row) + r" \\" for row in rows), "\\hline", "\\end{tabular}"]
        return "\n".join([*lines, *(f"% {visible(n)}" for n in self.notes)])

    def csv(self) -> str:
        """Every cell as it is, numbers with all their digits."""
        return csv_text([str(h) for h in self.header], self.rows)

    def to_pandas(self) -> pandas.DataFrame:
        """Every cell as it is, None as a missing value.

        Raises
        ------
        MissingDependency : pandas is not installed (the extra `report`).
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingDependency("pandas", "report", "a data frame") from error
        return pandas.DataFrame([list(row) for row in self.rows], columns=[str(h) for h in self.header])

    def lines(self) -> list[list[str]]:
        """Header and rows as they are shown, not escaped."""
        rows = [[_text(c, h) for c, h in zip(row, self.header, strict=True)] for row in self.rows]
        return [[str(h) for h in self.header], *rows]

    def _kind(self, column: int) -> str:
        """The class of a column's cells: words stand to the left, wide ones are left out on a phone."""
        words = column and any(isinstance(r[column], str) and not _NUMBER.fullmatch(str(r[column])) for r in self.rows)
        kinds = [*(["words"] if words else []), *(["wide"] if _narrowest(self.header[column]) > PHONE else [])]
        return f' class="{" ".join(kinds)}"' if kinds else ""


def _narrowest(name: str) -> int:
    return name.narrowest if isinstance(name, Column) else PHONE


def _text(cell: Cell, column: str) -> str:
    if cell is None or isinstance(cell, str):
        return cell or ""
    form = column.format if isinstance(column, Column) else ""
    text = format(cell, form or (".4f" if isinstance(cell, float) else ""))
    return Strong(text) if isinstance(cell, StrongNumber) else text


def _shown(text: str, escape: Callable[[str], str], strong: str) -> str:
    if isinstance(text, Link) and escape is markup:
        return f'<a href="{markup(text.to)}">{markup(text)}</a>'
    return strong.format(escape(text)) if isinstance(text, Strong) else escape(text)


def _latex(text: str) -> str:
    return re.sub(r"[&%$#_{}\\~^±]", lambda m: _LATEX[m[0]], visible(text))
