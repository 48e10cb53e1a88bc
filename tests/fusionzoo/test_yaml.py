"""YAML that people write: what is read, what is refused, and that refusing takes no time."""

from __future__ import annotations

import pytest

from fusionzoo._yaml import dump_yaml, parse_yaml
from fusionzoo.errors import ConfigError

BOMB = "x0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"x{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)
)
MERGES = "x0: &a0 {k: 1}\n" + "\n".join(f"x{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 9))


def read(text):
    return parse_yaml(text, "it", ConfigError)


def test_numbers_dates_and_anchors_mean_what_they_look_like():
    text = "lr: 1e-3\nwhen: 2026-01-31\nbase: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\nword: '1e-3'\neq: =\n"
    assert read(text) == {
        "lr": 0.001,
        "when": "2026-01-31",
        "base": {"x": 1, "y": 2},
        "more": {"x": 1, "y": 3},
        "word": "1e-3",
        "eq": "=",
    }
    assert read("# nothing") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [*x]", r"the alias \*x stands inside what it names \(line 1"),
        ("a: &x {b: {c: *x}}", "stands inside"),
        (BOMB, "stands for more than"),
        (MERGES, "stands for more than"),
        ("[" * 5000, "nested more than"),
        ("{a: " * 5000, "nested more than"),
        ("- " * 5000, "nested more than"),
        ("a: " + "9" * 6000, "a number of 6000 characters"),
        ("a: " + ":".join(["1"] * 50_000), "a number of 99999 characters"),
        ("a: 1\nb: 2\na: 3", r"the key 'a' stands there twice \(line 3"),
        ("1: a", "the key '1' is no text"),
        ("on: a", "the key 'on' is no text"),
        ("? [a]\n: b", "is no text"),
        ("a: .nan", "no finite number"),
        ("a: 1e999", "no finite number"),
        ("a: !!python/object/apply:os.system [true]", "the tag .*os.system' is not allowed"),
        ("a: !!binary aGVsbG8=", "is not allowed"),
        ("a: !mine 1", "'!mine' is not allowed"),
        ("a: !!int x", "is not valid YAML"),
        ("a: !!map [1]", "is not valid YAML"),
        ("--- 1\n--- 2", "another document"),
        ("a: *nobody", "undefined alias"),
        ("a: \x00", "special characters"),
    ],
)
def test_what_is_refused_is_refused_in_words(text, message):
    with pytest.raises(ConfigError, match=message):
        read(text)


def test_what_is_written_is_read_back():
    shared = [1, 2]
    values = {
        "a": "1e-3",
        "b": 1e-05,
        "c": "2026-01-31",
        "d": "no",
        "e": None,
        "f": [shared, shared],
        "g": "",
        "h": "0x1F",
    }
    text = dump_yaml(values)
    assert read(text) == values
    assert "&" not in text
