"""A table of utterances: who says what when, in which file, and with which features."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusionzoo.data.conventions import UNLABELLED
from fusionzoo.data.corpus import Corpus, name_column
from fusionzoo.data.npz import sha256
from fusionzoo.data.raw._files import natural
from fusionzoo.data.raw.corpus import Problem, RawCorpus, RawUtterance
from fusionzoo.data.tables.reading import Reading, Row, roles_of
from fusionzoo.data.tables.rows import TableLike, read_rows
from fusionzoo.data.tables.vectors import find_vectors
from fusionzoo.errors import DataError

_SHOWN = 200


@dataclass(frozen=True, eq=False)
class Table:
    """A table's utterances, those of a dialogue together and in order.

    name : of the table.
    source : what messages call it.
    utterances : what was said, by whom, when, and the recordings.
    label_names : the classes.
    vectors : modality -> `(N, d)`; zeros where there are none.
    present : modality -> `(N,)` bool, where there are.
    scores : `(N,)`, NaN where there is none; None without a column of them.
    columns : role or modality -> the column (or the first and the last of several) that says it.
    notes : what has to be known about how it was read.
    left_out : what was wrong with rows that were left out.
    path : the file, if it is one.
    """

    name: str
    source: str
    utterances: tuple[RawUtterance, ...]
    label_names: tuple[str, ...]
    vectors: dict[str, np.ndarray]
    present: dict[str, np.ndarray]
    scores: np.ndarray | None
    columns: dict[str, str]
    notes: list[str]
    left_out: list[str]
    path: Path | None = None

    def recordings(self) -> RawCorpus:
        """The words and files, for `fusionzoo.extraction.extract`."""
        problems = tuple(Problem(self.source, what, "row left out") for what in self.left_out)
        info: dict[str, Any] = {"columns": dict(self.columns)}
        return RawCorpus(self.name, self.path or Path(self.name), self.label_names, self.utterances, problems, info)

    def corpus(self) -> Corpus:
        """The features.

        Raises
        ------
        DataError : there are none.
        """
        if not self.vectors:
            media = [m for m in ("text", "audio", "video") if any(u.has(m) for u in self.utterances)]
            way = (
                f"make some of its {', '.join(media)}: fusionzoo extract TABLE --{media[0]} MODEL"
                if media
                else "give it some"
            )
            raise DataError(f"{self.source}: has no features: {way}, or name them: --features text=COLUMN")
        rows = self.utterances
        texts = [u.text or "" for u in rows]
        extras: dict[str, np.ndarray] = {"sentence": np.array(texts, dtype=str)} if any(texts) else {}
        extras |= {} if self.scores is None else {"score": self.scores}
        info: dict[str, Any] = {"source": self.source, "layout": "table", "columns": dict(self.columns)}
        info |= {"sha256": sha256(self.path)} if self.path else {}
        info |= {"skipped": [*self.notes, *self.left_out]}
        return Corpus(
            name=self.name,
            features=self.vectors,
            dialogue_id=name_column([u.dialogue_id for u in rows], self.source),
            utterance_index=np.array([u.index for u in rows]),
            speaker=name_column([u.speaker for u in rows], self.source),
            label=np.array([u.label for u in rows]),
            label_names=self.label_names,
            split=np.array([u.split or "train" for u in rows]),
            present={m: p for m, p in self.present.items() if not p.all()},
            utterance_id=name_column([u.id for u in rows], self.source),
            info=info,
            extras=extras,
        ).validate()


def read_table(
    source: TableLike,
    *,
    columns: Mapping[str, str | None] | None = None,
    features: Mapping[str, str] | None = None,
    label_names: Sequence[str] | None = None,
    audio: str | Path | None = None,
    video: str | Path | None = None,
    single: bool = False,
    leave_out: bool = False,
) -> Table:
    """A table of utterances.

    Parameters
    ----------
    source : a file (csv, JSON, JSON lines, subtitles), a `pandas.DataFrame`, a `datasets.Dataset` or `DatasetDict`, a list of dicts.
    columns : role (see `fusionzoo.data.tables.reading.ROLES`) -> column, over those that are known by their names; None takes a column for nothing.
    features : modality -> column, see `fusionzoo.data.tables.vectors.find_vectors`.
    label_names : the classes in order; without it those that occur, sorted.
    audio, video : a recording of all rows, of which each has its start and end.
    single : every row is a dialogue of its own; else a table without a column of dialogues is one.
    leave_out : leave out rows with something wrong, instead of refusing the table.

    Raises
    ------
    DataError : something is wrong with it; all of it is said, row by row.
    OptionError : a role or a column that is not there.
    """
    rows = read_rows(source)
    roles = roles_of(rows, columns or {}, features or {})
    vectors, notes = find_vectors(rows, features, set(roles.values()))
    if single and "dialogue" in roles:
        del roles["dialogue"]
    reading = Reading(rows, roles, vectors, label_names, single, {"audio": audio, "video": video})
    kept = reading.rows()
    if reading.problems and not leave_out:
        raise DataError(_listing(str(rows.path or rows.name), reading.problems))
    if not kept:
        raise DataError(_listing(str(rows.path or rows.name), reading.problems) + " No row is left.")
    reading.notes += notes
    return _put_together(reading, kept)


def _listing(source: str, problems: list[str]) -> str:
    count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
    more = [f"  and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    lines = "\n".join([*(f"  {p}" for p in problems[:_SHOWN]), *more])
    return f"{source}: {count}\n{lines}\nCorrect these rows, or leave them out: --leave-out (in Python leave_out=True)."


def _put_together(reading: Reading, rows: list[Row]) -> Table:
    """What these rows come to."""
    classes = _classes(reading, rows)
    place = {name: i for i, name in enumerate(classes)}
    unique = len({row.id for row in rows}) == len(rows)
    utterances = []
    within: Counter[str] = Counter()
    for row in rows:
        count = within[row.dialogue]
        within[row.dialogue] += 1
        utterances.append(
            RawUtterance(
                id=row.id if row.id and unique else f"{row.dialogue}_{row.id or count}",
                dialogue_id=row.dialogue,
                index=row.index if "index" in reading.roles else count,
                speaker=row.speaker,
                label=UNLABELLED if row.label is None else place[row.label],
                split=row.split,
                text=row.text,
                audio=row.audio,
                video=row.video,
                start=row.start,
                end=row.end,
                audio_start=row.start,
                audio_end=row.end,
                extras=_extras(reading, row),
            )
        )
    vectors, present = _matrices(reading, rows)
    scores = None
    if "score" in reading.roles:
        scores = np.array([np.nan if row.score is None else row.score for row in rows])
    _remark(reading, rows)
    said = {
        m: " to ".join(dict.fromkeys((v.columns[0], v.columns[-1]))) if v.columns else "a file"
        for m, v in reading.vectors.items()
    }
    return Table(
        reading.input.name,
        str(reading.input.path or reading.input.name),
        tuple(utterances),
        classes,
        vectors,
        present,
        scores,
        reading.roles | {f"features of {m}": columns for m, columns in said.items()},
        reading.notes,
        reading.problems,
        reading.input.path,
    )


def _classes(reading: Reading, rows: list[Row]) -> tuple[str, ...]:
    if reading.label_names is not None:
        return reading.label_names
    return tuple(sorted({row.label for row in rows if row.label is not None}, key=natural)) or ("unlabelled",)


def _extras(reading: Reading, row: Row) -> dict[str, object]:
    """What an extraction carries along."""
    said: dict[str, object] = {"sentence": row.text or ""} if "text" in reading.roles else {}
    return said | ({"score": math.nan if row.score is None else row.score} if "score" in reading.roles else {})


def _matrices(reading: Reading, rows: list[Row]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    vectors: dict[str, np.ndarray] = {}
    present: dict[str, np.ndarray] = {}
    for modality in reading.vectors:
        there = np.array([modality in row.vectors for row in rows])
        if not there.any():
            reading.notes.append(f"{modality}: no row has it, and it is left out")
            continue
        width = len(next(row.vectors[modality] for row in rows if modality in row.vectors))
        nothing = np.zeros(width)
        vectors[modality] = np.array([row.vectors.get(modality, nothing) for row in rows], dtype=np.float32)
        present[modality] = there
    return vectors, present


def _remark(reading: Reading, rows: list[Row]) -> None:
    """Say what a column that is not there comes to."""
    dialogue = "every row is a dialogue of its own" if reading.single else "the table is one dialogue"
    for role, comes_to in (
        ("dialogue", dialogue),
        ("speaker", "all rows are of one speaker, 'unknown'"),
        ("label", "no utterance has a class"),
        ("split", "every dialogue is in train; --split FILE gives a split when training"),
    ):
        if role not in reading.roles:
            reading.notes.append(
                f"no column of {role}s: {comes_to}" if role != "split" else f"no column of splits: {comes_to}"
            )
    empty = sum(row.label is None for row in rows)
    if "label" in reading.roles and empty:
        reading.notes.append(f"{empty} rows have no class")


def from_table(source: TableLike, **options: object) -> Corpus:
    """The features of a table; parameters as for `read_table`."""
    arguments: Any = options
    return read_table(source, **arguments).corpus()
