"""What a pickle holds, in words: for the message that no reader takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fusionzoo._text import brief

_SPLITS = ("train", "dev", "val", "valid", "validation", "test")
_OURS = "Bring it into that, or write an .npz with fusionzoo.data.save_npz (docs/data.md says which columns it has)."


def describe(content: Any) -> str:
    """One line about what a pickle holds, two levels deep."""
    if isinstance(content, Mapping):
        keys = list(content)
        if splits := [k for k in keys if isinstance(k, str) and k.lower() in _SPLITS]:
            shown = f"{splits[0]!r} holds {_kind(content[splits[0]], 1)}"
            return f"a dict of {len(keys)} with the keys {_list(keys)}; {shown}"
        shown = f"; the first holds {_kind(content[keys[0]], 1)}" if keys else ""
        return f"a dict of {len(keys)} with keys like {_list(keys, 4)}{shown}"
    return _kind(content, 1)


def _kind(value: Any, depth: int) -> str:
    """`a dict of text (20, 6, 8), labels (20,)`, `a list of 3, the first a dict of ...`, `an array (3, 4) float32`."""
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} {value.dtype}"
    if isinstance(value, Mapping):
        if not depth:
            return f"a dict of {len(value)}"
        parts = [f"{brief(k)} {_shape(v)}".rstrip() for k, v in list(value.items())[:10]]
        return f"a dict of {', '.join(parts) or 'nothing'}{', ...' if len(value) > 10 else ''}"
    if isinstance(value, list | tuple | set | frozenset):
        kind = f"a {type(value).__name__} of {len(value)}"
        if not value or isinstance(value, set | frozenset):
            return kind
        if isinstance(value, tuple) and len(value) < 15 and depth:
            return f"{kind} ({', '.join(_kind(v, 0) for v in value)})"
        return f"{kind}, the first {_kind(next(iter(value)), depth - 1) if depth else _shape(next(iter(value)))}"
    return f"a {type(value).__name__}"


def _shape(value: Any) -> str:
    """`(3, 4)` of an array, `(20)` of another container."""
    if isinstance(value, np.ndarray):
        return str(value.shape)
    return f"({len(value)})" if isinstance(value, list | tuple | dict | set | frozenset) else type(value).__name__


def _list(keys: list[Any], most: int = 12) -> str:
    return ", ".join(brief(k) for k in keys[:most]) + (", ..." if len(keys) > most else "")


def hint(content: Any) -> str:
    """Which of the field's other layouts this is and what it lacks, or what is asked for; ends with what to do."""
    if isinstance(content, Mapping):
        part = next((v for k, v in content.items() if isinstance(k, str) and k.lower() in _SPLITS), None)
        if part is not None:
            return _hint_of_split(part)
        values = list(content.values())
        if values and all(isinstance(v, list | np.ndarray) for v in values[:20]):
            return (
                "This looks like one modality of dialogues, one of several files: name the folder in which MultiEMO's "
                "Speakers.pkl and TextFeatures.pkl lie together, or write an .npz with fusionzoo.data.save_npz."
            )
        if values and isinstance(values[0], Mapping) and {"features", "intervals"} <= set(values[0]):
            return (
                "This is a computational sequence of the CMU Multimodal SDK: features over time of whole videos, without "
                f"utterances or labels. Expected one feature vector per utterance: align and pool them first. {_OURS}"
            )
        if values and isinstance(values[0], Mapping):
            return f"Expected the dialogues in lists by split: {{'train': [...], 'test': [...]}}, each with its 'vid'. {_OURS}"
    if isinstance(content, list) and content and isinstance(content[0], Mapping | list):
        return (
            f"Expected the dialogues by split: {{'train': [...], 'test': [...]}}, each a dict with its 'vid'. {_OURS}"
        )
    return f"Expected a tuple of dicts, one entry per dialogue. {_OURS}"


def _hint_of_split(part: Any) -> str:
    if isinstance(part, Mapping):
        names = {str(k).lower() for k in part}
        sequences = [
            k for k, v in part.items() if isinstance(v, np.ndarray) and v.ndim == 3 and str(k).lower() != "labels"
        ]
        scores = sorted(names & {"regression_labels", "labels"})
        if sequences and (scores or "classification_labels" in names):
            return (
                f"This is the layout of MMSA and MulT: single clips with sequences (N, L, d) of {_list(sequences)} and labels in "
                f"{_list(scores) or 'classification_labels'}. Read is one score or one class per clip: an array regression_labels (N,) or "
                f"classification_labels (N,) in every split. {_OURS}"
            )
        return (
            "Expected each split to be a list of dialogues, each a dict with vid, speakers, labels, text, audio, visual "
            f"(COGMEN, CORECT). {_OURS}"
        )
    if isinstance(part, list | tuple) and part:
        first = part[0]
        if isinstance(first, tuple | list) and first and isinstance(first[0], tuple | list):
            return (
                "This is the layout of MISA and MAG-BERT: single segments ((words, visual, audio), score, name) with a row per "
                f"word. It has no dialogues, speakers or classes of emotion and is not read: pool the rows first. {_OURS}"
            )
        if isinstance(first, Mapping):
            return (
                f"A dialogue of it has {_list(list(first))}; expected 'vid', speaker(s), label(s) and text, audio or visual, one "
                f"row per utterance. {_OURS}"
            )
        return f"Expected each dialogue to be a dict with vid, speaker(s), label(s), text, audio, visual. {_OURS}"
    return f"Expected each split to be a list of dialogues, each a dict with its 'vid'. {_OURS}"
