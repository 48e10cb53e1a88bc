"""A corpus of conversations as one columnar table in memory; no torch.

One row per utterance; the rows of a dialogue are contiguous and in order. Every reader makes one of these and every
batch is cut from one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from fusionzoo._notebook import html_table
from fusionzoo._text import brief
from fusionzoo._types import JSON, CorpusSummary, SplitSize
from fusionzoo.data.checks import find_problems
from fusionzoo.data.conventions import SPLITS as SPLITS
from fusionzoo.data.conventions import UNLABELLED as UNLABELLED
from fusionzoo.errors import DataError, close_matches_hint


@dataclass(frozen=True)
class Dialogue:
    """Rows `start` to `stop` (exclusive) of a corpus."""

    id: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def as_text(values: Any) -> np.ndarray:
    """A column of names as a unicode array; bytes are read as UTF-8, numbers are spelt out."""
    array = np.atleast_1d(np.asarray(values))
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")
    return array if array.dtype.kind == "U" else array.astype(str)


@dataclass(eq=False, repr=False)
class Corpus:
    """A table of N utterances.

    Parameters
    ----------
    name : a short name for reports.
    features : modality -> `(N, d_m)` float32 (half and double precision are converted).
    dialogue_id : `(N,)` text; equal in the contiguous rows of one dialogue.
    utterance_index : `(N,)` int, strictly increasing within a dialogue.
    speaker : `(N,)` text.
    label : `(N,)` int64, 0 to C - 1, or -100 where unlabelled.
    label_names : the C classes.
    split : `(N,)` `"train"`, `"dev"` or `"test"`; one split per dialogue.
    present : modality -> `(N,)` bool, True where that modality was recorded; a modality that is not named was recorded
        everywhere. Features of rows that are not present are never read.
    utterance_id : `(N,)` text; `<dialogue>_<index>` when left out.
    info : JSON-able facts: `source`, `sha256`, and whatever the source knows about itself (demo: `ceiling`).
    extras : other columns of the file, kept out of the model but written back by `save_npz`.
    """

    name: str
    features: dict[str, np.ndarray]
    dialogue_id: np.ndarray
    utterance_index: np.ndarray
    speaker: np.ndarray
    label: np.ndarray
    label_names: tuple[str, ...]
    split: np.ndarray
    present: dict[str, np.ndarray] = field(default_factory=dict)
    utterance_id: np.ndarray | None = None
    info: dict[str, JSON] = field(default_factory=dict)
    extras: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Overflow to infinity is reported by `validate`, which names the row.
        with np.errstate(over="ignore"):
            self.features = {m: np.ascontiguousarray(x, dtype=np.float32) for m, x in self.features.items()}
        self.dialogue_id, self.speaker, self.split = (
            as_text(self.dialogue_id),
            as_text(self.speaker),
            as_text(self.split),
        )
        self.utterance_index, self.label = np.asarray(self.utterance_index), np.asarray(self.label)
        # Only whole numbers are converted: rounding a soft or broken label here would hide it from `validate`.
        if self.label.dtype.kind in "iu":
            self.label = self.label.astype(np.int64)
        self.label_names = tuple(str(name) for name in self.label_names)
        self.present = {m: np.asarray(x) for m, x in self.present.items()}
        if self.utterance_id is None:
            pairs = zip(self.dialogue_id.ravel(), self.utterance_index.ravel(), strict=False)
            self.utterance_id = np.array([f"{d}_{i}" for d, i in pairs], dtype=str)
        else:
            self.utterance_id = as_text(self.utterance_id)

    def __len__(self) -> int:
        return len(self.dialogue_id)

    def __repr__(self) -> str:
        widths = ", ".join(f"{m} {d}" for m, d in self.dims.items())
        return f"Corpus({self.name!r}: {len(self)} utterances, {widths}, {self.num_classes} classes)"

    def _repr_html_(self) -> str:
        facts = self.summary()
        present = {
            m: f"{d} wide" + (f", {facts['missing'][m]:,} without" if m in facts["missing"] else "")
            for m, d in facts["modalities"].items()
        }
        splits = {
            f"split {s}": f"{n['utterances']:,} utterances, {n['dialogues']:,} dialogues"
            for s, n in facts["splits"].items()
        }
        labels = ", ".join(f"{name} {count:,}" for name, count in facts["labels"].items())
        rows = [*present.items(), *splits.items(), ("classes", labels), ("unlabelled", f"{facts['unlabelled']:,}")]
        title = f"{self.name}: {len(self):,} utterances, {facts['dialogues']:,} dialogues"
        return html_table(title, ["", ""], [*rows, *(("leak", leak) for leak in self.said("leaks"))])

    # ------------------------------------------------------------------ what it is

    @property
    def source(self) -> str:
        """The file, or the name, that error messages speak of."""
        return str(self.info.get("source", self.name))

    def said(self, about: str) -> list[str]:
        """What `info` says in sentences: about `"skipped"` columns and rows, `"unused"` columns, or `"leaks"`."""
        sentences = self.info.get(about)
        return list(map(str, sentences)) if isinstance(sentences, (list, tuple)) else []

    @property
    def text_views(self) -> int:
        """How many views of a text stand side by side in the modality `text`; 0 where nothing is known of views."""
        views = self.info.get("text_views")
        return views if isinstance(views, int) else 0

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self.features)

    @property
    def dims(self) -> dict[str, int]:
        """Modality -> width."""
        return {m: int(x.shape[-1]) for m, x in self.features.items()}

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.label_names)

    @property
    def num_speakers(self) -> int:
        """The largest number of distinct speakers in one dialogue (at least 1)."""
        return int(self.speaker_index().max(initial=0)) + 1

    def _starts(self) -> np.ndarray:
        """`(D,)` first row of each dialogue, in file order."""
        ids = self.dialogue_id
        change = np.ones(len(ids), dtype=bool)
        change[1:] = ids[1:] != ids[:-1]
        return np.flatnonzero(change)

    def dialogues(self, split: str | None = None) -> list[Dialogue]:
        """The dialogues of a split (None: of all), sorted by id so that the order of a file never changes a run."""
        if split is not None and split not in SPLITS:
            raise DataError(
                f"there is no split {split!r}{close_matches_hint(split, SPLITS) or '.'} Splits are: "
                f"{', '.join(SPLITS)}."
            )
        starts = self._starts()
        stops = np.append(starts[1:], len(self))
        rows = zip(self.dialogue_id[starts].tolist(), starts.tolist(), stops.tolist(), strict=True)
        chosen = [Dialogue(d, a, b) for d, a, b in rows if split is None or self.split[a] == split]
        return sorted(chosen, key=lambda dialogue: dialogue.id)

    def speaker_index(self) -> np.ndarray:
        """`(N,)` int64: the speaker's number within the dialogue, in order of first appearance."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        starts = self._starts()
        dialogue = np.zeros(len(self), dtype=np.int64)
        dialogue[starts[1:]] = 1
        dialogue = np.cumsum(dialogue)
        names, code = np.unique(self.speaker, return_inverse=True)
        # One key a (dialogue, speaker) pair; the rank of its first row among all pairs counts speakers as they come.
        pairs, first, inverse = np.unique(dialogue * len(names) + code, return_index=True, return_inverse=True)
        rank = np.empty(len(pairs), dtype=np.int64)
        rank[np.argsort(first)] = np.arange(len(pairs))
        # Rows of a dialogue are contiguous, so are the ranks of its pairs: count from the first row's.
        base = rank[inverse][starts]
        return rank[inverse] - base[dialogue]

    def summary(self) -> CorpusSummary:
        """Counts and widths, JSON-able."""
        everything = self.dialogues()
        splits: dict[str, SplitSize] = {}
        for split in SPLITS:
            mine = [d for d in everything if self.split[d.start] == split]
            if mine:
                splits[split] = {"dialogues": len(mine), "utterances": sum(map(len, mine))}
        counts = np.bincount(self.label[self.label >= 0], minlength=self.num_classes)
        return {
            "name": self.name,
            "utterances": len(self),
            "dialogues": len(everything),
            "modalities": self.dims,
            "missing": {m: int((~x).sum()) for m, x in self.present.items() if not x.all()},
            "labels": {name: int(n) for name, n in zip(self.label_names, counts, strict=False)},
            "unlabelled": int((self.label == UNLABELLED).sum()),
            "speakers": {"distinct": len(np.unique(self.speaker)), "largest_dialogue": self.num_speakers},
            "splits": splits,
        }

    # ------------------------------------------------------------------ parts of it

    def subset(self, modalities: Sequence[str]) -> Corpus:
        """The same corpus with only these modalities, in this order."""
        wanted = list(modalities)
        if not wanted or len(set(wanted)) != len(wanted):
            raise DataError(f"modalities={wanted!r}: name one or more of {', '.join(self.modalities)}, each once.")
        for name in wanted:
            if name not in self.features:
                raise DataError(
                    f"{self.source} has no modality {name!r}{close_matches_hint(name, self.modalities) or '.'} "
                    f"It has: {', '.join(f'{m} ({d})' for m, d in self.dims.items())}."
                )
        present = {m: self.present[m] for m in wanted if m in self.present}
        return replace(self, features={m: self.features[m] for m in wanted}, present=present)

    def at(self, rows: np.ndarray) -> Self:
        """The corpus of some utterances alone, without further columns.

        Parameters
        ----------
        rows : bool `(N,)`, or numbers of rows in their order.
        """
        assert self.utterance_id is not None  # filled in when it was made
        return replace(
            self,
            features={m: x[rows] for m, x in self.features.items()},
            present={m: x[rows] for m, x in self.present.items()},
            dialogue_id=self.dialogue_id[rows],
            utterance_index=self.utterance_index[rows],
            utterance_id=self.utterance_id[rows],
            speaker=self.speaker[rows],
            label=self.label[rows],
            split=self.split[rows],
            extras={},
        )

    def with_split(self, mapping: Mapping[str, str], origin: str = "the split") -> Corpus:
        """The same corpus with other splits: dialogue id -> split, of exactly its dialogues."""
        starts = self._starts()
        ids = self.dialogue_id[starts].tolist()
        have, given = set(ids), set(mapping)
        if unknown := sorted(given - have):
            raise DataError(
                f"{origin} names {some(unknown)}, not in {self.source}, whose dialogues are called like "
                f"{some(sorted(have), 3)}. Take the split file made for this data, or correct the ids."
            )
        if missing := sorted(have - given):
            raise DataError(
                f"{origin} says nothing about {some(missing)} of {self.source}. Put every dialogue in one of "
                f"{', '.join(SPLITS)}."
            )
        for dialogue, split in mapping.items():
            if split not in SPLITS:
                raise DataError(f"{origin} puts dialogue {dialogue!r} in {split!r}; splits are {', '.join(SPLITS)}.")
        lengths = np.diff(np.append(starts, len(self)))
        info = {k: v for k, v in self.info.items() if k != "leaks"}  # they were those of the splits before
        return replace(self, split=np.repeat(np.array([mapping[d] for d in ids], dtype=str), lengths), info=info)

    # ------------------------------------------------------------------ is it sound

    def validate(self) -> Corpus:
        """Return self, or raise a `DataError` with file, column, first bad row, what was expected and what to do."""
        problems = self.problems()
        if problems:
            more = f" ({len(problems) - 1} more: see `fusionzoo data inspect`)" if len(problems) > 1 else ""
            raise DataError(problems[0] + more)
        return self

    def problems(self) -> list[str]:
        """Everything that `validate` would refuse, one message each; empty when the corpus is sound."""
        return find_problems(self)


#: The longest name (of a dialogue, utterance, speaker or class) that is believed. A column of text takes the longest one's
#: memory in every row, so that one endless name would be paid for N times.
LONGEST_NAME = 1000


def name_column(names: Sequence[str], where: str) -> np.ndarray:
    """`(N,)` text; a `DataError` that begins with `where` if a name is longer than any honest one."""
    longest = max((len(name) for name in names), default=0)
    if longest > LONGEST_NAME:
        raise DataError(
            f"{where} holds a name of {longest:,} characters, expected at most {LONGEST_NAME:,}. Shorten it, or fetch the "
            f"file again."
        )
    return np.array(names, dtype=str)


def some(names: Iterable[Any], limit: int = 5) -> str:
    """`dialogues 'a', 'b' and 3 more`: a list of ids short enough to read."""
    names = list(names)
    shown = ", ".join(brief(n) for n in names[:limit])
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{'dialogue' if len(names) == 1 else 'dialogues'} {shown}{rest}"
