"""The pickles of IEMOCAP and MELD features that this field's repositories share: tuples of dicts, one entry per dialogue.

======  ============================  ============================  =============================
entry   classic, 9 (IEMOCAP)          MELD, 9 (no visual)           MELD with visual, 10
======  ============================  ============================  =============================
0       utterance ids                 utterance ids                 utterance ids
1       speakers ('M', 'F')           speakers (one-hot rows)       speakers (one-hot rows)
2       labels                        emotion labels                emotion labels
3       text                          text                          text
4       audio                         audio                         audio
5       visual                        sentences                     visual
6       sentences                     train dialogue ids            sentences
7       train dialogue ids            test dialogue ids             train dialogue ids
8       test dialogue ids             sentiment labels              test dialogue ids
9                                                                   sentiment labels
======  ============================  ============================  =============================

Which one a file is shows in which entries are dicts and which are collections of ids. None of these has a dev split:
`load` draws one from the train dialogues, or takes all splits from another file.

Relatives with four text views, the last four layers of RoBERTa-large fine-tuned by COSMIC (`roberta1` to `roberta4`):

==============================  ===========================================================================
roberta-pickle, 12 (IEMOCAP)    ids, speakers, labels, roberta1 to 4, audio, visual, sentences, train, test
roberta-meld-pickle, 13         the same, and sentiment labels
cosmic-iemocap-pickle, 10       speakers, labels, roberta1 to 4, sentences, train, test, dev; text only
cosmic-meld-pickle, 11          speakers, labels, sentiment, roberta1 to 4, sentences, train, test, dev
==============================  ===========================================================================

Their views become one modality `text`, side by side in this order; hosts take them apart again with `text_views=4`, and
`info["text_views"]` says so. SDT and LMAM read the first two, M3NET a COSMIC one beside a classic one (a folder, see
`fusionzoo.data.pickle_folders`).

And the pickles of COGMEN and CORECT (`split-pickle`): a dict of train, dev and test, each a list of dialogues, either
dicts or COGMEN's `Sample` objects, with `vid`, `speaker(s)`, `label(s)`, `text`, `audio`, `visual`, `sentence`. Where
there are `sbert_sentence_embeddings`, they are the text, as in COGMEN.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fusionzoo._text import brief
from fusionzoo.data._layouts import describe, hint
from fusionzoo.data.corpus import Corpus, name_column, some
from fusionzoo.data.npz import sha256_of
from fusionzoo.data.pickles import load_pickle
from fusionzoo.errors import DataError

LAYOUTS: dict[str, tuple[str, ...]] = {
    "classic-pickle": ("ids", "speakers", "labels", "text", "audio", "visual", "sentences", "train", "test"),
    "meld-pickle": ("ids", "speakers", "labels", "text", "audio", "sentences", "train", "test", "sentiment"),
    "meld-visual-pickle": (
        *("ids", "speakers", "labels", "text", "audio", "visual", "sentences", "train", "test", "sentiment"),
    ),
}
_ROBERTA = ("roberta1", "roberta2", "roberta3", "roberta4")
LAYOUTS |= {
    "roberta-pickle": ("ids", "speakers", "labels", *_ROBERTA, "audio", "visual", "sentences", "train", "test"),
    "roberta-meld-pickle": (
        *("ids", "speakers", "labels", *_ROBERTA, "audio", "visual", "sentences", "train", "test", "sentiment"),
    ),
    "cosmic-iemocap-pickle": ("speakers", "labels", *_ROBERTA, "sentences", "train", "test", "dev"),
    "cosmic-meld-pickle": ("speakers", "labels", "sentiment", *_ROBERTA, "sentences", "train", "test", "dev"),
}
MODALITIES = ("text", "audio", "visual")
#: Longer is no sentence; a column of text takes the longest one's memory in every row.
_LONGEST_SENTENCE = 20_000
_PARTS = ("train", "test", "dev")
IEMOCAP4_CLASSES = ("happy", "sad", "neutral", "angry")
IEMOCAP_CLASSES = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
MELD_CLASSES = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")


def layout_of(content: Any) -> str | None:
    """The name of the layout in `LAYOUTS` (or `"split-pickle"`) that the plain content of a pickle has, or None."""
    if is_split_pickle(content):
        return "split-pickle"
    if not isinstance(content, tuple | list):
        return None
    found = tuple(isinstance(entry, dict) for entry in content)
    for name, fields in LAYOUTS.items():
        # COSMIC's has as many dicts as COGMEN's of MOSEI, in which entry 3 is the first with features.
        if found == tuple(f not in _PARTS for f in fields) and (
            name != "cosmic-iemocap-pickle" or _is_numbers(content[1])
        ):
            return name
    return None


def _is_numbers(entry: dict[Any, Any]) -> bool:
    """Whether the first row of the first dialogue is a number (a label), not a name or a vector."""
    for rows in entry.values():
        if isinstance(rows, list | tuple | np.ndarray) and len(rows):
            return isinstance(rows[0], int | np.integer) or (isinstance(rows, np.ndarray) and rows.dtype.kind in "iu")
    return False


_SPLIT_KEYS = {"train": "train", "dev": "dev", "val": "dev", "valid": "dev", "test": "test"}
#: Field -> what COGMEN's objects and CORECT's dicts call it.
_SAMPLE_KEYS = {
    "speakers": ("speaker", "speakers"),
    "labels": ("label", "labels"),
    "text": ("sbert_sentence_embeddings", "text"),
    "audio": ("audio",),
    "visual": ("visual",),
    "sentences": ("sentence",),
}


def is_split_pickle(content: Any) -> bool:
    """Whether this is a dict of splits, each a list of dialogues that know their `vid` (COGMEN, CORECT)."""
    if not isinstance(content, dict) or "train" not in content or not set(content) <= set(_SPLIT_KEYS):
        return False
    if not all(isinstance(part, list | tuple) for part in content.values()):
        return False
    rows = [d for part in content.values() for d in part]
    return bool(rows) and all(isinstance(d, dict) and "vid" in d for d in rows)


def split_fields(path: Path, content: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The entries of a dict of splits, and notes on what was left out."""
    fields: dict[str, Any] = {"train": [], "test": [], "dev": []}
    notes: list[str] = []
    fields |= {name: {} for name in _SAMPLE_KEYS}
    for key, dialogues in content.items():
        for sample in dialogues:
            vid = _id(sample["vid"])
            if vid in fields["speakers"]:
                # COGMEN's --split_utterances makes pieces of one dialogue; they are dialogues of their own here.
                notes.append(f"{some([vid])} comes again in {key!r}: the second is left out")
                continue
            for field, names in _SAMPLE_KEYS.items():
                value = next((sample[n] for n in names if sample.get(n) is not None), None)
                if value is not None:
                    fields[field][vid] = value
            if vid not in fields["speakers"] or vid not in fields["labels"]:
                raise DataError(
                    f"{path}: dialogue {vid!r} of {key!r} lacks its speakers or labels; it has {', '.join(sample)}. "
                    f"Expected speaker(s) and label(s), one per utterance. Make the file again."
                )
            fields[_SPLIT_KEYS[key]].append(vid)
    return {name: entry for name, entry in fields.items() if entry or name in ("train", "test")}, notes


def read_classic(
    path: str | os.PathLike[str],
    *,
    label_names: Sequence[str] | None = None,
    name: str | None = None,
    keep_all: bool = False,
) -> Corpus:
    """Read one of the layouts above through the allow-listing unpickler, dialogues sorted by id.

    label_names : the classes; without it, IEMOCAP's six or MELD's seven where there are that many, else class0, ...
    keep_all : keep dialogues that the pickle puts in neither train nor test (as train), for a split from elsewhere;
        otherwise they are left out and listed in `info["skipped"]`.
    """
    path = Path(path)
    content = load_pickle(path)
    layout = layout_of(content)
    if layout is None:
        raise DataError(
            f"{path}: holds {describe(content)}. {hint(content)} Read are: one of the tuples {', '.join(LAYOUTS)}, the first "
            f"of which is ({', '.join(LAYOUTS['classic-pickle'])}), and dicts of splits as in COGMEN and CORECT."
        )
    if layout == "split-pickle":
        fields, notes = split_fields(path, content)
    else:
        fields, notes = dict(zip(LAYOUTS[layout], content, strict=True)), []
    return read_fields(path, layout, fields, label_names=label_names, name=name, keep_all=keep_all, notes=notes)


def read_fields(
    path: Path,
    layout: str,
    fields: dict[str, Any],
    *,
    label_names: Sequence[str] | None = None,
    name: str | None = None,
    keep_all: bool = False,
    notes: Sequence[str] = (),
    files: Sequence[Path] = (),
) -> Corpus:
    """A corpus of entries by name: dialogue -> rows, and the collections of dialogue ids `train`, `test`, `dev`.

    notes : what was left out before, for `info["skipped"]`. files : where the entries came from, if not from `path`.
    """
    reader = _Reader(path, layout, fields, tuple(files) or (path,))
    reader.skipped += notes
    return reader.corpus(label_names, name or path.stem, keep_all)


class _Reader:
    """The entries of one file, with errors that name the file, the entry and the dialogue."""

    def __init__(self, path: Path, layout: str, fields: dict[str, Any], files: tuple[Path, ...]):
        self.path, self.layout, self.files = path, layout, files
        self.position = {f: i for i, f in enumerate(LAYOUTS.get(layout, ()))}
        self.views = all(f in fields for f in _ROBERTA)
        # What there is one row of an utterance in; the first one decides which dialogues there are, and how long.
        self.first = "ids" if "ids" in fields else "speakers"
        self.fields = {f: self._by_text_id(f, v) if isinstance(v, dict) else v for f, v in fields.items()}
        self.keys: list[str] = sorted(self.fields[self.first])
        self.skipped: list[str] = []

    def _where(self, field: str, dialogue: str | None = None, row: int | None = None) -> str:
        at = self.position.get(field)
        place = [f"{self.path}: {field}" if at is None else f"{self.path}: entry {at} ({field})"]
        place += [f"dialogue {brief(dialogue)}"] if dialogue is not None else []
        place += [f"utterance {row}"] if row is not None else []
        return ", ".join(place)

    def _by_text_id(self, field: str, values: dict[Any, Any]) -> dict[str, Any]:
        named = {_id(key): value for key, value in values.items()}
        if len(named) != len(values):
            raise DataError(
                f"{self._where(field)} has dialogue ids that differ only in type, like 1 and '1'. Rename them."
            )
        return named

    def corpus(self, label_names: Sequence[str] | None, name: str, keep_all: bool) -> Corpus:
        split = self._splits()
        if not keep_all and (left := [d for d in self.keys if d not in split]):
            self.skipped.append(f"{some(left)}: in neither train nor test")
            self.keys = [d for d in self.keys if d in split]
        if not self.keys:
            raise DataError(
                f"{self._where(self.first)} has no dialogue of the train or test ids. Check that the file is whole."
            )
        lengths = {d: self._length(d) for d in self.keys}
        labels = np.concatenate([self._labels("labels", d, lengths[d]) for d in self.keys])
        features: dict[str, np.ndarray] = {}
        dtypes: dict[str, str] = {}
        for m in MODALITIES:
            if m == "text" and self.views:
                views = [self._features(view, lengths) for view in _ROBERTA]
                features[m], dtypes[m] = np.concatenate([x for x, _ in views], axis=1), views[0][1]
            elif m in self.fields:
                features[m], dtypes[m] = self._features(m, lengths)
        counts = [lengths[d] for d in self.keys]
        info: dict[str, Any] = {"source": str(self.path), "sha256": sha256_of(self.files), "layout": self.layout}
        info |= {"text_views": len(_ROBERTA)} if self.views else {}
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
            utterance_id=name_column([u for d in self.keys for u in self._utterance_ids(d)], self._where(self.first)),
            info=info | {"stored_dtypes": dtypes, "skipped": self.skipped},
            extras=extras,
        )

    def _splits(self) -> dict[str, str]:
        split: dict[str, str] = {}
        for part in _PARTS:
            if part not in self.fields:
                continue
            ids = self.fields[part]
            if not isinstance(ids, list | tuple | set | frozenset | np.ndarray):
                raise DataError(
                    f"{self._where(part)} is a {type(ids).__name__}, expected a list or set of dialogue ids."
                )
            ids = {_id(i) for i in (ids.ravel().tolist() if isinstance(ids, np.ndarray) else ids)}
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
        for field in ("speakers", "labels", *MODALITIES, *_ROBERTA):
            if field in self.fields and len(self._rows(field, dialogue)) != length:
                raise DataError(
                    f"{self._where(field, dialogue)} has {len(self._rows(field, dialogue))} rows, expected {length}, "
                    f"one for each utterance id. Align the entries or remove the dialogue."
                )
        return length

    def _utterance_ids(self, dialogue: str) -> Iterator[str]:
        if "ids" not in self.fields:
            return (f"{dialogue}_{i}" for i in range(self._length(dialogue)))
        ids = [_id(i) for i in self._rows("ids", dialogue)]
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
                names.append(_id(speaker))
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

    def _names(self, labels: np.ndarray, given: Sequence[str] | None) -> tuple[str, ...]:
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
        """Sentences and sentiment, where they are complete; a broken one is left out and said so."""
        extras: dict[str, np.ndarray] = {}
        for field, column in (("sentences", "sentence"), ("sentiment", "sentiment")):
            if field not in self.fields:
                continue
            try:
                if field == "sentiment":
                    extras[column] = np.concatenate([self._labels(field, d, lengths[d]) for d in self.keys])
                    continue
                rows = [_id(s) if isinstance(s, str | bytes) else "" for d in self.keys for s in self._rows(field, d)]
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


def _id(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _array(value: Any) -> np.ndarray:
    """The value as an array; an empty one of objects where it is ragged, or too large a number."""
    try:
        return np.asarray(value)
    except (ValueError, OverflowError, TypeError):
        return np.empty(0, dtype=object)


def _is_one_hot(values: np.ndarray) -> bool:
    return values.dtype.kind in "iufb" and bool(np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all())
