"""TextCNN: one-step convolutions of every modality, a fusion, and a classifier; no context."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.fusion import Dims
from fusionzoo.host import FusionLike, Host
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.seams import Dialogues
from fusionzoo_adapters.parts.classifier import Head
from fusionzoo_adapters.parts.text_views import averaged, views_of, widths_of


class TextCNN(Host):
    r"""A convolution of kernel one and a shared layer for every modality, a fusion, and a two-layer classifier.

    .. math::
        h^m_t = \operatorname{GELU}(W_s(W_m x^m_t + b_m) + b_s), \qquad
        y_t = W_2 \operatorname{GELU}(W_1\,\operatorname{fuse}(h_t) + b_1) + b_2

    The context-free reference: what reaches an utterance from others comes through the fusion alone. The name is that of
    LMAM's comparison; there are no words in it, and a convolution of kernel one is a linear map of each utterance.

    Source: yuntaoshou/LMAM @1ac9f43823, `baseline/TextCNN.py` (Shou et al., IEEE TAFFC 16(2), 2025).

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host; speakers are not used.
    placement : `late` (after the shared layer) or `early` (the fusion of the features, then one such encoder).
    hidden : width of the convolutions.
    head_width : hidden width of the classifier.
    dropout : on the encoded modalities, on what the fusion returns and in the classifier.
    shared : whether all modalities share the second layer.
    fusion_width : width of what the fusion returns; None is the summed width of what it reads if late, `hidden` if
        early.
    text_views, views_norm : views that lie side by side in the first modality, see `bc-lstm`.
    variant : `default`, or the form of the authors' code.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_adapters.hosts.official.text_cnn:OfficialTextCNN"}
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
        super().__init__(dims, num_classes, num_speakers, fusion, placement, fusion_width=fusion_width)
        check_positive(hidden, "hidden", self)
        self.dropout = Dropout(check_probability(dropout, "dropout", self))
        self.views = views_of(self, text_views, views_norm)
        inputs = self.seam("early", widths_of(self.views, self.dims), hidden)
        (width,) = self.seam("late", dict.fromkeys(inputs, hidden), "sum").values()
        self.convolutions = nn.ModuleList(nn.Linear(w, hidden) for w in inputs.values())
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(1 if shared else len(inputs)))
        head_width = check_positive(head_width, "head_width", self)
        self.head = Head(width, head_width, self.num_classes, dropout, activation="gelu")

    def run(self, streams: dict[str, Tensor | None], dialogues: Dialogues) -> Tensor:
        streams = self.fuse_at("early", averaged(self.views, streams, dialogues.present), dialogues)
        encoded = {m: x if x is None else self._encoded(i, x) for i, (m, x) in enumerate(streams.items())}
        fused = self.fuse_at("late", encoded, dialogues)
        (x,) = fused.values()
        dialogues.show({"context": x})
        return self.head(x if fused.keys() == encoded.keys() else self.dropout(x))

    def _encoded(self, which: int, x: Tensor) -> Tensor:
        layer = self.layers[which if len(self.layers) > 1 else 0]
        return self.dropout(F.gelu(layer(self.convolutions[which](x))))


fusionzoo_register = fusionzoo.plugin(
    TextCNN,
    summary="one-step convolutions per modality, then the fusion: the host without context",
    paper="A Low-rank Matching Attention based Cross-modal Feature Fusion Method, https://arxiv.org/abs/2306.17799",
    code="https://github.com/yuntaoshou/LMAM/blob/1ac9f43823/baseline/TextCNN.py",
)
