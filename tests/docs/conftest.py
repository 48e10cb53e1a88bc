"""A folder with everything in it that commands of the documentation name: small data, releases in small, tiny models."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

TESTS = Path(__file__).resolve().parents[1]


def _module(path: str) -> ModuleType:
    """A file of the tests that makes data."""
    name = f"docs_{Path(path).stem}_{abs(hash(path))}"
    spec = importlib.util.spec_from_file_location(name, TESTS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _conversations(modalities: list[str], labels: list[str], seed: int):
    """A corpus of IEMOCAP's shape: five sessions, the last of them the test split, no dev split."""
    from fusionzoo.data.demo import demo

    widths = {"text": 16, "audio": 14, "visual": 12}
    corpus = demo(seed, (40, 0, 10), (3, 6), labels=labels, dims=widths, missing=0.0, missing_dialogues=0.0)
    names = {d.id: f"Ses0{1 + i // 10}{'FM'[i % 2]}_impro{i % 10:02d}" for i, d in enumerate(corpus.dialogues())}
    ids = np.array([names[i] for i in corpus.dialogue_id])
    utterances = np.array([f"{d}_{i:03d}" for d, i in zip(ids, corpus.utterance_index, strict=True)])
    return replace(corpus, dialogue_id=ids, utterance_id=utterances, name="small", info={}).subset(modalities)


IEMOCAP = ["happy", "sad", "neutral", "angry", "excited", "frustrated"]
MELD = ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"]


def _npz(path: Path) -> None:
    from fusionzoo.data.npz import save_npz

    words = path.name == "meld_textvisual.npz"
    save_npz(
        _conversations(["text", "visual"] if words else ["text", "audio", "visual"], MELD if words else IEMOCAP, 0),
        path,
    )


def _classic_pickle(path: Path) -> None:
    build = _module("fusionzoo/data/conftest.py").build_classic
    corpus = _conversations(["text", "audio", "visual"], IEMOCAP, 0)
    path.write_bytes(pickle.dumps(tuple(build(corpus)), 2))


def _meld(path: Path) -> None:
    _module("systems/test_lmam_and_multiemo.py").meld(path, (8, 3, 3), 3)


def _meld_words(path: Path) -> None:
    _meld(path.with_name("whole"))
    path.mkdir()
    for table in path.with_name("whole").glob("*.csv"):
        shutil.copy(table, path)
    shutil.rmtree(path.with_name("whole"))


def _iemocap(path: Path) -> None:
    _module("systems/test_lmam_and_multiemo.py").iemocap(path, 1, 8)


def _ravdess(path: Path) -> None:
    _module("systems/conftest.py").make_ravdess(path, actors=6)


def _text_model(path: Path) -> None:
    _module("fusionzoo/encoders/models.py").text_model(path)


def _audio_model(path: Path) -> None:
    import transformers

    models = _module("fusionzoo/encoders/models.py")
    models.audio_model(path)
    if "wavlm" in path.name:
        transformers.AutoModel.from_config(models.audio_config("wavlm")).save_pretrained(path)
    settings = json.loads((path / "preprocessor_config.json").read_text("utf-8"))
    (path / "preprocessor_config.json").write_text(json.dumps({**settings, "sampling_rate": 16000}), "utf-8")


def _video_model(path: Path) -> None:
    _module("fusionzoo/encoders/models.py").vision_model(path)


MODEL = '''"""A model that joins its modalities, and a call for it."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(10 + 7 + 5, 4)

    def forward(self, text, audio, visual):
        return self.head(torch.cat([text, audio, visual], -1))


def build():
    return Model(), (torch.randn(2, 6, 10), torch.randn(2, 6, 7), torch.randn(2, 6, 5))
'''


def _script(path: Path) -> None:
    path.write_text(MODEL, encoding="utf-8")


def _training_script(path: Path) -> None:
    shutil.copy(TESTS / "fusionzoo" / "wild" / "scripts" / "argparse_train.py", path)


def _run(path: Path) -> None:
    from fusionzoo.training import train

    data = {"source": "demo", "dialogues": [12, 3, 3], "length": [2, 5]}
    train({"data": data, "host": {"name": "bc-lstm", "hidden": 4}, "training": {"epochs": 1}}, path, quiet=True)


def _table(path: Path) -> None:
    """Columns for every command of docs/data.md that reads one."""
    columns = "dialogue,talk,speaker,text,label,mood,split,text_0,text_1,egemaps_f0,egemaps_loudness"
    splits = ["train", "train", "dev", "test"]
    rows = [f"d{i // 2},t{i // 2},AB{i % 2},oh {i},sad,joy,{splits[i // 2]},{i},1,{i % 3},{i}" for i in range(8)]
    path.write_text("\n".join([columns, *rows]) + "\n", "utf-8")


def _vectors(path: Path) -> None:
    np.save(path, np.random.default_rng(0).normal(size=(8, 4)))


def _talk(path: Path) -> None:
    """A dialogue with features as wide as those of `demo`."""
    names = [f"{m}_{i}" for m, width in {"text": 32, "audio": 24, "visual": 16}.items() for i in range(width)]
    rows = [f"{who},oh {i}," + ",".join(str(0.1 * i) for _ in names) for i, who in enumerate(["Ann", "Bob", "Ann"])]
    path.write_text("\n".join(["speaker,text," + ",".join(names), *rows]), "utf-8")


def _subtitles(path: Path) -> None:
    path.write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nANN: i know\n\n2\n00:00:02,000 --> 00:00:03,000\nBOB: no\n", "utf-8"
    )


def _mmsa(path: Path) -> None:
    from fusionzoo.data.export import export_data

    corpus = _conversations(["text", "audio", "visual"], IEMOCAP, 0)
    split = np.where(np.char.startswith(corpus.dialogue_id, "Ses04"), "dev", corpus.split)
    scores = np.random.default_rng(0).uniform(-3, 3, len(corpus))
    export_data(replace(corpus, split=split, extras={"score": scores}), path, "mmsa-pickle")


def _benchmarks(path: Path) -> None:
    shutil.copytree(TESTS.parent / "benchmarks", path)


#: What a command of the documentation may name, and what makes it; a page gets what stands in it.
THINGS: dict[str, Callable[[Path], None]] = {
    "iemocap.npz": _npz,
    "features.npz": _npz,
    "meld_textvisual.npz": _npz,
    "iemocap.pkl": _classic_pickle,
    "iemocap_classic9.pkl": _classic_pickle,
    "MELD.Raw": _meld,
    "meld_csv": _meld_words,
    "IEMOCAP_full_release": _iemocap,
    "RAVDESS": _ravdess,
    "roberta-large": _text_model,
    "bert-base-uncased": _text_model,
    "models/bert-base-uncased": _text_model,
    "facebook/hubert-large-ls960-ft": _audio_model,
    "facebook/hubert-base-ls960": _audio_model,
    "microsoft/wavlm-large": _audio_model,
    "models/hubert-base": _audio_model,
    "openai/clip-vit-large-patch14": _video_model,
    "path/to/script.py": _script,
    "train.py": _training_script,
    "runs/first": _run,
    "benchmarks": _benchmarks,
    "table.csv": _table,
    "vectors.npy": _vectors,
    "talk.csv": _talk,
    "talk.srt": _subtitles,
    "aligned_50.pkl": _mmsa,
}
#: Encoders that a recipe names where the page names the recipe.
BEHIND = {
    "memocmt-iemocap": ("bert-base-uncased", "facebook/hubert-base-ls960"),
    "foal-net-iemocap": ("microsoft/wavlm-large", "openai/clip-vit-large-patch14"),
}


@pytest.fixture
def things(tmp_path_factory) -> Callable[[str, Path], None]:
    """Put into a folder whatever the text of a page's commands names and does not make itself."""

    def put(commands: str, folder: Path) -> None:
        named = {name for name in THINGS if name in commands and f"--out {name}" not in commands}
        named |= {model for recipe, models in BEHIND.items() if recipe in commands for model in models}
        for name in sorted(named):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            THINGS[name](target)

    return put
