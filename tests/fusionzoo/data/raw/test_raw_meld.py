from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fusionzoo.data import inspect, load
from fusionzoo.data.raw import RawCorpus, RawUtterance, read_raw
from fusionzoo.data.raw.meld import KNOWN_BAD
from fusionzoo.errors import DataError, OptionError


def find(corpus: RawCorpus, name: str) -> RawUtterance:
    return next(u for u in corpus.utterances if u.id == name)


def test_everything_of_an_utterance(meld: Path):
    corpus = read_raw(meld)
    assert corpus.label_names == ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
    assert len(corpus) == 42
    assert not corpus.problems
    u = find(corpus, "test_dia1_utt4")
    assert (u.dialogue_id, u.index, u.speaker, u.split, u.text) == ("test_dia1", 4, "Ross", "test", "Hi, there")
    assert corpus.label_names[u.label] == "joy"
    assert u.audio == u.video == meld / "output_repeated_splits_test/dia1_utt4.mp4"
    assert u.start is None
    assert u.extras == {"emotion": "joy", "sentiment": "neutral", "episode": "S4E7", "seconds": 2.244}
    assert find(corpus, "train_dia0_utt0").video == meld / "train/train_splits/dia0_utt0.mp4"


def test_classes(meld: Path):
    corpus = read_raw(meld, classes="4-memocmt")
    assert corpus.summary()["labels"] == {"angry": 6, "happy": 6, "sad": 6, "neutral": 6}
    assert corpus.skipped() == {"label surprise": 6, "label fear": 6, "label disgust": 6}
    assert read_raw(meld, classes="sentiment").summary()["labels"] == {"neutral": 42, "positive": 0, "negative": 0}
    with pytest.raises(OptionError, match="4-memocmt"):
        read_raw(meld, classes="4memocmt")
    with pytest.raises(OptionError, match="'skip' or 'use'"):
        read_raw(meld, known_bad="mend")


def test_sounds_apart_from_pictures(meld: Path):
    (meld / "dev_splits_wav").mkdir()
    (meld / "dev_splits_wav/dia0_utt0.wav").write_bytes(b"RIFF")
    u = find(read_raw(meld), "dev_dia0_utt0")
    assert u.audio == meld / "dev_splits_wav/dia0_utt0.wav"
    assert u.video == meld / "dev_splits_complete/dia0_utt0.mp4"
    assert find(read_raw(meld, media=False), "dev_dia0_utt0").audio is None


def test_flaws_of_the_release(meld: Path, meld_row: Callable[..., str]):
    clips = {"train": "train/train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
    for split, d, u in KNOWN_BAD:
        with open(meld / f"{split}_sent_emo.csv", "a") as out:
            out.write(meld_row(d, u) + "\r\n")
        if split != "dev":
            (meld / clips[split] / f"dia{d}_utt{u}.mp4").write_bytes(b"bad")
    (meld / "output_repeated_splits_test/final_videos_testdia0_utt0.mp4").write_bytes(b"second")
    (meld / "output_repeated_splits_test/final_videos_testdia9_utt9.mp4").write_bytes(b"of nothing")
    (meld / "output_repeated_splits_test/._dia0_utt0.mp4").write_bytes(b"mac")
    (meld / "output_repeated_splits_test/dia0_utt1.mp4").write_bytes(b"")
    (meld / "output_repeated_splits_test/dia0_utt2.mp4").unlink()
    corpus = read_raw(meld)
    assert corpus.skipped() == {
        "known bad clip": 5,
        "no clip": 2,
        "unusable file": 1,
        "second clip": 1,
        "clip without a row": 1,
    }
    assert not any(p.dropped for p in corpus.problems)
    assert len(corpus) == 47
    bad = find(corpus, "train_dia125_utt3")
    assert (bad.text, bad.audio, bad.video) == ("Hi, there", None, None)
    assert find(corpus, "test_dia0_utt0").video == meld / "output_repeated_splits_test/dia0_utt0.mp4"
    assert find(read_raw(meld, known_bad="use"), "train_dia125_utt3").video is not None
    assert len(corpus.require("video")) == 40
    assert "known bad clip: 5 not used" in str(inspect(meld))


def test_malformed_rows_and_odd_encodings(meld: Path, meld_row: Callable[..., str]):
    rows = [
        meld_row(0, 1, text="It\u2019s odd"),
        meld_row(0, 0, text='She said ""no"", twice'),
        meld_row(0, 2, text="two\nlines"),
        meld_row(0, 1),  # again
        '1,"never closed,Ross,joy,positive,0,3,4,7,x,y',
        meld_row(0, 4, emotion="puzzled"),
        "too,few",
        meld_row(0, 5).replace(",0,5,", ",zero,5,"),
        "",
        meld_row(0, 6, emotion="Joy "),
        meld_row(0, 10, text=""),
    ]
    (meld / "train_sent_emo.csv").write_bytes("\r\n".join([meld_row(), *rows]).encode("cp1252"))
    corpus = read_raw(meld, media=False)
    train = [u for u in corpus.utterances if u.split == "train"]
    assert [u.index for u in train] == [0, 1, 2, 6, 10]
    assert [u.text for u in train] == ['She said "no", twice', "It’s odd", "two\nlines", "Hi, there", None]
    assert corpus.skipped() == {"malformed row": 3, "duplicate id": 1, "label puzzled": 1}
    assert [p.file.rsplit(":", 1)[1] for p in corpus.problems] == ["6", "7", "8", "9", "10"]
    # cp1252 that somebody decoded as latin-1 and wrote as UTF-8.
    (meld / "train_sent_emo.csv").write_text(
        f"{meld_row()}\n{meld_row(0, 0, text='It' + chr(0x92) + 's')}\n", "utf-8-sig"
    )
    assert find(read_raw(meld), "train_dia0_utt0").text == "It’s"


def test_missing_and_foreign_csv(meld: Path):
    (meld / "dev_sent_emo.csv").unlink()
    (meld / "test_sent_emo.csv").write_text("a,b\n1,2\n")
    corpus = read_raw(meld)
    assert list(corpus.summary()["splits"]) == ["train"]
    assert corpus.skipped() == {"no csv file": 1, "malformed csv": 1}
    (meld / "train_sent_emo.csv").write_bytes(b"\x00\xff" * 50)
    with pytest.raises(DataError, match="hold no utterance"):
        read_raw(meld)


def test_the_real_csv_files_agree_with_the_real_features():
    root = Path(os.environ.get("FUSIONZOO_SHARED") or Path(__file__).parents[5] / "shared") / "data"
    if not (root / "meld_csv").is_dir():
        pytest.skip("the real data are not on this machine (set FUSIONZOO_SHARED)")
    corpus, features = read_raw(root / "meld_csv"), load(root / "meld_text.npz")
    assert not corpus.problems
    assert corpus.label_names == features.label_names
    for column in ("dialogue_id", "label", "split"):
        np.testing.assert_array_equal([getattr(u, column) for u in corpus.utterances], getattr(features, column))
    # The features count on where the csv leaves a number out (an utterance that was never released).
    assert all(u.index >= i for u, i in zip(corpus.utterances, features.utterance_index, strict=True))
