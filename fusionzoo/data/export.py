"""A corpus written in the layouts that public repositories read, so that their own code runs on anybody's features.

Pickles that are written hold plain containers and arrays only, and our own readers read them back exactly.

=========================  ==========================================================================================
`classic-pickle`           the tuple of nine: bc-LSTM, DialogueRNN, DialogueGCN, MMGCN, MM-DFN
`meld-pickle`              its form for MELD, without a picture
`meld-visual-pickle`       its form for MELD, a tuple of ten
`roberta-pickle`           four views of the text, a tuple of twelve: SDT, LMAM; `roberta-meld-pickle` for MELD
`cosmic-iemocap-pickle`    COSMIC's, text alone; `cosmic-meld-pickle` for MELD
`split-pickle`             a dict of splits: CORECT
`multiemo-folder`          `Speakers.pkl` and a file for each modality: MultiEMO; `multiemo-meld-folder` for MELD
`mmsa-pickle`              a dict of splits of single clips with scores of sentiment: MMSA
`m3net-folder`             a classic pickle and COSMIC's beside it: M3NET; `m3net-meld-folder` for MELD
=========================  ==========================================================================================
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fusionzoo
from fusionzoo._files import write_bytes, write_text
from fusionzoo._text import json_text
from fusionzoo.data.corpus import Corpus, Dialogue
from fusionzoo.data.mmsa import MARK, SCORE_COLUMNS, SENTIMENTS, SEQUENCES
from fusionzoo.data.sources import load
from fusionzoo.errors import DataError, OptionError, close_matches_hint

_SLOTS = ("text", "audio", "visual")
_VIEWS = ("roberta1", "roberta2", "roberta3", "roberta4")
_CLASSIC = ("ids", "speakers", "labels", "text", "audio", "visual", "sentences", "train", "test")
_MELD = (*_CLASSIC, "sentiment")
_COSMIC = ("speakers", "labels", *_VIEWS, "sentences", "train", "test", "dev")
_COSMIC_MELD = ("speakers", "labels", "sentiment", *_VIEWS, "sentences", "train", "test", "dev")
_TUPLES: dict[str, tuple[str, ...]] = {
    "classic-pickle": _CLASSIC,
    "meld-pickle": ("ids", "speakers", "labels", "text", "audio", "sentences", "train", "test", "sentiment"),
    "meld-visual-pickle": _MELD,
    "roberta-pickle": ("ids", "speakers", "labels", *_VIEWS, "audio", "visual", "sentences", "train", "test"),
    "roberta-meld-pickle": (
        *("ids", "speakers", "labels", *_VIEWS, "audio", "visual", "sentences", "train", "test", "sentiment"),
    ),
    "cosmic-iemocap-pickle": _COSMIC,
    "cosmic-meld-pickle": _COSMIC_MELD,
}
# File of the folder -> its tuple, or the one entry that it holds.
_FOLDERS: dict[str, dict[str, tuple[str, ...] | str]] = {
    "multiemo-folder": {"Speakers.pkl": _CLASSIC},
    "multiemo-meld-folder": {"Speakers.pkl": _MELD},
    "m3net-folder": {"IEMOCAP_features.pkl": _CLASSIC, "iemocap_features_roberta.pkl": _COSMIC},
    "m3net-meld-folder": {"MELD_features_raw1.pkl": _MELD, "meld_features_roberta.pkl": _COSMIC_MELD},
}
for _name in ("multiemo-folder", "multiemo-meld-folder"):
    _FOLDERS[_name] |= {"TextFeatures.pkl": "text", "AudioFeatures.pkl": "audio", "VisualFeatures.pkl": "visual"}
LAYOUTS = (*_TUPLES, "split-pickle", "mmsa-pickle", *_FOLDERS)
_MELD_SPEAKERS = 9  # width of MELD's one-hot rows


@dataclass(frozen=True)
class Export:
    """What was written.

    layout : its name.
    target : file or folder.
    card : the file that says how it came about.
    widths : of what stands in each slot.
    notes : what was fitted, renamed, filled in or left out.
    """

    layout: str
    target: Path
    card: Path
    widths: dict[str, int]
    notes: list[str]

    def __str__(self) -> str:
        widths = ", ".join(f"{m} {d}" for m, d in self.widths.items())
        return "\n".join([f"{self.target}: {self.layout}, {widths}", *(f"  {n}" for n in self.notes)])


def export_data(
    source: str | os.PathLike[str] | Corpus,
    target: str | os.PathLike[str],
    layout: str,
    *,
    widths: Mapping[str, int] | None = None,
    join: Mapping[str, int] | None = None,
    standardise: bool = False,
    steps: int = 1,
    split: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Export:
    """Write a corpus in the layout of a public repository.

    Parameters
    ----------
    source : a corpus, or what `fusionzoo.data.load` reads.
    target : a file, or a folder for the layouts that are one.
    layout : one of `LAYOUTS`.
    widths : modality -> width that the repository's code expects. Fitted by zeros behind the features where it is larger, by a
        projection on the principal axes of the training split where it is smaller. A modality that the corpus lacks is
        written as zeros of this width.
    join : modality -> width of what stands side by side, in this order, in the place of the text, for code that reads one
        stream; `fusionzoo run --input ... --widths ...` takes them apart there.
    standardise : bring every feature to mean 0 and deviation 1 on the training split first, for code that does not.
    steps : of the sequences of MMSA: the utterance's vector, so many times over, for models that convolve over time.
    split : as for `load`.
    options : of `load`.

    Raises
    ------
    DataError : the corpus does not fit the layout.
    OptionError : an unknown layout or modality, an impossible width.
    """
    if layout not in LAYOUTS:
        raise OptionError(
            f"there is no layout {layout!r}{close_matches_hint(layout, LAYOUTS)}; there are {', '.join(LAYOUTS)}"
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise OptionError(f"steps must be a positive integer, not {steps!r}")
    if steps > 1 and layout != "mmsa-pickle":
        raise OptionError(f"{layout} has one vector per utterance; steps={steps} is of mmsa-pickle")
    corpus = source if isinstance(source, Corpus) else load(source, split=split, **options)
    fields = _Fields(corpus, layout, dict(widths or {}), dict(join or {}), standardise)
    target = Path(target)
    if layout in _FOLDERS:
        for file, names in _FOLDERS[layout].items():
            _write(target / file, fields.entry(names) if isinstance(names, str) else fields.tuple_of(names, file))
        card = target / "card.json"
    else:
        dicts = {"split-pickle": fields.by_split, "mmsa-pickle": lambda: fields.clips_by_split(steps)}
        _write(target, dicts[layout]() if layout in dicts else fields.tuple_of(_TUPLES[layout]))
        card = target.with_name(f"{target.name}.card.json")
    about = {
        "layout": layout,
        "fusionzoo": fusionzoo.__version__,
        "source": corpus.source,
        "sha256": corpus.info.get("sha256"),
        "widths": fields.widths,
        "notes": fields.notes,
    }
    write_text(card, json_text(about) + "\n")
    return Export(layout, target, card, fields.widths, fields.notes)


def _write(path: Path, content: Any) -> None:
    write_bytes(path, pickle.dumps(content, protocol=4))


class _Fields:
    """The entries of a layout, by name: dialogue -> one row per utterance, and lists of dialogues."""

    def __init__(self, corpus: Corpus, layout: str, widths: dict[str, int], join: dict[str, int], standardise: bool):
        self.corpus, self.layout = corpus, layout
        self.notes = ["features: mean 0 and deviation 1 on the training split"] if standardise else []
        self.standardise, self.train = standardise, corpus.split == "train"
        self.dialogues: list[Dialogue] = corpus.dialogues()
        self.one_hot = "meld" in layout
        self.views = layout.startswith(("roberta", "cosmic", "m3net"))
        if (corpus.label < 0).any():
            raise DataError(
                f"{corpus.source} has utterances without a label, for which {layout} has no place. Leave them out."
            )
        for name, width in {**widths, **join}.items():
            if isinstance(width, bool) or not isinstance(width, int) or width < 1:
                raise OptionError(f"the width of {name!r} must be a positive integer, not {width!r}")
        self.columns = self._columns(widths, join)
        self.widths = {name: int(x.shape[1]) for name, x in self.columns.items()}
        has_dev = layout.startswith(("cosmic", "split", "m3net", "mmsa"))
        if not has_dev and corpus.dialogues("dev"):
            self.notes.append(f"{layout} has no dev split: the dev dialogues are train dialogues")
        self.has_dev = has_dev

    # -- features -------------------------------------------------------------------------------------------------------

    def _columns(self, widths: dict[str, int], join: dict[str, int]) -> dict[str, np.ndarray]:
        where = self._slots(widths)
        wanted = {slot: widths.get(slot, widths.get(modality)) for slot, modality in where.items()}
        columns = {slot: self._fitted(slot, modality, wanted[slot]) for slot, modality in where.items()}
        if join:
            if self.views:
                raise OptionError(
                    f"{self.layout} has four views of the text; modalities are joined in layouts with one text"
                )
            for modality in join:
                self._known(modality)
            columns["text"] = np.concatenate([self._fitted(m, m, w) for m, w in join.items()], axis=1)
            self.notes.append(f"text: {', '.join(f'{m} {w}' for m, w in join.items())}, side by side")
        if self.views:
            views = np.split(columns.pop("text"), len(_VIEWS), axis=1)
            columns = {**dict(zip(_VIEWS, views, strict=True)), **columns}
        return columns

    def _slots(self, widths: dict[str, int]) -> dict[str, str]:
        """Slot of the layout -> modality of the corpus that stands there."""
        names = self.corpus.modalities
        for name in widths:
            if name not in _SLOTS:
                self._known(name)
        slots = _SLOTS[:1] if self.layout.startswith("cosmic") else _SLOTS
        slots = tuple(s for s in slots if not (s == "visual" and self.layout == "meld-pickle"))
        where = {s: s for s in slots if s in names}
        others = [m for m in names if m not in _SLOTS]
        for slot in slots:
            if slot in where:
                continue
            if others:
                where[slot] = others.pop(0)
                self.notes.append(f"{where[slot]} stands in the place of {slot}")
            elif slot in widths:
                where[slot] = slot
            else:
                raise DataError(
                    f"{self.corpus.source} has no modality for {slot!r}, which {self.layout} has a place for; it has "
                    f"{', '.join(names)}. Say how wide the code expects it, and it is written as zeros: --widths {slot}=100"
                )
        left = [m for m in names if m not in where.values()]
        if left:
            self.notes.append(f"left out: {', '.join(left)}")
        return {s: where[s] for s in slots}

    def _known(self, modality: str) -> None:
        if modality not in self.corpus.modalities:
            names = self.corpus.modalities
            raise OptionError(
                f"{self.corpus.source} has no modality {modality!r}{close_matches_hint(modality, names)}; it has {', '.join(names)}"
            )

    def _fitted(self, slot: str, modality: str, width: int | None) -> np.ndarray:
        """`(N, width)`; of the text in a layout of views, all views side by side."""
        corpus = self.corpus
        if modality not in corpus.features:
            assert width is not None
            self.notes.append(f"{slot}: zeros, because there is no such modality")
            views = len(_VIEWS) if slot == "text" and self.views else 1
            return np.zeros((len(corpus), views * width), dtype=np.float32)
        x = corpus.features[modality]
        present = corpus.present.get(modality)
        if present is not None and not present.all():
            x = np.where(present[:, None], x, np.float32(0))
            self.notes.append(f"{slot}: zeros where {modality} was not recorded ({int((~present).sum())} utterances)")
        if slot != "text" or not self.views:
            return self._fit(slot, x, width)
        if corpus.text_views == len(_VIEWS):
            parts = np.split(x, len(_VIEWS), axis=1)
        else:
            parts = [x] * len(_VIEWS)
            self.notes.append("text: the same in all four views, because the corpus has one")
        return np.concatenate([self._fit(view, p, width) for view, p in zip(_VIEWS, parts, strict=True)], axis=1)

    def _fit(self, slot: str, x: np.ndarray, width: int | None) -> np.ndarray:
        if self.standardise:
            mean, deviation = x[self.train].mean(axis=0), x[self.train].std(axis=0)
            x = (x - mean) / np.where(deviation > 0, deviation, 1)
        have = x.shape[1]
        if width is None or width == have:
            return x
        if width > have:
            self.notes.append(f"{slot}: {have} features and {width - have} zeros behind them")
            return np.pad(x, ((0, 0), (0, width - have)))
        self.notes.append(f"{slot}: {have} features projected on the {width} principal axes of the training split")
        return principal(x, x[self.train], width)

    # -- entries --------------------------------------------------------------------------------------------------------

    def tuple_of(self, names: tuple[str, ...], file: str = "") -> tuple[Any, ...]:
        """The entries in this order; in MultiEMO's first file those of features are empty, as theirs are elsewhere."""
        bare = file == "Speakers.pkl"
        plain = file in ("IEMOCAP_features.pkl", "MELD_features_raw1.pkl")
        return tuple(
            {} if bare and n in _SLOTS else self.entry("roberta1" if plain and n == "text" else n) for n in names
        )

    def by_split(self) -> dict[str, list[dict[str, Any]]]:
        """CORECT's dicts."""
        keys = {"speakers": "speakers", "labels": "labels", "sentences": "sentence", **{m: m for m in _SLOTS}}
        entries = {key: self.entry(name) for name, key in keys.items()}
        return {
            part: [{"vid": d, **{k: e[d] for k, e in entries.items()}} for d in self.entry(part)]
            for part in ("train", "dev", "test")
        }

    def clips_by_split(self, steps: int) -> dict[str, dict[str, Any]]:
        """MMSA's columns; `utterance_id`, `speaker` and `label_names` are ours, and its code reads past them."""
        corpus = self.corpus
        names = np.array(corpus.label_names)
        columns: dict[str, np.ndarray] = {
            SEQUENCES[slot]: x[:, None, :].repeat(steps, axis=1) for slot, x in self.columns.items()
        }
        columns |= {f"{SEQUENCES[slot]}_lengths": np.full(len(corpus), steps) for slot in self.columns}
        columns |= self._scores()
        columns |= {"classification_labels": corpus.label.astype(np.float32), "annotations": names[corpus.label]}
        texts = {
            "raw_text": self._column("sentences"),
            "utterance_id": self._column("ids"),
            "speaker": corpus.speaker.tolist(),
        }
        clips = zip(corpus.dialogue_id.tolist(), corpus.utterance_index.tolist(), strict=True)
        texts["id"] = [f"{dialogue}{MARK}{index}" for dialogue, index in clips]
        self.notes.append(
            f"text, audio, vision: sequences of {steps} step{'s' * (steps > 1)}, each the utterance's vector"
        )
        self.notes.append(
            "text_bert: left out, because it holds a tokenizer's numbers: models with use_bert have to be told not to"
        )
        content: dict[str, dict[str, Any]] = {}
        for split, key in (("train", "train"), ("dev", "valid"), ("test", "test")):
            rows = np.concatenate([np.arange(d.start, d.stop) for d in corpus.dialogues(split)] or [np.zeros(0, int)])
            if not len(rows):
                raise DataError(
                    f"{corpus.source} has no {split} split, which mmsa-pickle needs. Give one: --split FILE"
                )
            content[key] = {name: column[rows] for name, column in columns.items()}
            content[key] |= {name: [column[row] for row in rows.tolist()] for name, column in texts.items()}
            content[key]["label_names"] = list(corpus.label_names)
        return content

    def _scores(self) -> dict[str, np.ndarray]:
        """MMSA trains on scores: the corpus's own, or -1, 0 and 1 where its classes are those of sentiment."""
        corpus = self.corpus
        found = {column: corpus.extras[name] for name, column in SCORE_COLUMNS.items() if name in corpus.extras}
        if "regression_labels" not in found:
            classes = [name.lower() for name in corpus.label_names]
            if not set(classes) <= set(SENTIMENTS):
                raise DataError(
                    f"{corpus.source} has no scores, on which MMSA trains: expected a column 'score' of one number per utterance, or "
                    f"the classes {', '.join(SENTIMENTS)}; its classes are {', '.join(corpus.label_names)}. Add the column."
                )
            values = np.array([SENTIMENTS.index(name) - 1.0 for name in classes])
            found["regression_labels"] = values[corpus.label]
            self.notes.append("regression_labels: -1, 0 and 1 of the classes, because the corpus has no column 'score'")
        return found

    def entry(self, name: str) -> Any:
        """One entry."""
        corpus = self.corpus
        if name in ("train", "dev", "test"):
            parts = (name,) if self.has_dev or name != "train" else ("train", "dev")
            return [d.id for d in self.dialogues if corpus.split[d.start] in parts]
        if name == "speakers":
            return self._speakers()
        if name in self.columns:
            return {d.id: self.columns[name][d.start : d.stop].copy() for d in self.dialogues}
        return {d.id: list(self._column(name)[d.start : d.stop]) for d in self.dialogues}

    def _column(self, name: str) -> list[Any]:
        corpus = self.corpus
        if name == "ids":
            assert corpus.utterance_id is not None
            return corpus.utterance_id.tolist()
        if name == "labels":
            return corpus.label.tolist()
        column = corpus.extras.get({"sentences": "sentence"}.get(name, name))
        if column is not None:
            return column.tolist()
        note = (
            f"{name}: empty, because the corpus has none"
            if name == "sentences"
            else f"{name}: 0, because the corpus has none"
        )
        self.notes.extend([note] if note not in self.notes else [])
        return ([""] if name == "sentences" else [0]) * len(corpus)

    def _speakers(self) -> dict[str, list[Any]]:
        """`"M"` and `"F"`, or one-hot rows by order of appearance."""
        corpus, numbers = self.corpus, self.corpus.speaker_index()
        if self.one_hot:
            width = max(_MELD_SPEAKERS, corpus.num_speakers)
            rows = np.eye(width, dtype=np.int64)[numbers].tolist()
            return {d.id: rows[d.start : d.stop] for d in self.dialogues}
        names = [str(s) for s in corpus.speaker.tolist()]
        if not all(n[-1:] in ("M", "F") for n in names):
            if corpus.num_speakers > 2:
                raise DataError(
                    f"{corpus.source} has dialogues of {corpus.num_speakers} speakers, and {self.layout} knows M and F; its form "
                    "for MELD knows more"
                )
            names = ["MF"[i] for i in numbers.tolist()]
            note = "speakers: M for the first of a dialogue, F for the second"
            self.notes.extend([note] if note not in self.notes else [])
        return {d.id: [n[-1] for n in names[d.start : d.stop]] for d in self.dialogues}


def principal(x: np.ndarray, fitted_on: np.ndarray, width: int) -> np.ndarray:
    """Features on the first principal axes of some of them, which are centred."""
    mean = fitted_on.mean(axis=0, dtype=np.float64)
    _, _, axes = np.linalg.svd(fitted_on - mean, full_matrices=False)
    axes = axes[:width]
    # An axis has no direction of its own: the largest component is made positive.
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    out = np.zeros((len(x), width), dtype=np.float32)
    out[:, : len(axes)] = (x - mean) @ axes.T
    return out
