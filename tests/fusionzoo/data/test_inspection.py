from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionzoo.data import inspect, load, save_npz
from fusionzoo.data.conversion import convert
from fusionzoo.data.corpus import Corpus
from fusionzoo.errors import DataError, UnsafePickleError

Write = Callable[..., Path]


def test_a_sound_npz(corpus: Corpus, tmp_path: Path):
    corpus.extras = {"vad": np.ones((21, 3), np.float32)}
    corpus.present = {"audio": np.arange(21) != 3}
    path = save_npz(corpus, tmp_path / "x.npz")
    report = inspect(path)
    assert report.ok
    assert (report.kind, report.rows, report.dialogues) == ("npz", 21, 6)
    assert report.modalities["audio"] == {"width": 3, "dtype": "float32", "present": 20}
    assert report.splits["dev"] == {"dialogues": 1, "utterances": 4}
    assert report.labels["happy"] == 4
    assert report.speakers == {"distinct": 2, "largest_dialogue": 2}
    assert report.size_bytes == path.stat().st_size
    assert any("'vad'" in s for s in report.skipped)
    facts = json.loads(report.to_json())
    assert facts["ok"] is True
    assert facts["sha256"] == report.sha256
    text = str(report)
    for words in ("modality text", "width 4, float32", "1 missing", "split train", "sound", report.sha256):
        assert words in text


def test_a_classic_pickle(classic: list[Any], write_pickle: Write):
    classic[7].discard("d1")
    report = inspect(write_pickle(tuple(classic)))
    assert report.ok
    assert report.kind == "classic-pickle"
    assert list(report.splits) == ["train", "test"]
    assert any("'d1'" in s for s in report.skipped)
    assert any("no dev split" in s for s in report.skipped)
    assert "numpy.ndarray" in report.names


def test_an_unsafe_pickle_is_reported_and_not_run(write_pickle: Write, tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "boom"),))

    report = inspect(write_pickle([np.ones(1), Bomb()]))
    assert report.kind == "unsafe-pickle"
    assert not report.ok
    assert "posix.mkdir" in report.names
    assert "posix.mkdir" in report.problems[0]
    assert report.sha256
    assert not (tmp_path / "boom").exists()
    assert "PROBLEM" in str(report)


def test_broken_files_give_readable_reports(corpus: Corpus, write_pickle: Write, tmp_path: Path):
    whole = save_npz(corpus, tmp_path / "x.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:700])
    (tmp_path / "page.npz").write_bytes(b"<html>")
    for path, words in {
        tmp_path / "cut.npz": "damaged or truncated",
        tmp_path / "page.npz": "web page",
        tmp_path / "none.npz": "no such file",
        tmp_path: "is a folder",
        write_pickle(b"\x80\x04\x95"): "damaged",
        write_pickle({"a": 1}, name="other.pkl"): "holds a dict of 1 with keys like 'a'",
    }.items():
        report = inspect(path)
        assert not report.ok
        assert words in report.problems[0]
        assert "not usable: 1 problem" in str(report)
        json.loads(report.to_json())


def test_all_problems_of_the_contents_are_listed(corpus: Corpus, tmp_path: Path):
    columns = {c: getattr(corpus, c) for c in ("dialogue_id", "utterance_index", "speaker", "label", "split")}
    columns["label"] = columns["label"] + 3
    columns["split"] = np.where(np.arange(21) == 4, "test", columns["split"])
    audio = corpus.features["audio"].copy()
    audio[2] = np.nan
    names = np.array(corpus.label_names)
    np.savez(tmp_path / "x.npz", **columns, label_names=names, audio=audio)  # type: ignore[arg-type]
    report = inspect(tmp_path / "x.npz")
    assert len(report.problems) == 3
    for words in ("'split'", "'label'", "'audio'"):
        assert any(words in p for p in report.problems)
    np.savez(tmp_path / "y.npz", **(columns | {"speaker": columns["speaker"][:-1]}), label_names=names, audio=audio)  # type: ignore[arg-type]
    assert "(20,)" in inspect(tmp_path / "y.npz").problems[0]


def test_rich_table_shows_names_with_brackets(corpus: Corpus, tmp_path: Path):
    console = pytest.importorskip("rich.console")
    corpus.label_names = ("[red]", *corpus.label_names[1:])
    report = inspect(save_npz(corpus, tmp_path / "x.npz"))
    out = console.Console(width=100, record=True, file=io.StringIO())
    out.print(report)
    assert "[red] 4" in out.export_text()


# ---------------------------------------------------------------------- convert


def test_convert_keeps_batches_and_reports(classic: list[Any], write_pickle: Write, tmp_path: Path):
    classic[7].discard("d1")
    source = write_pickle(tuple(classic))
    done = convert(source, tmp_path / "y.npz", split_seed=3)
    before, after = load(source, split_seed=3), load(tmp_path / "y.npz", split_seed=99)
    for m in before.features:
        np.testing.assert_array_equal(before.features[m], after.features[m])
    for c in ("dialogue_id", "utterance_index", "speaker", "label", "split", "utterance_id"):
        np.testing.assert_array_equal(getattr(before, c), getattr(after, c))
    np.testing.assert_array_equal(after.extras["sentence"], before.extras["sentence"])
    assert after.info["made_from"] == {"source": "features.pkl", "sha256": before.info["sha256"]}
    assert "drawn with seed 3" in after.info["split"]
    assert done.written.ok
    assert "left out: dialogue 'd1'" in str(done)


def test_convert_takes_a_split_and_replaces_an_old_target(
    corpus: Corpus, classic: list[Any], write_pickle: Write, tmp_path: Path
):
    split = save_npz(corpus, tmp_path / "x.npz")
    target = tmp_path / "y.npz"
    target.write_bytes(b"old")
    done = convert(write_pickle(tuple(classic)), target, split=split, modalities=["text"])
    got = load(done.target)
    np.testing.assert_array_equal(got.split, corpus.split)
    assert got.modalities == ("text",)
    assert "nothing was left out" in str(done)
    # An npz converts to itself, in place too.
    convert(target, target)
    np.testing.assert_array_equal(load(target).features["text"], got.features["text"])


def test_convert_refuses_before_touching_the_target(write_pickle: Write, classic: list[Any], tmp_path: Path):
    with pytest.raises(DataError, match=r"ends in .npz"):
        convert(write_pickle(tuple(classic)), tmp_path / "y.pkl")
    with pytest.raises(UnsafePickleError):
        convert(write_pickle([os.system]), tmp_path / "y.npz")
    assert not (tmp_path / "y.npz").exists()
