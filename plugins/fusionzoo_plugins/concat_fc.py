"""Concatenation followed by a multi-layer perceptron: early fusion as most comparison tables mean it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import fusionzoo
from fusionzoo._options import check_probability
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.layers import dropout
from fusionzoo_plugins._fully_connected import FullyConnected, check_hidden


class ConcatFC(Fusion):
    r"""Concatenation and fully connected layers ("Concat+FC").

    .. math:: y = W_{L+1} \operatorname{relu}\big(W_L \cdots \operatorname{relu}(W_1 \operatorname{dropout}(
              [x_1; \dots; x_M]) + b_1) \cdots + b_L\big) + b_{L+1}

    Acts within a time step. With `hidden=()` it is `concat` with a map even where the widths agree. Behind networks of its
    own for every modality (`SubNetworks` in `_mmsa_networks.py`) it is the late-fusion network LF-DNN; the early-fusion
    LSTM is there too (`EarlyFusionLSTM`).

    Options
    -------
    hidden : widths of the ReLU layers, default (256, 128) as in CFN-SR's baseline.
    dropout : on the concatenation, default 0.2.

    Parameters: those of the linear maps :math:`\sum_m d_m \to` hidden :math:`\to` out_dim.
    Source: "Concat+FC" in the comparison of Fu et al., "A Cross-modal Fusion Network Based on Self-attention and Residual
    Structure for Multimodal Emotion Recognition" (CFN-SR), arXiv 2111.02172; `LF_DNN` of thuiar/MMSA@a94e65d07f.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.

    >>> ConcatFC({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.2,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.dropout = check_probability(dropout, "dropout", self)
        self.head = FullyConnected([sum(self.dims.values()), *check_hidden(hidden, self), self.out_dim])
        self.set_width(self.out_dim)

    def combine(self, streams: Streams) -> Fused:
        return Fused(self.head(dropout(torch.cat(streams.x, -1), self.dropout, self.training)))

    def reference_names(self) -> Mapping[str, str]:
        return self.head.reference_names("post_fusion_layer_")

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """MMSA's `LF_DNN` behind its sub-networks, or MultiBench's `ConcatWithLinear` (`hidden=()`), whose map is `fc`."""
        return {
            k.replace("fc.", "post_fusion_layer_1.") if k.startswith("fc.") else k: v for k, v in state_dict.items()
        }


fusionzoo_register = fusionzoo.plugin(
    ConcatFC,
    summary="concatenation and fully connected layers",
    paper="Fu et al., A Cross-modal Fusion Network Based on Self-attention and Residual Structure for Multimodal "
    "Emotion Recognition, arXiv 2111.02172",
    code="thuiar/MMSA@a94e65d07f",
    diagram="""
    text["x_text"] --> cat(("concat"))
    audio["x_audio"] --> cat
    visual["x_visual"] --> cat
    cat --> relu["linear, ReLU, twice"] --> linear["linear"] --> y["y"]
    """,
)
