"""`extract` on releases that the tests write, with tiny random models: the file, the card, bad files, going on."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from fusionzoo.cli import main
from fusionzoo.data import load
from fusionzoo.encoders import AudioEncoder, TextEncoder, VideoEncoder, pool
from fusionzoo.errors import DataError, OptionError
from fusionzoo.extraction import extract, read_audio, read_frames
from fusionzoo.extraction.store import Shard, Store


def _module(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


HERE = Path(__file__).parent
tiny = _module("tiny_models_2", HERE.parent / "encoders" / "models.py")
files = _module("media_files", HERE.parent / "test_media.py")

# All three splits say the same sentences, which a leak between splits would look like.
pytestmark = pytest.mark.filterwarnings("ignore:.*utterances have exactly:fusionzoo.errors.DataWarning")

SENTENCES = ["i know", "oh my god", "what is the coffee", "no", "the coffee is very good", "yes you know"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "text": tiny.text_model(root / "text"),
        "audio": tiny.audio_model(root / "audio"),
        "video": tiny.vision_model(root / "video"),
    }


def meld(root: Path, dialogues: int = 3, utterances: int = 2) -> Path:
    """MELD's csv files; every dialogue has so many utterances."""
    root.mkdir(parents=True, exist_ok=True)
    header = ["Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"]
    header += ["Season", "Episode", "StartTime", "EndTime"]
    for split in ("train", "dev", "test"):
        with open(root / f"{split}_sent_emo.csv", "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(header)
            for d in range(dialogues):
                for u in range(utterances):
                    text = SENTENCES[(d * utterances + u) % len(SENTENCES)]
                    row = [1, text, "Ross", "joy", "positive", d, u, 1, 2, "00:00:01,000", "00:00:02,500"]
                    writer.writerow(row)
    return root


def with_clips(root: Path) -> Path:
    """The same with a clip an utterance of the dev split; one of them is broken and one is missing."""
    folder = meld(root) / "dev_splits_complete"
    folder.mkdir()
    for d in range(3):
        for u in range(2):
            if (d, u) == (1, 1):
                (folder / "dia1_utt1.mp4").write_bytes(b"\0" * 3000)
            elif (d, u) != (2, 0):
                files.write_video(folder / f"dia{d}_utt{u}.mp4", frames=6 + d)
    return root


def test_text_equals_the_encoder_utterance_by_utterance(tmp_path, models):
    done = extract(
        meld(tmp_path / "m"), text=models["text"], out=tmp_path / "out", batch_size=4, quiet=True, device="cpu"
    )
    corpus = load(done.path)
    assert (len(corpus), corpus.dims, corpus.num_classes) == (18, {"text": 16}, 7)
    assert done.widths == {"text": 16}
    encoder = TextEncoder(models["text"])
    for split in ("train", "dev", "test"):
        first = int(np.flatnonzero(corpus.split == split)[0])
        expected = pool(*encoder(**encoder.tokenize(["i know"])))[0]
        assert np.allclose(corpus.features["text"][first], expected.numpy(), atol=1e-5)

    card = json.loads(done.card.read_text(encoding="utf-8"))
    made = card["features"]["text"]
    assert {k: made[k] for k in ("model", "layer", "pooling", "normalise", "width", "utterances", "failed")} == {
        "model": "text", "layer": "last", "pooling": "mean", "normalise": False, "width": 16, "utterances": 18, "failed": 0,
    }  # fmt: skip
    assert len(made["sha256"]["model.safetensors"]) == 64
    assert made["max_length"] == 24
    assert card["versions"]["transformers"]
    assert str(tmp_path) not in done.card.read_text(encoding="utf-8")
    assert corpus.info["extraction"]["features"]["text"]["class"] == "BertModel"


@pytest.mark.parametrize(
    ("options", "width"),
    [({"layer": "views"}, 64), ({"layer": "mean4", "pooling": "max"}, 16), ({"layer": 2, "normalise": True}, 16)],
)
def test_options_of_text(tmp_path, models, options, width):
    done = extract(meld(tmp_path / "m", 1), text=models["text"], out=tmp_path, quiet=True, device="cpu", **options)
    features = load(done.path).features["text"]
    assert features.shape[1] == width
    encoder = TextEncoder(models["text"], layer=options["layer"])
    vector = pool(*encoder(**encoder.tokenize(["i know"])), options.get("pooling", "cls" if width == 64 else "mean"))[0]
    if options.get("normalise"):
        vector = vector / vector.norm()
    assert np.allclose(features[0], vector.numpy(), atol=1e-5)


def test_sentence_transformers_settings_are_taken_up(tmp_path, models):
    folder = tmp_path / "sentence"
    tiny.text_model(folder)
    (folder / "modules.json").write_text('[{"type": "x.Transformer"}, {"type": "x.Pooling"}, {"type": "x.Normalize"}]')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    )
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    done = extract(meld(tmp_path / "m", 1), text=folder, out=tmp_path, quiet=True, device="cpu")
    made = json.loads(done.card.read_text())["features"]["text"]
    assert (made["pooling"], made["normalise"], made["max_length"]) == ("cls", True, 5)
    assert np.allclose(np.linalg.norm(load(done.path).features["text"], axis=1), 1, atol=1e-5)


def test_all_media_and_a_bad_file_is_skipped_and_counted(tmp_path, models, capfd):
    pytest.importorskip("av", reason="PyAV is not installed")
    root = with_clips(tmp_path / "m")
    done = extract(root, **models, out=tmp_path / "out", frames=3, batch_size=2, device="cpu")
    corpus = load(done.path)
    assert corpus.modalities == ("text", "audio", "visual")
    assert [len(done.failed[m]) for m in corpus.modalities] == [0, 1, 1]
    assert done.failed["audio"][0]["utterance"] == "dev_dia1_utt1"
    assert "dia1_utt1.mp4" in done.failed["visual"][0]["reason"]
    assert done.absent == {"text": 0, "audio": 13, "visual": 13}
    assert corpus.present["visual"].sum() == 4
    assert "dia1_utt1.mp4" in capfd.readouterr().err
    assert "1 could not be read" in str(done)
    assert json.loads(done.card.read_text())["failed"]["audio"][0]["utterance"] == "dev_dia1_utt1"

    row = corpus.utterance_id.tolist().index("dev_dia0_utt1")
    clip = root / "dev_splits_complete" / "dia0_utt1.mp4"
    sound, sight = AudioEncoder(models["audio"]), VideoEncoder(models["video"])
    wave = sound.collate([torch.from_numpy(read_audio(clip, 8000))])
    assert np.allclose(corpus.features["audio"][row], pool(*sound(**wave))[0].numpy(), atol=1e-4)
    frames = torch.from_numpy(read_frames(clip, 3)).permute(0, 3, 1, 2)
    expected = pool(*sight(frames.unsqueeze(0)))[0].numpy()
    assert np.allclose(corpus.features["visual"][row], expected, atol=1e-4)


def test_started_again_it_makes_nothing_twice_and_notices_changes(tmp_path, models):
    root, out = meld(tmp_path / "m"), tmp_path / "out"

    def run(**options):
        return extract(root, text=models["text"], out=out, shard_size=4, quiet=True, device="cpu", **options)

    first = run()
    again = run()
    assert (first.reused, again.reused) == (0, 5)
    assert first.path.read_bytes() == again.path.read_bytes()
    assert run(pooling="max").reused == 0
    (root / "dev_sent_emo.csv").write_text((root / "dev_sent_emo.csv").read_text().replace("i know", "i know you"))
    assert run().reused == 0


def test_a_damaged_shard_is_made_again(tmp_path, models):
    root, out = meld(tmp_path / "m"), tmp_path / "out"
    first = extract(root, text=models["text"], out=out, shard_size=4, quiet=True, device="cpu")
    content = first.path.read_bytes()
    shard = next((out / ".shards").glob("*/00002.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-7])
    again = extract(root, text=models["text"], out=out, shard_size=4, quiet=True, device="cpu")
    assert again.reused == 4
    assert again.path.read_bytes() == content


def test_a_shard_of_other_rows_is_not_taken(tmp_path):
    store = Store(tmp_path, "text", {"a": 1}, [[0, 1], [2]])
    store.write(0, Shard([0, 1], np.ones((2, 3), np.float32)))
    store.write(1, Shard([], np.zeros((0, 0), np.float32), [(2, "f", "broken")]))
    assert store.unfinished() == []
    failed = store.read(1)
    assert failed is not None
    assert failed.failed == [(2, "f", "broken")]
    assert Store(tmp_path, "text", {"a": 2}, [[0, 1], [2]]).unfinished() == [0, 1]


def _command(root, models, out, *more):
    words = [sys.executable, "-m", "fusionzoo", "extract", str(root), "--text", str(models["text"]), "--out", str(out)]
    return [*words, "--device", "cpu", *more]


@pytest.mark.slow
def test_goes_on_after_kill_9(tmp_path, models):
    root, out = meld(tmp_path / "m", 120, 6), tmp_path / "out"
    command = _command(root, models, out, "--shard-size", "2", "--batch-size", "1", "--quiet")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 240
    while len(list(out.glob(".shards/*/*.safetensors"))) < 5 and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(out.glob("*.npz"))
    before = {p: p.stat().st_mtime_ns for p in out.glob(".shards/*/*.safetensors")}
    assert 5 <= len(before) < 1080

    done = extract(root, text=models["text"], out=out, shard_size=2, batch_size=1, quiet=True, device="cpu")
    assert done.reused == len(before)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    whole = extract(
        root, text=models["text"], out=tmp_path / "whole", shard_size=2, batch_size=1, quiet=True, device="cpu"
    )
    ours, theirs = load(done.path), load(whole.path)
    assert np.array_equal(ours.features["text"], theirs.features["text"])
    assert len(ours) == 2160


@pytest.mark.slow
def test_two_processes_share_the_shards(tmp_path, models):
    root = meld(tmp_path / "m")
    words = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    words += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m"]
    words += _command(root, models, tmp_path / "two", "--shard-size", "2")[2:]
    run = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=500)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("wrote") == 1
    one = extract(root, text=models["text"], out=tmp_path / "one", quiet=True, device="cpu")
    two = load(tmp_path / "two" / "meld.npz")
    assert np.allclose(two.features["text"], load(one.path).features["text"], atol=1e-6)


def test_mixed_precision_on_the_cpu(tmp_path, models):
    root = meld(tmp_path / "m", 1)
    exact = extract(root, text=models["text"], out=tmp_path / "a", quiet=True, device="cpu")
    half = extract(root, text=models["text"], out=tmp_path / "b", precision="bf16", quiet=True, device="cpu")
    x, y = load(exact.path).features["text"], load(half.path).features["text"]
    assert not np.array_equal(x, y)
    assert np.allclose(x, y, atol=0.1)


def test_what_cannot_be_asked_for(tmp_path, models):
    root = meld(tmp_path / "m", 1)
    with pytest.raises(OptionError, match="nothing to extract"):
        extract(root, out=tmp_path)
    with pytest.raises(DataError, match="no utterance of meld has audio"):
        extract(root, audio=models["audio"], out=tmp_path, device="cpu")
    with pytest.raises(OptionError, match="no model is named for audio"):
        extract(root, text=models["text"], out=tmp_path, pooling={"audio": "mean"})
    with pytest.raises(OptionError, match="fp16"):
        extract(root, text=models["text"], out=tmp_path, precision="fp16", device="cpu")
    with pytest.raises(OptionError, match="views"):
        extract(root, text=models["text"], out=tmp_path, layer="views", pooling="max", device="cpu")


def test_the_command(tmp_path, models, capsys):
    words = ["extract", str(meld(tmp_path / "m", 1)), "--text", str(models["text"]), "--out", str(tmp_path / "o")]
    with pytest.raises(SystemExit) as end:
        main([*words, "--pooling", "text=cls", "--reader", "classes=sentiment", "--name", "mine", "--device", "cpu"])
    assert end.value.code == 0
    assert "mine.npz: 6 utterances, text 16" in capsys.readouterr().out
    corpus = load(tmp_path / "o" / "mine.npz")
    assert corpus.label_names == ("neutral", "positive", "negative")
    with pytest.raises(SystemExit) as end:
        main([*words[:3], str(tmp_path / "nothing"), "--out", str(tmp_path / "o")])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "no such folder" in error
    assert "Traceback" not in error
