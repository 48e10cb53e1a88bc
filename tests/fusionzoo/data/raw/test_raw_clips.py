"""ESD, RAVDESS and Foal-Net's lists: corpora without conversations."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fusionzoo.data import inspect
from fusionzoo.data.raw import read_raw
from fusionzoo.errors import DataError, OptionError

# ---------------------------------------------------------------------- ESD


def test_esd(esd: Path):
    corpus = read_raw(esd)
    assert corpus.label_names == ("angry", "happy", "neutral", "sad", "surprise")
    assert len(corpus) == 45
    assert corpus.folds == ("0011", "0012", "0013")
    u = next(u for u in corpus.utterances if u.id == "0012_000371")
    assert (u.speaker, u.fold, u.split, u.dialogue_id) == ("0012", "0012", "test", "0012_000371")
    assert corpus.label_names[u.label] == "angry"
    assert u.text == "The nine the eggs, I keep."
    assert u.audio == esd / "0012/Angry/0012_000371.wav"
    assert {s: n["utterances"] for s, n in corpus.summary()["splits"].items()} == {"train": 15, "dev": 15, "test": 15}
    assert corpus.skipped() == {"speaker of another language": 1}
    assert read_raw(esd, language="mandarin").folds == ("0010",)
    assert len(read_raw(esd, language="both")) == 60


def test_esd_as_memocmt_uses_it(esd: Path):
    corpus = read_raw(esd, classes=4, split="random")
    assert corpus.label_names == ("angry", "happy", "sad", "neutral")
    assert corpus.skipped()["label surprise"] == 9
    assert {s: n["utterances"] for s, n in corpus.summary()["splits"].items()} == {"train": 26, "dev": 3, "test": 7}


def test_esd_by_speakers(esd: Path):
    corpus = read_raw(esd, split="speakers")
    assert {u.fold for u in corpus.utterances if u.split == "test"} == {"0013"}
    assert {u.fold for u in corpus.utterances if u.split == "dev"} == {"0012"}
    with pytest.raises(OptionError, match="three speakers"):
        read_raw(esd, split="speakers", language="mandarin")
    for options in ({"classes": 3}, {"language": "dutch"}, {"split": "official"}):
        with pytest.raises(OptionError):
            read_raw(esd, **options)


def test_esd_with_folders_of_splits_and_broken_files(esd: Path):
    angry = esd / "0011/Angry"
    (angry / "train").mkdir()
    (angry / "0011_000371.wav").rename(angry / "train/0011_000371.wav")  # by its number it would be test
    (angry / "0011_000401.wav").write_bytes(b"")
    (esd / "0011/Happy/notes.wav").write_bytes(b"x")
    shutil.copy(esd / "0011/Sad/0011_001051.wav", esd / "0011/Happy/0011_001051.wav")
    text = (esd / "0011/0011.txt").read_text().splitlines()
    text = [line.replace("\t", "  ") for line in text if not line.startswith("0011_000001")]
    text += ["0011_000021\tagain\tNeutral", "what is this"]
    (esd / "0011/0011.txt").write_text("\n".join(text), encoding="utf-16")
    (esd / "0012/0012.txt").unlink()
    corpus = read_raw(esd)
    rows = {u.id: u for u in corpus.utterances}
    assert rows["0011_000371"].split == "train"
    assert rows["0011_000371"].text == "The nine the eggs, I keep."
    assert rows["0011_000001"].text is None
    assert rows["0012_000001"].text is None
    assert "0011_000401" not in rows
    skipped = corpus.skipped()
    for reason in ("unusable file", "no audio file", "malformed name", "label conflict", "no transcription"):
        assert skipped[reason] == 1, reason
    for reason in ("no transcript", "malformed line"):
        assert skipped[reason] == 1, reason
    assert skipped["duplicate id"] == 2  # the wav in two emotions, the line that is there twice
    assert inspect(esd).ok


# ---------------------------------------------------------------------- RAVDESS


def test_ravdess(ravdess: Path):
    corpus = read_raw(ravdess, k_fold=3)
    assert corpus.label_names == ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    assert len(corpus) == 48
    assert corpus.skipped() == {"video only": 48}
    u = next(u for u in corpus.utterances if u.id == "01-01-06-01-02-01-03")
    assert (u.speaker, u.gender, u.fold, u.text) == ("Actor_03", "M", "Actor_03", "Dogs are sitting by the door.")
    assert corpus.label_names[u.label] == "fearful"
    assert u.audio == u.video == ravdess / "Actor_03/01-01-06-01-02-01-03.mp4"
    assert u.landmarks == ravdess / "landmarks/01-01-06-01-02-01-03.csv"
    assert u.extras == {"channel": "speech", "intensity": 1, "statement": 2, "repetition": 1}
    assert {u.fold for u in corpus.utterances if u.split == "test"} == {"Actor_01", "Actor_02"}
    second = read_raw(ravdess, k_fold=3, fold=1)
    assert {u.fold for u in second.utterances if u.split == "test"} == {"Actor_03", "Actor_04"}
    published = read_raw(ravdess, k_fold=5, fold=4, published=True)
    assert {u.fold for u in published.utterances if u.split == "test"} == {"Actor_05"}
    for options in ({"fold": 9}, {"channel": "opera"}):
        with pytest.raises(OptionError):
            read_raw(ravdess, **options)
    with pytest.raises(DataError, match="landmarks="):
        read_raw(ravdess, landmarks=ravdess / "none")


def test_ravdess_in_archives_and_with_broken_files(ravdess: Path):
    shutil.move(ravdess / "Actor_06", ravdess / "Video_Speech_Actor_06/Actor_06")
    sounds = ravdess / "Audio_Speech_Actors_01-24/Actor_06"
    sounds.mkdir(parents=True)
    (sounds / "03-01-01-01-02-01-06.wav").write_bytes(b"copy of a clip")
    (sounds / "03-01-01-02-02-01-06.wav").write_bytes(b"no clip of this")
    actor = ravdess / "Actor_01"
    (actor / "01-02-01-01-01-01-01.mp4").write_bytes(b"song")
    (actor / "01-01-09-01-01-01-01.mp4").write_bytes(b"emotion 9")
    (actor / "holiday.mp4").write_bytes(b"?")
    (actor / "01-01-01-01-01-02-02.mp4").write_bytes(b"of actor 2")
    (actor / "01-01-02-01-02-01-01.mp4").write_bytes(b"")
    (ravdess / "landmarks/01-01-03-01-02-01-01.csv").unlink()
    corpus = read_raw(ravdess)
    assert corpus.skipped() == {
        "video only": 48,
        "malformed name": 2,
        "other channel": 1,
        "actor in a wrong folder": 1,
        "unusable file": 1,
        "second copy": 1,
        "no landmarks": 1,
    }
    rows = {u.id: u for u in corpus.utterances}
    assert len(rows) == 48
    alone = rows["03-01-01-02-02-01-06"]
    assert alone.audio is not None
    assert alone.video is None
    assert rows["01-01-01-01-02-01-06"].video is not None
    assert rows["01-01-03-01-02-01-01"].landmarks is None
    assert len(read_raw(ravdess, channel="song")) == 1
    assert len(read_raw(ravdess / "Actor_02")) == 8  # one actor: all train
    shutil.rmtree(ravdess / "landmarks")
    assert "no landmarks" not in read_raw(ravdess).skipped()


# ---------------------------------------------------------------------- Foal-Net


def test_scp(scp: Path, tmp_path: Path):
    corpus = read_raw(scp, audio_root=tmp_path / "here", video=tmp_path / "clip")
    assert corpus.label_names == ("happy", "neutral", "sad", "angry")
    assert len(corpus) == 40
    assert not corpus.problems
    assert corpus.media() == {"audio": 40, "video": 40}
    u = next(u for u in corpus.utterances if u.id == "Ses03F_impro01_F002")
    assert (u.dialogue_id, u.index, u.speaker, u.fold, u.label) == ("Ses03F_impro01", 2, "Ses03F", "Session3", 2)
    assert u.audio == tmp_path / "here/Session3/sentences/wav/Ses03F_impro01/Ses03F_impro01_F002.wav"
    assert u.video is None
    assert u.features["video"] == tmp_path / "clip/session03/Ses03F_impro01_F002.npy"
    # What Foal-Net calls valid is the session held out; dev comes from train.
    assert {u.fold for u in corpus.utterances if u.split == "test"} == {"Session5"}
    assert {n: s["dialogues"] for n, s in corpus.summary()["splits"].items()} == {"train": 7, "dev": 1, "test": 2}
    assert len(corpus.require("audio", "video")) == 40


def test_scp_with_lists_of_three_parts(scp: Path, tmp_path: Path):
    (scp / "session5_valid.scp").rename(scp / "session5_test.scp")
    (scp / "session5_dev.scp").write_text("\n".join((scp / "session5_train.scp").read_text().splitlines()[:8]))
    lines = (scp / "session5_train.scp").read_text().splitlines()[8:]
    (scp / "session5_train.scp").write_text("\n".join(lines))
    corpus = read_raw(scp, audio_root=tmp_path / "here")
    assert {u.fold for u in corpus.utterances if u.split == "dev"} == {"Session1"}
    one = read_raw(scp / "session5_test.scp", audio_root=tmp_path / "here")
    assert {u.split for u in one.utterances} == {"test"}
    assert inspect(scp / "session5_test.scp").kind == "raw-foal-net"


def test_scp_lines_and_files_that_are_broken(scp: Path, tmp_path: Path):
    path = scp / "session5_train.scp"
    first = path.read_text().splitlines()[0]
    more = [first, "alone", "Ses01F_impro01_F090 /x/Ses01F_impro01_F090.wav fru", "odd_1 C:\\data\\odd_1.wav sad"]
    path.write_text(path.read_text() + "\n".join(more))
    (scp / "odd_1.wav").write_bytes(b"beside the list, but named by another path")
    (tmp_path / "clip/session01/Ses01F_impro01_F001.npy").write_bytes(b"")
    (tmp_path / "clip/session01/Ses01F_impro01_F002.npy").unlink()
    corpus = read_raw(scp, audio_root=tmp_path / "here", video=tmp_path / "clip")
    assert corpus.skipped() == {
        "no video features": 3,
        "malformed line": 1,
        "duplicate id": 1,
        "label fru": 1,
        "no audio file": 1,
    }
    assert len(corpus) == 41
    nowhere = read_raw(scp)
    assert nowhere.skipped()["no audio file"] == 41
    assert "audio_root" in str(inspect(scp))
    with pytest.raises(DataError, match="no utterance of foal-net has audio"):
        nowhere.require("audio")


def test_scp_options(scp: Path, tmp_path: Path):
    with pytest.raises(OptionError, match="lists of sessions 5"):
        read_raw(scp, session=3)
    with pytest.raises(DataError, match="audio_root="):
        read_raw(scp, audio_root=tmp_path / "none")
    (scp / "session5_more.scp").write_text("x")
    with pytest.raises(DataError, match=r"session5_more.scp is for"):
        read_raw(scp)
    for path in scp.glob("*.scp"):
        path.write_text("")
    with pytest.raises(DataError, match="no usable line"):
        read_raw(scp / "session5_train.scp")


def test_scp_that_tears_a_dialogue_is_of_single_utterances(scp: Path):
    train = (scp / "session5_train.scp").read_text().splitlines()
    (scp / "session5_test.scp").write_text("\n".join(train[:3]))
    (scp / "session5_train.scp").write_text("\n".join(train[3:]))
    corpus = read_raw(scp)
    assert len(corpus.dialogues()) == len(corpus)
