"""Rows of cells become rows that are understood; what is wrong with any of them is collected."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fusionzoo._text import brief
from fusionzoo.data.conventions import SPLITS
from fusionzoo.data.corpus import LONGEST_NAME
from fusionzoo.data.raw._files import why_unusable
from fusionzoo.data.tables.cells import number, plain_text, seconds, split_name
from fusionzoo.data.tables.rows import Rows
from fusionzoo.data.tables.vectors import Vectors
from fusionzoo.errors import DataError, OptionError, close_matches_hint

#: What a column can say -> names by which it is known without being told.
ROLES: dict[str, tuple[str, ...]] = {
    "dialogue": ("dialogue", "dialogueid", "dialog", "dialogid", "conversation", "conversationid"),
    "index": ("index", "utteranceindex", "turn", "turnid"),
    "id": ("id", "utteranceid"),
    "speaker": ("speaker", "speakerid", "who"),
    "text": ("text", "utterance", "sentence", "transcript", "transcription", "words"),
    "audio": ("audio", "audiofile", "audiopath", "wav", "sound"),
    "video": ("video", "videofile", "videopath", "clip"),
    "start": ("start", "starttime", "begin", "onset"),
    "end": ("end", "endtime", "stop", "offset"),
    "label": ("label", "emotion", "class"),
    "score": ("score", "sentimentscore", "regressionlabel"),
    "split": ("split", "set", "partition", "subset"),
}
_LONGEST_TEXT = 20_000


@dataclass
class Row:
    """What one row says."""

    where: str
    number: int
    dialogue: str
    index: int
    id: str
    speaker: str
    text: str | None
    audio: Path | None
    video: Path | None
    start: float | None
    end: float | None
    label: str | None
    score: float | None
    split: str | None
    vectors: dict[str, np.ndarray] = field(default_factory=dict)


def roles_of(rows: Rows, asked: Mapping[str, str | None], features: Mapping[str, str]) -> dict[str, str]:
    """Role -> column, of those that there are."""
    for role, column in asked.items():
        if role not in ROLES:
            raise OptionError(
                f"columns say nothing about {role!r}{close_matches_hint(role, ROLES) or '.'} Known: {', '.join(ROLES)}."
            )
        if column is not None and column not in rows.columns:
            known = ", ".join(rows.columns)[:400]
            raise OptionError(
                f"{rows.path or rows.name}: {role}={column!r} is no column{close_matches_hint(column, rows.columns) or '.'} It has "
                f"{known}."
            )
    used = {c for c in (*asked.values(), *features.values()) if c is not None}
    roles = {role: column for role, column in asked.items() if column is not None}
    for role, names in ROLES.items():
        if role in asked:
            continue
        for name in names:
            column = next((c for c in rows.columns if c not in used and re.sub(r"[\W_]", "", c.lower()) == name), None)
            if column is not None and _fits(rows, role, column):
                roles[role] = column
                used.add(column)
                break
    return roles


def _fits(rows: Rows, role: str, column: str) -> bool:
    """Features that are called like a recording, or like words, are none."""
    example = rows.example(column)
    if role in ("text", "audio", "video"):
        return isinstance(example, str | Path | dict) and not str(example).lower().endswith(".npy")
    return isinstance(example, str | int | float | np.generic)


class Reading:
    """Takes the rows apart and collects what is wrong with them."""

    def __init__(
        self,
        table: Rows,
        roles: dict[str, str],
        vectors: dict[str, Vectors],
        label_names: Sequence[str] | None,
        single: bool,
        recordings: Mapping[str, str | Path | None],
    ):
        self.input, self.roles, self.vectors, self.single = table, roles, vectors, single
        self.problems = list(table.problems)
        self.notes = list(table.notes)
        self.label_names = None if label_names is None else tuple(label_names)
        self.whole = {m: Path(p) for m, p in recordings.items() if p is not None}
        for medium, path in self.whole.items():
            if wrong := why_unusable(path):
                raise DataError(f"{medium}={path}: {wrong}.")

    def rows(self) -> list[Row]:
        """The rows with which nothing is wrong, those of a dialogue together and in order."""
        found = [row for i, (where, cells) in enumerate(self.input.rows) if (row := self._row(i, where, cells))]
        found = self._of_one_width(found)
        if not self.single and "dialogue" not in self.roles and len({row.split for row in found}) > 1:
            self.problems.append(
                "there is no column of dialogues, and rows of one dialogue cannot be in several splits: name it (--columns "
                "dialogue=COLUMN), or let every row be a dialogue (--single, in Python single=True)"
            )
            return []
        grouped: dict[str, list[Row]] = {}
        for row in found:
            grouped.setdefault(row.dialogue, []).append(row)
        return [row for group in grouped.values() for row in self._dialogue(group)]

    # ------------------------------------------------------------------ one row

    def _row(self, number_of: int, where: str, cells: Mapping[str, Any]) -> Row | None:
        before = len(self.problems)
        get = {role: cells.get(column) for role, column in self.roles.items()}
        named = f"{self.input.name}_{number_of}" if self.single else self.input.name
        row = Row(
            where=where,
            number=number_of,
            dialogue=self._name(where, "dialogue", get, named),
            index=self._index(where, get, number_of),
            id=self._name(where, "id", get, ""),
            speaker=self._name(where, "speaker", get, "unknown"),
            text=self._words(where, get),
            audio=self._file(where, "audio", get),
            video=self._file(where, "video", get),
            start=self._time(where, "start", get),
            end=self._time(where, "end", get),
            label=self._label(where, get),
            score=self._number(where, "score", get),
            split=self._split(where, get),
            vectors=self._vectors(where, number_of, cells),
        )
        # Tables of words alone have utterances of no length (MELD's); a recording has nothing in such a span.
        least = 1e-9 if row.audio or row.video else 0.0
        if row.start is not None and row.end is not None and row.end - row.start < least:
            self._wrong(where, "end", f"is {row.end:g} s, not after the start at {row.start:g} s")
        if not (row.text or row.audio or row.video or row.vectors):
            self.problems.append(f"{where}: has neither words nor a recording nor features")
        return row if len(self.problems) == before else None

    def _wrong(self, where: str, role: str, what: str) -> None:
        column = self.roles.get(role)
        self.problems.append(f"{where}, {f'column {column!r}' if column else role}: {what}")

    def _name(self, where: str, role: str, get: Mapping[str, Any], default: str) -> str:
        if role not in get or (get[role] is None and role != "dialogue"):
            return default
        name = plain_text(get[role]) if get[role] is not None else ""
        if not name:
            self._wrong(where, role, "is empty, expected the name of the dialogue")
        if len(name) > LONGEST_NAME:
            self._wrong(where, role, f"has {len(name):,} characters, expected at most {LONGEST_NAME:,}")
        return name

    def _words(self, where: str, get: Mapping[str, Any]) -> str | None:
        text = None if get.get("text") is None else plain_text(get["text"])
        if text and len(text) > _LONGEST_TEXT:
            self._wrong(
                where, "text", f"has {len(text):,} characters, expected one utterance of at most {_LONGEST_TEXT:,}"
            )
        return text

    def _file(self, where: str, medium: str, get: Mapping[str, Any]) -> Path | None:
        value = get.get(medium)
        if value is None:
            return self.whole.get(medium)
        value = value.get("path") if isinstance(value, dict) else value  # an Audio of datasets
        if not isinstance(value, str | Path):
            self._wrong(where, medium, f"is {brief(value)}, expected the path of a file")
            return None
        path = self.input.folder / value
        if wrong := why_unusable(path):
            self._wrong(where, medium, f"{path}: {wrong}")
        return path

    def _time(self, where: str, role: str, get: Mapping[str, Any]) -> float | None:
        return self._converted(where, role, get, seconds, "seconds (12.5) or a time (00:00:12,500)")

    def _number(self, where: str, role: str, get: Mapping[str, Any]) -> float | None:
        return self._converted(where, role, get, number, "a finite number")

    def _converted(
        self, where: str, role: str, get: Mapping[str, Any], convert: Callable[[Any], float | None], expected: str
    ) -> float | None:
        """A cell as a number; one that is none is a problem of its row."""
        value = get.get(role)
        found = None if value is None else convert(value)
        if value is not None and found is None:
            self._wrong(where, role, f"is {brief(value)}, expected {expected}")
        return found

    def _index(self, where: str, get: Mapping[str, Any], default: int) -> int:
        found = self._number(where, "index", get)
        if "index" not in get:
            return default
        if found is None or found % 1 or not 0 <= found < 1 << 31:
            if get["index"] is None or found is not None:
                self._wrong(where, "index", f"is {brief(get['index'])}, expected a whole number from 0 on")
            return default
        return int(found)

    def _label(self, where: str, get: Mapping[str, Any]) -> str | None:
        if get.get("label") is None:
            return None
        label = plain_text(get["label"])
        if self.label_names is not None and label not in self.label_names:
            if label.isdigit() and int(label) < len(self.label_names):
                return self.label_names[int(label)]
            hint = close_matches_hint(label, self.label_names) or "."
            self._wrong(where, "label", f"is {label[:60]!r}{hint} The classes are {', '.join(self.label_names)}")
        return label

    def _split(self, where: str, get: Mapping[str, Any]) -> str | None:
        if "split" not in get:
            return None
        found = split_name(get["split"])
        if found is None:
            self._wrong(where, "split", f"is {brief(get['split'])}, expected one of {', '.join(SPLITS)}")
        return found

    def _vectors(self, where: str, number_of: int, cells: Mapping[str, Any]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for modality, vectors in self.vectors.items():
            try:
                vector = vectors.read(number_of, cells)
            except DataError as error:
                self.problems.append(f"{where}: {error}")
                continue
            if vector is not None:
                found[modality] = vector
        return found

    # ------------------------------------------------------------------ several rows

    def _of_one_width(self, rows: list[Row]) -> list[Row]:
        for modality in self.vectors:
            widths = Counter(len(row.vectors[modality]) for row in rows if modality in row.vectors)
            if len(widths) < 2:
                continue
            usual = widths.most_common(1)[0][0]
            odd = [row for row in rows if len(row.vectors.get(modality, range(usual))) != usual]
            self.problems += [
                f"{row.where}: {modality} has width {len(row.vectors[modality])}, expected {usual}, as most rows have"
                for row in odd
            ]
            rows = [row for row in rows if len(row.vectors.get(modality, range(usual))) == usual]
        return rows

    def _dialogue(self, rows: list[Row]) -> Iterable[Row]:
        """The rows of a dialogue in order, but for those that contradict others."""
        rows = sorted(rows, key=lambda row: row.index)
        usual = Counter(row.split for row in rows).most_common(1)[0][0]
        ids: set[str] = set()
        last: int | None = None
        for row in rows:
            said = f"{row.where}: dialogue {row.dialogue[:60]!r}"
            if row.split != usual:
                self.problems.append(
                    f"{said} is {usual} elsewhere, and {row.split} here; expected one split per dialogue"
                )
            elif row.index == last:
                self.problems.append(f"{said} has the index {row.index} twice")
            elif row.id and row.id in ids:
                self.problems.append(f"{said} has the id {row.id[:60]!r} twice")
            else:
                last = row.index
                ids.add(row.id)
                yield row
