"""What fusions that reweigh channels share: how the reweighed streams become one, and a norm over channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusionzoo.errors import ShapeError
from fusionzoo.numerics import masked_mean, same_length

#: How reweighed streams become one: step by step; others averaged beside each of the anchor's steps; all averaged.
JOINS = ("steps", "anchor", "pool")
#: What is averaged before a gate is computed: every real step, or nothing.
SCOPES = ("dialogue", "utterance")


def join_streams(xs: Sequence[Tensor], present: Sequence[Tensor | None], how: str) -> Tensor:
    """One tensor from several streams: `(B, T, sum d)`, or `(B, sum d)` for `how="pool"`.

    xs : `(B, T_m, d_m)`, the anchor first. present : bool `(B, T_m)` or None for everywhere. how : one of `JOINS`.
    """
    if how == "steps":
        return torch.cat(list(xs), -1)
    means = [masked_mean(x, p) for x, p in zip(xs, present, strict=True)]
    if how == "pool":
        return torch.cat(means, -1)
    steps = xs[0].shape[1]
    return torch.cat([xs[0], *(m.unsqueeze(1).expand(-1, steps, -1) for m in means[1:])], -1)


def check_aligned(xs: Sequence[Tensor], names: Sequence[str], owner: object, option: str, remedy: str) -> None:
    """Raise `ShapeError` unless all streams have one length."""
    if not same_length(xs):
        lengths = {m: int(x.shape[1]) for m, x in zip(names, xs, strict=True)}
        raise ShapeError(
            f"{type(owner).__name__}({option}) fuses aligned streams, got lengths {lengths}; build it with {remedy} for "
            "unaligned sequences"
        )


def channel_norm(width: int) -> nn.Module:
    """Layer norm over channels; nothing over a single one, which a layer norm would erase."""
    return nn.LayerNorm(width) if width > 1 else nn.Identity()


def bottleneck(width: int, ratio: int, least: int = 8) -> int:
    """Width of a hidden layer `ratio` times narrower, but not below `least`, which is cheap, nor above `width`."""
    return max(width // ratio, min(width, least))
