from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from fusionzoo._registry import registry
from fusionzoo.data import inspect, load
from fusionzoo.data.raw import read_raw, recognise
from fusionzoo.errors import DataError, OptionError

FIXTURES = {"iemocap": "iemocap", "meld": "meld", "ravdess": "ravdess", "esd": "esd", "foal-net": "scp"}


def test_every_reader_has_a_release_here():
    # A table of one's own is no release with splits of its own: tests/fusionzoo/data/tables.
    assert {*FIXTURES, "table"} == set(registry.names_that("reader", handles="recordings"))


@pytest.mark.parametrize("name", FIXTURES)
def test_each_is_recognised_read_and_inspected(name: str, release: Callable[[str], Path]):
    root = release(FIXTURES[name])
    assert recognise(root) == name
    corpus = read_raw(root)
    assert corpus.name == name
    assert corpus.has_splits
    assert len({u.id for u in corpus.utterances}) == len(corpus)
    assert name in repr(corpus)
    json.dumps(corpus.summary())
    # Rows of a dialogue are contiguous, in order, and of one split.
    seen: list[str] = []
    for u in corpus.utterances:
        if not seen or seen[-1] != u.dialogue_id:
            assert u.dialogue_id not in seen
            seen.append(u.dialogue_id)
    for rows in corpus.dialogues().values():
        assert all(a.index < b.index for a, b in pairwise(rows))
        assert len({u.split for u in rows}) == 1
    report = inspect(root)
    assert report.kind == f"raw-{name}"
    assert report.ok
    assert report.rows == len(corpus)
    # A list names its sounds by the paths of another machine; `audio_root` and `video` say where they are.
    assert report.missing == (["audio", "video"] if name == "foal-net" else [])
    assert report.labels == corpus.summary()["labels"]
    assert sum(n["utterances"] for n in report.splits.values()) == len(corpus)
    assert "fusionzoo extract" in str(report)
    json.loads(report.to_json())


@pytest.mark.parametrize("name", FIXTURES)
def test_order_of_files_changes_nothing(name: str, release: Callable[[str], Path]):
    root = release(FIXTURES[name])
    assert read_raw(root).utterances == read_raw(root, name).utterances


def test_a_release_is_no_data_file(meld: Path):
    with pytest.raises(DataError, match="fusionzoo extract"):
        load(str(meld))


def test_what_is_not_recognised_says_what_is_known(tmp_path: Path, meld: Path):
    with pytest.raises(DataError, match="no such folder"):
        read_raw(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no known corpus.*EmoEvaluation"):
        read_raw(meld / "train")
    with pytest.raises(OptionError, match="did you mean 'meld'"):
        read_raw(meld, "melt")
    with pytest.raises(OptionError, match="did you mean 'classes'"):
        read_raw(meld, clases=4)
    for name in FIXTURES:
        with pytest.raises(DataError, match=r"[Ee]xpected"):
            read_raw(tmp_path / "MELD.Raw/train/train_splits", name)
    report = inspect(meld / "train")
    assert not report.ok
    assert "is a folder" in report.problems[0]


# ---------------------------------------------------------------------- folds and splits


def test_hold_out_keeps_folds_together(iemocap: Path):
    corpus = read_raw(iemocap).hold_out("Session1", "Session3")
    got = {f: {u.split for u in corpus.utterances if u.fold == f} for f in corpus.folds}
    assert got["Session1"] == {"test"}
    assert got["Session3"] == {"dev"}
    assert got["Session2"] == {"train"}
    drawn = read_raw(iemocap).hold_out("Session1", dev_fraction=0.5, seed=1)
    assert {u.split for u in drawn.utterances if u.fold == "Session1"} == {"test"}
    assert len({u.dialogue_id for u in drawn.utterances if u.split == "dev"}) == 4
    assert drawn.utterances == read_raw(iemocap).hold_out("Session1", dev_fraction=0.5, seed=1).utterances
    with pytest.raises(OptionError, match="Session5"):
        corpus.hold_out("Session6")
    with pytest.raises(OptionError, match="at least one fold left"):
        corpus.hold_out(list(corpus.folds))
    with pytest.raises(OptionError, match="other dev folds"):
        corpus.hold_out("Session1", "Session1")


def test_hold_out_of_single_clips_draws_whole_speakers(ravdess: Path):
    corpus = read_raw(ravdess).hold_out("Actor_02", dev_fraction=0.4)
    by_split = {s: {u.fold for u in corpus.utterances if u.split == s} for s in ("train", "dev", "test")}
    assert by_split["test"] == {"Actor_02"}
    assert len(by_split["dev"]) == 2
    assert not by_split["dev"] & by_split["train"]


def test_a_release_with_splits_only_has_no_folds(meld: Path):
    with pytest.raises(DataError, match="has no folds"):
        read_raw(meld).hold_out("Session1")


def test_groups_of_folds(ravdess: Path):
    corpus = read_raw(ravdess)
    published = corpus.group_folds(4, published=True)
    assert published == (("Actor_01",), ("Actor_02",), ("Actor_03",), ("Actor_04",))
    groups = corpus.group_folds(4)
    assert [len(g) for g in groups] == [2, 1, 1, 2] or sorted(map(len, groups)) == [1, 1, 2, 2]
    assert sum(groups, ()) == corpus.folds
    with pytest.raises(OptionError, match="expected 2 to 6"):
        corpus.group_folds(7)


def test_random_split_is_of_utterances_and_repeatable(esd: Path):
    corpus = read_raw(esd).random_split(0.2, 0.1, seed=3)
    counts = {s: sum(u.split == s for u in corpus.utterances) for s in ("train", "dev", "test")}
    assert counts == {"train": 32, "dev": 4, "test": 9}
    assert corpus.utterances == read_raw(esd).random_split(0.2, 0.1, seed=3).utterances
    assert corpus.utterances != read_raw(esd).random_split(0.2, 0.1, seed=4).utterances


def test_require_drops_and_counts(iemocap: Path):
    next((iemocap / "Session1/sentences/wav").rglob("*F000.wav")).unlink()
    corpus = read_raw(iemocap)
    got = corpus.require("audio", "text")
    assert len(got) == len(corpus) - 1
    assert got.skipped()["without audio"] == 1
    with pytest.raises(DataError, match=r"no utterance of iemocap has depth; found: text \(60\)"):
        corpus.require("depth")


def test_with_split_says_what_is_missing(esd: Path):
    corpus = read_raw(esd)
    with pytest.raises(DataError, match="says nothing about"):
        corpus.with_split({})
    with pytest.raises(DataError, match="'validation'"):
        corpus.with_split(dict.fromkeys(corpus.dialogues(), "validation"))


def test_inspection_takes_the_readers_options_and_says_where_nothing_can_be_made(release):
    from fusionzoo.data.inspection import inspect

    assert inspect(release("iemocap"), {"classes": 4}).labels == {"happy": 20, "sad": 10, "neutral": 10, "angry": 10}
    lists = release("scp")
    assert "no recording was found" in str(inspect(lists))
    found = inspect(lists, {"audio_root": str(lists.parent / "here")})
    assert found.media["audio"] == 40
    assert "makes features of it" in str(found)
