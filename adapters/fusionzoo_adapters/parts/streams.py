"""What hosts share whose modalities stay apart until a graph has joined them: the fusion's place around that graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from fusionzoo._options import check_positive, check_probability
from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.fusion import Dims, Fused, Fusion, MaskLike
from fusionzoo.host import FusionLike, Host, HostOutput
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.packing import Layout
from fusionzoo.numerics import zero_padded
from fusionzoo_adapters.parts.frontend import named_for
from fusionzoo_adapters.parts.text_views import Views, mask_of

if TYPE_CHECKING:
    from fusionzoo.batch import Batch


@dataclass
class Dialogues:
    """What the parts of a host need to know of a batch beside its features.

    mask : bool `(B, T)`, real utterances. speakers : `(B, T)`, below `num_speakers`. present : a modality each, bool
    `(B, T)`, where it is there. attention : maps by name, filled where `keep` is True.
    """

    layout: Layout
    mask: Tensor
    speakers: Tensor
    present: list[Tensor]
    complete: bool
    keep: bool
    attention: dict[str, Tensor] = field(default_factory=dict)

    def presence(self) -> Tensor | None:
        """bool `(B, T, M)`, or None where every modality is there at every real utterance and none at padding."""
        return None if self.complete else torch.stack(self.present, -1)

    def node_presence(self) -> Tensor | None:
        """bool `(M, N)` of the real utterances, None where every modality is there."""
        return None if self.complete else torch.stack([self.layout.pack(p) for p in self.present])


class StreamHost(Host):
    """A host that encodes every modality, relates them to each other and reads all of them.

    Placements:

    - `late`: the fusion of what the modalities are after they were related; the published models concatenate there.
    - `early`: the fusion of the (standardised) features; the rest of the host has one modality.
    - `pre-graph`: the fusion of the encoded modalities, which joins them as one more modality (named `fused`); they are
      concatenated in the end.

    A single modality needs no fusion.

    Subclasses call `_build`, which needs `_build_encoders` and `_build_relations`, and implement `_encode` and `_relate`.
    """

    placements: ClassVar[tuple[str, ...]] = ("late", "early", "pre-graph")

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike,
        placement: str | None,
        *,
        input_dropout: float,
        dropout: float,
        text_views: int,
        views_norm: str,
        reads_padding: bool,
    ):
        super().__init__(dims, num_classes, num_speakers, fusion, placement)
        anchor = self.names[0]
        self.views = None if text_views == 1 else Views(self.dims[anchor], text_views, views_norm)
        self.input_dropout = Dropout(check_probability(input_dropout, "input_dropout", self))
        self.dropout = check_probability(dropout, "dropout", self)
        self.reads_padding = reads_padding
        self.fusion: Fusion | None = None
        self.join: nn.Linear | None = None

    def _build(self, width: int, fusion_width: int | None) -> int:
        """Fusion and parts, for encoded modalities of `width`; what the classifier reads is returned."""
        widths = dict(self.dims)
        if self.views is not None:
            widths[self.names[0]] = self.views.width
        if fusion_width is not None:
            check_positive(fusion_width, "fusion_width", self)
        # An instance brings its own width; its dims and out_dim are checked where they must fit.
        free, single = isinstance(self.fusion_like, Fusion), len(self.dims) == 1
        self.nodes = self.names
        if single:
            del self.fusion_like
        elif self.placement == "early":
            self.fusion = self.make_fusion(widths, fusion_width)
            self.nodes, widths = ("fused",), {"fused": self.fusion.out_dim}
        elif self.placement == "pre-graph":
            self.fusion = self.make_fusion(dict.fromkeys(self.dims, width), fusion_width or (None if free else width))
            self.nodes = (*self.names, "fused")
            self.join = nn.Linear(self.fusion.out_dim, width) if self.fusion.out_dim != width else None
        self._build_encoders(list(widths.values()))
        after = self._build_relations()
        if self.fusion is None and not single:
            # The summed width by default, so that concatenation is concatenation.
            self.fusion = self.make_fusion(
                dict.fromkeys(self.dims, after), fusion_width or (None if free else after * len(self.dims))
            )
            return self.fusion.out_dim
        return after * len(self.nodes)

    def _build_encoders(self, widths: list[int]) -> None:
        """Build the encoders of modalities of these widths."""
        raise NotImplementedError

    def _build_relations(self) -> int:
        """Build what relates the modalities `self.nodes`; returned is the width of each afterwards."""
        raise NotImplementedError

    def _encode(self, inputs: list[Tensor | None], dialogues: Dialogues) -> list[Tensor | None]:
        """Encoded modalities `(B, T, width)`, None where one is missing."""
        raise NotImplementedError

    def _relate(self, nodes: list[Tensor], dialogues: Dialogues) -> list[Tensor]:
        """What the modalities `self.nodes` are after they were related, `(B, T, .)` each; nodes are zero where missing."""
        raise NotImplementedError

    def _read(self, x: Tensor) -> Tensor:
        """Logits from what the classifier reads."""
        raise NotImplementedError

    def encode(self, features: dict[str, Tensor | None], mask: MaskLike, batch: Batch) -> HostOutput:
        tensors, present, fused = [features.get(m) for m in self.names], [], None
        for name, x in zip(self.names, tensors, strict=True):
            present.append(torch.zeros_like(batch.mask) if x is None else mask_of(mask, name, batch.mask))
        dialogues = Dialogues(
            Layout.of(batch),
            batch.mask,
            # The surplus of a dialogue with more speakers than the host was built for shares the last one's parameters,
            # and padding may carry any number.
            batch.speakers.clamp(0, self.num_speakers - 1),
            present,
            not isinstance(mask, Mapping) and all(x is not None for x in tensors),
            self.keep_attention,
        )
        if self.views is not None and tensors[0] is not None:
            tensors[0] = self._view(tensors[0], present[0])
        if self.fusion is not None and self.placement == "early":
            fused = self._fuse(tensors, mask)
            tensors, dialogues.present, dialogues.complete = [fused.fused], [batch.mask], True
        encoded = self._encode([None if x is None else self.input_dropout(x) for x in tensors], dialogues)
        if self.fusion is not None and self.placement == "pre-graph":
            fused = self._fuse(encoded, mask)
            joined = fused.fused if self.join is None else self.join(fused.fused)
            encoded, dialogues.present = [*encoded, joined], [*dialogues.present, batch.mask]
        there = next(x for x in encoded if x is not None)
        # Official hosts read what their encoders make of padding.
        kept = [p | ~batch.mask for p in dialogues.present] if self.reads_padding else dialogues.present
        nodes = [
            torch.zeros_like(there) if x is None else zero_padded(x, p) for x, p in zip(encoded, kept, strict=True)
        ]
        related = self._relate(nodes, dialogues)
        if self.fusion is not None and self.placement == "late":
            missing = [features.get(m) is None for m in self.names]
            fused = self._fuse([None if m else x for x, m in zip(related, missing, strict=True)], mask)
            x = fused.fused
        else:
            x = torch.cat(related, -1)
        logits = self._read(x)
        out = HostOutput(logits) if fused is None else self.fused_output(fused, logits)
        streams = {m: x for m, x in zip(self.nodes, related, strict=True) if m not in ("fused", *out.streams)}
        out.streams |= {**streams, "context": x}
        if self.keep_attention:
            out.attention |= dialogues.attention
        return out

    def _view(self, x: Tensor, present: Tensor) -> Tensor:
        assert self.views is not None
        return self.views(x, present)

    def _fuse(self, tensors: list[Tensor | None], mask: MaskLike) -> Fused:
        assert self.fusion is not None
        return self.fusion.fuse(tensors, named_for(self.fusion, self.names, mask), attention=self.keep_attention)

    def _official_order(self, letters: str) -> list[str]:
        """The official letter of each modality: text, audio and visual by name, else in this order.

        Raises `ReferenceWeightsError` unless the host can hold official weights: `variant="official"`, the fusion `late`
        and nothing but concatenation, and the modalities in the order text, audio, visual.
        """
        me = type(self).__name__
        if getattr(self, "variant", "") != "official":
            raise ReferenceWeightsError(
                f"{me}: official weights fit variant='official' only; build the host that way to load them"
            )
        known = dict(zip(("text", "audio", "visual"), letters, strict=True))
        named = [known[m] for m in self.names if m in known]
        order = named if len(named) == len(self.names) else list(letters)[: len(self.names)]
        if [x for x in letters if x in order] != order or len(order) != len(self.names):
            raise ReferenceWeightsError(
                f"{me}: official weights are for text, audio and visual in this order, not {', '.join(self.names)}"
            )
        if len(self.names) > 1 and (self.placement != "late" or list(self.fusion.parameters())):  # type: ignore[union-attr]
            raise ReferenceWeightsError(
                f"{me}: the official model concatenates its modalities; build the host with placement='late', "
                "fusion='concat' and no fusion_width to load its weights"
            )
        return order
