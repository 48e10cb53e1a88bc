"""TextCNN: one-step convolutions of every modality, a fusion, and a classifier; no context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.fusion import Dims, Fused, Fusion, MaskLike
from fusionzoo.host import FusionLike, Host, HostOutput
from fusionzoo.kernels.dropout import Dropout
from fusionzoo_adapters.parts.classifier import Head
from fusionzoo_adapters.parts.frontend import named_for, published_fuse
from fusionzoo_adapters.parts.reference import copy_lmam_reference
from fusionzoo_adapters.parts.text_views import Views, mask_of

if TYPE_CHECKING:
    from fusionzoo.batch import Batch


class TextCNN(Host):
    r"""A convolution of kernel one and a shared layer for every modality, a fusion, and a two-layer classifier.

    .. math::
        h^m_t = \operatorname{GELU}(W_s(W_m x^m_t + b_m) + b_s), \qquad
        y_t = W_2 \operatorname{GELU}(W_1\,\operatorname{fuse}(h_t) + b_1) + b_2

    The context-free reference: what reaches an utterance from others comes through the fusion alone. The name is that of
    LMAM's comparison; there are no words in it, and a convolution of kernel one is a linear map of each utterance.

    Source: yuntaoshou/LMAM @1ac9f43823, `baseline/TextCNN.py` (Shou et al., IEEE TAFFC 16(2), 2025). As shipped it
    cannot run with the fusion LMAM, whose 512 features meet a classifier made for 1536; here the classifier has the
    fusion's width.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host; speakers are not used.
    placement : `late` (after the shared layer) or `early` (the fusion of the features, then one such encoder).
    hidden : width of the convolutions. head_width : hidden width of the classifier.
    dropout : on the encoded modalities, on what the fusion returns and in the classifier; officially none.
    shared : whether all modalities share the second layer, as officially.
    fusion_width : width of what the fusion returns; None is the summed width of what it reads if late, `hidden` if
        early; with `official` it is `hidden` for a fusion that keeps the width.
    text_views, views_norm : views that lie side by side in the first modality, see `bc-lstm`; with `official`, batch
        normalised.
    variant : `default`, or `official`: no dropout, and batch normalisation that reads padding in training.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`.
    """

    variants = ("default", "official")
    placements: ClassVar[tuple[str, ...]] = ("late", "early")

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "concat",
        placement: str | None = None,
        *,
        hidden: int = 256,
        head_width: int = 256,
        dropout: float = 0.4,
        shared: bool = True,
        fusion_width: int | None = None,
        text_views: int = 1,
        views_norm: str = "layer",
        variant: str = "default",
    ):
        super().__init__(dims, num_classes, num_speakers, fusion, placement)
        self.variant = check_choice(variant, self.variants, "variant", self)
        official = variant == "official"
        check_positive(hidden, "hidden", self)
        rate = 0.0 if official else check_probability(dropout, "dropout", self)
        self.dropout = Dropout(rate)
        anchor = self.names[0]
        norm = "batch" if official else views_norm
        self.views = None if text_views == 1 else Views(self.dims[anchor], text_views, norm)
        widths = self.dims if self.views is None else {**self.dims, anchor: self.views.width}
        self.fusion: Fusion | None = None
        free = isinstance(fusion, Fusion)
        width = hidden
        if len(widths) == 1:
            del self.fusion_like
            inputs = list(widths.values())
        elif self.placement == "late":
            joined = fusion_width or (None if free else hidden * len(widths))
            self.fusion = self.make_fusion(dict.fromkeys(widths, hidden), joined)
            width, inputs = self.fusion.out_dim, list(widths.values())
        else:
            self.fusion = self.make_fusion(widths, fusion_width or (None if free else hidden))
            inputs = [self.fusion.out_dim]
        self.convolutions = nn.ModuleList(nn.Linear(w, hidden) for w in inputs)
        layers = 1 if shared or official else len(inputs)
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        head_width = check_positive(head_width, "head_width", self)
        self.head = Head(width, head_width, self.num_classes, rate, activation="gelu")

    def encode(self, features: dict[str, Tensor | None], mask: MaskLike, batch: Batch) -> HostOutput:
        tensors = [features.get(m) for m in self.names]
        if self.views is not None and tensors[0] is not None:
            tensors[0] = self.views(tensors[0], mask_of(mask, self.names[0], batch.mask))
        if self.fusion is None:
            assert tensors[0] is not None
            x = self._encoded(0, tensors[0])
            return HostOutput(self.head(x), {"context": x})
        if self.placement == "late":
            encoded = [None if x is None else self._encoded(i, x) for i, x in enumerate(tensors)]
            fused = self._fuse(self.fusion, encoded, mask, batch)
            return self.fused_output(fused, self.head(self.dropout(fused.fused)))
        fused = self._fuse(self.fusion, tensors, mask, batch)
        return self.fused_output(fused, self.head(self._encoded(0, fused.fused)))

    def _encoded(self, which: int, x: Tensor) -> Tensor:
        layer = self.layers[which if len(self.layers) > 1 else 0]
        return self.dropout(F.gelu(layer(self.convolutions[which](x))))

    def _fuse(self, fusion: Fusion, tensors: list[Tensor | None], mask: MaskLike, batch: Batch) -> Fused:
        if self.variant == "official" and (fused := published_fuse(fusion, self.names, tensors, mask)) is not None:
            return fused
        return fusion.fuse(tensors, named_for(fusion, self.names, mask), attention=self.keep_attention)

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load LMAM's `TextCNN`, three modalities (text, audio, visual) late, with its fusion where that is `lmam`.

        `linear4` must have the fusion's width, as in the repaired form of the official model; `linear2` is unused there.
        """
        if self.variant != "official" or self.placement != "late" or len(self.dims) != 3:
            raise ReferenceWeightsError(
                "official weights fit TextCNN(variant='official', placement='late') with text, audio and visual"
            )
        names = ("textf_input.", "acouf_input.", "visuf_input.")
        parts: dict[str, nn.Module] = dict(zip(names, self.convolutions, strict=True))
        parts |= {"linear1.": self.layers[0], "linear4.": self.head.hidden, "linear3.": self.head.out}
        # A convolution of kernel one is a linear map.
        state = {k: v.squeeze(-1) if k.endswith("_input.weight") else v for k, v in state_dict.items()}
        copy_lmam_reference(self, state, parts, fused=hasattr(self.fusion, "match"))


fusionzoo_register = fusionzoo.plugin(
    TextCNN,
    summary="one-step convolutions per modality, then the fusion: the host without context",
    paper="A Low-rank Matching Attention based Cross-modal Feature Fusion Method, https://arxiv.org/abs/2306.17799",
    code="https://github.com/yuntaoshou/LMAM/blob/1ac9f43823/baseline/TextCNN.py",
)
