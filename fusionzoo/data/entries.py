"""From the entries of a pickle, by name, to a corpus: what every layout of pickled features comes to.

==============================  ======================================================================================
`labels`, `speakers`            dialogue id -> one row per utterance
`text`, `audio`, `visual`       the same, a vector per utterance; `roberta1` to `roberta4` are four views of the text
`ids`, `sentences`, `sentiment` the same, where there are any
`text_mask`, `audio_mask`, ...  the same, True where that modality was recorded, where it was not everywhere
`score`, `score_text`, ...      the same, a number: of the whole, or of what one modality says
`train`, `test`, `dev`          collections of dialogue ids
`label_names`                   the classes
==============================  ======================================================================================

The four views become one modality `text`, side by side; hosts take them apart again with `text_views=4`, and
`info["text_views"]` says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fusionzoo._text import brief
from fusionzoo.data.corpus import Corpus, name_column, some
from fusionzoo.data.npz import sha256_of
from fusionzoo.errors import DataError

MODALITIES = ("text", "audio", "visual")
TEXT_VIEWS = ("roberta1", "roberta2", "roberta3", "roberta4")
PARTS = ("train", "test", "dev")
#: What files call their splits.
SPLIT_KEYS = {"train": "train", "dev": "dev", "val": "dev", "valid": "dev", "test": "test"}
SCORES = ("score", *(f"score_{m}" for m in MODALITIES))
#: Longer is no sentence; a column of text takes the longest one's memory in every row.
_LONGEST_SENTENCE = 20_000
IEMOCAP4_CLASSES = ("happy", "sad", "neutral", "angry")
IEMOCAP_CLASSES = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
MELD_CLASSES = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")


def corpus_of(
    path: Path,
    layout: str,
    fields: dict[str, Any],
    *,
    label_names: Collection[str] | None = None,
    name: str | None = None,
    keep_all: bool = False,
    notes: Sequence[str] = (),
    files: Sequence[Path] = (),
    positions: Mapping[str, int] | None = None,
) -> Corpus:
    """A corpus of entries by name, its dialogues sorted by id.

    Parameters
    ----------
    path : the file or folder, for messages.
    layout : the name of its layout, for `info["layout"]`.
    fields : the entries, see above.
    label_names : the classes; without it, those of the entries, IEMOCAP's six or MELD's seven where there are that many, else class0, ...
    name : the corpus's; None takes the path's.
    keep_all : keep dialogues that are in no split (as train), for a split from elsewhere; otherwise they are left out and
        listed in `info["skipped"]`.
    notes : what was left out before, for `info["skipped"]`.
    files : where the entries came from, if not from `path`.
    positions : where each entry stands in the file, for messages.
    """
    reader = _Entries(path, layout, fields, tuple(files) or (path,), positions or {})
    reader.skipped += notes
    return reader.corpus(label_names, name or path.stem, keep_all)


class _Entries:
    """The entries of one file, with errors that name the file, the entry and the dialogue."""

    def __init__(
        self,
        path: Path,
        layout: str,
        fields: dict[str, Any],
        files: tuple[Path, ...],
        positions: Mapping[str, int],
    ):
        self.path, self.layout, self.files = path, layout, files
        self.position = positions
        self.views = all(f in fields for f in TEXT_VIEWS)
        # What there is one row of an utterance in; the first one decides which dialogues there are, and how long.
        self.first = "ids" if "ids" in fields else "speakers"
        self.fields = {f: self._by_texttext_id(f, v) if isinstance(v, dict) else v for f, v in fields.items()}
        self.keys: list[str] = sorted(self.fields[self.first])
        self.skipped: list[str] = []

    def _where(self, field: str, dialogue: str | None = None, row: int | None = None) -> str:
        at = self.position.get(field)
        place = [f"{self.path}: {field}" if at is None else f"{self.path}: entry {at} ({field})"]
        place += [f"dialogue {brief(dialogue)}"] if dialogue is not None else []
        place += [f"utterance {row}"] if row is not None else []
        return ", ".join(place)

    def _by_texttext_id(self, field: str, values: dict[Any, Any]) -> dict[str, Any]:
        named = {text_id(key): value for key, value in values.items()}
        if len(named) != len(values):
            raise DataError(
                f"{self._where(field)} has dialogue ids that differ only in type, like 1 and '1'. Rename them."
            )
        return named

    def corpus(self, label_names: Collection[str] | None, name: str, keep_all: bool) -> Corpus:
        split = self._splits()
        self._leave_out([] if keep_all else [d for d in self.keys if d not in split])
        lengths = {d: self._length(d) for d in self.keys}
        labels = np.concatenate([self._labels("labels", d, lengths[d]) for d in self.keys])
        features, dtypes = self._modalities(lengths)
        counts = [lengths[d] for d in self.keys]
        info: dict[str, Any] = {"source": str(self.path), "sha256": sha256_of(self.files), "layout": self.layout}
        info |= {"text_views": len(TEXT_VIEWS)} if self.views else {}
        extras = self._extras(lengths)
        return Corpus(
            name=name,
            features=features,
            dialogue_id=np.repeat(name_column(self.keys, self._where(self.first)), counts),
            utterance_index=np.concatenate([np.arange(n) for n in counts]),
            speaker=name_column([s for d in self.keys for s in self._speakers(d, lengths[d])], self._where("speakers")),
            label=labels,
            label_names=self._names(labels, label_names),
            split=np.repeat(np.array([split.get(d, "train") for d in self.keys], dtype=str), counts),
            present={m: self._joined(f"{m}_mask", bool) for m in features if f"{m}_mask" in self.fields},
            utterance_id=name_column([u for d in self.keys for u in self._utterance_ids(d)], self._where(self.first)),
            info=info | {"stored_dtypes": dtypes, "skipped": self.skipped},
            extras=extras,
        )

    def _leave_out(self, left: list[str]) -> None:
        """Drop the dialogues that are in no split, with a note."""
        if left:
            self.skipped.append(f"{some(left)}: in neither train nor test")
            self.keys = sorted({*self.keys} - {*left})
        if not self.keys:
            raise DataError(
                f"{self._where(self.first)} has no dialogue of the train or test ids. Check that the file is whole."
            )

    def _modalities(self, lengths: dict[str, int]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Modality -> its rows, and -> their stored dtype; views of the text side by side."""
        features: dict[str, np.ndarray] = {}
        dtypes: dict[str, str] = {}
        for m in MODALITIES:
            if m == "text" and self.views:
                views = [self._features(view, lengths) for view in TEXT_VIEWS]
                features[m], dtypes[m] = np.concatenate([x for x, _ in views], axis=1), views[0][1]
            elif m in self.fields:
                features[m], dtypes[m] = self._features(m, lengths)
        return features, dtypes

    def _splits(self) -> dict[str, str]:
        split: dict[str, str] = {}
        for part in PARTS:
            if part not in self.fields:
                continue
            ids = self.fields[part]
            if not isinstance(ids, list | tuple | set | frozenset | np.ndarray):
                raise DataError(
                    f"{self._where(part)} is a {type(ids).__name__}, expected a list or set of dialogue ids."
                )
            ids = {text_id(i) for i in (ids.ravel().tolist() if isinstance(ids, np.ndarray) else ids)}
            if unknown := sorted(ids - set(self.keys)):
                raise DataError(
                    f"{self._where(part)} names {some(unknown)}, of which the file has no utterances. The file is "
                    f"incomplete or its parts come from different sources: fetch it again."
                )
            if both := sorted(ids & set(split)):
                raise DataError(
                    f"{self._where(part)} names {some(both)} that are {split[both[0]]} too. Put each dialogue in one split "
                    f"(split=... takes all splits from another file)."
                )
            split |= dict.fromkeys(ids, part)
        return split

    def _rows(self, field: str, dialogue: str) -> Any:
        values = self.fields[field]
        if dialogue not in values:
            first = f"entry {self.position[self.first]}" if self.position else self.first
            raise DataError(
                f"{self._where(field)} lacks dialogue {dialogue!r}, which {first} has. Expected every dialogue in "
                f"every entry: fetch the file again, or remove the dialogue everywhere."
            )
        rows = values[dialogue]
        if not isinstance(rows, list | tuple | np.ndarray) or (isinstance(rows, np.ndarray) and rows.ndim == 0):
            raise DataError(
                f"{self._where(field, dialogue)} is a {type(rows).__name__}, expected one row per utterance."
            )
        return rows

    def _length(self, dialogue: str) -> int:
        length = len(self._rows(self.first, dialogue))
        if length == 0:
            raise DataError(
                f"{self._where(self.first, dialogue)} has no utterance, expected one or more. Remove the dialogue from all "
                f"entries and from the train and test ids."
            )
        for field in ("speakers", "labels", *MODALITIES, *TEXT_VIEWS):
            if field in self.fields and len(self._rows(field, dialogue)) != length:
                raise DataError(
                    f"{self._where(field, dialogue)} has {len(self._rows(field, dialogue))} rows, expected {length}, "
                    f"one for each utterance id. Align the entries or remove the dialogue."
                )
        return length

    def _joined(self, field: str, dtype: type) -> np.ndarray:
        """`(N,)` of a field of one number, or yes or no, per utterance."""
        blocks = []
        for d in self.keys:
            block = _array(self._rows(field, d))
            if block.shape != (self._length(d),) or block.dtype.kind not in "fiub":
                raise DataError(
                    f"{self._where(field, d)} is a {block.dtype} of shape {block.shape}, expected {self._length(d)} numbers, one "
                    f"per utterance. Make the file again."
                )
            blocks.append(block.astype(dtype))
        return np.concatenate(blocks)

    def _utterance_ids(self, dialogue: str) -> Iterator[str]:
        if "ids" not in self.fields:
            return (f"{dialogue}_{i}" for i in range(self._length(dialogue)))
        ids = [text_id(i) for i in self._rows("ids", dialogue)]
        # MELD counts utterances from 0 in every dialogue; make the ids unique in the corpus.
        return (f"{dialogue}_{i}" if i.isdigit() else i for i in ids)

    def _labels(self, field: str, dialogue: str, length: int) -> np.ndarray:
        """`(n,)` int64 of a list or array of class indices, or of one-hot rows."""
        values = _array(self._rows(field, dialogue))
        if values.shape == (length, 1):
            values = values[:, 0]
        if values.ndim == 2 and len(values) == length and _is_one_hot(values):
            values = values.argmax(axis=1)
        if values.shape != (length,) or values.dtype.kind not in "iu":
            shown = ", ".join(brief(v) for v in list(self._rows(field, dialogue))[:3])
            raise DataError(
                f"{self._where(field, dialogue)} holds {shown}, ..., expected {length} whole numbers (class indices). "
                f"Store label indices as integers."
            )
        return values.astype(np.int64)

    def _speakers(self, dialogue: str, length: int) -> list[str]:
        """Names as they are; one-hot rows (MELD) become S0, S1, ... and an all-zero row 'unknown'."""
        names = []
        for row, speaker in enumerate(self._rows("speakers", dialogue)):
            if isinstance(speaker, str | bytes | int | np.integer):
                names.append(text_id(speaker))
                continue
            hot = _array(speaker)
            if hot.ndim != 1 or hot.dtype.kind not in "iufb" or not np.isin(hot, (0, 1)).all() or hot.sum() > 1:
                raise DataError(
                    f"{self._where('speakers', dialogue, row)} is {brief(speaker)}, expected a name ('M', 'F', ...) or a "
                    f"one-hot row. Correct the row."
                )
            names.append(f"S{int(hot.argmax())}" if hot.any() else "unknown")
        return names

    def _features(self, modality: str, lengths: dict[str, int]) -> tuple[np.ndarray, str]:
        """`(N, d)` float32 of lists of vectors or of matrices, and the dtype they were stored in."""
        blocks: list[np.ndarray] = []
        width = None
        for d in self.keys:
            rows = self._rows(modality, d)
            block = _array(rows)
            if block.dtype.kind not in "fiu" or block.ndim != 2 or block.shape[1] != (width or block.shape[1]):
                self._explain(modality, d, rows, width)
            width = block.shape[1]
            blocks.append(block)
        with np.errstate(over="ignore"):  # what overflows is infinite, which `validate` reports
            return np.concatenate(blocks).astype(np.float32), str(blocks[0].dtype)

    def _explain(self, modality: str, dialogue: str, rows: Any, width: int | None) -> NoReturn:
        """Raise the error of the first row that is not a vector of `width` numbers."""
        for row, vector in enumerate(rows):
            vector = _array(vector)
            if vector.dtype.kind not in "fiu" or vector.ndim != 1 or (width is not None and len(vector) != width):
                width_text = (
                    "one vector of numbers" if width is None else f"a vector of {width} numbers, as in the rows before"
                )
                raise DataError(
                    f"{self._where(modality, dialogue, row)} is a {vector.dtype} of shape {vector.shape}, expected "
                    f"{width_text}. Extract this utterance again."
                )
            width = len(vector)
        raise DataError(f"{self._where(modality, dialogue)} is no matrix of numbers, one row per utterance.")

    def _names(self, labels: np.ndarray, given: Collection[str] | None) -> tuple[str, ...]:
        given = self.fields.get("label_names") if given is None else given
        if given is not None:
            return tuple(given)
        count = int(labels.max()) + 1
        known = {len(IEMOCAP_CLASSES): IEMOCAP_CLASSES, len(MELD_CLASSES): MELD_CLASSES}
        if count in known:
            return known[count]
        # COGMEN's four classes; by its dialogues' names, because other corpora have four classes too.
        if count == len(IEMOCAP4_CLASSES) and all(d.startswith("Ses0") for d in self.keys):
            return IEMOCAP4_CLASSES
        seen = set(labels.tolist())
        if count > len(MELD_CLASSES) and len(seen) < count:
            unseen = list(itertools.islice((i for i in range(count) if i not in seen), 8))
            raise DataError(
                f"{self._where('labels')} goes up to {count - 1}, but {unseen} never occur: a label outside the "
                f"classes? Name the classes (label_names=[...]) so that it can be checked."
            )
        return tuple(f"class{i}" for i in range(max(count, 1)))

    def _extras(self, lengths: dict[str, int]) -> dict[str, np.ndarray]:
        """Scores, and sentences and sentiment where they are complete; a broken one is left out and said so."""
        extras = {score: self._joined(score, np.float64) for score in SCORES if score in self.fields}
        for field, column in (("sentences", "sentence"), ("sentiment", "sentiment")):
            if field not in self.fields:
                continue
            try:
                if field == "sentiment":
                    extras[column] = np.concatenate([self._labels(field, d, lengths[d]) for d in self.keys])
                    continue
                rows = [
                    text_id(s) if isinstance(s, str | bytes) else "" for d in self.keys for s in self._rows(field, d)
                ]
            except DataError as error:
                self.skipped.append(f"{field}: {error}")
                continue
            if len(rows) != sum(lengths[d] for d in self.keys):
                self.skipped.append(f"{field}: {len(rows)} rows for {sum(lengths[d] for d in self.keys)} utterances")
            elif max(map(len, rows), default=0) > _LONGEST_SENTENCE:
                self.skipped.append(f"{field}: one of {max(map(len, rows)):,} characters")
            elif any(rows):
                extras[column] = np.array(rows, dtype=str)
        return extras


def text_id(value: Any) -> str:
    """An id as text: MELD's are numbers in one file and text in the other, in some copies."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _array(value: Any) -> np.ndarray:
    """The value as an array; an empty one of objects where it is ragged, or too large a number."""
    try:
        return np.asarray(value)
    except (ValueError, OverflowError, TypeError):
        return np.empty(0, dtype=object)


def _is_one_hot(values: np.ndarray) -> bool:
    return values.dtype.kind in "iufb" and bool(np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all())
