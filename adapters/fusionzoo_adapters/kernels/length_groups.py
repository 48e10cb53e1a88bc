"""A fusion over dialogues of different lengths, a few of similar length at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionzoo.fusion import Fused, Fusion, MaskLike
from fusionzoo.kernels import fast_form, runs_plain


def plain_fuse(
    fusion: Fusion, xs: Sequence[Tensor | None], mask: MaskLike, lengths: Sequence[int], group: int
) -> Fused:
    """`fusion.fuse` without attention maps and losses."""
    fused = fusion.fuse(list(xs), mask, attention=False)
    return Fused(fused.fused, fused.streams)


@fast_form(plain_fuse)
def fuse_in_groups(
    fusion: Fusion, xs: Sequence[Tensor | None], mask: MaskLike, lengths: Sequence[int], group: int
) -> Fused:
    """What `fusion.fuse` gives, without attention maps and losses, from groups of dialogues of similar length.

    On a CPU, a fusion that costs many products per step does not compute most of the padding then. Only for a fusion that
    treats every dialogue by itself.
    """
    steps = next(x.shape[1] for x in xs if x is not None)
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    parts = []
    for start in range(0, len(order), group):
        rows = order[start : start + group]
        longest, index = max(lengths[rows[0]], 1), torch.tensor(rows)
        cut = [None if x is None else x[index, :longest] for x in xs]
        real = {m: x[index, :longest] for m, x in mask.items()} if isinstance(mask, Mapping) else mask
        parts.append(fusion.fuse(cut, real[index, :longest] if isinstance(real, Tensor) else real, attention=False))
    back = torch.tensor(order).argsort()

    def joined(pieces: Sequence[Tensor]) -> Tensor:
        return torch.cat([F.pad(x, (0, 0, 0, steps - x.shape[1])) for x in pieces]).index_select(0, back)

    streams = {m: joined([p.streams[m] for p in parts]) for m in parts[0].streams}
    return Fused(joined([p.fused for p in parts]), streams)


def worth_grouping(lengths: Sequence[int], steps: int, group: int) -> bool:
    """Whether groups of dialogues of similar length save enough of a padded batch to pay for more, smaller products."""
    longest = sorted(lengths, reverse=True)[::group]
    saves = group * sum(longest) < 0.85 * len(lengths) * steps
    return saves and len(lengths) * steps >= 512 and not runs_plain("fuse_in_groups")
