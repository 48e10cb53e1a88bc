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

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusionzoo.data._layouts import describe
from fusionzoo.data.classic import LAYOUTS, MODALITIES, layout_of, read_fields
from fusionzoo.data.corpus import Corpus, some
from fusionzoo.data.pickles import load_pickle
from fusionzoo.errors import DataError

_MULTIEMO = {"text": "textfeatures.pkl", "audio": "audiofeatures.pkl", "visual": "visualfeatures.pkl"}


def folder_layout(folder: Path) -> str | None:
    """`"multiemo-folder"`, `"m3net-folder"` or None, by the names of the files in it."""
    names = set(_pickles(folder))
    if "speakers.pkl" in names and names & set(_MULTIEMO.values()):
        return "multiemo-folder"
    roberta = {n for n in names if n.endswith("_roberta.pkl")}
    return "m3net-folder" if roberta and names - roberta else None


def folder_files(folder: Path) -> tuple[Path, ...]:
    """The files that reading this folder uses."""
    names = _pickles(folder)
    if folder_layout(folder) == "multiemo-folder":
        return tuple(names[n] for n in ("speakers.pkl", *_MULTIEMO.values()) if n in names)
    return _m3net_pair(folder)


def read_folder(
    folder: Path, *, label_names: Sequence[str] | None = None, name: str | None = None, keep_all: bool = False
) -> Corpus:
    """A corpus of a folder that `folder_layout` recognises; see `fusionzoo.data.classic` for the options."""
    layout = folder_layout(folder)
    if layout is None:
        raise DataError(
            f"{folder}: is a folder, not a file, and none that is known. Expected a file in it, MultiEMO's "
            f"Speakers.pkl with TextFeatures.pkl, or M3NET's IEMOCAP_features.pkl with iemocap_features_roberta.pkl."
        )
    fields, notes = _multiemo(folder) if layout == "multiemo-folder" else _m3net(folder)
    return read_fields(
        folder,
        layout,
        fields,
        label_names=label_names,
        name=name,
        keep_all=keep_all,
        notes=notes,
        files=folder_files(folder),
    )


def _pickles(folder: Path) -> dict[str, Path]:
    """Lower-case name -> file."""
    try:
        return {p.name.lower(): p for p in sorted(folder.iterdir()) if p.suffix.lower() == ".pkl" and p.is_file()}
    except OSError:
        return {}


def _multiemo(folder: Path) -> tuple[dict[str, Any], list[str]]:
    files = _pickles(folder)
    path = files["speakers.pkl"]
    content = load_pickle(path)
    # Only these entries are used: copies differ in what they leave in the others.
    if not isinstance(content, tuple | list) or len(content) not in (9, 10):
        raise DataError(
            f"{path}: holds {describe(content)}, expected the classic tuple of 9 (IEMOCAP) or 10 (MELD) entries, of "
            f"which speakers, labels, train and test ids are used. Fetch MultiEMO's Data folder again."
        )
    order = LAYOUTS["classic-pickle" if len(content) == 9 else "meld-visual-pickle"]
    fields = {f: e for f, e in zip(order, content, strict=True) if f not in MODALITIES}
    for entry in ("speakers", "labels"):
        if not isinstance(fields[entry], dict):
            raise DataError(f"{path}: entry {order.index(entry)} ({entry}) is no dict of dialogues. Fetch it again.")
    fields = {f: e for f, e in fields.items() if isinstance(e, dict) or f in ("train", "test")}
    notes = []
    for modality, file in _MULTIEMO.items():
        if file not in files:
            notes.append(f"{modality}: there is no {file} in {folder}")
            continue
        entry = load_pickle(files[file])
        if not isinstance(entry, dict):
            raise DataError(f"{files[file]}: holds {describe(entry)}, expected a dict of dialogues. Fetch it again.")
        fields[modality] = entry
    return fields, notes


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


def _m3net(folder: Path) -> tuple[dict[str, Any], list[str]]:
    first, second = _m3net_pair(folder)
    parts: list[dict[str, Any]] = []
    for path, kind in ((first, "classic"), (second, "COSMIC")):
        content = load_pickle(path)
        layout = layout_of(content)
        if layout is None or layout == "split-pickle" or layout.startswith("cosmic") != (kind == "COSMIC"):
            raise DataError(f"{path}: holds {describe(content)}, expected the {kind} tuple. Fetch it again.")
        parts.append({f: _by_text(e) for f, e in zip(LAYOUTS[layout], content, strict=True)})
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


def _by_text(entry: Any) -> Any:
    """Dialogue ids as text: MELD's are numbers in one file and text in the other, in some copies."""
    return {_name(key): value for key, value in entry.items()} if isinstance(entry, dict) else entry


def _ids(entry: Any) -> set[str]:
    return {_name(i) for i in (entry.ravel().tolist() if hasattr(entry, "ravel") else entry)}


def _name(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
