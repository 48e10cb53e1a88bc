"""MemoCMT: words and voice of an utterance, each read by its encoder, then by the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.clip_host import ClipHost, EncoderLike
from fusionzoo.fusion import Dims
from fusionzoo.host import FusionLike
from fusionzoo.kernels.dropout import dropout


class MemoCMT(ClipHost):
    r"""MemoCMT: a text and an audio encoder, cross-attention with swapped queries, pooling, a small head.

    .. math:: f = \operatorname{pool}\big(\operatorname{fusion}(\operatorname{BERT}(\text{words}),
              \operatorname{HuBERT}(\text{samples}))\big), \qquad
              \text{logits} = W_2 \operatorname{drop}\big(\operatorname{LeakyReLU}(W_1 \operatorname{drop}(f))\big)

    Options
    -------
    encoders : e.g. `{text: bert-base-uncased, audio: facebook/hubert-base-ls960}`, and `train_mode: true` beside `model` for
        dropout in frozen encoders, as published; `scale: int16` of the audio encoder is the published one.
    pool : `"min"` (the paper's best), `"max"`, `"mean"`, `"cls"`: of the fusion `memo-cmt`, of any other that leaves steps,
        and of a single modality, which are the authors' `TextOnly` and `AudioOnly`.
    hidden : widths of the head's layers, default (128,).
    dropout : in the head, default 0.05.
    fusion_width : of the fused vector; None is the fusion's own.
    sequence_dropout : see `ClipHost`.
    variant : see `variants`.

    Parameters: the encoders', the fusion's (2 x 2,954,496 at width 768), and 98,948 of the head for four classes.
    Source: Khan et al., "MemoCMT: multimodal emotion recognition using cross-modal transformer-based feature fusion",
    Scientific Reports 15, 5473, 2025; code tpnam0901/MemoCMT@d3248703e7, `src/models/networks.py`.

    Shapes: clips, or features `(B, T, d_m)`, to logits `(B, T, C)`; utterances know nothing of each other.
    """

    own = "memo-cmt"
    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_adapters.hosts.official.memo_cmt:OfficialMemoCMT"}
    reference_table = "fusionzoo_adapters.hosts.official.memo_cmt"
    head: Head

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "memo-cmt",
        placement: str | None = None,
        *,
        encoders: Mapping[str, EncoderLike] | None = None,
        pool: str = "min",
        hidden: Sequence[int] = (128,),
        dropout: float = 0.05,
        sequence_dropout: float = 0.0,
        fusion_width: int | None = None,
        variant: str = "default",
    ):
        super().__init__(
            dims,
            num_classes,
            num_speakers,
            fusion,
            placement,
            encoders=encoders,
            pool=pool,
            sequence_dropout=sequence_dropout,
            fusion_width=fusion_width,
        )
        widths = [check_positive(w, "hidden", self) for w in hidden]
        self.head = Head(self.fused_width, widths, self.num_classes, check_probability(dropout, "dropout", self))

    def own_options(self) -> dict[str, Any]:
        # The first row is that of the second modality's first step; of more than two it would be one pair's.
        pool = "mean" if self.pool == "cls" and len(self.dims) > 2 else self.pool
        return super().own_options() | {"pool": pool}


class Head(nn.Module):
    """Linear maps with leaky ReLU, and a last one to the classes.

    width : of the pooled vector.
    hidden : widths of the layers between, may be empty.
    classes : of the logits.
    dropout : before the first and before the last map.
    """

    def __init__(self, width: int, hidden: Sequence[int], classes: int, dropout: float = 0.05):
        super().__init__()
        widths = [width, *hidden]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.classifier = nn.Linear(widths[-1], classes)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(..., classes)` of `(..., width)`."""
        x = dropout(x, self.dropout, self.training)
        for layer in self.hidden:
            x = F.leaky_relu(layer(x))
        return self.classifier(dropout(x, self.dropout, self.training))


fusionzoo_register = fusionzoo.plugin(
    MemoCMT,
    summary="BERT and HuBERT in the graph, cross-attention with swapped queries, pooling",
    paper="Khan et al., MemoCMT: multimodal emotion recognition using cross-modal transformer-based feature "
    "fusion, Scientific Reports 15, 5473, 2025",
    code="tpnam0901/MemoCMT@d3248703e7",
    level="sequence",
)
