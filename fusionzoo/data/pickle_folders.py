"""Folders in which one corpus lies in several pickles.

=================  =======================================================================================
MultiEMO           `Speakers.pkl` (the classic tuple; ids, speakers, labels and splits are taken from it),
                   `TextFeatures.pkl`, `AudioFeatures.pkl`, `VisualFeatures.pkl` (dialogue -> rows)
M3NET              a classic pickle (`IEMOCAP_features.pkl`, `MELD_features_raw1.pkl`) and COSMIC's
                   `..._features_roberta.pkl` beside it: text is its four views, the rest is the classic's
=================  =======================================================================================

In M3NET's the dev dialogues are COSMIC's, which the classic pickle counts as train; M3NET itself trains on them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, ClassVar

from fusionzoo.data._layouts import describe
from fusionzoo.data.classic import CLASSIC, COSMIC, ClassicPickle, MeldVisualPickle
from fusionzoo.data.corpus import Corpus, some
from fusionzoo.data.entries import MODALITIES, corpus_of, text_id
from fusionzoo.data.pickles import load_pickle
from fusionzoo.data.readers import FeatureReader
from fusionzoo.errors import DataError
from fusionzoo.hookspecs import hookimpl
from fusionzoo.plugin import plugin
from fusionzoo.specs import Spec

_MULTIEMO = {"text": "textfeatures.pkl", "audio": "audiofeatures.pkl", "visual": "visualfeatures.pkl"}


class PickleFolder(FeatureReader):
    """A folder of pickles that together have the entries of a corpus."""

    layout: ClassVar[str] = ""

    def entries(self, folder: Path, /) -> tuple[dict[str, Any], list[str]]:
        """The entries by name, as `fusionzoo.data.entries` takes them, and notes on what was left out."""
        raise NotImplementedError

    def read(
        self,
        path: Path,
        /,
        *,
        label_names: Collection[str] | None = None,
        name: str | None = None,
        keep_all: bool = False,
    ) -> Corpus:
        """The corpus; parameters as for `fusionzoo.data.FeatureReader`."""
        fields, notes = self.entries(path)
        given: dict[str, Any] = {"label_names": label_names, "name": name, "keep_all": keep_all}
        return corpus_of(path, self.layout, fields, notes=notes, files=self.files(path), **given)


class MultiEmoFolder(PickleFolder):
    """MultiEMO's folder: the classic tuple without features, and one pickle per modality."""

    layout = "multiemo-folder"
    looks_like = "MultiEMO's Speakers.pkl with TextFeatures.pkl"

    @staticmethod
    def recognise(path: Path, /) -> bool:
        """By the names of the files."""
        names = set(_pickles(path))
        return "speakers.pkl" in names and bool(names & set(_MULTIEMO.values()))

    @staticmethod
    def files(path: Path, /) -> tuple[Path, ...]:
        """Speakers.pkl and the modalities that are there."""
        names = _pickles(path)
        return tuple(names[n] for n in ("speakers.pkl", *_MULTIEMO.values()) if n in names)

    def entries(self, folder: Path, /) -> tuple[dict[str, Any], list[str]]:
        """Ids, speakers, labels and splits of the tuple, features of the others."""
        files = _pickles(folder)
        path = files["speakers.pkl"]
        content = load_pickle(path)
        # Only these entries are used: copies differ in what they leave in the others.
        if not isinstance(content, tuple | list) or len(content) not in (9, 10):
            raise DataError(
                f"{path}: holds {describe(content)}, expected the classic tuple of 9 (IEMOCAP) or 10 (MELD) entries, of "
                f"which speakers, labels, train and test ids are used. Fetch MultiEMO's Data folder again."
            )
        order = (ClassicPickle if len(content) == 9 else MeldVisualPickle).names
        fields = {f: e for f, e in zip(order, content, strict=True) if f not in MODALITIES}
        for entry in ("speakers", "labels"):
            if not isinstance(fields[entry], dict):
                raise DataError(
                    f"{path}: entry {order.index(entry)} ({entry}) is no dict of dialogues. Fetch it again."
                )
        fields = {f: e for f, e in fields.items() if isinstance(e, dict) or f in ("train", "test")}
        notes = []
        for modality, file in _MULTIEMO.items():
            if file not in files:
                notes.append(f"{modality}: there is no {file} in {folder}")
                continue
            entry = load_pickle(files[file])
            if not isinstance(entry, dict):
                raise DataError(
                    f"{files[file]}: holds {describe(entry)}, expected a dict of dialogues. Fetch it again."
                )
            fields[modality] = entry
        return fields, notes


class M3NetFolder(PickleFolder):
    """M3NET's folder: a classic pickle, and COSMIC's beside it, of which the text is."""

    layout = "m3net-folder"
    precedence = 110  # a folder of both is MultiEMO's
    looks_like = "M3NET's IEMOCAP_features.pkl with iemocap_features_roberta.pkl"

    @staticmethod
    def recognise(path: Path, /) -> bool:
        """By the names of the files."""
        names = set(_pickles(path))
        roberta = {n for n in names if n.endswith("_roberta.pkl")}
        return bool(roberta and names - roberta)

    @staticmethod
    def files(path: Path, /) -> tuple[Path, ...]:
        """The classic pickle and COSMIC's."""
        return _m3net_pair(path)

    def entries(self, folder: Path, /) -> tuple[dict[str, Any], list[str]]:
        """The text of COSMIC's, the rest of the classic one."""
        first, second = _m3net_pair(folder)
        parts: list[dict[str, Any]] = []
        for path, kind, layouts in ((first, "classic", CLASSIC), (second, "COSMIC", COSMIC)):
            content = load_pickle(path)
            layout = next((c for c in layouts if c.recognise(content)), None)
            if layout is None:
                raise DataError(f"{path}: holds {describe(content)}, expected the {kind} tuple. Fetch it again.")
            parts.append({f: _by_text(e) for f, e in layout.entries(content, path)[0].items()})
        fields, cosmic = parts
        fields = {f: e for f, e in fields.items() if f != "text"}
        fields |= {f: e for f, e in cosmic.items() if f.startswith("roberta")}
        train, test = _ids(fields["train"]), _ids(fields["test"])
        dev = _ids(cosmic["dev"]) - test
        fields |= {"train": sorted(train - dev), "test": sorted(test), "dev": sorted(dev & set(fields["ids"]))}
        lost = sorted(set(fields["ids"]) - set(fields["roberta1"]))
        if lost:
            raise DataError(
                f"{folder}: {second.name} lacks {some(lost)} of {first.name}. Expected both to be of one corpus: fetch "
                f"them again."
            )
        notes = [f"text of {first.name}: replaced by the four views of {second.name}"]
        return fields, notes


def _pickles(folder: Path) -> dict[str, Path]:
    """Lower-case name -> file."""
    try:
        return {p.name.lower(): p for p in sorted(folder.iterdir()) if p.suffix.lower() == ".pkl" and p.is_file()}
    except OSError:
        return {}


def _m3net_pair(folder: Path) -> tuple[Path, Path]:
    """The classic file and COSMIC's."""
    names = _pickles(folder)
    roberta = [p for n, p in names.items() if n.endswith("_roberta.pkl")]
    others = [p for p in names.values() if p not in roberta]
    # Other pickles may lie there too (COSMIC's comet features); the classic one shares its corpus's name with it.
    corpus = roberta[0].name.lower().split("_")[0]
    classic = [p for p in others if p.name.lower().startswith(corpus)] or others
    plain = [p for p in classic if "comet" not in p.name.lower()]
    if len(roberta) != 1 or len(plain) != 1:
        raise DataError(
            f"{folder}: holds {', '.join(sorted(names))}, expected one *_features_roberta.pkl and one classic pickle "
            f"beside it. Put the two in a folder of their own."
        )
    return plain[0], roberta[0]


def _by_text(entry: Any) -> Any:
    """Dialogue ids as text: MELD's are numbers in one file and text in the other, in some copies."""
    return {text_id(key): value for key, value in entry.items()} if isinstance(entry, dict) else entry


def _ids(entry: Any) -> set[str]:
    return {text_id(i) for i in (entry.ravel().tolist() if hasattr(entry, "ravel") else entry)}


@hookimpl
def fusionzoo_register(register: Callable[[Spec], None]) -> None:
    """Each layout under its name."""
    for layout in (MultiEmoFolder, M3NetFolder):
        plugin(layout, name=layout.layout, summary=str(layout.__doc__).partition("\n")[0].rstrip("."))(register)
