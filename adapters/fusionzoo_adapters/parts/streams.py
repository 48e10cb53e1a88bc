"""Modalities as nodes of a graph: where they are missing, they are zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusionzoo.numerics import zero_padded
from fusionzoo.seams import Dialogues, Streams


def as_nodes(streams: Streams, present: Mapping[str, Tensor]) -> list[Tensor]:
    """Streams `(B, T, d)`, zero where they are not present and all over where the whole batch lacks one."""
    there = next(x for x in streams.values() if x is not None)
    return [torch.zeros_like(there) if x is None else zero_padded(x, present[m]) for m, x in streams.items()]


def node_presence(names: Sequence[str], dialogues: Dialogues) -> Tensor | None:
    """bool `(M, N)` of the real utterances, None where every modality is there."""
    if dialogues.complete(names):
        return None
    return torch.stack([dialogues.packing.pack(dialogues.present[m]) for m in names])
