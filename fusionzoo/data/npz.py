"""The safe columnar file: an `.npz` of flat arrays, one row an utterance, read without pickles.

=================  ==================  =====================================================================
array              shape               what
=================  ==================  =====================================================================
dialogue_id        (N,) text           equal in the contiguous rows of one dialogue
utterance_index    (N,) int            strictly increasing within a dialogue
speaker            (N,) text
label              (N,) int            0 to C - 1; -100 where unlabelled
label_names        (C,) text           the classes
split              (N,) text           train, dev or test; one a dialogue
<modality>         (N, d) float        one matrix a modality, any float width (half and double become single)
<modality>_mask    (N,) bool           optional: True where the modality was recorded
utterance_id       (N,) text           optional
modalities         (M,) text           optional: which matrices are the modalities, in this order
provenance         () text             optional: JSON, what is known about where the data come from
anything else      any, no objects     kept out of the model, carried along by `fusionzoo data convert`
=================  ==================  =====================================================================

Which matrices are modalities: those that `modalities` names; without it, every two-dimensional float array with one row
an utterance, in file order, except annotations: `vad` (valence, activation, dominance) and names that begin with
`label_` or `target_`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from fusionzoo.data.corpus import Corpus
from fusionzoo.errors import DataError

REQUIRED = ("dialogue_id", "utterance_index", "speaker", "label", "label_names", "split")
_OWN = frozenset({*REQUIRED, "utterance_id", "modalities", "provenance"})


@dataclass(frozen=True)
class Column:
    """The header of one array of a file: nothing of its data has been read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


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


def _broken(path: Path, error: BaseException) -> DataError:
    detail = str(error) or type(error).__name__
    return DataError(
        f"{path}: damaged or truncated ({detail}), expected a whole .npz of arrays. Compare its size or checksum with "
        f"the source's and fetch it again."
    )


def read_columns(path: Path) -> dict[str, Column]:
    """The name, shape and dtype of every array, from the headers alone.

    Raises `DataError` for a damaged file, for an array that needs pickle, and for a header that promises more data than
    the file holds.
    """
    columns: dict[str, Column] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):
                    raise DataError(
                        f"{path}: holds {member.filename!r}, expected only .npy arrays, as numpy.savez writes."
                    )
                name = member.filename[: -len(".npy")]
                with archive.open(member) as stream:
                    shape, dtype, offset = _read_header(cast(IO[bytes], stream))
                if dtype.hasobject:
                    raise DataError(
                        f"{path}: column {name!r} holds Python objects, which only pickle can read, and a pickle can "
                        f"run any code. Expected numbers or text: write it again with a plain dtype (for text, "
                        f"numpy.array(values, dtype=str))."
                    )
                if offset + int(np.prod(shape, dtype=object)) * dtype.itemsize != member.file_size:
                    raise DataError(
                        f"{path}: damaged: column {name!r} should hold {shape} {dtype} but its size differs. Fetch it "
                        f"again."
                    )
                columns[name] = Column(shape, dtype)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except Exception as error:  # damaged bytes can fail in any way, deep in zipfile, zlib or numpy
        raise _broken(path, error) from error
    return columns


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of a file whose headers `read_columns` has passed; a damaged one is a `DataError`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except Exception as error:  # damaged bytes can fail in any way, deep in zipfile, zlib or numpy
        raise _broken(path, error) from error


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    version = np.lib.format.read_magic(stream)
    # Version 3 exists only for structured arrays with non-latin field names: never one of these columns.
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, _, dtype = read(stream)
    return shape, dtype, stream.tell()


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
    required = [c for c in REQUIRED if needs_split or c != "split"]
    if missing := [c for c in required if c not in columns]:
        hint = " The split may also come from a file of its own (split=...)." if "split" in missing else ""
        raise DataError(
            f"{path}: lacks the column{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}, expected "
            f"{', '.join(REQUIRED)} and one matrix a modality; it has {', '.join(columns) or 'nothing'}.{hint} Add "
            f"what is missing, or convert the original with `fusionzoo data convert`."
        )
    arrays = read_arrays(path, list(columns))
    rows = arrays["dialogue_id"].shape[0] if arrays["dialogue_id"].ndim else 0
    if "modalities" in arrays:
        modalities = [str(m) for m in np.atleast_1d(arrays["modalities"])]
        for m in modalities:
            if m not in columns or m in _OWN or columns[m].dtype.kind not in "fiu":
                raise DataError(
                    f"{path}: column 'modalities' names {m!r}, expected the name of a matrix of numbers in the file; "
                    f"it has {', '.join(columns)}. Correct or remove 'modalities'."
                )
    else:
        modalities = modality_columns(columns, rows)
        short = [c for c, h in columns.items() if len(h.shape) == 2 and h.dtype.kind == "f" and h.shape[0] != rows]
        if short := [c for c in short if not is_annotation(c) and c not in _OWN]:
            raise DataError(
                f"{path}: column {short[0]!r} has shape {columns[short[0]].shape}, expected ({rows}, width), one "
                f"feature vector an utterance. Write the file again with columns of one length; if it is no modality, "
                f"name the modalities in a text array 'modalities'."
            )
    if not modalities:
        raise DataError(
            f"{path}: there is no modality, expected one or more float matrices ({rows}, width); it has "
            f"{', '.join(f'{c} {h.shape}' for c, h in columns.items())}."
        )
    masks = {m: arrays[f"{m}_mask"] for m in modalities if f"{m}_mask" in arrays}
    used = {*_OWN, *modalities, *(f"{m}_mask" for m in masks)}
    return Corpus(
        name=name or path.stem,
        features={m: arrays[m] for m in modalities},
        dialogue_id=arrays["dialogue_id"],
        utterance_index=arrays["utterance_index"],
        speaker=arrays["speaker"],
        label=arrays["label"],
        label_names=tuple(str(x) for x in np.atleast_1d(arrays["label_names"])),
        split=arrays.get("split", np.full(rows, "train")),
        present={m: x.astype(bool) if _is_flags(x) else x for m, x in masks.items()},
        utterance_id=arrays.get("utterance_id"),
        info=_provenance(path, arrays.get("provenance"))
        | {
            "source": str(path),
            "sha256": sha256(path),
            "stored_dtypes": {m: str(columns[m].dtype) for m in modalities},
        },
        extras={c: x for c, x in arrays.items() if c not in used},
    )


def _is_flags(mask: np.ndarray) -> bool:
    return mask.dtype.kind in "iu" and bool(np.isin(mask, (0, 1)).all())


def _provenance(path: Path, stored: np.ndarray | None) -> dict[str, Any]:
    if stored is None:
        return {}
    try:
        facts = json.loads(str(stored))
    except ValueError as error:
        raise DataError(f"{path}: column 'provenance' is not JSON ({error}). Correct or remove it.") from error
    return dict(facts) if isinstance(facts, dict) else {}


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
    # Before numpy 2.2 `allow_pickle=False` would be one more column; no column holds objects, so that nothing is pickled.
    write_atomically(path, lambda stream: np.savez_compressed(stream, **cast(Any, columns)))
    return path


def _facts(corpus: Corpus) -> dict[str, Any]:
    """What the file says about its origin; the reader adds its own source and checksum, so the old ones are renamed."""
    facts = {k: v for k, v in corpus.info.items() if k not in ("source", "sha256")}
    if "source" in corpus.info and "made_from" not in facts:
        # The base name only: a path would tell who made the file and where.
        facts["made_from"] = {"source": Path(corpus.source).name, "sha256": corpus.info.get("sha256")}
    return facts


def write_atomically(path: Path, write: Any) -> None:
    """Call `write(binary stream)` on a temporary neighbour of `path`, flush it to the disk, and rename it to `path`."""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}). Choose a folder that exists and is yours."
        ) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes private files; give the one that stays the permissions of any other new file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(
            f"{path}: could not be written ({error.strerror}); nothing was changed. Is the disk full?"
        ) from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
