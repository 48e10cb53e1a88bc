"""MMSA's and MulT's pickles: sequences of single clips with scores of sentiment (MOSI, MOSEI, CH-SIMS).

A dict of `train`, `valid` and `test`, each a dict of columns with one row per clip:

=========================================  ===========================================================================
`text`, `audio`, `vision`                  `(N, L, d)`, or `(N, d)`
`text_bert`                                `(N, 3, L)`: token ids, the mask of the text, segment ids
`audio_lengths`, `vision_lengths`          `(N,)`: real steps, which come first
`id`                                       `"video$_$segment"`; MulT's are `(video, start, end)`
`regression_labels`, `classification_labels`, `annotations`   a score, the number of its class and the class's name
`raw_text`                                 what was said
=========================================  ===========================================================================

Read, a video is a dialogue of one speaker and its clips are the utterances. Each has the mean of its real steps: those that
`text_bert` or the lengths name, else those that are not all zero. Steps that are not finite are no real ones.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fusionzoo.data.conventions import UNLABELLED
from fusionzoo.data.entries import SCORES, SPLIT_KEYS, text_id
from fusionzoo.data.readers import PickleReader
from fusionzoo.errors import DataError
from fusionzoo.hookspecs import hookimpl
from fusionzoo.plugin import plugin
from fusionzoo.specs import Spec

#: Modality -> what MMSA calls it.
SEQUENCES = {"text": "text", "audio": "audio", "visual": "vision"}
#: Entry -> MMSA's column of scores; CH-SIMS has some of single modalities.
SCORE_COLUMNS = dict(zip(SCORES, ("regression_labels", *(f"regression_labels_{m}" for m in "TAV")), strict=True))
#: Between a video and the number of its clip.
MARK = "$_$"
SENTIMENTS = ("negative", "neutral", "positive")
_CHUNK = 256  # clips that are widened at a time


class MmsaPickle(PickleReader):
    """MMSA's and MulT's sequences of single clips with scores of sentiment: MOSI, MOSEI, CH-SIMS."""

    looks_like = (
        "mmsa-pickle, a dict of splits, each of arrays text, audio, vision (N, L, d) and regression_labels, as in MMSA"
    )

    @staticmethod
    def recognise(content: Any, /) -> bool:
        """By splits that are dicts of sequences and of scores or classes."""
        if not isinstance(content, dict) or "train" not in content or not set(content) <= set(SPLIT_KEYS):
            return False
        return all(
            isinstance(part, dict) and _count(part) is not None and _has_labels(part) for part in content.values()
        )

    @staticmethod
    def entries(content: Any, path: Path, /) -> tuple[dict[str, Any], list[str]]:
        """The clips by their videos."""
        parts = [_Part(path, key, part) for key, part in content.items()]
        return _fields(parts, path)


def _count(part: dict[Any, Any]) -> int | None:
    """How many clips a split has; None where it has no sequence."""
    arrays = (part.get(name) for name in SEQUENCES.values())
    return next(
        (len(x) for x in arrays if isinstance(x, np.ndarray) and x.ndim in (2, 3) and x.dtype.kind in "fiu"), None
    )


def _has_labels(part: dict[Any, Any]) -> bool:
    """MulT's `labels` of IEMOCAP are several per clip, and are no scores."""
    return any(
        math.prod(_shape(part.get(name))) == _count(part)
        for name in ("classification_labels", "regression_labels", "labels")
    )


def _shape(value: Any) -> tuple[int, ...]:
    """Of an array, or of the outermost list; `()` of anything else."""
    if isinstance(value, np.ndarray):
        return value.shape
    return (len(value),) if isinstance(value, list | tuple) else ()


class _Part:
    """The columns of one split."""

    def __init__(self, path: Path, key: str, part: dict[Any, Any]):
        self.path, self.key, self.split = path, key, SPLIT_KEYS[key]
        self.columns = part if "labels" not in part else {"regression_labels": part["labels"]} | part
        self.count = _count(part) or 0

    def column(self, name: str) -> list[Any] | None:
        """One value per clip; None where there is no such column."""
        values = self.columns.get(name)
        if values is None:
            return None
        if not isinstance(values, list | tuple | np.ndarray) or _shape(values) == () or len(values) != self.count:
            raise DataError(
                f"{self.path}: {name} of {self.key!r} has {_shape(values)} values, expected {self.count}, one per clip. Make "
                f"the file again."
            )
        return list(values)

    def numbers(self, name: str) -> np.ndarray | None:
        """The same as `(N,)` float64."""
        values = self.column(name)
        try:
            return None if values is None else np.asarray(values, dtype=np.float64).reshape(self.count)
        except (ValueError, TypeError, OverflowError):
            raise DataError(
                f"{self.path}: {name} of {self.key!r} is no column of numbers. Make the file again."
            ) from None

    def classes(self) -> np.ndarray:
        """`(N,)` int64: the class, else that of the score's sign; -100 where there is neither."""
        found = self.numbers("classification_labels")
        if found is None:
            scores = self.numbers("regression_labels")
            found = np.full(self.count, np.nan) if scores is None else np.sign(scores) + 1
        bad = np.flatnonzero(np.isfinite(found) & (found % 1 != 0))
        if len(bad):
            raise DataError(
                f"{self.path}: classification_labels of {self.key!r} holds {found[bad[0]]:g} at clip {bad[0]}, expected whole "
                f"numbers. Make the file again."
            )
        return np.where(np.isfinite(found), found, UNLABELLED).astype(np.int64)

    def places(self) -> list[tuple[str, tuple[float, str], str]]:
        """Of each clip its video, what it is sorted by there, and its name."""
        ids = self.column("id")
        return (
            [_place(i) for i in ids]
            if ids is not None
            else [(f"{self.split}_{i}", (0.0, ""), "") for i in range(self.count)]
        )

    def pooled(self, modality: str) -> tuple[np.ndarray, np.ndarray, str]:
        """`(N, d)` float32, where it was recorded `(N,)` bool, and how that came about in words."""
        name = SEQUENCES[modality]
        x = self.columns[name]
        if not isinstance(x, np.ndarray) or x.ndim not in (2, 3) or len(x) != self.count or x.dtype.kind not in "fiu":
            raise DataError(
                f"{self.path}: {name} of {self.key!r} is {getattr(x, 'dtype', type(x).__name__)} of shape {_shape(x)}, expected "
                f"numbers ({self.count}, steps, width), as the others. Make the file again."
            )
        if x.ndim == 2:
            return *_means(x[:, None, :], None), ""
        real, said = self._real_steps(modality, x.shape[1])
        return *_means(
            x, real
        ), f"{modality}: the order of up to {x.shape[1]} steps; kept is the mean of those that {said}"

    def _real_steps(self, modality: str, steps: int) -> tuple[np.ndarray | None, str]:
        """`(N, steps)` bool and what says so; None for those that are not all zero."""
        name = f"{SEQUENCES[modality]}_lengths"
        lengths = self.numbers(name)
        if lengths is not None:
            return np.arange(steps) < lengths[:, None], f"{name} counts"
        bert = self.columns.get("text_bert")
        if modality == "text" and isinstance(bert, np.ndarray) and bert.shape == (self.count, 3, steps):
            return bert[:, 1, :] > 0, "text_bert's mask marks"
        return None, "are not all zero"


def _means(x: np.ndarray, real: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """`(N, d)` means over real steps of `(N, L, d)`, in double precision, and which clips have something other than zeros."""
    out, recorded = np.zeros((len(x), x.shape[2]), np.float32), np.zeros(len(x), dtype=bool)
    for first in range(0, len(x), _CHUNK):
        rows = slice(first, first + _CHUNK)
        part = x[rows].astype(np.float64)
        filled = np.isfinite(part).all(-1) & (part != 0).any(-1)
        chosen = filled if real is None else np.isfinite(part).all(-1) & real[rows]
        total = np.where(chosen[..., None], part, 0.0).sum(1)
        out[rows] = total / np.maximum(chosen.sum(1), 1)[:, None]
        recorded[rows] = (filled & chosen).any(1)
    return out, recorded


def _place(value: Any) -> tuple[str, tuple[float, str], str]:
    if _shape(value) == (3,):
        video, start, end = map(text_id, value)
        return video, (_number(start), start), f"{video}_{start}_{end}"
    name = text_id(value)
    video, mark, segment = name.rpartition(MARK)
    return (video, (_number(segment), segment), name) if mark and video else (name, (0.0, ""), name)


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        return math.inf
    return found if math.isfinite(found) else math.inf


def _fields(parts: list[_Part], path: Path) -> tuple[dict[str, Any], list[str]]:
    """The entries of `fusionzoo.data.entries`, and notes."""
    columns, notes = _columns(parts, path)
    splits: dict[str, set[str]] = defaultdict(set)
    clips = [(part.split, *place) for part in parts for place in part.places()]
    for split, video, _, _ in clips:
        splits[video].add(split)
    torn = sum(len(s) > 1 for s in splits.values())
    if torn:
        notes.append(f"{torn} videos have clips in several splits: those of each split are a dialogue of their own")
    rows: dict[str, list[int]] = defaultdict(list)
    fields: dict[str, Any] = {"train": [], "test": [], "dev": []}
    for row, (split, video, _, _) in enumerate(clips):
        dialogue = video if len(splits[video]) == 1 else f"{video} ({split})"
        if dialogue not in rows:
            fields[split].append(dialogue)
        rows[dialogue].append(row)
    order = {d: sorted(found, key=lambda row: clips[row][2]) for d, found in rows.items()}
    columns["ids"] = columns.get("ids") or [name or video for _, video, _, name in clips]
    columns["speakers"] = columns.get("speakers") or [video for _, video, _, _ in clips]
    for name, values in columns.items():
        is_array = isinstance(values, np.ndarray)
        fields[name] = {d: values[some] if is_array else [values[row] for row in some] for d, some in order.items()}
    fields["label_names"] = _class_names(parts, columns["labels"])
    return fields, notes


def _columns(parts: list[_Part], path: Path) -> tuple[dict[str, Any], list[str]]:
    """Entry -> its rows of all splits, one after the other; and notes."""
    columns: dict[str, Any] = {"labels": np.concatenate([p.classes() for p in parts])}
    notes: dict[str, None] = {}
    for modality, name in SEQUENCES.items():
        have = [p for p in parts if p.columns.get(name) is not None]
        if not have:
            continue
        if len(have) < len(parts):
            lacks = next(p.key for p in parts if p not in have)
            raise DataError(f"{path}: {lacks!r} lacks {name}, which {have[0].key!r} has. Make the file again.")
        pooled = [p.pooled(modality) for p in parts]
        if len({x.shape[1] for x, _, _ in pooled}) > 1:
            widths = ", ".join(f"{p.key} {x.shape[1]}" for p, (x, _, _) in zip(parts, pooled, strict=True))
            raise DataError(f"{path}: {name} has different widths ({widths}), expected one. Make the file again.")
        columns[modality] = np.concatenate([x for x, _, _ in pooled])
        recorded = np.concatenate([r for _, r, _ in pooled])
        if not recorded.all():
            columns[f"{modality}_mask"] = recorded
        notes |= dict.fromkeys(words for _, _, words in pooled if words)
    for entry, name in SCORE_COLUMNS.items():
        found = [p.numbers(name) for p in parts]
        if all(x is not None for x in found):
            columns[entry] = np.concatenate([x for x in found if x is not None])
    for entry, name in (("sentences", "raw_text"), ("ids", "utterance_id"), ("speakers", "speaker")):
        texts = [p.column(name) for p in parts]
        if all(x is not None for x in texts):
            columns[entry] = [text_id(t) for x in texts if x is not None for t in x]
    return columns, list(notes)


def _class_names(parts: list[_Part], labels: np.ndarray) -> list[str] | None:
    """What the file says, the annotations where they and the classes are one to one, else the three of sentiment."""
    for part in parts:
        if (said := part.columns.get("label_names")) is not None:
            return [text_id(name) for name in said]
    count = int(labels.max(initial=-1)) + 1
    texts = [p.column("annotations") for p in parts]
    if count and all(x is not None for x in texts):
        said_of = zip(labels.tolist(), (text_id(t) for x in texts if x is not None for t in x), strict=True)
        pairs = sorted({pair for pair in said_of if pair[0] >= 0})
        if [label for label, _ in pairs] == list(range(count)) and len({name for _, name in pairs}) == count:
            return [name for _, name in pairs]
    return list(SENTIMENTS) if count <= len(SENTIMENTS) else None


@hookimpl
def fusionzoo_register(register: Callable[[Spec], None]) -> None:
    """The layout."""
    plugin(MmsaPickle, name="mmsa-pickle", summary=str(MmsaPickle.__doc__).partition("\n")[0].rstrip("."))(register)
