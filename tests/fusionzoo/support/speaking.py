"""Corpora told by who speaks in which dialogue."""

from __future__ import annotations

import numpy as np

from fusionzoo.data import Corpus


def corpus_of(speakers: list[list[str]], ids: list[str] | None = None, **extras) -> Corpus:
    """Dialogues with these speakers; text says the label, three classes in turn."""
    random = np.random.default_rng(0)
    ids = ids or [f"d{i}" for i in range(len(speakers))]
    who = [s for names in speakers for s in names]
    rows = len(who)
    label = np.arange(rows) % 3
    text = np.eye(3)[label] * 3 + random.normal(size=(rows, 3))
    return Corpus(
        name="made",
        features={"text": text, "audio": random.normal(size=(rows, 2))},
        dialogue_id=np.repeat(ids, [len(n) for n in speakers]),
        utterance_index=np.concatenate([np.arange(len(n)) for n in speakers]),
        speaker=np.array(who),
        label=label,
        label_names=("a", "b", "c"),
        split=np.full(rows, "train"),
        extras={k: np.repeat(v, [len(n) for n in speakers]) for k, v in extras.items()},
    )


PAIRS = [[f"F{s}", f"M{s}"] * 3 for s in (1, 1, 2, 2, 3, 3)]
