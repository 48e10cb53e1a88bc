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

Which one per file is shows in which entries are dicts and which are collections of ids. None of these has a dev split:
`load` draws one from the train dialogues, or takes all splits from another file.

Relatives with four text views, the last four layers of RoBERTa-large fine-tuned by COSMIC (`roberta1` to `roberta4`):

==============================  ===========================================================================
roberta-pickle, 12 (IEMOCAP)    ids, speakers, labels, roberta1 to 4, audio, visual, sentences, train, test
roberta-meld-pickle, 13         the same, and sentiment labels
cosmic-iemocap-pickle, 10       speakers, labels, roberta1 to 4, sentences, train, test, dev; text only
cosmic-meld-pickle, 11          speakers, labels, sentiment, roberta1 to 4, sentences, train, test, dev
==============================  ===========================================================================

Their views become one modality `text` (`fusionzoo.data.entries`). SDT and LMAM read the first two, M3NET a COSMIC one beside a classic one (a folder, see
`fusionzoo.data.pickle_folders`).

And the pickles of COGMEN and CORECT (`split-pickle`): a dict of train, dev and test, each a list of dialogues, either
dicts or COGMEN's `Sample` objects, with `vid`, `speaker(s)`, `label(s)`, `text`, `audio`, `visual`, `sentence`. Where
there are `sbert_sentence_embeddings`, they are the text, as in COGMEN.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fusionzoo.data.corpus import some
from fusionzoo.data.entries import PARTS, SPLIT_KEYS, TEXT_VIEWS, text_id
from fusionzoo.data.readers import PickleReader
from fusionzoo.errors import DataError
from fusionzoo.hookspecs import hookimpl
from fusionzoo.plugin import plugin
from fusionzoo.specs import Spec


class TuplePickle(PickleReader):
    """A tuple of dicts of dialogues and of collections of ids; subclasses say which entry is what."""

    names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def recognise(cls, content: Any, /) -> bool:
        """By which entries are dicts and which are collections of ids."""
        if not isinstance(content, tuple | list):
            return False
        return [isinstance(entry, dict) for entry in content] == [name not in PARTS for name in cls.names]

    @classmethod
    def entries(cls, content: Any, path: Path, /) -> tuple[dict[str, Any], list[str]]:
        """Each under its name; nothing is left out."""
        return dict(zip(cls.names, content, strict=True)), []

    @classmethod
    def positions(cls) -> dict[str, int]:
        """Where each stands in the tuple."""
        return {name: i for i, name in enumerate(cls.names)}


class ClassicPickle(TuplePickle):
    """IEMOCAP's features as bc-LSTM, DialogueRNN, DialogueGCN and MMGCN read them, a tuple of nine."""

    names = ("ids", "speakers", "labels", "text", "audio", "visual", "sentences", "train", "test")
    looks_like = f"classic-pickle, the tuple ({', '.join(names)})"


class MeldPickle(TuplePickle):
    """MELD's features without a picture, a tuple of nine."""

    names = ("ids", "speakers", "labels", "text", "audio", "sentences", "train", "test", "sentiment")


class MeldVisualPickle(TuplePickle):
    """MELD's features with the picture, a tuple of ten."""

    names = ("ids", "speakers", "labels", "text", "audio", "visual", "sentences", "train", "test", "sentiment")


class RobertaPickle(TuplePickle):
    """IEMOCAP's features with four views of the text, a tuple of twelve that SDT and LMAM read."""

    names = ("ids", "speakers", "labels", *TEXT_VIEWS, "audio", "visual", "sentences", "train", "test")


class RobertaMeldPickle(TuplePickle):
    """MELD's features with four views of the text, a tuple of thirteen that SDT and LMAM read."""

    names = (*RobertaPickle.names, "sentiment")


class CosmicIemocapPickle(TuplePickle):
    """COSMIC's four views of IEMOCAP's text, a tuple of ten."""

    names = ("speakers", "labels", *TEXT_VIEWS, "sentences", "train", "test", "dev")

    @classmethod
    def recognise(cls, content: Any, /) -> bool:
        """By its entries, and by labels where COGMEN's of MOSEI, which has as many dicts, has features."""
        return super().recognise(content) and _is_numbers(content[1])


class CosmicMeldPickle(TuplePickle):
    """COSMIC's four views of MELD's text, a tuple of eleven."""

    names = ("speakers", "labels", "sentiment", *TEXT_VIEWS, "sentences", "train", "test", "dev")


def _is_numbers(entry: dict[Any, Any]) -> bool:
    """Whether the first row of the first dialogue is a number (a label), not a name or a vector."""
    for rows in entry.values():
        if isinstance(rows, list | tuple | np.ndarray) and len(rows):
            return isinstance(rows[0], int | np.integer) or (isinstance(rows, np.ndarray) and rows.dtype.kind in "iu")
    return False


#: Entry -> what COGMEN's objects and CORECT's dicts call it.
_SAMPLE_KEYS = {
    "speakers": ("speaker", "speakers"),
    "labels": ("label", "labels"),
    "text": ("sbert_sentence_embeddings", "text"),
    "audio": ("audio",),
    "visual": ("visual",),
    "sentences": ("sentence",),
}


class SplitPickle(PickleReader):
    """COGMEN's and CORECT's features: a dict of splits, each a list of dialogues that know their `vid`."""

    looks_like = "split-pickle, a dict of splits as in COGMEN and CORECT"

    @staticmethod
    def recognise(content: Any, /) -> bool:
        """By splits that are lists of dicts with a `vid`."""
        if not isinstance(content, dict) or "train" not in content or not set(content) <= set(SPLIT_KEYS):
            return False
        if not all(isinstance(part, list | tuple) for part in content.values()):
            return False
        rows = [d for part in content.values() for d in part]
        return bool(rows) and all(isinstance(d, dict) and "vid" in d for d in rows)

    @staticmethod
    def entries(content: Any, path: Path, /) -> tuple[dict[str, Any], list[str]]:
        """The dialogues of all splits together."""
        fields: dict[str, Any] = {"train": [], "test": [], "dev": [], **{name: {} for name in _SAMPLE_KEYS}}
        notes: list[str] = []
        for key, dialogues in content.items():
            for sample in dialogues:
                vid = text_id(sample["vid"])
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
                fields[SPLIT_KEYS[key]].append(vid)
        return {name: entry for name, entry in fields.items() if entry or name in ("train", "test")}, notes


#: Tuples with sound, and COSMIC's without: M3NET puts one of each together.
CLASSIC: tuple[type[TuplePickle], ...] = (ClassicPickle, MeldPickle, MeldVisualPickle, RobertaPickle, RobertaMeldPickle)
COSMIC: tuple[type[TuplePickle], ...] = (CosmicIemocapPickle, CosmicMeldPickle)

#: Public name -> layout.
LAYOUTS: dict[str, type[PickleReader]] = {
    "classic-pickle": ClassicPickle,
    "meld-pickle": MeldPickle,
    "meld-visual-pickle": MeldVisualPickle,
    "roberta-pickle": RobertaPickle,
    "roberta-meld-pickle": RobertaMeldPickle,
    "cosmic-iemocap-pickle": CosmicIemocapPickle,
    "cosmic-meld-pickle": CosmicMeldPickle,
    "split-pickle": SplitPickle,
}


@hookimpl
def fusionzoo_register(register: Callable[[Spec], None]) -> None:
    """Each layout under its name."""
    for name, layout in LAYOUTS.items():
        plugin(layout, name=name, summary=str(layout.__doc__).partition("\n")[0].rstrip("."))(register)
