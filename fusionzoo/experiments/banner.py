"""What is said before long work begins: which data, models and device, so that a mistake shows before it has cost a night."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from fusionzoo._progress import print_line
from fusionzoo.data.conventions import SPLITS

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.runs.config import RunConfig


def introduce(lines: Iterable[str]) -> None:
    """Say it."""
    for line in lines:
        print_line(line)


def about_data(corpus: Corpus) -> list[str]:
    """Size, widths, splits and classes."""
    splits = [f"{s} {size['utterances']}" for s, size in corpus.summary()["splits"].items()]
    widths = ", ".join(f"{m} {d}" for m, d in corpus.dims.items())
    return [
        f"data     {corpus.name}: {len(corpus):,} utterances in {len(corpus.dialogues()):,} dialogues ({', '.join(splits)}); {widths}",
        f"classes  {_classes(corpus)}",
    ]


def about_models(sizes: Iterable[tuple[str, int]]) -> list[str]:
    """Titles with their trained parameters, those of one title once."""
    return [f"model    {title}: {parameters:,} parameters" for title, parameters in dict.fromkeys(sizes)]


def about_device(config: RunConfig) -> str:
    """Where a run runs. Looks without touching: a process that only hands out work takes no memory of a GPU."""
    import torch

    device = config.training.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    threads = config.training.threads or torch.get_num_threads()
    more = f", {threads} {'thread' if threads == 1 else 'threads'}" if device == "cpu" else ""
    return f"device   {device}{more}, precision {config.training.precision}"


def _classes(corpus: Corpus) -> str:
    """Share of each class, of the labelled utterances; by split where a split is far from the whole."""
    counts = {s: _counts(corpus, corpus.split == s) for s in SPLITS if (corpus.split == s).any()}
    whole = _counts(corpus, np.ones(len(corpus), bool))
    shares = whole / max(whole.sum(), 1)
    text = ", ".join(f"{name} {share:.0%}" for name, share in zip(corpus.label_names, shares, strict=True))
    missing = [
        f"{split} has no {name}"
        for split, of in counts.items()
        if of.sum()
        for name, n in zip(corpus.label_names, of, strict=True)
        if not n
    ]
    return "; ".join([text, *missing])


def _counts(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    labels = corpus.label[rows & (corpus.label >= 0)]
    return np.bincount(labels, minlength=corpus.num_classes)
