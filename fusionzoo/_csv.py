"""The CSV files that are written here, and the reader that gives back what was written.

A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula and runs it. Text of that kind gets an
apostrophe before it, which a spreadsheet takes for "this is text"; `read_csv` removes it. Numbers stay numbers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fusionzoo.errors import DataError

# With what is already before them: spaces, which spreadsheets skip, and apostrophes, which must be told from ours. The
# wide forms are those of Chinese and Japanese keyboards.
_FORMULA = re.compile(r"'*\s*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_QUOTED = re.compile(r'[,"\r\n]')
_EMPTY = '""'  # a line of one empty cell would be no line
_OURS = re.compile(r"'('*\s*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    r"""Rows as CSV with `\n` line ends."""
    # Not `csv.writer`: whether it puts quotes around a carriage return depends on Python's version.
    lines = (",".join(map(_written, row)) for row in (header, *rows))
    return "".join(f"{line or _EMPTY}\n" for line in lines)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a file that `csv_text` made, by the names in its first line."""
    try:
        text = path.read_bytes().decode("utf-8")
    except ValueError as error:
        raise DataError(f"{path}: is damaged, or not written by fusionzoo ({error}). Make it again.") from error
    return rows_of(text, path)


def rows_of(text: str, path: Path) -> list[dict[str, str]]:
    """The same for what has been read already; `path` is for messages."""
    try:
        lines = [[_read(cell) for cell in line] for line in csv.reader(io.StringIO(text, newline=""))]
        return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]] if lines else []
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: is damaged, or not written by fusionzoo ({error}). Make it again.") from error


def _written(cell: Any) -> str:
    text = "" if cell is None else str(cell)
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        text = f"'{cell}"
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def _read(cell: str) -> str:
    return cell[1:] if _OURS.match(cell) else cell
