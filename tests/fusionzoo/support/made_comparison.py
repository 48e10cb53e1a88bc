"""Run folders of a comparison that nobody trained: its numbers are drawn, and what is behind them is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fusionzoo._csv import csv_text
from fusionzoo.reporting.rows import Contestant
from fusionzoo.scoring.metrics import evaluate_predictions

CLASSES = ["happy", "sad", "neutral", "angry", "excited", "frustrated"]


def made_run(
    folder: Path,
    who: Contestant,
    seed: int,
    right: float,
    dialogues: int = 20,
    length: int = 8,
    epochs: int = 8,
    first: int = 0,
    selection: str = "dev",
) -> Path:
    """A finished run whose predictions are right with this probability.

    Parameters
    ----------
    folder : of the run.
    who : what was trained.
    seed : of the predictions; what is true does not depend on it.
    right : how often an utterance is given its class.
    dialogues, length : of the test split, and utterances of each.
    epochs : of the training.
    first : number of the first dialogue.
    selection : the split on which the epoch was chosen.
    """
    truth = np.random.default_rng(first).choice(len(CLASSES), (dialogues, length), p=[0.1, 0.15, 0.3, 0.15, 0.1, 0.2])
    key = [seed, *f"{who.host} {who.fusion} {who.axes}".encode()]
    rng = np.random.default_rng(key)
    given = np.where(rng.random(truth.shape) < right, truth, rng.choice(len(CLASSES), truth.shape))
    names = np.array(CLASSES)
    lines = [
        ["test", f"d{first + d}", f"d{first + d}_{i}", names[truth[d, i]], names[given[d, i]]]
        for d in range(dialogues)
        for i in range(length)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    # Not by `write_text`, which waits for the disk.
    (folder / "predictions.csv").write_text(csv_text(["split", "dialogue", "utterance", "true", "predicted"], lines))
    scores = evaluate_predictions(truth.ravel(), given.ravel(), CLASSES)
    history = [
        {"epoch": e, "train_loss": 2.0 * 0.8**e, "dev_log_loss": 1.9 * 0.85**e, "train_weighted_f1": 1 - 0.8**e,
         "dev_weighted_f1": scores["weighted_f1"] * (1 - 0.6**e)}
        for e in range(1, epochs + 1)
    ]  # fmt: skip
    (folder / "metrics.csv").write_text(csv_text(list(history[0]), [list(row.values()) for row in history]))
    result = {
            "format": 1, "host": who.host, "fusion": who.fusion, "placement": "late", "seed": seed, "selection": selection,
            "metric": "weighted_f1", "epoch": epochs, "epochs": epochs, "parameters": 1000 * len(who.fusion),
            "flops_per_utterance": 1e6 * len(who.fusion), "seconds": 10.0 + seed, "device": "cpu", "precision": "no",
            "processes": 1, "fingerprint": "0" * 16, "data": {"name": "made", "sha256": "0" * 64}, "dev": scores, "test": scores,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def made_groups(
    folder: Path, right: Mapping[Contestant, float], seeds: int, dialogues: int = 20
) -> dict[Contestant, dict[int, list[Path]]]:
    """Run folders of a comparison, as `summarise` takes them.

    Parameters
    ----------
    folder : of the comparison.
    right : contestant -> how often it is right.
    seeds : how many.
    dialogues : of the test split.
    """
    groups: dict[Contestant, dict[int, list[Path]]] = {}
    for who, share in right.items():
        for seed in range(seeds):
            name = "__".join([who.host, who.fusion, *(label for _, label in who.axes), f"seed{seed}"])
            run = made_run(folder / "runs" / name, who, seed, share, dialogues)
            groups.setdefault(who, {})[seed] = [run]
    return groups
