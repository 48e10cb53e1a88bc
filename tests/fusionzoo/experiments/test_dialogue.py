"""`predict_dialogue`: a dialogue of one's own through a run, encoded as its features were, or told what is missing."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusionzoo
from fusionzoo.data.corpus import Corpus
from fusionzoo.errors import DataError, ModelError, OptionError
from fusionzoo.runs.config import RunConfig
from fusionzoo.runs.models import build_host, describe_model, save_model

CLASSES = ("calm", "glad", "cross")
DIMS = {"text": 4, "audio": 3}
ROWS: list[dict[str, Any]] = [
    {"dialogue": d, "speaker": s, "text": t, "text_features": [i, 1, 0, 2], "audio_features": [0, i, 1]}
    for i, (d, s, t) in enumerate([("a", "Ann", "oh"), ("b", "Cy", "=1+1"), ("a", "Bob", "hm"), ("a", "Ann", "no")])
]


def make_run(folder: Path, dims: dict[str, int] = DIMS, made: dict[str, Any] | None = None) -> Path:
    """A run folder with weights that nobody trained."""
    corpus = Corpus(
        name="toy",
        features={m: np.random.default_rng(0).normal(size=(6, d)).astype(np.float32) for m, d in dims.items()},
        dialogue_id=np.repeat(["x", "y"], 3),
        utterance_index=np.tile(np.arange(3), 2),
        speaker=np.tile(["A", "B", "A"], 2),
        label=np.arange(6) % 3,
        label_names=CLASSES,
        split=np.repeat(["train", "test"], 3),
        info={"extraction": {"features": made}} if made else {},
    )
    fusion = "concat" if len(dims) > 1 else "none"
    config = RunConfig.from_sources(host="bc-lstm", fusion=fusion, sets=["host.hidden=4"], check=False)
    meta = describe_model(config, corpus, "")
    folder.mkdir()
    save_model(folder, build_host(meta).state_dict(), meta)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


def test_a_transcript_of_a_table_without_labels(run: Path, tmp_path: Path) -> None:
    told = fusionzoo.predict_dialogue(run, ROWS, out=tmp_path / "t.json", device="cpu")
    assert [(u.dialogue, u.speaker, u.text) for u in told.lines] == [
        ("a", "Ann", "oh"),
        ("a", "Bob", "hm"),
        ("a", "Ann", "no"),
        ("b", "Cy", "=1+1"),
    ]
    for u in told.lines:
        assert set(u.probabilities) == set(CLASSES)
        assert u.confidence == max(u.probabilities.values()) == u.probabilities[u.emotion]
        assert abs(sum(u.probabilities.values()) - 1) < 1e-5
    shown = str(told).splitlines()
    assert shown[0] == "-- a"
    assert shown[1].split() == ["Ann", told.lines[0].emotion, f"{told.lines[0].confidence:.2f}", "oh"]
    written = json.loads((tmp_path / "t.json").read_text())
    assert [u["emotion"] for u in written["utterances"]] == [u.emotion for u in told.lines]
    lines = told.save(tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "dialogue,utterance,speaker,start,end,text,emotion,confidence,p_calm,p_glad,p_cross"
    assert "'=1+1" in lines[4]
    with pytest.raises(OptionError, match=r"written as .csv or .json"):
        fusionzoo.predict_dialogue(run, ROWS, out="t.txt")


def test_the_same_numbers_as_predict_on_the_same_features(run: Path, tmp_path: Path) -> None:
    told = fusionzoo.predict_dialogue(run, ROWS, device="cpu")
    corpus = fusionzoo.data.from_table(ROWS)
    path = fusionzoo.predict(run, corpus, tmp_path / "p.csv", device="cpu")
    cells = [line.split(",") for line in path.read_text().splitlines()[1:]]
    assert [c[4] for c in cells] == [u.emotion for u in told.lines]
    for c, u in zip(cells, told.lines, strict=True):
        np.testing.assert_allclose([float(x) for x in c[5:]], list(u.probabilities.values()), atol=1e-5)


def test_what_is_missing_is_told_or_stood_in_for(run: Path) -> None:
    bare = [{k: v for k, v in row.items() if k != "audio_features"} for row in ROWS]
    with pytest.raises(
        DataError, match=r"audio: the run's features were made elsewhere.*--features audio=COLUMN.*--allow-missing"
    ):
        fusionzoo.predict_dialogue(run, bare)
    told = fusionzoo.predict_dialogue(run, bare, allow_missing=True)
    assert len(told.lines) == 4
    assert "audio: missing everywhere; the fusion stands in for it" in told.notes
    some = [row if i else bare[0] for i, row in enumerate(ROWS)]
    assert "audio: missing for 1 utterances; the fusion stands in for it" in fusionzoo.predict_dialogue(run, some).notes
    words = [{"text": "oh"}]
    with pytest.raises(DataError, match="text: the run's features were made elsewhere") as caught:
        fusionzoo.predict_dialogue(run, words, allow_missing=True)
    assert "--allow-missing" not in str(caught.value)
    wide = [{**row, "text_features": [1, 2]} for row in ROWS]
    with pytest.raises(fusionzoo.errors.ShapeError, match="have width 2"):
        fusionzoo.predict_dialogue(run, wide)
    crowd = [{**row, "dialogue": "a", "speaker": f"S{i}"} for i, row in enumerate(ROWS)]
    with pytest.raises(DataError, match="a dialogue with 4 speakers"):
        fusionzoo.predict_dialogue(run, crowd)


def test_which_file_is_the_transcript(run: Path, tmp_path: Path) -> None:
    for dialogue in ("talk.wav", str(tmp_path / "a.wav+b.wav"), "a.csv+b.csv"):
        with pytest.raises(DataError, match=r"such as talk.wav\+talk.srt"):
            fusionzoo.predict_dialogue(run, dialogue)
    (tmp_path / "a.srt").write_text("00:01 --> 00:02\nA: hm\n")
    with pytest.raises(DataError, match="there is no such file"):
        fusionzoo.predict_dialogue(run, f"{tmp_path / 'a.wav'}+{tmp_path / 'a.srt'}")
    with pytest.raises(OptionError, match="knows no 'texts'; did you mean 'text'"):
        fusionzoo.predict_dialogue(run, ROWS, models={"texts": "x"})


def test_the_command(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fusionzoo.cli import main

    monkeypatch.setattr(sys, "argv", ["fusionzoo"])
    path = tmp_path / "my.json"
    path.write_text(json.dumps(ROWS))
    with pytest.raises(SystemExit) as end:
        main(["predict", str(run), "--dialogue", str(path), "--out", str(tmp_path / "out.csv"), "--device", "cpu"])
    assert end.value.code in (0, None)
    assert "-- a" in capsys.readouterr().out
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 5
    for more in (["--data", "demo"], ["--split", "dev"]):
        with pytest.raises(SystemExit) as end:
            main(["predict", str(run), "--dialogue", str(path), *more])
        assert end.value.code == 2
    with pytest.raises(SystemExit) as end:
        main(["predict", str(run), "--data", "demo", "--encoder", "text=x"])
    assert end.value.code == 2


@pytest.mark.slow
def test_words_and_sound_are_encoded_as_the_runs_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    tests = Path(__file__).parents[1]
    tiny, media = (_module(n, tests / f) for n, f in (("tiny_3", "encoders/models.py"), ("media_3", "test_media.py")))
    models = {"text": tiny.text_model(tmp_path / "t" / "words"), "audio": tiny.audio_model(tmp_path / "a" / "sound")}
    from fusionzoo.extraction import extract

    media.write_wav(tmp_path / "talk.wav", np.sin(np.arange(48000) / 20).astype(np.float32), 16000)
    srt = "00:00 --> 00:01\nAnn: i know\n\n00:01 --> 00:02\nBob: oh my god\n\n00:02 --> 00:03\nAnn: no\n"
    (tmp_path / "talk.srt").write_text(srt)
    done = extract(
        tmp_path / "talk.srt", text=models["text"], audio=models["audio"], out=tmp_path / "f", pooling={"text": "max"},
        reader={"audio_file": str(tmp_path / "talk.wav")}, quiet=True, device="cpu",
    )  # fmt: skip
    corpus = fusionzoo.data.load(done.path)
    run = make_run(tmp_path / "run", corpus.dims, corpus.info["extraction"]["features"])
    expected = fusionzoo.predict(run, corpus, tmp_path / "p.csv", device="cpu").read_text().splitlines()[1:]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=r"text: made by a model in a folder 'words' .*--encoder text=FOLDER.*audio: made by"
    ):
        fusionzoo.predict_dialogue(run, "talk.wav+talk.srt")
    with pytest.raises(ModelError, match="is another model than the one that made the run's text"):
        fusionzoo.predict_dialogue(
            run, "talk.wav+talk.srt", models={"text": tiny.text_model(tmp_path / "o", seed=1), "audio": models["audio"]}
        )
    told = fusionzoo.predict_dialogue(run, "talk.wav+talk.srt", models=models, device="cpu")
    assert [(u.speaker, u.text, u.start) for u in told.lines] == [
        ("Ann", "i know", 0.0),
        ("Bob", "oh my god", 1.0),
        ("Ann", "no", 2.0),
    ]
    for u, line in zip(told.lines, expected, strict=True):
        np.testing.assert_allclose([float(x) for x in line.split(",")[5:]], list(u.probabilities.values()), atol=1e-4)
    with pytest.raises(DataError, match="audio: made by sound of audio, of which there is none"):
        fusionzoo.predict_dialogue(run, "talk.srt", models=models)
    assert len(fusionzoo.predict_dialogue(run, "talk.srt", models=models, allow_missing=True).lines) == 3


def _module(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
