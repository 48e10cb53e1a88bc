"""Batches and small hosts of the tests of SDT and MultiEMO."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionzoo.batch import Batch

DIMS = {"text": 6, "audio": 5, "visual": 4}

SMALL = {"width": 8, "dropout": 0.1}

ATTENTION = ("multi-attn", {"layers": 1, "heads": 2, "hidden": 8})


def make_batch(lengths: list[int], dims=DIMS, steps: int | None = None, fill: float = 0.0, seed: int = 1) -> Batch:
    """Random dialogues of two speakers; what one holds depends on its number and `seed` only."""
    steps = steps or max(lengths)
    mask = torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)
    features = {m: torch.full((len(lengths), steps, d), fill) for m, d in dims.items()}
    speakers = torch.zeros(len(lengths), steps, dtype=torch.long)
    for b, n in enumerate(lengths):
        generator = torch.Generator().manual_seed(100 * seed + b)
        for m, d in dims.items():
            features[m][b, :n] = torch.randn(n, d, generator=generator)
        speakers[b, :n] = torch.randint(2, (n,), generator=generator)
    labels = (torch.arange(len(lengths) * steps).view(mask.shape) % 3).masked_fill(~mask, -100)
    return Batch(features, mask, speakers, labels, [str(b) for b in range(len(lengths))], None, lengths)


def build(cls, dims=DIMS, **options):
    torch.manual_seed(0)
    return cls(dims, 3, 2, **{**SMALL, **options}).eval()


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
