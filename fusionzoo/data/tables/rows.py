"""Rows of cells, whatever they come from; nothing of them is understood yet."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from fusionzoo._text import brief
from fusionzoo.data.raw._encodings import decode
from fusionzoo.data.tables.subtitles import SUFFIXES, read_subtitles
from fusionzoo.errors import DataError


class Frame(Protocol):
    """What of a `pandas.DataFrame` is used."""

    @property
    def columns(self) -> Iterable[object]:
        """Names of the columns."""
        ...

    def to_dict(self, orient: Literal["records"], /) -> list[dict[str, Any]]:
        """Its rows."""
        ...


Records = Iterable[Mapping[str, object]]
#: A file, a `pandas.DataFrame`, a `datasets.Dataset`, a `DatasetDict`, mappings.
TableLike = str | os.PathLike[str] | Frame | Mapping[str, Records] | Records

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_TEXTS = (".csv", ".tsv")
_JSON = (".json", ".jsonl", ".ndjson")
#: What a file has to end in.
ENDINGS = (*_TEXTS, *_JSON, *SUFFIXES)


@dataclass
class Rows:
    """What a table holds.

    name : of the table.
    folder : to which files in it are relative.
    rows : where each stands ("line 4") and its cells by column; empty cells are absent.
    path : the file, if it is one.
    names : of the columns, as keys.
    problems : what could not be read at all, each with its place.
    notes : what has to be known about how it was read.
    """

    name: str
    folder: Path
    rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    path: Path | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order of appearance; those without a cell too."""
        return list(self.names)

    def example(self, column: str) -> Any:
        """The first cell of a column that is not empty; None where all are."""
        return next((cells[column] for _, cells in self.rows if column in cells), None)

    def add(self, where: str, cells: Mapping[Any, Any]) -> None:
        """Take a row; cells of nothing are left out."""
        self.names |= dict.fromkeys(map(str, cells))
        self.rows.append((where, {str(c): v for c, v in cells.items() if not _is_nothing(v)}))


def _is_nothing(value: Any) -> bool:
    """None, blank text, and the NaN by which pandas says that there is nothing."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    return type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)


def read_rows(source: TableLike) -> Rows:
    """The rows of a file, a `pandas.DataFrame`, a `datasets.Dataset` or `DatasetDict`, or an iterable of mappings.

    Raises
    ------
    DataError : it is none of them, or nothing in it can be read.
    """
    if isinstance(source, str | os.PathLike):
        return _of_file(Path(source))
    rows = Rows(type(source).__name__, Path())
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        frame: Any = source
        _add_all(rows, frame.to_dict("records"), "row")
    elif isinstance(source, Mapping):  # datasets.DatasetDict
        for split, part in source.items():
            _add_all(rows, (_with_split(row, str(split)) for row in part), f"{split}, row")
    elif isinstance(source, Iterable):
        _add_all(rows, source, "row")
    else:
        raise DataError(
            f"a {type(source).__name__} is no table; expected a file ({', '.join(ENDINGS)}), a pandas.DataFrame, a datasets.Dataset or "
            "a list of dicts"
        )
    return _some(rows, f"the {rows.name}")


def _with_split(row: Any, split: str) -> Any:
    return {"split": split, **row} if isinstance(row, Mapping) else row


def _add_all(rows: Rows, records: Iterable[Any], what: str) -> None:
    for number, record in enumerate(records):
        where = f"{what} {number}"
        if isinstance(record, Mapping):
            rows.add(where, record)
        else:
            rows.problems.append(f"{where}: is {brief(record)}, expected a mapping of columns")


def _some(rows: Rows, what: str) -> Rows:
    if not rows.rows:
        wrong = f": {rows.problems[0]}" if rows.problems else ""
        raise DataError(f"{what} has no rows{wrong}. Expected one row per utterance.")
    return rows


def _of_file(path: Path) -> Rows:
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError(f"{path}: there is no such file. Check the path.")
    if suffix not in ENDINGS:
        raise DataError(f"{path}: is no table. Expected a file that ends in {', '.join(ENDINGS)}.")
    text, note = decode(path.read_bytes())
    if text is None:
        raise DataError(f"{path}: {note}. Save it as UTF-8.")
    rows = Rows(path.stem, path.parent, path=path, notes=[note] if note else [])
    if suffix in SUFFIXES:
        rows.notes += _of_subtitles(rows, text)
    elif suffix in _JSON:
        _of_json(rows, text)
    else:
        _of_csv(rows, text)
    return _some(rows, str(path))


def _of_subtitles(rows: Rows, text: str) -> list[str]:
    cues, problems, notes = read_subtitles(text)
    for where, cells in cues:
        rows.add(where, cells)
    rows.problems += problems
    return notes


def _of_json(rows: Rows, text: str) -> None:
    """A list of objects, or one per line."""
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, list):
        _add_all(rows, whole, "entry")
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            rows.problems.append(f"{where}: is no JSON ({error})")
            continue
        if isinstance(record, dict):
            rows.add(where, record)
        else:
            rows.problems.append(f"{where}: is {brief(record)}, expected an object of columns")


def _of_csv(rows: Rows, text: str) -> None:
    text = text.removeprefix("\ufeff")
    first = text[: text.find("\n")] if "\n" in text else text
    separator = max(SEPARATORS, key=first.count)  # the first, a comma, of several that come as often
    if separator != "," and separator in first:
        rows.notes.append(f"separated by {SEPARATORS[separator]}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            rows.problems.append(f"line {line}: is no row of a csv file ({error})")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            if twice := sorted({c for c in header if c and header.count(c) > 1}):
                raise DataError(f"{rows.path}: has the column {twice[0]!r} {header.count(twice[0])} times. Rename one.")
        elif len(cells) != len(header):
            rows.problems.append(
                f"line {line}: has {len(cells)} cells, expected {len(header)}, as the first line has: {brief(cells)}"
            )
        else:
            rows.add(f"line {line}", {c: cell.strip() for c, cell in zip(header, cells, strict=True) if c})
