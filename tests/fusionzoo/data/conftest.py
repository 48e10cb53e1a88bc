"""Small conversations, as a corpus and as the pickles of other repositories."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionzoo.data.corpus import Corpus

LENGTHS = {"d0": 3, "d1": 5, "d2": 1, "d3": 4, "d4": 2, "d5": 6}
SPLIT = {"d0": "train", "d1": "train", "d2": "train", "d3": "dev", "d4": "test", "d5": "test"}
WIDTHS = {"text": 4, "audio": 3, "visual": 2}


def build_corpus() -> Corpus:
    rng = np.random.default_rng(0)
    ids = list(LENGTHS)
    rows = sum(LENGTHS.values())
    return Corpus(
        name="small",
        features={m: rng.normal(size=(rows, d)).astype(np.float32) for m, d in WIDTHS.items()},
        dialogue_id=np.repeat(ids, list(LENGTHS.values())),
        utterance_index=np.concatenate([np.arange(n) for n in LENGTHS.values()]),
        speaker=np.array(["M" if i % 3 else "F" for i in range(rows)]),
        label=np.arange(rows) % 6,
        label_names=("happy", "sad", "neutral", "angry", "excited", "frustrated"),
        split=np.repeat([SPLIT[d] for d in ids], list(LENGTHS.values())),
        info={"source": "small.npz"},
    )


def build_classic(corpus: Corpus) -> list[Any]:
    """The nine entries of the classic pickle (as a list, to change) for a corpus of text, audio and visual."""
    entries: list[Any] = [{} for _ in range(7)]
    for d in corpus.dialogues():
        rows = slice(d.start, d.stop)
        assert corpus.utterance_id is not None
        entries[0][d.id] = corpus.utterance_id[rows].tolist()
        entries[1][d.id] = corpus.speaker[rows].tolist()
        entries[2][d.id] = corpus.label[rows].tolist()
        for position, m in enumerate(("text", "audio", "visual"), start=3):
            entries[position][d.id] = list(corpus.features[m][rows].copy())
        entries[6][d.id] = [f"sentence {i}" for i in range(len(d))]
    by_split = {s: {d.id for d in corpus.dialogues(s)} for s in ("train", "dev", "test")}
    return [*entries, by_split["train"] | by_split["dev"], by_split["test"]]


@pytest.fixture
def corpus() -> Corpus:
    return build_corpus()


@pytest.fixture
def classic(corpus: Corpus) -> list[Any]:
    return build_classic(corpus)


@pytest.fixture
def write_pickle(tmp_path: Path) -> Callable[..., Path]:
    """Pickle an object (or write raw bytes) to a file and return its path."""

    def write(content: Any, name: str = "features.pkl", protocol: int = 2) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
        return path

    return write


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data, which lies beside a developer's checkout only."""
    root = os.environ.get("FUSIONZOO_SHARED")
    folder = (Path(root) if root else Path(__file__).parents[4] / "shared") / "data"
    if not (folder / "iemocap.npz").is_file():
        pytest.skip("the real data are not on this machine (set FUSIONZOO_SHARED)")
    return folder
