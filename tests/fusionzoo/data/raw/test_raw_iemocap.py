from __future__ import annotations

from pathlib import Path

import pytest

from fusionzoo.data import UNLABELLED, inspect
from fusionzoo.data.raw import RawCorpus, RawUtterance, read_raw
from fusionzoo.errors import DataError, OptionError


def find(corpus: RawCorpus, name: str) -> RawUtterance:
    return next(u for u in corpus.utterances if u.id == name)


def test_everything_of_an_utterance(iemocap: Path):
    corpus = read_raw(iemocap)
    assert corpus.label_names == ("happy", "sad", "neutral", "angry", "excited", "frustrated")
    assert len(corpus) == 5 * 2 * 6
    u = find(corpus, "Ses02M_script01_1b_F001")
    assert (u.dialogue_id, u.index, u.speaker, u.gender, u.fold) == (
        "Ses02M_script01_1b",
        2,
        "Ses02F",
        "F",
        "Session2",
    )
    assert corpus.label_names[u.label] == "excited"
    assert u.text == "Word 2: well."
    assert u.audio is not None
    assert u.audio.name == "Ses02M_script01_1b_F001.wav"
    assert u.video is not None
    assert u.video.name == "Ses02M_script01_1b.avi"
    assert (u.start, u.end) == (2.25, 3.0)
    assert u.extras["vad"] == [2.5, 3.0, 2.5]
    # The dialogue is named after a man, so he has the markers and sits left; she is right.
    assert u.crop == (0.5, 0.0, 1.0, 1.0)
    assert find(corpus, "Ses02M_script01_1b_M000").crop == (0.0, 0.0, 0.5, 1.0)
    assert find(corpus, "Ses02F_impro01_F000").crop == (0.0, 0.0, 0.5, 1.0)
    assert corpus.skipped() == {"label xxx": 10, "label oth": 10}
    assert all(p.dropped for p in corpus.problems)


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (4, ("happy", "sad", "neutral", "angry")),
        ("4-foal-net", ("happy", "neutral", "sad", "angry")),
        ("4-memocmt", ("angry", "happy", "sad", "neutral")),
    ],
)
def test_four_classes_merge_excited_into_happy(iemocap: Path, classes: str, names: tuple[str, ...]):
    corpus = read_raw(iemocap, classes=classes)
    assert corpus.label_names == names
    assert corpus.summary()["labels"] == {n: 20 if n == "happy" else 10 for n in names}
    assert corpus.skipped()["label fru"] == 10
    assert names[find(corpus, "Ses01F_impro01_F001").label] == "happy"


def test_others_kept_as_context(iemocap: Path):
    corpus = read_raw(iemocap, others="keep")
    assert len(corpus) == 80
    u = find(corpus, "Ses01F_impro01_FXX3")
    assert (u.label, u.gender, u.index, u.extras["emotion"]) == (UNLABELLED, "F", 6, "xxx")
    assert corpus.summary()["unlabelled"] == 20


def test_splits(iemocap: Path):
    corpus = read_raw(iemocap, dev_fraction=0.25)
    by_split = {s: n["dialogues"] for s, n in corpus.summary()["splits"].items()}
    assert by_split == {"train": 6, "dev": 2, "test": 2}
    assert {u.fold for u in corpus.utterances if u.split == "test"} == {"Session5"}
    corpus = read_raw(iemocap, test_session=1, dev="session")
    assert {u.fold for u in corpus.utterances if u.split == "dev"} == {"Session5"}
    assert "dev" not in read_raw(iemocap, dev="none").summary()["splits"]
    for options in ({"test_session": 6}, {"dev": "some"}, {"classes": 5}, {"others": "hide"}):
        with pytest.raises(OptionError):
            read_raw(iemocap, **options)


def test_the_folder_above_is_found(iemocap: Path):
    assert read_raw(iemocap.parent).root == iemocap


def test_broken_files_cost_only_themselves(iemocap: Path):
    home = iemocap / "Session1"
    wavs = home / "sentences/wav/Ses01F_impro01"
    (wavs / "Ses01F_impro01_F000.wav").unlink()
    (wavs / "Ses01F_impro01_M000.wav").write_bytes(b"")
    (wavs / "Ses01F_impro01_F001.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0")
    (home / "dialog/avi/DivX/Ses01M_script01_1b.avi").unlink()
    (home / "dialog/transcriptions/Ses01M_script01_1b.txt").write_bytes(
        b"Ses01M_script01_1b_F000 [000.2500-001.0000]: It\x92s caf\xe9.\n\xff\xff\n"
    )
    evaluation = home / "dialog/EmoEvaluation/Ses01F_impro01.txt"
    text = evaluation.read_text().replace("2.5000, 3.0000, 3.5000", "2.5000, 3.0-0, 3.5000")
    more = "\n".join(
        [
            "[9.0 - 10.0]\tSes01F_impro01_F000\tneu\t[1, 1, 1]",  # again
            "[9.0 - 10.0]\tSes02F_impro01_F009\tneu\t[1, 1, 1]",  # of another session
            "[9.0 - 10.0]\tnonsense\tneu\t[1, 1, 1]",
            "[9.0 - 8.0]\tSes01F_impro01_F077\tneu\t[1, 1, 1]",
            "[oops\tSes01F_impro01_F078\tneu",
            "[9.0 - 10.0]\tSes01F_impro01_F079\tneu",  # without numbers: fine
        ]
    )
    evaluation.write_text(text + more)
    (home / "dialog/EmoEvaluation/Ses01F_impro02.txt").write_text("")
    corpus = read_raw(iemocap)
    assert corpus.skipped() == {
        "label xxx": 10,
        "label oth": 10,
        "no video file": 6,
        "no transcription": 6,
        "no audio file": 4,
        "malformed line": 5,
        "unusable file": 2,
        "duplicate id": 1,
        "empty evaluation": 1,
    }
    assert len(corpus) == 60
    assert find(corpus, "Ses01F_impro01_F000").audio is None
    assert find(corpus, "Ses01M_script01_1b_F000").text == "It’s café."
    assert find(corpus, "Ses01M_script01_1b_F000").video is None
    assert find(corpus, "Ses01F_impro01_F079").extras == {"emotion": "neu"}
    where = next(p for p in corpus.problems if p.reason == "duplicate id")
    assert where.file.endswith("Ses01F_impro01.txt:35")
    report = inspect(iemocap)
    assert report.ok
    assert report.media["audio"] == 56
    assert any(s.startswith("no audio file: 4 not used") for s in report.skipped)
    for words in ("audio", "4 missing", "fold Session1", "label xxx: 10 left out"):
        assert words in str(report)


def test_an_incomplete_release(iemocap: Path):
    import shutil

    shutil.rmtree(iemocap / "Session5")
    shutil.rmtree(iemocap / "Session4/dialog/transcriptions")
    shutil.rmtree(iemocap / "Session4/dialog/avi")
    corpus = read_raw(iemocap)
    assert corpus.folds == ("Session1", "Session2", "Session3", "Session4")
    assert corpus.skipped()["no session"] == 1
    assert corpus.skipped()["no transcriptions folder"] == 1
    assert corpus.skipped()["no video folder"] == 1
    assert corpus.media() == {"text": 36, "audio": 48, "video": 36}
    for path in iemocap.rglob("EmoEvaluation/*.txt"):
        path.write_text("%")
    with pytest.raises(DataError, match="no utterance of the classes"):
        read_raw(iemocap)
    assert "no utterance of the classes" in inspect(iemocap).problems[0]
