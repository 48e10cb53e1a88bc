"""What hosts with sequential context encoders share: the fusion's place before or after them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fusionzoo._options import check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, MaskLike
from fusionzoo.host import FusionLike, Host, HostOutput
from fusionzoo_adapters.hosts._context import ContextEncoder
from fusionzoo_adapters.hosts._layout import Layout

if TYPE_CHECKING:
    from fusionzoo.data.batch import Batch


@dataclass
class Context:
    """What the front end hands to the rest of a host.

    x : `(B, T, width)`. fused : what the fusion reported, None with a single modality. layout, speakers : of the batch;
    speakers `(B, T)` below `num_speakers`.
    """

    x: Tensor
    fused: Fused | None
    layout: Layout
    speakers: Tensor


class ContextHost(Host):
    """A host that fuses features before one context encoder, or the contexts after one encoder a modality.

    Placements:

    - `late`: one context encoder a modality, then the fusion.
    - `early`: the fusion of the (standardised) features, then one context encoder.
    - `early-residual`: as `early`, with a linear map of the concatenated features added to what the fusion returns.

    A single modality needs no fusion: its features go to its context encoder.
    """

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike,
        placement: str | None,
        *,
        encoder: Mapping[str, Any],
        hidden: int,
        input_dropout: float,
        speaker_embedding: int | bool,
        fusion_width: int | None,
        context_dropout: float,
    ):
        super().__init__(dims, num_classes, num_speakers, fusion, placement)
        check_positive(hidden, "hidden", self)
        self.input_dropout = nn.Dropout(check_probability(input_dropout, "input_dropout", self))
        self.context_dropout = nn.Dropout(context_dropout)
        if fusion_width is not None:
            check_positive(fusion_width, "fusion_width", self)
        extra = 16 if speaker_embedding is True else int(speaker_embedding)
        if extra < 0:
            raise OptionError(f"speaker_embedding must be a width or a bool, not {speaker_embedding!r}")
        self.speaker_embedding = nn.Embedding(self.num_speakers, extra) if extra else None

        def context(width: int) -> ContextEncoder:
            return ContextEncoder(width + extra, hidden, parties=self.num_speakers, **encoder)

        # An instance brings its own width; its dims and out_dim are checked where they must fit.
        free = isinstance(fusion, Fusion)
        self.fusion: Fusion | None = None
        self.skip: nn.Linear | None = None
        if len(self.dims) == 1:
            del self.fusion_like
            self.encoders = nn.ModuleList([context(*self.dims.values())])
            self.context_width = 2 * hidden
        elif self.placement == "late":
            self.encoders = nn.ModuleList([context(width) for width in self.dims.values()])
            self.fusion = self.make_fusion(
                # The summed width by default, so that concatenation is concatenation.
                dict.fromkeys(self.dims, 2 * hidden),
                fusion_width or (None if free else 2 * hidden * len(self.dims)),
            )
            self.context_width = self.fusion.out_dim
        else:
            self.fusion = self.make_fusion(self.dims, fusion_width)
            if self.placement == "early-residual":
                self.skip = nn.Linear(sum(self.dims.values()), self.fusion.out_dim)
            self.encoders = nn.ModuleList([context(self.fusion.out_dim)])
            self.context_width = 2 * hidden

    def contextualize(self, features: Mapping[str, Tensor | None], mask: MaskLike, batch: Batch) -> Context:
        """Fusion and context encoders in the order of the placement."""
        layout = Layout.of(batch)
        # The surplus of a dialogue with more speakers than the host was built for shares the last one's parameters, and
        # padding may carry any number.
        speakers = batch.speakers.clamp(0, self.num_speakers - 1)
        tensors = [features.get(m) for m in self.names]
        if self.fusion is None:
            (x,) = tensors
            assert x is not None
            return Context(self._encode(0, x, layout, batch.mask, speakers), None, layout, speakers)
        if self.placement == "late":
            contexts = [
                None if x is None else self._encode(i, x, layout, batch.mask, speakers) for i, x in enumerate(tensors)
            ]
            fused = self._fuse(self.fusion, contexts, mask)
            return Context(self.context_dropout(fused.fused), fused, layout, speakers)
        fused = self._fuse(self.fusion, tensors, mask)
        x = fused.fused
        if self.skip is not None:
            widths = self.dims.values()
            parts = [x.new_zeros(*x.shape[:2], w) if t is None else t for t, w in zip(tensors, widths, strict=True)]
            x = x + self.skip(torch.cat(parts, -1))
        return Context(self._encode(0, x, layout, batch.mask, speakers), fused, layout, speakers)

    def output(self, context: Context, logits: Tensor, attention: Mapping[str, Tensor]) -> HostOutput:
        """A `HostOutput` with the context as a stream beside what the fusion reported."""
        out = HostOutput(logits) if context.fused is None else self.fused_output(context.fused, logits)
        out.streams["context"] = context.x
        if self.keep_attention:
            out.attention |= attention
        return out

    def _encode(self, which: int, x: Tensor, layout: Layout, mask: Tensor, speakers: Tensor) -> Tensor:
        x = self.input_dropout(x)
        if self.speaker_embedding is not None:
            x = torch.cat([x, self.speaker_embedding(speakers).to(x.dtype)], -1)
        return self.context_dropout(self.encoders[which](x, layout, mask, speakers))

    def _fuse(self, fusion: Fusion, tensors: list[Tensor | None], mask: MaskLike) -> Fused:
        # An instance may name its modalities differently; they agree in order and width.
        if isinstance(mask, Mapping):
            mask = {theirs: mask[ours] for theirs, ours in zip(fusion.names, self.names, strict=True) if ours in mask}
        return fusion.fuse(tensors, mask, attention=self.keep_attention)
