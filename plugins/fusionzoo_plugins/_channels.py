"""What fusions that reweigh channels share: how the reweighed streams become one, and a norm over channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fusionzoo.errors import ShapeError
from fusionzoo.fusion import Fused, Fusion, Streams
from fusionzoo.numerics import masked_mean, same_length

#: How reweighed streams become one: step by step; others averaged beside each of the anchor's steps; all averaged.
JOINS = ("steps", "anchor", "pool")
#: What is averaged before a gate is computed: every real step, or nothing.
SCOPES = ("dialogue", "utterance")


class ChannelFusion(Fusion):
    """What MMTM and MSAF share: `reweighed` streams, dialogue by dialogue or step by step, become one.

    Subclasses set `scope`, one of `SCOPES`, and `join`, one of `JOINS`.
    """

    unaligned = True
    scope: str
    join: str
    for_sequences: ClassVar[dict[str, Any]] = {"join": "pool"}

    def reweighed(self, streams: Streams) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The streams with their channels reweighed, of the same shapes, and attention maps."""
        raise NotImplementedError

    def combine(self, streams: Streams) -> Fused:
        if self.join == "steps" or self.scope == "utterance":
            option = f"scope={self.scope!r}, join={self.join!r}"
            check_aligned(streams.x, self.names, self, option, "scope='dialogue' and join='anchor'")
        outs, maps = self.reweighed(streams)
        fused = join_streams(outs, streams.present, self.join)
        return Fused(fused, dict(zip(self.names, outs, strict=True)), maps if streams.attention else {})


def join_streams(xs: Sequence[Tensor], present: Sequence[Tensor | None], how: str) -> Tensor:
    """One tensor from several streams: `(B, T, sum d)`, or `(B, sum d)` for `how="pool"`.

    xs : `(B, T_m, d_m)`, the anchor first.
    present : bool `(B, T_m)` or None for everywhere.
    how : one of `JOINS`.
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
