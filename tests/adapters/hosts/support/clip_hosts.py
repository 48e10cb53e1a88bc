"""Hosts of clips on sequences, and utterances for them."""

from __future__ import annotations

import torch

import fusionzoo
from fusionzoo.batch import Batch, Clip

DIMS = {"audio": 8, "visual": 4}
LENGTHS = {"audio": [7, 4, 2], "visual": [3, 5, 1]}
OWN = {
    "memo-cmt": {"hidden": [16]},
    "foal-net": {"sequence_dropout": 0.0},
    "cfn-sr": {"fusion": ("cfn-sr", {"width": 4, "layers": 1})},
    "msaf": {"channels": 8},
}


def build(name: str, dims=DIMS, **options):
    torch.manual_seed(0)
    return fusionzoo.get(name, kind="host")(dims, 3, 1, **{**OWN[name], **options}).eval()


def make(clips: dict[str, Clip], labels=None) -> Batch:
    size = (len(next(iter(clips.values()))), 1)
    zeros = torch.zeros(size, dtype=torch.long)
    labels = zeros if labels is None else torch.tensor(labels).view(size)
    return Batch({}, zeros == 0, zeros, labels, [str(i) for i in range(size[0])], None, [1] * size[0], clips)


def sequences(steps=None, fill=0.0, rows=(0, 1, 2), dims=DIMS, lengths=LENGTHS, labels=None) -> Batch:
    """Three utterances whose values do not depend on the padding."""
    clips = {}
    for i, (m, d) in enumerate(dims.items()):
        chosen = [lengths[m][r] for r in rows]
        values = torch.full((len(rows), steps or max(chosen), d), fill)
        for b, (r, n) in enumerate(zip(rows, chosen, strict=True)):
            values[b, :n] = torch.randn(n, d, generator=torch.Generator().manual_seed(10 * i + r))
        clips[m] = Clip(values, torch.arange(values.shape[1]) < torch.tensor(chosen).unsqueeze(1))
    return make(clips, labels)
