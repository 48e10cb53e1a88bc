"""Features in a table: `.npy` files, lists of numbers, columns of numbers, or one matrix for all rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from fusionzoo._text import brief
from fusionzoo.data._npz_columns import open_npy
from fusionzoo.data.tables.cells import number
from fusionzoo.data.tables.rows import Rows
from fusionzoo.errors import DataError, OptionError, close_matches_hint

#: What may be called so without being asked for -> the modality.
KNOWN = {"text": "text", "audio": "audio", "visual": "visual", "video": "visual", "vision": "visual"}
_NUMBERED = re.compile(r"^(.*?\D)[_.\- ]?\[?(\d+)\]?$")
_ENDING = re.compile(r"[_ -]?(features?|feats?|npy|file|path|embeddings?|emb|vectors?)$", re.IGNORECASE)
#: The vector of a row, or None where it has none; what is wrong with it is a `DataError`.
Read = Callable[[int, Mapping[str, Any]], np.ndarray | None]


@dataclass
class Vectors:
    """Features of one modality, one row per row of the table.

    columns : of the table that they are in.
    read : the vector of a row.
    """

    columns: tuple[str, ...]
    read: Read


def find_vectors(
    rows: Rows, asked: Mapping[str, str] | None, taken: Collection[str]
) -> tuple[dict[str, Vectors], list[str]]:
    """Modality -> its features, and notes on columns that look like features and are none.

    Parameters
    ----------
    rows : the table.
    asked : modality -> a column, a pattern of columns (`egemaps_*`), or a `.npy` file with a row per row; None finds columns of `.npy`
        files and what is called `text_0`, `text_1`, ... or `text_features`.
    taken : columns that are something else.

    Raises
    ------
    OptionError : a column that is asked for is not there.
    """
    if asked is not None:
        return {modality: _asked(rows, modality, what) for modality, what in asked.items()}, []
    free = [c for c in rows.columns if c not in taken]
    found: dict[str, Vectors] = {}
    notes: list[str] = []
    for column in free:
        name = _ENDING.sub("", column) or column
        example = rows.example(column)
        is_file, is_list = _is_file(example), _is_vector(example)
        if is_file or (is_list and name.lower() in KNOWN):
            found.setdefault(KNOWN.get(name.lower(), name), Vectors((column,), _cell(rows.folder, column)))
        elif is_list:
            notes.append(f"the column {column!r} holds lists and is not used; as features: --features {name}={column}")
    for prefix, columns in _numbered(free).items():
        name = KNOWN.get(_ENDING.sub("", prefix).lower())
        if name is None:
            notes.append(
                f"{len(columns)} columns {columns[0]!r}, ... are not used; as features: --features NAME={prefix}*"
            )
        else:
            found.setdefault(name, Vectors(columns, _columns(columns)))
    return found, notes


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and value.lower().endswith(".npy")


def _is_vector(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _numbered(columns: list[str]) -> dict[str, tuple[str, ...]]:
    """Prefix -> columns that differ by a number alone, two or more, by number."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for column in columns:
        if match := _NUMBERED.match(column):
            groups.setdefault(match[1].rstrip("_.- ["), []).append((int(match[2]), column))
    return {prefix: tuple(c for _, c in sorted(group)) for prefix, group in groups.items() if len(group) > 1}


def _asked(rows: Rows, modality: str, what: str) -> Vectors:
    if what in rows.columns:
        example = rows.example(what)
        is_number = number(example) is not None and not _is_vector(example)
        return Vectors((what,), _columns((what,)) if is_number else _cell(rows.folder, what))
    if _is_file(what):
        return Vectors((), _matrix(rows, rows.folder / what if not Path(what).is_file() else Path(what)))
    columns = [c for c in rows.columns if fnmatchcase(c, what)]
    if not columns:
        raise OptionError(
            f"features: {modality}={what!r} is no column{close_matches_hint(what, rows.columns) or '.'} Expected a column, a pattern of "
            f"columns such as {modality}_*, or a .npy file; the columns are {', '.join(rows.columns)[:400]}"
        )
    return Vectors(tuple(columns), _columns(tuple(columns)))


def _columns(columns: tuple[str, ...]) -> Read:
    def read(_: int, cells: Mapping[str, Any]) -> np.ndarray | None:
        values = [cells.get(c) for c in columns]
        if all(v is None for v in values):
            return None
        found = [number(v) for v in values]
        if None in found:
            at = found.index(None)
            got = "empty" if values[at] is None else brief(values[at])
            raise DataError(f"column {columns[at]!r} is {got}, expected a finite number")
        return np.array(found, dtype=np.float64)

    return read


def _cell(folder: Path, column: str) -> Read:
    def read(_: int, cells: Mapping[str, Any]) -> np.ndarray | None:
        value = cells.get(column)
        if value is None:
            return None
        what = f"column {column!r}"
        if isinstance(value, str):
            if not _is_file(value):
                raise DataError(f"{what} is {brief(value)}, expected a .npy file or a list of numbers")
            return _vector(np.asarray(open_npy(folder / value)), str(folder / value))
        try:
            return _vector(np.asarray(value, dtype=np.float64), what)
        except (ValueError, TypeError):
            raise DataError(f"{what} is {brief(value)}, expected a list of numbers") from None

    return read


def _vector(x: np.ndarray, what: str) -> np.ndarray:
    """`(d,)`; of frames `(L, d)` their mean."""
    x = x.mean(axis=0, dtype=np.float64) if x.ndim == 2 and len(x) else x
    if x.ndim != 1 or not len(x):
        raise DataError(
            f"{what} has shape {x.shape}, expected (width,), or (frames, width), of which the mean is taken"
        )
    if not np.isfinite(x).all():
        raise DataError(f"{what} holds numbers that are not finite")
    return x


def _matrix(rows: Rows, path: Path) -> Read:
    matrix = np.asarray(open_npy(path))
    if matrix.ndim != 2 or len(matrix) != len(rows.rows):
        raise DataError(
            f"{path}: has shape {matrix.shape}, expected ({len(rows.rows)}, width), one row per row of {rows.name} that could be read"
        )

    def read(index: int, _: Mapping[str, Any]) -> np.ndarray | None:
        if not np.isfinite(matrix[index]).all():
            raise DataError(f"row {index} of {path} holds numbers that are not finite")
        return matrix[index]

    return read
