"""Who is train, dev and test: a drawn dev split, and splits that come from another file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from fusionzoo._file_schemas import SplitFile
from fusionzoo._schema import read_json
from fusionzoo.data._npz_columns import read_arrays, read_columns
from fusionzoo.data.corpus import SPLITS, Corpus, as_text, some
from fusionzoo.errors import DataError, close_matches_hint

# Other repositories' words for the same thing, accepted as keys of a JSON split.
_ALIASES = {"val": "dev", "valid": "dev", "validation": "dev", "development": "dev"}


def draw_dev(train: Iterable[str], fraction: float, seed: int) -> set[str]:
    """The dialogues that become dev: a seeded draw of `fraction` (rounded, at least one) of the train dialogues.

    The draw depends on the ids, not on their order, and on `seed` alone: never on the global random state. Whole
    dialogues are drawn, because utterances of one dialogue tell about each other. One dialogue, or fraction 0: none.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"dev_fraction={fraction!r}: expected a share of the train dialogues, from 0 to below 1.")
    ids = sorted(train)
    if len(ids) < 2 or fraction == 0:
        return set()
    count = min(max(1, round(fraction * len(ids))), len(ids) - 1)
    return {ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:count]}


def ensure_dev(corpus: Corpus, fraction: float, seed: int) -> Corpus:
    """`corpus` itself where it has a dev split, else with one drawn from its train dialogues (see `draw_dev`)."""
    if (corpus.split == "dev").any():
        return corpus
    drawn = draw_dev((d.id for d in corpus.dialogues("train")), fraction, seed)
    if not drawn:
        return corpus
    mapping = {d.id: "dev" if d.id in drawn else str(corpus.split[d.start]) for d in corpus.dialogues()}
    out = corpus.with_split(mapping)
    out.info = out.info | {"split": f"dev: {len(drawn)} train dialogues drawn with seed {seed}"}
    return out


def merged_dev(corpus: Corpus) -> Corpus:
    """The same corpus with its dev dialogues among the train dialogues."""
    if not (corpus.split == "dev").any():
        return corpus
    merged = replace(corpus, split=np.where(corpus.split == "dev", "train", corpus.split))
    merged.info = {k: v for k, v in corpus.info.items() if k != "leaks"} | {"split": "the dev dialogues count as train"}
    return merged


def read_split(path: str | os.PathLike[str]) -> dict[str, str]:
    """Dialogue id -> split, from an `.npz` corpus or from JSON `{"train": [ids], "dev": [ids], "test": [ids]}`."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"split={path}: there is no such file. Expected an .npz corpus or a .json of dialogue ids.")
    with open(path, "rb") as stream:
        is_zip = stream.read(2) == b"PK"
    return _from_npz(path) if is_zip else _from_json(path)


def _from_npz(path: Path) -> dict[str, str]:
    columns = read_columns(path)
    for column in ("dialogue_id", "split"):
        if column not in columns:
            raise DataError(f"split={path}: lacks the column {column!r}, expected 'dialogue_id' and 'split'.")
    for column in ("dialogue_id", "split"):
        if len(columns[column].shape) != 1 or columns[column].dtype.kind not in "SUiu":
            raise DataError(f"split={path}: column {column!r} is {columns[column]}, expected one name an utterance.")
    ids, splits = (as_text(x) for x in read_arrays(path, columns, ("dialogue_id", "split")).values())
    if ids.ndim != 1 or ids.shape != splits.shape:
        raise DataError(f"split={path}: 'dialogue_id' {ids.shape} and 'split' {splits.shape} differ in length.")
    return _collect(path, zip(ids.tolist(), splits.tolist(), strict=True))


def _from_json(path: Path) -> dict[str, str]:
    expected = 'Expected {"train": [dialogue ids], "dev": [...], "test": [...]}.'

    def refused(message: str) -> DataError:
        return DataError(f"split={message}. {expected}")

    content = read_json(SplitFile, path, refused, limit=256 << 20)
    pairs: list[tuple[str, str]] = []
    for key, ids in content.items():
        split = _ALIASES.get(key.lower(), key.lower())
        if split not in SPLITS:
            raise DataError(f"split={path}: has the key {key!r}{close_matches_hint(key, SPLITS) or '.'} {expected}")
        pairs += [(str(i), split) for i in ids]
    return _collect(path, pairs)


def _collect(path: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A mapping from (id, split) pairs; an id in two splits is refused."""
    mapping: dict[str, str] = {}
    torn = sorted({i for i, split in pairs if mapping.setdefault(i, split) != split})
    if torn:
        raise DataError(f"split={path}: {some(torn)} in more than one split. Put each dialogue in one.")
    return mapping
