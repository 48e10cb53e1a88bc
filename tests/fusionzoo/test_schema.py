"""The reader of our own files: what it bounds, what it checks, and what it says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np
import pytest

from fusionzoo._schema import Within, check, parse_json, plain, read_json, shown, text_of
from fusionzoo.errors import CheckpointError, ConfigError


class Part(TypedDict):
    sizes: dict[str, Annotated[int, Within(1, 100)]]
    also: NotRequired[list[tuple[int, str]]]


class Whole(TypedDict):
    name: Annotated[str, Within(1, 5)]
    mode: Literal["a", "b"]
    share: float | None
    part: Part | str
    free: NotRequired[Any]


GOOD = {"name": "x", "mode": "a", "share": 1, "part": {"sizes": {"t": 3}, "also": [[1, "y"]]}, "unknown": {}}


def test_what_fits_comes_back_with_keys_that_nobody_named():
    assert check(Whole, GOOD, "f", CheckpointError) is GOOD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "f: name: expected a text of length from 1 to 5, got ''"),
        ({"name": None}, "f: name: expected a text, got None"),
        ({"mode": "c"}, "f: mode: expected 'a' or 'b', got 'c'"),
        ({"share": True}, "f: share: expected a number or null, got True"),
        ({"share": float("inf")}, "f: share: expected a number or null, got inf"),
        ({"part": 3}, "f: part: expected a mapping of keys to values or a text, got 3"),
        (
            {"part": {"sizes": {"t": 10**12}}},
            "f: part.sizes.t: expected a whole number from 1 to 100, got 1000000000000",
        ),
        ({"part": {"sizes": {"t": 1.5}}}, r"f: part.sizes.t: expected a whole number, got 1\.5"),
        ({"part": {}}, "f: part: expected the key 'sizes', got nothing"),
        ({"part": {"sizes": {}, "also": [[1]]}}, "f: part.also.0: expected a list of 2"),
        ({"free": object()}, "f: free: expected null, true, false, a number"),
        ({"free": [float("nan")]}, "f: free.0: expected a finite number"),
        ({"free": {1: 2}}, "f: free: expected texts as keys, got 1"),
    ],
)
def test_what_does_not_fit_is_named_by_its_place(change, message):
    with pytest.raises(CheckpointError, match=message):
        check(Whole, GOOD | change, "f", CheckpointError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("{", "is not valid JSON"),
        ('{"a": NaN}', "NaN, which is no number"),
        ('{"a": -Infinity}', "-Infinity, which is no number"),
        ('{"a": 1e999}', "1e999, which is too large"),
        ('{"a": ' + "9" * 6000 + "}", "a whole number of 6000 digits"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_is_strict(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_json(text, "f", ConfigError)


def test_files_are_text_of_a_reasonable_size(tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert read_json(Whole, path, CheckpointError) == GOOD  # a byte order mark is nothing
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(CheckpointError, match="is not UTF-8 text"):
        text_of(path, CheckpointError)
    path.write_bytes(b" " * 2000)
    with pytest.raises(CheckpointError, match="is larger than"):
        text_of(path, CheckpointError, limit=1000)
    with pytest.raises(CheckpointError, match="is a folder"):
        text_of(tmp_path, CheckpointError)
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        text_of(tmp_path / "absent", CheckpointError)


@pytest.mark.skipif(os.name == "nt", reason="no such files there")
def test_devices_and_pipes_are_not_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer for ever
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(CheckpointError, match="a device or a pipe"):
            text_of(path, CheckpointError)


def test_what_a_caller_gives_becomes_plain():
    given = {"path": Path("a"), "pair": (1, np.int64(2)), "number": np.float32(0.5), "flag": True}
    assert plain(given, "it", ConfigError) == {"path": "a", "pair": [1, 2], "number": 0.5, "flag": True}
    loop: dict[str, Any] = {}
    loop["x"] = loop
    wide: list[Any] = ["x"] * 10
    for _ in range(8):
        wide = [wide] * 10  # 10^9 values in a few hundred bytes
    for value in (loop, wide, {"x": object()}, {"x": float("nan")}, {"x": 10**5000}):
        with pytest.raises(ConfigError, match="expected"):
            plain(value, "it", ConfigError)


def test_anything_is_shown_in_a_few_characters():
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    for value in (Odd(), 10**10_000, "x" * 10_000, list(range(10_000)), {i: i for i in range(100)}, [[[[[[1]]]]]]):
        assert len(shown(value)) < 200
