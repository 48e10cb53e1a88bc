"""Tables of people's own: columns found or named, features in every form, and every problem by row."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionzoo.data import from_table, inspect, load, read_table
from fusionzoo.data.raw import read_raw
from fusionzoo.errors import DataError, OptionError

ROWS: list[dict[str, Any]] = [
    {"Dialogue_ID": "a", "Speaker": "Ann", "Utterance": "oh, \"no\"", "Emotion": "sad", "split": "train", "text_0": 1, "text_1": 2},
    {"Dialogue_ID": "b", "Speaker": "Bob", "Utterance": "zwölf", "Emotion": "joy", "split": "valid", "text_0": 3, "text_1": 4},
    {"Dialogue_ID": "a", "Speaker": "Bob", "Utterance": "hm", "Emotion": "", "split": "train", "text_0": "", "text_1": ""},
    {"Dialogue_ID": "c", "Speaker": "Ann", "Utterance": "yes", "Emotion": "joy", "split": "test", "text_0": 5, "text_1": 6},
]  # fmt: skip


def write_csv(path: Path, rows: list[dict[str, Any]] = ROWS, separator: str = ",", encoding: str = "utf-8") -> Path:
    def cell(value: Any) -> str:
        return '"' + str(value).replace('"', '""') + '"'

    lines = [separator.join(rows[0]), *(separator.join(cell(v) for v in row.values()) for row in rows)]
    path.write_text("\r\n".join(lines), encoding=encoding)
    return path


def write_jsonl(path: Path) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n")
    return path


def write_json(path: Path) -> Path:
    path.write_text(json.dumps(ROWS))
    return path


FORMS: dict[str, Any] = {
    "csv": lambda folder: write_csv(folder / "t.csv"),
    "semicolons": lambda folder: write_csv(folder / "t.csv", separator=";"),
    "tabs, cp1252": lambda folder: write_csv(folder / "t.tsv", separator="\t", encoding="cp1252"),
    "with a mark": lambda folder: write_csv(folder / "t.csv", encoding="utf-8-sig"),
    "json lines": lambda folder: write_jsonl(folder / "t.jsonl"),
    "json": lambda folder: write_json(folder / "t.json"),
    "dicts": lambda folder: ROWS,
    "a generator": lambda folder: (row for row in ROWS),
    "a dict of splits": lambda folder: {
        split: [{k: v for k, v in row.items() if k != "split"} for row in ROWS if row["split"] == split]
        for split in ("train", "valid", "test")
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_table_gives_the_same_corpus(form: str, tmp_path: Path) -> None:
    corpus = from_table(FORMS[form](tmp_path))
    assert corpus.dialogue_id.tolist() == ["a", "a", "b", "c"]
    assert corpus.utterance_index.tolist() == [0, 1, 0, 0]
    assert corpus.speaker.tolist() == ["Ann", "Bob", "Bob", "Ann"]
    assert corpus.extras["sentence"].tolist() == ['oh, "no"', "hm", "zwölf", "yes"]
    assert corpus.label_names == ("joy", "sad")
    assert corpus.label.tolist() == [1, -100, 0, 0]
    assert corpus.split.tolist() == ["train", "train", "dev", "test"]
    assert corpus.present["text"].tolist() == [True, False, True, True]
    assert corpus.features["text"][2:].tolist() == [[3, 4], [5, 6]]


@pytest.mark.slow
def test_pandas_and_its_nothing() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS).replace("", None).astype({"text_0": float, "text_1": float})
    frame["score"] = [1, 2, None, 3]
    corpus = from_table(frame)
    assert corpus.label.tolist() == [1, -100, 0, 0]
    assert corpus.present["text"].tolist() == [True, False, True, True]
    assert np.isnan(corpus.extras["score"][1])


@pytest.mark.slow
def test_a_dataset_of_datasets() -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{k: None if v == "" else v for k, v in row.items()} for row in ROWS]
    assert from_table(datasets.Dataset.from_list(rows)).label.tolist() == [1, -100, 0, 0]
    parts = datasets.DatasetDict(
        train=datasets.Dataset.from_list([{"id": "x", "emotion": "joy", "text_features": [1.0, 2.0]}])
    )
    assert from_table(parts).split.tolist() == ["train"]


def test_features_are_files_lists_columns_or_one_matrix(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(3.0))
    np.save(tmp_path / "frames.npy", np.array([[1.0, 3], [3, 5]]))
    np.save(tmp_path / "all.npy", np.eye(2))
    rows = [
        {"audio": "frames.npy", "emb": [1, 2, 3], "eg_a": "1", "eg_b": "2", "video_features": "x.npy"},
        {"audio": "frames.npy", "emb": [4, 5, 6], "eg_a": "3", "eg_b": "4", "video_features": None},
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = from_table(path)
    assert {m: x.tolist() for m, x in found.features.items()} == {
        "audio": [[2, 4]] * 2,
        "visual": [[0, 1, 2], [0, 0, 0]],
    }
    assert any(
        "'emb' holds lists and is not used; as features: --features emb=emb" in note for note in found.said("skipped")
    )
    asked = from_table(path, features={"text": "emb", "audio": "eg_*", "eeg": "all.npy"})
    assert asked.dims == {"text": 3, "audio": 2, "eeg": 2}
    assert asked.features["audio"].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(OptionError, match="did you mean 'emb'"):
        from_table(path, features={"text": "embs"})
    with pytest.raises(DataError, match=r"shape \(2, 2\), expected \(1, width\)"):
        from_table(rows[:1], features={"eeg": str(tmp_path / "all.npy")})


def test_every_problem_is_told_by_row(tmp_path: Path) -> None:
    wrong = [
        {"dialogue": "a", "turn": "0", "start": "0", "end": "1", "wav": "no.wav", "label": "sad", "text": "x", "score": "1", "split": "train"},
        {"dialogue": "a", "turn": "0", "start": "x", "end": "1", "wav": "", "label": "sad", "text": "x", "score": "?", "split": "train"},
        {"dialogue": "a", "turn": "0", "start": "0:02", "end": "0:01,5", "wav": "", "label": "joi", "text": "x", "score": "1", "split": "dew"},
        {"dialogue": "", "turn": "-1", "start": "0", "end": "1", "wav": "", "label": "sad", "text": "", "score": "1", "split": "train"},
        {"dialogue": "b", "turn": "3", "start": "0", "end": "1", "wav": "", "label": "1", "text": "x", "score": "1", "split": "train"},
        {"dialogue": "b", "turn": "3", "start": "0", "end": "1", "wav": "", "label": "1", "text": "x", "score": "1", "split": "train"},
        {"dialogue": "b", "turn": "4", "start": "0", "end": "1", "wav": "", "label": "1", "text": "x", "score": "1", "split": "test"},
    ]  # fmt: skip
    path = write_csv(tmp_path / "t.csv", wrong)
    with path.open("a") as stream:
        stream.write("\r\na,b")
    with pytest.raises(DataError) as caught:
        read_table(path, label_names=["sad", "joy"])
    said = str(caught.value)
    for words in (
        "t.csv: 12 problems",
        "line 2, column 'wav': ",
        "no.wav: there is no such file",
        "line 3, column 'start': is 'x', expected seconds",
        "line 3, column 'score': is '?', expected a finite number",
        "line 4, column 'end': is 1.5 s, not after the start at 2 s",
        "line 4, column 'label': is 'joi'; did you mean 'joy'?",
        "line 4, column 'split': is 'dew', expected one of train, dev, test",
        "line 5, column 'dialogue': is empty",
        "line 5, column 'turn': is '-1', expected a whole number from 0 on",
        "line 5: has neither words nor a recording nor features",
        "line 7: dialogue 'b' has the index 3 twice",
        "line 8: dialogue 'b' is train elsewhere, and test here",
        "line 9: has 2 cells, expected 9",
        "--leave-out",
    ):
        assert words in said, words
    table = read_table(path, label_names=["sad", "joy"], leave_out=True)
    assert [(u.id, u.label, u.index) for u in table.utterances] == [("b_0", 1, 3)]
    assert len(table.left_out) == 12
    report = inspect(path)
    assert not report.ok
    assert "line 9: has 2 cells" in str(report)


def test_columns_are_named_and_what_is_not_there_is_said(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [{"talk": "a", "who": "x", "words": "hi", "mood": "sad"}])
    table = read_table(path, columns={"dialogue": "talk", "label": "mood", "speaker": None})
    assert table.utterances[0].speaker == "unknown"
    assert table.columns == {"dialogue": "talk", "label": "mood", "text": "words"}
    assert "no column of speakers: all rows are of one speaker, 'unknown'" in table.notes
    empty = write_csv(tmp_path / "e.csv", [{"words": "hi", "mood": "", "split": "", "text_0": 1, "text_1": ""}])
    assert read_table(empty, columns={"label": "mood"}, features={}).label_names == ("unlabelled",)
    with pytest.raises(DataError, match="column 'text_1' is empty"):
        read_table(empty)
    for asked, message in (({"dialog": "talk"}, "did you mean 'dialogue'"), ({"label": "moot"}, "did you mean 'mood'")):
        with pytest.raises(OptionError, match=message):
            read_table(path, columns=asked)
    with pytest.raises(DataError, match="has no features: make some of its text: fusionzoo extract"):
        table.corpus()
    with pytest.raises(DataError, match="from-csv"):
        load(path)


def test_without_dialogues_a_table_is_one_or_every_row_is(tmp_path: Path) -> None:
    rows = [{"text": f"u{i}", "start": 3 - i, "split": s} for i, s in enumerate(("train", "train", "test"))]
    with pytest.raises(DataError, match=r"no column of dialogues.*--single"):
        read_table(rows)
    assert len({u.dialogue_id for u in read_table(rows, single=True).utterances}) == 3
    one = read_table(rows[:2])
    assert [u.text for u in one.utterances] == ["u0", "u1"]
    assert len({u.dialogue_id for u in one.utterances}) == 1


def test_ids_that_recur_in_other_dialogues_are_told_apart() -> None:
    rows = [{"dialogue": d, "utterance_id": u, "text": "x"} for d in "ab" for u in (1, 0)]
    assert [u.id for u in read_table(rows).utterances] == ["a_1", "a_0", "b_1", "b_0"]
    with pytest.raises(DataError, match="has the id '1' twice"):
        read_table([*rows, {"dialogue": "a", "utterance_id": 1.0, "text": "y"}])


def test_a_table_with_words_or_recordings_is_a_release(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF....")
    path = write_csv(
        tmp_path / "t.csv", [{"wav": "a.wav", "start": 1, "end": 2.5, "said": "oh", "label": "sad", "score": 2}]
    )
    raw = read_raw(path, text="said")
    (one,) = raw.utterances
    assert (one.audio, one.audio_start, one.audio_end, one.text) == (tmp_path / "a.wav", 1.0, 2.5, "oh")
    assert one.extras == {"sentence": "oh", "score": 2.0}
    assert inspect(path).kind == "raw-table"
    write_csv(tmp_path / "other.csv", [{"a": 1, "b": 2}])
    with pytest.raises(DataError, match="no known corpus is recognised"):
        read_raw(tmp_path / "other.csv")


def test_nothing_and_no_table(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("dialogue,text\n\n")
    (tmp_path / "odd.jsonl").write_text('{"text": "a"}\n[1]\nnonsense\n')
    for source, message in (
        (tmp_path / "empty.csv", "has no rows"),
        (tmp_path / "missing.csv", "no such file"),
        (tmp_path, "no such file"),
        (3, "a int is no table"),
        ([], "has no rows"),
        (tmp_path / "odd.jsonl", "2 problems"),
        ([{"text": "a"}, 3], "row 1: is 3, expected a mapping"),
    ):
        with pytest.raises(DataError, match=message):
            read_table(source)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from fusionzoo.cli import main

    path = write_csv(tmp_path / "t.csv", [{k.replace("Emotion", "mood"): v for k, v in row.items()} for row in ROWS])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fusionzoo"])
    with pytest.raises(SystemExit) as end:
        main(["data", "from-csv", path.name, "out.npz", "--columns", "label=mood", "--label-names", "sad,joy"])
    assert end.value.code in (0, None)
    out = capsys.readouterr().out
    assert "4 utterances, 3 dialogues, text 2" in out
    assert "label (mood)" in out
    assert load(tmp_path / "out.npz").label_names == ("sad", "joy")
    with pytest.raises(SystemExit) as end:
        main(["data", "from-csv", path.name, "out.npz", "--columns", "label"])
    assert end.value.code == 2
