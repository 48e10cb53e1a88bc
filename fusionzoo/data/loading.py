"""Everything that training reads of a corpus: its splits as batches, and the statistics of its features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fusionzoo.data.batching import class_weights as class_weights
from fusionzoo.data.clips.corpus import ClipCorpus
from fusionzoo.data.clips.loading import ClipSplit
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.resident import ResidentSplit as ResidentSplit


def feature_statistics(corpus: Corpus, split: str = "train") -> dict[str, tuple[Tensor, Tensor]]:
    """Modality -> (mean `(d,)`, standard deviation `(d,)`), float32, over the rows of `split` where it was recorded.

    The deviation is the population's. A feature that never varies gets deviation 1, so that standardising makes it
    zero; a modality that the split never has gets mean 0 and deviation 1.
    """
    rows = corpus.split == split
    out: dict[str, tuple[Tensor, Tensor]] = {}
    for m, x in corpus.features.items():
        kept = x[rows & corpus.present[m]] if m in corpus.present else x[rows]
        if not len(kept):
            out[m] = (torch.zeros(x.shape[1]), torch.ones(x.shape[1]))
            continue
        mean, std = kept.mean(axis=0, dtype=np.float64), kept.std(axis=0, dtype=np.float64)
        # Rounding leaves a constant column a deviation of about 1e-16 of its size; single precision resolves 1e-7.
        std[std <= 1e-7 * np.maximum(np.abs(mean), 1e-30)] = 1.0
        out[m] = (torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(std.astype(np.float32)))
    return out


def split_of(corpus: Corpus, split: str, device: torch.device | str = "cpu") -> ResidentSplit | ClipSplit:
    """The dialogues of a split ready to be cut into batches: `ResidentSplit`, or `ClipSplit` of a corpus of clips."""
    if isinstance(corpus, ClipCorpus):
        return ClipSplit(corpus, split, device)
    return ResidentSplit(corpus, split, device)
