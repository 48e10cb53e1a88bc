"""`export_data`: what is written comes back through our own readers, exactly, and is plain."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fusionzoo
from fusionzoo.data import load
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.export import LAYOUTS, export_data, principal
from fusionzoo.data.pickles import names_in

pytestmark = pytest.mark.filterwarnings("ignore::fusionzoo.errors.FusionZooWarning")


def corpus(views: bool = False, classes: int = 6, speakers: int = 2) -> Corpus:
    rng = np.random.default_rng(0)
    lengths = [4, 7, 5, 6, 3, 8]
    rows = sum(lengths)
    ids = np.repeat([f"Ses0{i}_d" for i in range(len(lengths))], lengths)
    text = rng.standard_normal((rows, 16 if views else 6)).astype(np.float32)
    return Corpus(
        name="toy",
        features={
            "text": text,
            "audio": rng.standard_normal((rows, 5)).astype(np.float32),
            "visual": rng.standard_normal((rows, 3)).astype(np.float32),
        },
        dialogue_id=ids,
        utterance_index=np.concatenate([np.arange(n) for n in lengths]),
        speaker=np.array(["MFX"[i % speakers] for i in range(rows)]),
        label=np.arange(rows) % classes,
        label_names=tuple(f"class{i}" for i in range(classes)),
        split=np.repeat(["train", "train", "train", "dev", "test", "test"], lengths),
        info={"source": "toy", **({"text_views": 4} if views else {})},
        extras={
            "sentence": np.array([f"words {i}" for i in range(rows)]),
            "sentiment": np.arange(rows) % 3,
            "score": rng.normal(size=rows),
        },
    ).validate()


def back(target: Path, has_dev: bool) -> Corpus:
    read = load(target, dev_fraction=0.0 if not has_dev else 0.1)
    return replace(read, split=np.where(read.split == "dev", "dev" if has_dev else "train", read.split))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_round_trip_through_our_readers_is_exact(layout: str, tmp_path: Path) -> None:
    meld, views = "meld" in layout, layout.startswith(("roberta", "cosmic", "m3net"))
    has_dev = layout.startswith(("cosmic", "split", "m3net", "mmsa"))
    source = corpus(views, 7 if meld else 6, 3 if meld else 2)
    target = tmp_path / ("folder" if "folder" in layout else "features.pkl")
    done = export_data(source, target, layout)
    assert done.layout == layout
    read = back(target, has_dev)
    assert read.info["layout"] == layout.replace("-meld-folder", "-folder")
    kept = (
        {"text"} if layout.startswith("cosmic") else {"text", "audio"} if layout == "meld-pickle" else set(source.dims)
    )
    assert set(read.dims) == kept
    for modality in kept:
        assert np.array_equal(read.features[modality], source.features[modality]), modality
    assert read.text_views == source.text_views
    for column in ("dialogue_id", "utterance_index", "label"):
        assert np.array_equal(getattr(read, column), getattr(source, column)), column
    assert np.array_equal(
        read.split, source.split if has_dev else np.where(source.split == "dev", "train", source.split)
    )
    assert np.array_equal(read.speaker_index(), source.speaker_index())
    if not meld:
        assert np.array_equal(read.speaker, source.speaker)
    assert np.array_equal(read.extras["sentence"], source.extras["sentence"])
    if layout == "mmsa-pickle":
        assert read.label_names == source.label_names
        assert np.array_equal(read.utterance_id, source.utterance_id)
        assert np.array_equal(read.extras["score"], source.extras["score"])
    if "sentiment" in read.extras:
        assert np.array_equal(read.extras["sentiment"], source.extras["sentiment"])
    # And once more, from what was read.
    again = tmp_path / "again" / target.name
    export_data(read, again, layout)
    twice = back(again, has_dev)
    assert all(np.array_equal(twice.features[m], read.features[m]) for m in read.dims)
    for file in [target] if target.is_file() else target.glob("*.pkl"):
        assert {n.rpartition(".")[0].partition(".")[0] for n in names_in(file)} <= {"numpy"}
        assert pickle.loads((again if target.is_file() else again / file.name).read_bytes()) is not None


def test_widths_are_fitted_and_the_card_says_so(tmp_path: Path) -> None:
    source = corpus()
    done = export_data(source, tmp_path / "f.pkl", "classic-pickle", widths={"text": 4, "audio": 9, "visual": 3})
    read = load(tmp_path / "f.pkl")
    assert read.dims == {"text": 4, "audio": 9, "visual": 3} == done.widths
    assert np.array_equal(read.features["audio"][:, :5], source.features["audio"])
    assert not read.features["audio"][:, 5:].any()
    train = source.features["text"][source.split == "train"]
    assert np.array_equal(read.features["text"], principal(source.features["text"], train, 4))
    card = json.loads(done.card.read_text())
    assert card["layout"] == "classic-pickle"
    assert any("6 features projected on the 4 principal axes" in n for n in card["notes"])
    assert any("5 features and 4 zeros" in n for n in card["notes"])


def test_the_projection_is_that_of_the_training_split_alone() -> None:
    rng = np.random.default_rng(1)
    train = rng.standard_normal((50, 2)) @ np.array([[3.0, 0, 0], [0, 1, 0]]) + 5
    out = principal(np.concatenate([train, train + np.array([0, 0, 100])]), train, 2)
    # The third feature does not vary there, and is not seen.
    np.testing.assert_allclose(out[:50], out[50:], atol=1e-4)
    assert out[:50, 0].std() > out[:50, 1].std()
    np.testing.assert_allclose(out[:50].mean(0), 0, atol=1e-4)
    assert principal(train, train[:1], 3).shape == (50, 3)


def test_modalities_side_by_side_in_the_place_of_the_text(tmp_path: Path) -> None:
    source = corpus()
    export_data(
        source, tmp_path / "f.pkl", "classic-pickle", join={"text": 6, "audio": 5, "visual": 4}, standardise=True
    )
    read = load(tmp_path / "f.pkl", dev_fraction=0.0)
    assert read.dims == {"text": 15, "audio": 5, "visual": 3}
    assert np.array_equal(read.features["text"][:, 6:11], read.features["audio"])
    train = read.features["text"][source.split == "train"][:, :14]
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-5)


def test_other_names_missing_modalities_and_rows_that_were_not_recorded(tmp_path: Path) -> None:
    source = corpus()
    present = np.arange(len(source)) % 2 == 0
    other = replace(
        source, features={"text": source.features["text"], "eeg": source.features["audio"]}, present={"eeg": present}
    )
    with pytest.raises(fusionzoo.DataError, match="--widths visual=100"):
        export_data(other, tmp_path / "f.pkl", "classic-pickle")
    done = export_data(other, tmp_path / "f.pkl", "classic-pickle", widths={"visual": 2})
    read = load(tmp_path / "f.pkl")
    assert "eeg stands in the place of audio" in done.notes
    assert not read.features["visual"].any()
    assert not read.features["audio"][~present].any()
    assert np.array_equal(read.features["audio"][present], source.features["audio"][present])


def test_mmsas_sequences_may_be_long(tmp_path: Path) -> None:
    source = corpus()
    export_data(source, tmp_path / "f.pkl", "mmsa-pickle", steps=7)
    assert pickle.loads((tmp_path / "f.pkl").read_bytes())["train"]["audio"].shape == (16, 7, 5)
    read = load(tmp_path / "f.pkl")
    assert all(np.array_equal(read.features[m], source.features[m]) for m in source.dims)
    for layout, steps in (("classic-pickle", 2), ("mmsa-pickle", 0)):
        with pytest.raises(fusionzoo.OptionError, match="steps"):
            export_data(source, tmp_path / "g.pkl", layout, steps=steps)


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    source = corpus()
    for arguments, message in [
        (("clasic-pickle",), "did you mean 'classic-pickle'"),
        (("roberta-pickle", {"join": {"text": 3}}), "four views"),
        (("classic-pickle", {"widths": {"texts": 3}}), "no modality 'texts'"),
        (("classic-pickle", {"widths": {"text": 0}}), "positive integer"),
    ]:
        options = arguments[1] if len(arguments) > 1 else {}
        with pytest.raises(fusionzoo.OptionError, match=message):
            export_data(source, tmp_path / "f.pkl", arguments[0], **options)
    with pytest.raises(fusionzoo.DataError, match="dialogues of 3 speakers"):
        export_data(corpus(speakers=3), tmp_path / "f.pkl", "classic-pickle")
    scoreless = replace(source, extras={})
    with pytest.raises(fusionzoo.DataError, match="has no scores, on which MMSA trains"):
        export_data(scoreless, tmp_path / "f.pkl", "mmsa-pickle")
    with pytest.raises(fusionzoo.DataError, match="has no test split"):
        export_data(
            replace(source, split=np.where(source.split == "test", "train", source.split)),
            tmp_path / "f",
            "mmsa-pickle",
        )
    unlabelled = replace(source, label=np.where(np.arange(len(source)) == 2, -100, source.label))
    with pytest.raises(fusionzoo.DataError, match="without a label"):
        export_data(unlabelled, tmp_path / "f.pkl", "classic-pickle")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from fusionzoo.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fusionzoo"])
    with pytest.raises(SystemExit) as end:
        main(
            ["data", "export", "demo", "--to", "classic-pickle", "out/demo.pkl", "--widths", "text=10", "--standardise"]
        )
    assert end.value.code in (0, None)
    assert "classic-pickle, text 10" in capsys.readouterr().out
    assert load(tmp_path / "out" / "demo.pkl").dims["text"] == 10
