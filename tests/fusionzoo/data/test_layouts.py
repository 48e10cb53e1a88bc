"""A pickle of another layout is named, with what was found in it; whatever it holds, the error is one of ours."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionzoo.data import inspect, load
from fusionzoo.errors import DataError

Write = Callable[..., Path]


def arrays(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


MULT = arrays(text=(3, 6, 8), audio=(3, 6, 5), vision=(3, 6, 4), labels=(3, 4, 2))
SEGMENT = ((np.zeros(4, int), np.zeros((4, 5)), np.zeros((4, 3))), np.zeros((1, 1)), "name")
ROWS = {"a": [np.zeros(3)] * 2, "b": [np.zeros(3)]}

OTHERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "mult's of IEMOCAP": (
        dict.fromkeys(("train", "valid", "test"), MULT),
        ("'train' holds a dict", "'text' (3, 6, 8)", "MMSA and MulT", "'labels'", "regression_labels (N,)"),
    ),
    "misa": ({s: [SEGMENT] * 2 for s in ("train", "dev", "test")}, ("MISA and MAG-BERT", "a row per word")),
    "splits of dicts without sequences": (
        {s: arrays(text=(3, 8), label=(3,)) for s in ("train", "test")},
        ("'train' holds a dict of 'text' (3, 8)", "each split to be a list of dialogues"),
    ),
    "splits of dialogues without vid": (
        {s: [{"text": [1], "label": [0]}] for s in ("train", "test")},
        ("A dialogue of it has 'text', 'label'", "expected 'vid'"),
    ),
    "splits of arrays": ({"train": np.zeros((3, 4)), "test": np.zeros((3, 4))}, ("an array (3, 4) float64",)),
    "splits of text": ({"train": ["a"], "test": ["b"]}, ("'train' holds a list of 1", "each dialogue to be a dict")),
    "one modality": (ROWS, ("one modality of dialogues", "Speakers.pkl")),
    "sdk": ({"v": {"features": np.zeros((9, 3)), "intervals": np.zeros((9, 2))}}, ("computational sequence",)),
    "dialogues by name": ({"d0": {"text": [1], "label": [0]}}, ("the dialogues in lists by split",)),
    "list of dialogues": ([{"text": "a", "label": 0}], ("a list of 1, the first a dict", "by split")),
    "list of lists": ([[{"speaker": "A", "text": "a", "label": 0}]], ("by split",)),
    "one array": (np.zeros((3, 4)), ("an array (3, 4) float64",)),
    "short tuple": ((ROWS, ROWS, ["a"]), ("a tuple of 3 (a dict of 2, a dict of 2, a list of 1",)),
    "nothing": ({}, ("a dict of 0",)),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_layouts_of_the_field_are_named(write_pickle: Write, name: str):
    content, words = OTHERS[name]
    path = write_pickle(content)
    with pytest.raises(DataError) as caught:
        load(path)
    for word in (*words, "Read are: classic-pickle, the tuple (ids, "):
        assert word in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert not inspect(path).ok


def test_huge_contents_make_no_huge_message(write_pickle: Write):
    content = {"train": {f"{'k' * 1000}{i}": ["x" * 10**6] for i in range(100)}, "test": []}
    with pytest.raises(DataError) as caught:
        load(write_pickle(content, protocol=4))
    assert len(str(caught.value)) < 3000


ODD: list[Any] = [
    None, -1, 2**70, 1.5, float("nan"), "text", b"bytes", (), [], {}, set(), {"a": 1}, [[]], [None], np.zeros(0), np.zeros((0, 3)),
    np.array("x"), np.array([{}], dtype=object), np.zeros((2, 2, 2)), [[1], [2, 3]], {1: 1, "1": 2}, ["x" * 5000], 1j, {("a", 1): [1]},
]  # fmt: skip


def _changed(value: Any, random: np.random.Generator) -> Any:
    """A copy with something odd somewhere in it."""
    if random.random() < 0.35 or not isinstance(value, list | tuple | dict) or not value:
        return copy.deepcopy(ODD[int(random.integers(len(ODD)))])
    if isinstance(value, dict):
        key = list(value)[int(random.integers(len(value)))]
        return value | {key: _changed(value[key], random)}
    at = int(random.integers(len(value)))
    out = [*value[:at], _changed(value[at], random), *value[at + 1 :]]
    return tuple(out) if isinstance(value, tuple) else out


@pytest.mark.parametrize("layout", ["classic", "splits", "mmsa"])
def test_whatever_an_entry_holds_the_error_is_one_of_ours(write_pickle: Write, classic: list[Any], layout: str):
    splits = {
        s: [
            {
                "vid": f"{s}{i}",
                "speakers": ["M", "F"],
                "labels": [0, 1],
                "text": np.zeros((2, 3)),
                "sentence": ["a", "b"],
            }
        ]
        for i, s in enumerate(("train", "val", "test"))
    }
    clips = {
        s: arrays(text=(2, 6, 8), audio=(2, 6, 5), text_bert=(2, 3, 6))
        | {"regression_labels": np.ones(2), "audio_lengths": [6, 3], "id": ["v$_$0", "w$_$1"], "raw_text": ["a", "b"]}
        for s in ("train", "valid", "test")
    }
    whole: Any = {"classic": tuple(classic), "splits": splits, "mmsa": clips}[layout]
    random = np.random.default_rng(0)
    read = longest = 0
    for _ in range(200):
        content = _changed(whole, random)
        try:
            load(write_pickle(content, protocol=4))
            read += 1
        except DataError as error:
            longest = max(longest, len(str(error)))
    assert 0 < read < 170
    assert longest < 3000
