"""The safe columnar file: an `.npz` of flat arrays, one row per utterance, read without pickles.

=================  ==================  =====================================================================
array              shape               what
=================  ==================  =====================================================================
dialogue_id        (N,) text           equal in the contiguous rows of one dialogue
utterance_index    (N,) int            strictly increasing within a dialogue
speaker            (N,) text
label              (N,) int            0 to C - 1; -100 where unlabelled
label_names        (C,) text           the classes
split              (N,) text           train, dev or test; one per dialogue
<modality>         (N, d) float        one matrix per modality, any float width (half and double become single)
<modality>_mask    (N,) bool           optional: True where the modality was recorded
utterance_id       (N,) text           optional
modalities         (M,) text           optional: which matrices are the modalities, in this order
provenance         () text             optional: JSON, what is known about where the data come from
anything else      any, no objects     kept out of the model, carried along by `fusionzoo data convert`
=================  ==================  =====================================================================

Which matrices are modalities: those that `modalities` names; without it, every two-dimensional float array with one row
per utterance, in file order, except annotations: `vad` (valence, activation, dominance) and names that begin with
`label_` or `target_`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from fusionzoo._file_schemas import Provenance
from fusionzoo._files import writing
from fusionzoo._schema import check, parse_json
from fusionzoo.data._npz_columns import Column, read_arrays, read_columns
from fusionzoo.data.corpus import LONGEST_NAME, Corpus
from fusionzoo.errors import DataError, OutputError

REQUIRED = ("dialogue_id", "utterance_index", "speaker", "label", "label_names", "split")
#: A column of another length (names of dimensions, class weights) is carried along where it is not larger than this.
_SMALL = 1 << 20
#: Other columns that compress better than this, and are larger than the corpus itself, are left packed.
_TIMES_PACKED = 20
_TIMES_OF_UTTERANCES = frozenset({"start", "end", "begin", "stop", "time", "duration", "seconds", "length"})
_OWN = frozenset({*REQUIRED, "utterance_id", "modalities", "provenance"})


def is_annotation(name: str) -> bool:
    """Whether a float matrix of this name is an annotation and not a modality."""
    return name == "vad" or name.startswith(("label_", "target_"))


def sha256(path: str | os.PathLike[str]) -> str:
    """The file's SHA-256, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of(paths: Sequence[str | os.PathLike[str]]) -> str:
    """The SHA-256 of one file, or of the SHA-256s of several, in this order."""
    sums = [sha256(path) for path in paths]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def modality_columns(columns: dict[str, Column], rows: int) -> list[str]:
    """The modalities that the rule of this module finds when the file does not name them."""
    return [
        name
        for name, c in columns.items()
        if len(c.shape) == 2
        and c.shape[0] == rows
        and c.dtype.kind == "f"
        and name not in _OWN
        and not is_annotation(name)
    ]


def read_npz(path: str | os.PathLike[str], *, needs_split: bool = True, name: str | None = None) -> Corpus:
    """Read an `.npz` corpus. Structure is checked here; call `validate()` on the result for the contents.

    needs_split : False accepts a file without `split` (all its dialogues then count as train, for the caller to
    change).
    """
    path = Path(path)
    columns = read_columns(path)
    _check_required(path, columns, [c for c in REQUIRED if needs_split or c != "split"])
    rows = _rows(path, columns)
    modalities = _modalities(path, columns, rows)
    masks = [f"{m}_mask" for m in modalities if f"{m}_mask" in columns]
    needed = [c for c in columns if c in _OWN or c in modalities or c in masks]
    _check_columns(path, columns, needed, rows)
    others, skipped = _others(columns, needed, rows)
    arrays = read_arrays(path, columns, [*needed, *others])
    unused = [] if "modalities" in columns else _like_features(columns, others, rows)
    info = _provenance(path, arrays.get("provenance"))
    info |= {"source": str(path), "sha256": sha256(path)}
    info |= {"stored_dtypes": {m: str(columns[m].dtype) for m in modalities}}
    info |= {"skipped": [*info.get("skipped", []), *skipped]} if skipped else {}
    info |= {"unused": unused} if unused else {}
    return Corpus(
        name=name or path.stem,
        features={m: arrays[m] for m in modalities},
        dialogue_id=arrays["dialogue_id"],
        utterance_index=arrays["utterance_index"],
        speaker=arrays["speaker"],
        label=arrays["label"],
        label_names=tuple(str(x) for x in np.atleast_1d(arrays["label_names"])),
        split=arrays.get("split", np.full(rows, "train")),
        present={c.removesuffix("_mask"): _as_flags(arrays[c]) for c in masks},
        utterance_id=arrays.get("utterance_id"),
        info=info,
        extras={c: arrays[c] for c in others},
    )


def _check_required(path: Path, columns: dict[str, Column], required: Sequence[str]) -> None:
    if missing := [c for c in required if c not in columns]:
        hint = " The split may also come from a file of its own (split=...)." if "split" in missing else ""
        raise DataError(
            f"{path}: lacks the column{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}, expected "
            f"{', '.join(REQUIRED)} and one matrix per modality; it has {', '.join(columns) or 'nothing'}.{hint} Add "
            f"what is missing, or convert the original with `fusionzoo data convert`."
        )


def _rows(path: Path, columns: dict[str, Column]) -> int:
    shape = columns["dialogue_id"].shape
    if len(shape) != 1:
        raise DataError(
            f"{path}: column 'dialogue_id' has shape {shape}, expected (rows,), the dialogue of every utterance. Write the "
            f"file again."
        )
    return shape[0]


def _modalities(path: Path, columns: dict[str, Column], rows: int) -> list[str]:
    """The columns that are modalities, by the rule of this module."""
    if "modalities" in columns:
        _check_columns(path, columns, ["modalities"], rows)
        names = [str(m) for m in np.atleast_1d(read_arrays(path, columns, ["modalities"])["modalities"])]
        for m in names:
            if m not in columns or m in _OWN or columns[m].dtype.kind not in "fiu":
                raise DataError(
                    f"{path}: column 'modalities' names {m!r}, expected the name of a matrix of numbers in the file; "
                    f"it has {', '.join(columns)}. Correct or remove 'modalities'."
                )
    else:
        names = modality_columns(columns, rows)
    for c, h in columns.items():
        meant = (
            c in names if "modalities" in columns else h.dtype.kind == "f" and not is_annotation(c) and c not in _OWN
        )
        if not meant or len(h.shape) < 2:
            continue
        if len(h.shape) > 2 and h.shape[0] == rows:
            raise DataError(
                f"{path}: column {c!r} has shape {h.shape}, expected ({rows}, width), one feature vector per utterance: these "
                f"look like the frames or tokens of each. Pool them before, e.g. {c}.mean(axis=1) (over the real frames "
                f"alone, if they are padded), or, if {c!r} is no modality, name the modalities in a text array 'modalities'."
            )
        if h.shape[0] != rows:
            raise DataError(
                f"{path}: column {c!r} has shape {h.shape}, expected ({rows}, width), one feature vector per utterance. "
                f"Write the file again with columns of one length; if it is no modality, name the modalities in a text "
                f"array 'modalities'."
            )
    if not names:
        raise DataError(
            f"{path}: there is no modality, expected one or more float matrices ({rows}, width); it has "
            f"{', '.join(f'{c} {h.shape}' for c, h in columns.items())}."
        )
    return names


def _check_columns(path: Path, columns: dict[str, Column], names: Sequence[str], rows: int) -> None:
    """Refuse columns that would be read in vain: too long, or of names longer than any honest one."""
    for c in names:
        h = columns[c]
        own = c not in ("provenance", "label_names", "modalities")
        if own and h.shape[:1] != (rows,) and h.bytes > _SMALL:
            raise DataError(
                f"{path}: column {c!r} has shape {h.shape}, expected ({rows},), one value per utterance (the length of "
                f"'dialogue_id'). Write the file again with columns of one length."
            )
        if c in ("label_names", "modalities") and h.bytes > _SMALL:
            raise DataError(
                f"{path}: column {c!r} has shape {h.shape}, expected a short list of names. Write it again."
            )
        width = h.dtype.itemsize // (4 if h.dtype.kind == "U" else 1)
        if c in _OWN and c != "provenance" and h.dtype.kind not in "SUiufb":
            raise DataError(f"{path}: column {c!r} holds {h.dtype}, expected text or numbers. Write the file again.")
        if c in _OWN and c != "provenance" and h.dtype.kind in "SU" and width > LONGEST_NAME:
            raise DataError(
                f"{path}: column {c!r} has room for names of {width:,} characters, expected at most {LONGEST_NAME:,}. "
                f"Shorten them (numpy.array(names, dtype=str) takes as much as the longest needs)."
            )


def _others(columns: dict[str, Column], needed: Sequence[str], rows: int) -> tuple[list[str], list[str]]:
    """The other columns that are carried along, and notes on those that are not even unpacked."""
    others, skipped = [], []
    left = _SMALL + 2 * sum(columns[c].bytes for c in needed)
    for c, h in columns.items():
        if c in needed:
            continue
        if h.shape[:1] != (rows,) and h.bytes > _SMALL:
            skipped.append(f"column {c!r} ({h}): its length fits nothing, it is not read")
        elif h.inflated or h.bytes > max(left, _TIMES_PACKED * h.packed):
            skipped.append(
                f"column {c!r} ({h}): takes {h.bytes:,} bytes unpacked, which no model needs; it is not read"
            )
        else:
            others.append(c)
    return others, skipped


def _like_features(columns: dict[str, Column], names: Sequence[str], rows: int) -> list[str]:
    """Notes on columns that may be meant as features and are not used, in a file that does not name its modalities."""
    notes = []
    for c in names:
        h = columns[c]
        if h.shape[:1] != (rows,) or is_annotation(c) or c.endswith("_mask") or c in _TIMES_OF_UTTERANCES:
            continue
        if len(h.shape) > 1 and h.dtype.kind in "iucb":
            why = (
                f"features are float matrices; {c}.astype('float32') would be read"
                if h.dtype.kind != "c"
                else (f"complex numbers are not read; take {c}.real, abs({c}) or both side by side")
            )
        elif len(h.shape) == 1 and h.dtype.kind in "fc":
            why = f"a modality is a matrix; {c}[:, None] would be read as one of width 1"
        else:
            continue
        notes.append(
            f"column {c!r} ({h}) looks like features and is not used: {why}. If it is no modality, name the modalities in "
            f"a text array 'modalities'"
        )
    return notes


def _as_flags(mask: np.ndarray) -> np.ndarray:
    return mask.astype(bool) if _is_flags(mask) else mask


def _is_flags(mask: np.ndarray) -> bool:
    return mask.dtype.kind in "iu" and bool(np.isin(mask, (0, 1)).all())


def _provenance(path: Path, stored: np.ndarray | None) -> dict[str, Any]:
    if stored is None:
        return {}
    where = f"{path}: column 'provenance'"
    return dict(check(Provenance, parse_json(str(stored), where, DataError), where, DataError))


def save_npz(corpus: Corpus, path: str | os.PathLike[str]) -> Path:
    """Write `corpus` (validated first) in the layout of this module, whole or not at all; returns the path.

    Equal corpora give equal bytes. The file appears under its name only when it is complete, so a crash or a full disk
    leaves what was there before.
    """
    corpus.validate()
    path = Path(path)
    taken = {*_OWN, *(f"{m}_mask" for m in corpus.present)}
    for m in corpus.features:
        if m in taken or "/" in m:
            raise DataError(f"{path}: a modality cannot be called {m!r}, the name of another column; rename it.")
    columns: dict[str, np.ndarray] = {
        "dialogue_id": corpus.dialogue_id,
        "utterance_index": corpus.utterance_index,
        "speaker": corpus.speaker,
        "label": corpus.label,
        "label_names": np.array(corpus.label_names, dtype=str),
        "split": corpus.split,
        "utterance_id": np.asarray(corpus.utterance_id),
        "modalities": np.array(corpus.modalities, dtype=str),
    }
    columns |= corpus.features
    columns |= {f"{m}_mask": x for m, x in corpus.present.items()}
    columns |= {c: np.asarray(x) for c, x in corpus.extras.items() if c not in columns and c != "provenance"}
    if bad := [c for c, x in columns.items() if x.dtype.hasobject]:
        raise DataError(
            f"{path}: column {bad[0]!r} holds Python objects, expected numbers or text; drop or convert it."
        )
    columns["provenance"] = np.array(json.dumps(_facts(corpus), sort_keys=True, default=str))
    try:
        with writing(path, parents=False) as stream:
            # Without allow_pickle=False, which before numpy 2.2 would be one more column: no column holds objects.
            np.savez_compressed(stream, **cast(Any, columns))
    except OutputError as error:
        raise DataError(str(error)) from error
    return path


def _facts(corpus: Corpus) -> dict[str, Any]:
    """What the file says about its origin; the reader adds its own source and checksum, so the old ones are renamed."""
    facts = {k: v for k, v in corpus.info.items() if k not in ("source", "sha256", "unused", "leaks")}
    if "source" in corpus.info and "made_from" not in facts:
        # The base name only: a path would tell who made the file and where.
        facts["made_from"] = {"source": Path(corpus.source).name, "sha256": corpus.info.get("sha256")}
    return facts
