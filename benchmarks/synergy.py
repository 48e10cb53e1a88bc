"""Which fusions see what no single modality shows: every installed fusion on `demo` with synergistic evidence alone.

    python benchmarks/synergy.py [--fusions concat,lmf] [--epochs 24] [--seeds 2] [--width 32] [--lr 3e-3]

A single modality, and any sum of functions of single modalities, carries nothing about the emotion here: the evidence is
whether hidden signs of two modalities agree (see `demo`). The fusion's output goes straight to a linear map to the
classes, so that nothing behind the fusion multiplies modalities in its place; dialogues have one utterance, so that
attention is over modalities alone. The epoch is chosen on the dev split. Prints a Markdown table of test accuracy beside
guessing and the Bayes-optimal reader.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo.data import Batch, Corpus, ResidentSplit, feature_statistics
from fusionzoo.data.demo import demo
from fusionzoo.host import Host, HostOutput
from fusionzoo.scoring.inference import split_probabilities
from fusionzoo.scoring.metrics import evaluate_predictions

OPTIONS = {
    "redundant": 0.0,
    "unique": 0.0,
    "imbalance": 1.0,
    "missing": 0.0,
    "missing_dialogues": 0.0,
    "length": (1, 1),
    "dialogues": (4000, 1000, 2000),
}


class LinearReader(Host):
    """A fusion and a linear map, nothing else."""

    def __init__(self, dims, num_classes, num_speakers, fusion="concat", placement=None, *, width: int = 32):
        super().__init__(dims, num_classes, num_speakers, fusion, placement)
        self.fusion = self.make_fusion(self.dims, width)
        self.classify = nn.Linear(width, num_classes)

    def encode(self, features, mask, batch: Batch) -> HostOutput:
        assert self.fusion is not None
        fused = self.fusion.fuse(features, mask, attention=False)
        return self.fused_output(fused, self.classify(fused.fused))


def test_score(corpus: Corpus, fusion: str, width: int, epochs: int, seed: int, lr: float) -> float:
    """Accuracy on the test split at the best dev epoch."""
    torch.manual_seed(seed)
    model = LinearReader(corpus.dims, corpus.num_classes, 2, fusion, width=width)
    model.fit_features(feature_statistics(corpus))
    splits = {name: ResidentSplit(corpus, name) for name in ("train", "dev", "test")}
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    def score(split: str) -> float:
        rows, probabilities = split_probabilities(model, corpus, splits[split], split, 64)
        return evaluate_predictions(corpus.label[rows], probabilities.argmax(1), corpus.label_names)["wa"]

    best = (-1.0, 0.0)
    for epoch in range(epochs):
        model.train()
        for batch in splits["train"].batches(128, shuffle=True, seed=seed, epoch=epoch):
            out = model(batch)
            loss = F.cross_entropy(out.logits.flatten(0, 1), batch.labels.flatten())
            for extra in out.losses.values():
                loss = loss + 0.01 * extra
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        if epoch % 3 == 2 or epoch == epochs - 1:
            dev = score("dev")
            if dev > best[0]:
                best = (dev, score("test"))
    return best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fusions", default=",".join(fusionzoo.names()))
    for name, default in {"epochs": 24, "seeds": 2, "width": 32}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()
    corpus = demo(**OPTIONS)
    ceiling = cast(Any, corpus.info["ceiling"])["test"]
    scores: dict[str, list[float]] = {}
    for fusion in args.fusions.split(","):
        scores[fusion] = [test_score(corpus, fusion, args.width, args.epochs, s, args.lr) for s in range(args.seeds)]
        print(f"{fusion} {scores[fusion]}", flush=True)
    print("\n| fusion | test accuracy | share of what can be had |\n|---|---|---|")
    floor = ceiling["majority"]["accuracy"]
    top = ceiling["no_context"]["accuracy"]
    print(f"| Bayes-optimal reader | {top:.3f} | 100 % |")
    for fusion, values in sorted(scores.items(), key=lambda item: -statistics.mean(item[1])):
        mean = statistics.mean(values)
        print(f"| `{fusion}` | {mean:.3f} | {100 * (mean - floor) / (top - floor):.0f} % |")
    print(f"| the most frequent class | {floor:.3f} | 0 % |")


if __name__ == "__main__":
    main()
