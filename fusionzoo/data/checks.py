"""What can be wrong with a corpus, in words: file, column, first bad row, what was expected, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fusionzoo.data.conventions import SPLITS, UNLABELLED
from fusionzoo.errors import close_matches_hint

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus


def find_problems(corpus: Corpus) -> list[str]:
    """Every problem of `corpus`, worst first. Problems of shape end the search: nothing else can be trusted then."""
    return _shape_problems(corpus) or [
        *_dialogue_problems(corpus),
        *_split_problems(corpus),
        *_label_problems(corpus),
        *_feature_problems(corpus),
    ]


def _at(corpus: Corpus, row: int) -> str:
    return f"row {row} (dialogue {str(corpus.dialogue_id[row])!r}, utterance {corpus.utterance_index[row]})"


def _mask_problems(corpus: Corpus) -> list[str]:
    where, out = corpus.source, []
    for name in corpus.present:
        if name not in corpus.features:
            out.append(f"{where}: there is a mask for {name!r}, which is no modality; it has: {list(corpus.features)}.")
        elif corpus.present[name].dtype != np.bool_:
            out.append(
                f"{where}: column '{name}_mask' has dtype {corpus.present[name].dtype}, expected bool, True where "
                f"{name} was recorded."
            )
    return out


def _shape_problems(corpus: Corpus) -> list[str]:
    where, rows, out = corpus.source, len(corpus), []
    columns = {
        "dialogue_id": corpus.dialogue_id,
        "utterance_index": corpus.utterance_index,
        "speaker": corpus.speaker,
        "label": corpus.label,
        "split": corpus.split,
        "utterance_id": corpus.utterance_id,
    }
    columns |= {f"{m}_mask": x for m, x in corpus.present.items()}
    for name, column in columns.items():
        if column is None or column.ndim != 1 or len(column) != rows:
            shape = None if column is None else column.shape
            out.append(
                f"{where}: column {name!r} has shape {shape}, expected ({rows},), one value per utterance (the length "
                f"of 'dialogue_id'). Write the file again with columns of one length."
            )
    for name, x in corpus.features.items():
        if x.ndim != 2 or len(x) != rows or x.shape[1] == 0:
            out.append(
                f"{where}: column {name!r} has shape {x.shape}, expected ({rows}, width), one feature vector per "
                f"utterance. Write the file again with columns of one length."
            )
    if not rows:
        out.append(f"{where}: there are no utterances. Check that the file is the one you meant.")
    if not corpus.features:
        out.append(f"{where}: there is no modality. Expected one or more matrices (utterances, width) of features.")
    if not corpus.label_names or len(set(corpus.label_names)) != len(corpus.label_names):
        out.append(f"{where}: column 'label_names' is {corpus.label_names!r}, expected the classes, each once.")
    out += _mask_problems(corpus)
    if corpus.label.dtype.kind not in "iu":
        out.append(
            f"{where}: column 'label' has dtype {corpus.label.dtype}{_first_bad_label(corpus)}, expected whole numbers "
            f"from 0 to {len(corpus.label_names) - 1} ({UNLABELLED} where unlabelled). Store label indices as int64."
        )
    if corpus.utterance_index.dtype.kind not in "iu":
        out.append(
            f"{where}: column 'utterance_index' has dtype {corpus.utterance_index.dtype}, expected whole numbers."
        )
    return out


def _first_bad_label(corpus: Corpus) -> str:
    if corpus.label.dtype.kind == "f" and corpus.label.ndim == 1 and len(corpus.label) == len(corpus.dialogue_id):
        bad = np.flatnonzero(~(np.mod(corpus.label, 1) == 0))
        if len(bad):
            return f", with {corpus.label[bad[0]]:g} at {_at(corpus, int(bad[0]))}"
    return ""


def _dialogue_problems(corpus: Corpus) -> list[str]:
    where, ids, out = corpus.source, corpus.dialogue_id, []
    empty = np.flatnonzero(np.char.strip(ids) == "")
    if len(empty):
        out.append(
            f"{where}: column 'dialogue_id' is empty at row {empty[0]} ({len(empty)} rows in all), expected the name "
            f"of the dialogue. A dialogue without a name cannot be put in a split: name it or remove its rows."
        )
    starts = corpus._starts()
    order = np.argsort(ids[starts], kind="stable")
    again = np.flatnonzero(ids[starts][order][1:] == ids[starts][order][:-1])
    if len(again):
        row = int(starts[order][again[0] + 1])
        out.append(
            f"{where}: column 'dialogue_id' comes back to {str(ids[row])!r} at row {row}, after rows of another "
            f"dialogue; expected the rows of a dialogue contiguous. Either two dialogues have one id (rename one), or "
            f"the rows are not sorted (sort by dialogue_id, then utterance_index)."
        )
    index = corpus.utterance_index.astype(np.int64)
    within = np.ones(len(ids), dtype=bool)
    within[starts] = False
    bad = np.flatnonzero(within[1:] & (np.diff(index) <= 0)) + 1
    if len(bad):
        out.append(
            f"{where}: column 'utterance_index' is {index[bad[0]]} at {_at(corpus, int(bad[0]))} after "
            f"{index[bad[0] - 1]}, expected indices that grow within a dialogue. Sort the rows, or remove the "
            f"utterance that is there twice."
        )
    silent = np.flatnonzero(np.char.strip(corpus.speaker) == "")
    if len(silent):
        out.append(
            f"{where}: column 'speaker' is empty at {_at(corpus, int(silent[0]))} ({len(silent)} rows in all), "
            f"expected a name. Write 'unknown' where the speaker is not known."
        )
    return out


def _split_problems(corpus: Corpus) -> list[str]:
    where, out = corpus.source, []
    unknown = np.flatnonzero(~np.isin(corpus.split, SPLITS))
    if len(unknown):
        value = str(corpus.split[unknown[0]])
        out.append(
            f"{where}: column 'split' is {value!r} at "
            f"{_at(corpus, int(unknown[0]))}{close_matches_hint(value, SPLITS) or '.'} Expected one of "
            f"{', '.join(SPLITS)}. Rename it, or give the split in a file of its own (split=...)."
        )
    within = np.ones(len(corpus), dtype=bool)
    within[corpus._starts()] = False
    torn = np.flatnonzero(within[1:] & (corpus.split[1:] != corpus.split[:-1])) + 1
    if len(torn):
        row = int(torn[0])
        out.append(
            f"{where}: column 'split' goes from {str(corpus.split[row - 1])!r} to {str(corpus.split[row])!r} at "
            f"{_at(corpus, row)}, expected one split per dialogue: its other utterances would tell the model about the "
            f"test. Put the whole dialogue in one split."
        )
    return out


def _label_problems(corpus: Corpus) -> list[str]:
    label, classes = corpus.label, corpus.num_classes
    bad = np.flatnonzero(((label < 0) & (label != UNLABELLED)) | (label >= classes))
    if not len(bad):
        return []
    return [
        f"{corpus.source}: column 'label' is {label[bad[0]]} at {_at(corpus, int(bad[0]))} ({len(bad)} rows in all), "
        f"expected 0 to {classes - 1} for the {classes} classes of 'label_names' ({', '.join(corpus.label_names)}), or "
        f"{UNLABELLED} where unlabelled. Correct the label or name all classes."
    ]


def _feature_problems(corpus: Corpus) -> list[str]:
    out = []
    for name, x in corpus.features.items():
        wrong = ~np.isfinite(x).all(axis=1)
        if name in corpus.present:
            wrong &= corpus.present[name]
        bad = np.flatnonzero(wrong)
        if len(bad):
            row = int(bad[0])
            column = int(np.flatnonzero(~np.isfinite(x[row]))[0])
            out.append(
                f"{corpus.source}: column {name!r} holds {x[row, column]} at {_at(corpus, row)}, feature {column} "
                f"({len(bad)} rows in all), expected finite float32 numbers. Extract those rows again, or mark them as "
                f"not recorded in a bool column '{name}_mask'."
            )
    return out
