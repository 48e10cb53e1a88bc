"""Small batches for tests of hosts, objectives and layers.

>>> from fusionzoo.testing.batches import dialogues
>>> batch = dialogues([5, 1, 3], {"text": 8, "audio": 6})
>>> batch.features["text"].shape, int(batch.mask.sum())
(torch.Size([3, 5, 8]), 9)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from fusionzoo.batch import Batch, Clip
from fusionzoo.objective import IGNORE

#: Small, unequal, with a prime: no width divides another.
DIMS = {"text": 12, "audio": 7, "visual": 9}
CLASSES, SPEAKERS = 3, 2


def dialogues(
    lengths: Iterable[int] = (5, 3, 1),
    dims: Mapping[str, int] | None = None,
    *,
    steps: int | None = None,
    fill: float = 0.0,
    seed: int = 0,
    classes: int = CLASSES,
    speakers: int = SPEAKERS,
) -> Batch:
    """Dialogues of random features; what one holds depends on its number and `seed`, not on its batch or padding.

    Parameters
    ----------
    lengths : utterances of each dialogue.
    dims : modality -> width; None takes three small ones.
    steps : of the time axis; None takes the longest dialogue's.
    fill : what features hold at padded steps, for tests that nobody reads it.
    seed : of all values.
    classes : labels are below it, and -100 at padded steps.
    speakers : of a dialogue; two utterances in a row may be one speaker's.

    Returns
    -------
    Batch : on the CPU, float32.
    """
    lengths = list(lengths)
    steps = steps or max(lengths)
    dims = DIMS if dims is None else dims
    mask = torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)
    features = {m: torch.full((len(lengths), steps, d), fill) for m, d in dims.items()}
    who, labels = torch.zeros(2, len(lengths), steps, dtype=torch.long)
    for b, n in enumerate(lengths):
        generator = torch.Generator().manual_seed(1000 * seed + b)
        for m, d in dims.items():
            features[m][b, :n] = torch.randn(n, d, generator=generator)
        who[b, :n] = (torch.arange(n) + torch.randint(2, (n,), generator=generator).cumsum(0)) % speakers
        labels[b, :n] = torch.randint(classes, (n,), generator=generator)
    labels[~mask] = IGNORE
    return Batch(features, mask, who, labels, [f"d{b}" for b in range(len(lengths))], None, lengths)


def as_clips(batch: Batch, seed: int = 0) -> Batch:
    """The same dialogues as clips of two to four frames: of a single one attention and recurrence have nothing to learn.

    Parameters
    ----------
    batch : of features, whose widths the frames get.
    seed : of the frames' values.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = batch.mask.numel()
    clips = {}
    for i, (m, x) in enumerate(batch.features.items()):
        steps = torch.arange(4) < 2 + (torch.arange(rows).unsqueeze(1) + i) % 3
        values = torch.randn(rows, 4, x.shape[-1], generator=generator)
        clips[m] = Clip(values, steps & batch.mask.view(-1, 1))
    return replace(batch, features={}, clips=clips)
