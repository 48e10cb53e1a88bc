"""What hosts with sequential context encoders share: the fusion's place before or after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fusionzoo._options import check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, MaskLike
from fusionzoo.host import FusionLike, Host, HostOutput
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.packing import Layout
from fusionzoo_adapters.parts.context_encoder import ContextEncoder
from fusionzoo_adapters.parts.dialogue_rnn import DialogueRNN, dialogue_rnns
from fusionzoo_adapters.parts.text_views import Views, mask_of

if TYPE_CHECKING:
    from fusionzoo.batch import Batch


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
    """A host that fuses features before one context encoder, or the contexts after one encoder per modality.

    Placements:

    - `late`: one context encoder per modality, then the fusion.
    - `early`: the fusion of the (standardised) features, then one context encoder.
    - `early-residual`: as `early`, with a linear map of the concatenated features added to what the fusion returns.
    - `parallel`: one context encoder over the concatenated features; beside it the fusion of linear maps of the
      features, to which a linear map of the context is added.

    A single modality needs no fusion: its features go to its context encoder.

    Parameters of `__init__` beyond those of the hosts: encoder, options of every `ContextEncoder`; anchor_only, whether the
    modalities after the first get a linear map instead of a context encoder (`late` only); text_views and views_norm, see
    `Views`; parallel_width, of the linear maps of `parallel`; bare_fusion, whether the fusion reads and fills padded
    steps, as in LMAM's hosts.
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
        directions: int = 2,
        anchor_only: bool = False,
        text_views: int = 1,
        views_norm: str = "layer",
        parallel_width: int | None = None,
        bare_fusion: bool = False,
    ):
        super().__init__(dims, num_classes, num_speakers, fusion, placement)
        anchor = self.names[0]
        self.views = None if text_views == 1 else Views(self.dims[anchor], text_views, views_norm)
        # What the rest of the host sees.
        widths = self.dims if self.views is None else {**self.dims, anchor: self.views.width}
        check_positive(hidden, "hidden", self)
        self.input_dropout = Dropout(check_probability(input_dropout, "input_dropout", self))
        self.context_dropout = Dropout(context_dropout)
        if fusion_width is not None:
            check_positive(fusion_width, "fusion_width", self)
        extra = 16 if speaker_embedding is True else int(speaker_embedding)
        if extra < 0:
            raise OptionError(f"speaker_embedding must be a width or a bool, not {speaker_embedding!r}")
        self.speaker_embedding = nn.Embedding(self.num_speakers, extra) if extra else None

        def context(width: int, **changed: Any) -> ContextEncoder:
            options = {"parties": self.num_speakers, "directions": directions, **encoder, **changed}
            return ContextEncoder(width + extra, hidden, **options)

        context_width = directions * hidden

        # An instance brings its own width; its dims and out_dim are checked where they must fit.
        free = isinstance(fusion, Fusion)
        self.fusion: Fusion | None = None
        self.skip: nn.Linear | None = None
        self.bare_fusion = bare_fusion
        self.projections = nn.ModuleList()
        self.mix: nn.Linear | None = None
        if len(self.dims) == 1:
            del self.fusion_like
            self.encoders = nn.ModuleList([context(*widths.values())])
            self.context_width = context_width
        elif self.placement == "late":
            bases = [{} if i == 0 or not anchor_only else {"base": "none"} for i in range(len(widths))]
            self.encoders = nn.ModuleList(context(w, **base) for w, base in zip(widths.values(), bases, strict=True))
            self.fusion = self.make_fusion(
                # The summed width by default, so that concatenation is concatenation.
                dict.fromkeys(self.dims, context_width),
                fusion_width or (None if free else context_width * len(self.dims)),
            )
            self.context_width = self.fusion.out_dim
        elif self.placement == "parallel":
            width = check_positive(parallel_width or context_width, "parallel_width", self)
            self.projections.extend(nn.Linear(w, width) for w in widths.values())
            self.fusion = self.make_fusion(dict.fromkeys(self.dims, width), fusion_width or (None if free else width))
            self.encoders = nn.ModuleList([context(sum(widths.values()))])
            self.mix = nn.Linear(context_width, self.fusion.out_dim)
            self.context_width = self.fusion.out_dim
        else:
            self.fusion = self.make_fusion(widths, fusion_width)
            if self.placement == "early-residual":
                self.skip = nn.Linear(sum(widths.values()), self.fusion.out_dim)
            self.encoders = nn.ModuleList([context(self.fusion.out_dim)])
            self.context_width = context_width

    def contextualize(self, features: Mapping[str, Tensor | None], mask: MaskLike, batch: Batch) -> Context:
        """Fusion and context encoders in the order of the placement."""
        layout = Layout.of(batch)
        # The surplus of a dialogue with more speakers than the host was built for shares the last one's parameters, and
        # padding may carry any number.
        speakers = batch.speakers.clamp(0, self.num_speakers - 1)
        tensors = [features.get(m) for m in self.names]
        if self.views is not None and tensors[0] is not None:
            tensors[0] = self.views(tensors[0], mask_of(mask, self.names[0], batch.mask))
        if self.fusion is None:
            (x,) = tensors
            assert x is not None
            return Context(self._encode([x], layout, batch.mask, speakers)[0], None, layout, speakers)  # type: ignore[arg-type]
        if self.placement == "late":
            fused = self._fuse(self.fusion, self._encode(tensors, layout, batch.mask, speakers), mask)
            return Context(self.context_dropout(fused.fused), fused, layout, speakers)
        if self.placement == "parallel":
            assert self.mix is not None
            projected = [None if x is None else p(x) for p, x in zip(self.projections, tensors, strict=True)]
            fused = self._fuse(self.fusion, projected, mask)
            (x,) = self._encode([self._joined(tensors)], layout, batch.mask, speakers)
            assert x is not None
            return Context(self.mix(x) + fused.fused, fused, layout, speakers)
        fused = self._fuse(self.fusion, tensors, mask)
        x = fused.fused
        if self.skip is not None:
            x = x + self.skip(self._joined(tensors))
        (x,) = self._encode([x], layout, batch.mask, speakers)
        assert x is not None
        return Context(x, fused, layout, speakers)

    def output(self, context: Context, logits: Tensor, attention: Mapping[str, Tensor]) -> HostOutput:
        """A `HostOutput` with the context as a stream beside what the fusion reported."""
        out = HostOutput(logits) if context.fused is None else self.fused_output(context.fused, logits)
        out.streams["context"] = context.x
        if self.keep_attention:
            out.attention |= attention
        return out

    def _joined(self, tensors: list[Tensor | None]) -> Tensor:
        """The features side by side, zeros for what is missing."""
        there = next(x for x in tensors if x is not None)
        widths = list(self.dims.values())
        if self.views is not None:
            widths[0] = self.views.width
        return torch.cat(
            [there.new_zeros(*there.shape[:2], w) if x is None else x for x, w in zip(tensors, widths, strict=True)], -1
        )

    def _encode(
        self, tensors: Sequence[Tensor | None], layout: Layout, mask: Tensor, speakers: Tensor
    ) -> list[Tensor | None]:
        """The context encoders over as many streams; recurrences of DialogueRNN run side by side."""
        inputs = [None if x is None else self._input(x, speakers) for x in tensors]
        there = [(e, x) for e, x in zip(self.encoders, inputs, strict=True) if x is not None]
        rnns = [e.rnn for e, _ in there if isinstance(e.rnn, DialogueRNN)]  # type: ignore[union-attr]
        if len(rnns) > 1:
            beside = dialogue_rnns(
                rnns,
                [x for e, x in there if isinstance(e.rnn, DialogueRNN)],  # type: ignore[union-attr]
                layout,
                mask,
                speakers,
                self.num_speakers,
            )
            recurrent = iter(beside)
        else:
            recurrent = None
        out: list[Tensor | None] = []
        for encoder, x in zip(self.encoders, inputs, strict=True):
            assert isinstance(encoder, ContextEncoder)
            if x is not None:
                together = recurrent is not None and isinstance(encoder.rnn, DialogueRNN)
                x = next(recurrent) if together else encoder(x, layout, mask, speakers)  # type: ignore[arg-type]
                x = self.context_dropout(x)
            out.append(x)
        return out

    def _input(self, x: Tensor, speakers: Tensor) -> Tensor:
        x = self.input_dropout(x)
        if self.speaker_embedding is None:
            return x
        return torch.cat([x, self.speaker_embedding(speakers).to(x.dtype)], -1)

    def _fuse(self, fusion: Fusion, tensors: list[Tensor | None], mask: MaskLike) -> Fused:
        if self.bare_fusion and (fused := published_fuse(fusion, self.names, tensors, mask)) is not None:
            return fused
        return fusion.fuse(tensors, named_for(fusion, self.names, mask), attention=self.keep_attention)


def named_for(fusion: Fusion, names: Sequence[str], mask: MaskLike) -> MaskLike:
    """A mask with the fusion's names: an instance may name its modalities differently; they agree in order and width."""
    if isinstance(mask, Mapping):
        return {theirs: mask[ours] for theirs, ours in zip(fusion.names, names, strict=True) if ours in mask}
    return mask


def published_fuse(
    fusion: Fusion, names: Sequence[str], tensors: Sequence[Tensor | None], mask: MaskLike
) -> Fused | None:
    """A fusion as LMAM's hosts call it, padded steps included, where by contract it gives zeros.

    Only `lmam` (`variant="official"`), which masks what it attends to, gets the mask. None when a modality is missing.
    """
    if any(x is None for x in tensors):
        return None
    match = getattr(fusion, "match", None)
    if match is None or getattr(fusion, "variant", None) != "official":
        return fusion.fuse(list(tensors))
    real = mask.get(names[0]) if isinstance(mask, Mapping) else mask
    fused, contexts, _ = match(tensors[0], list(tensors), real)
    # The map to out_dim is the identity where the host keeps the width, as published.
    return Fused(fusion.out(fused), dict(zip(names, contexts, strict=False)))
