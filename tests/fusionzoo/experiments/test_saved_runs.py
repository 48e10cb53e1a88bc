from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

import fusionzoo
from fusionzoo.data import save_npz
from fusionzoo.errors import CheckpointError, DataError, ShapeError


@pytest.fixture(scope="module")
def run(tmp_path_factory, corpus, make_config):
    folder = tmp_path_factory.mktemp("runs") / "run"
    fusionzoo.train(make_config(epochs=2), folder, quiet=True)
    return folder


def test_the_runs_own_data_give_the_runs_own_scores(run, tmp_path):
    result = json.loads((run / "result.json").read_text())
    for split in ("dev", "test"):
        scores = fusionzoo.evaluate(run, split=split, out=tmp_path / "scores.json")
        assert scores["weighted_f1"] == result[split]["weighted_f1"]
        assert scores["confusion"] == result[split]["confusion"]
        assert scores["log_loss"] == pytest.approx(result[split]["log_loss"], abs=1e-6)
        assert json.loads((tmp_path / "scores.json").read_text())["split"] == split


def test_a_file_with_the_same_data_gives_the_same_scores(run, tmp_path, corpus):
    save_npz(corpus, tmp_path / "same.npz")
    assert fusionzoo.evaluate(run, tmp_path / "same.npz")["confusion"] == fusionzoo.evaluate(run)["confusion"]


def test_predictions_of_unlabelled_data(run, tmp_path, corpus):
    unlabelled = replace(corpus, label=np.full(len(corpus), -100))
    path = fusionzoo.predict(run, unlabelled, tmp_path / "p.csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(corpus)
    assert {r["true"] for r in rows} == {""}
    with open(run / "predictions.csv", newline="") as file:
        trained = {(r["dialogue"], r["utterance"]): r["predicted"] for r in csv.DictReader(file)}
    again = {(r["dialogue"], r["utterance"]): r["predicted"] for r in rows}
    assert {k: again[k] for k in trained} == trained
    with pytest.raises(DataError, match="none of these utterances has a label"):
        fusionzoo.evaluate(run, unlabelled)


def test_predictions_of_one_split(run, tmp_path, corpus):
    path = fusionzoo.predict(run, None, tmp_path / "p.csv", split="dev")
    assert len(path.read_text().splitlines()) == 1 + int((corpus.split == "dev").sum())


def test_other_modalities_widths_classes_and_speakers_are_told_apart(run, corpus):
    with pytest.raises(DataError, match=r"has no modality 'visual': it has text \(32\), audio \(24\)"):
        fusionzoo.evaluate(run, corpus.subset(["text", "audio"]))
    narrow = replace(corpus, features=corpus.features | {"audio": corpus.features["audio"][:, :20]})
    with pytest.raises(ShapeError, match=r"'audio' in 'demo' have width 20, .*audio \(24\)"):
        fusionzoo.evaluate(run, narrow)
    renamed = replace(corpus, label_names=("joy", *corpus.label_names[1:]))
    with pytest.raises(DataError, match="the classes of 'demo' are joy"):
        fusionzoo.evaluate(run, renamed)
    crowd = replace(corpus, speaker=np.array([f"s{i % 5}" for i in range(len(corpus))]))
    with pytest.raises(DataError, match="trained for up to 2"):
        fusionzoo.evaluate(run, crowd)
    with pytest.raises(DataError, match="there is no split 'tset'; did you mean 'test'"):
        fusionzoo.evaluate(run, split="tset")


def test_a_missing_modality_on_request(run, corpus):
    scores = fusionzoo.evaluate(run, corpus.subset(["text", "audio"]), allow_missing=True)
    assert scores["utterances"] == int((corpus.split == "test").sum())


def test_more_modalities_than_the_model_knows_are_left_out(run, corpus):
    more = replace(corpus, features={"gaze": np.ones((len(corpus), 3), np.float32)} | corpus.features)
    assert fusionzoo.evaluate(run, more)["confusion"] == fusionzoo.evaluate(run)["confusion"]


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not the folder of a trained run"):
        fusionzoo.evaluate(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(CheckpointError, match="expected the key 'format', got nothing"):
        fusionzoo.evaluate(tmp_path)
