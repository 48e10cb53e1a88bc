"""MM-DFN: graph convolution over utterances and modalities, with a memory that runs over its depth."""

from __future__ import annotations

import fusionzoo
from fusionzoo.fusion import Dims
from fusionzoo_plugins._modal_graph import ModalGraphFusion


class DynamicGraphFusion(ModalGraphFusion):
    r"""Graph-based dynamic fusion (MM-DFN): GCNII whose layers are gated by an LSTM over depth.

    The graph is that of `graph`, its edges across modalities weighted by :math:`\gamma` (`across`). Before each layer
    the nodes pass a step of one LSTM cell, shared by all layers, each node a sequence over depth; after it they are
    added back:

    .. math::
        g^l, c^l &= \operatorname{LSTM}\big(h^{l-1}, (g^{l-1}, c^{l-1})\big) \\
        R^l &= (1 - \alpha)\, \hat A g^l + \alpha h^0, \qquad \theta_l = \log(\lambda / l + 1) \\
        h^l &= \operatorname{ReLU}\big(\theta_l\,[\hat A g^l; h^0]\, W_l + (1 - \theta_l)\, R^l\big) + h^{l-1}, \qquad
        y = [x^1; h^{L,1}; \dots; x^M; h^{L,M}]

    The gates decide what each layer keeps, which holds back the redundancy that deep stacks gather. In blocks per
    dialogue, as in `graph`. Departures from the published code: those of `graph`.

    Options
    -------
    width : of the nodes; default the anchor's, at most the published 200.
    hidden : of the layers; default `width`.
    layers : L.
    lam, alpha : :math:`\lambda, \alpha`.
    across : :math:`\gamma`.
    dropout : on nodes and after every layer, in training.
    residue : put x beside h in the output.

    Parameters: projections, :math:`(w + 1) h + 2 L h^2 + 8 h^2 + 8 h` for width w and hidden h, and the output map from
    :math:`M (w + h)`.

    Source: Hu et al., "MM-DFN: Multimodal Dynamic Fusion Network for Emotion Recognition in Conversations", ICASSP
    2022; code zerohd4869/MM-DFN@da97036606, `code/model_mm.py:MM_GCN`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.streams[m]` is `(B, T, w + h)`.

    >>> import torch
    >>> DynamicGraphFusion({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    dynamic = True

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int | None = None,
        hidden: int | None = None,
        layers: int = 16,
        lam: float = 0.5,
        alpha: float = 0.2,
        across: float = 1.0,
        dropout: float = 0.1,
        residue: bool = True,
        missing: str = "zero",
    ):
        super().__init__(
            dims,
            out_dim,
            width=width,
            hidden=hidden,
            layers=layers,
            lam=lam,
            alpha=alpha,
            dropout=dropout,
            residue=residue,
            across=across,
            missing=missing,
        )


fusionzoo_register = fusionzoo.plugin(
    DynamicGraphFusion,
    summary="graph convolution over utterances and modalities, gated over its depth",
    paper="Hu et al., MM-DFN: Multimodal Dynamic Fusion Network for Emotion Recognition in Conversations, "
    "ICASSP 2022, arXiv 2203.02385",
    code="zerohd4869/MM-DFN@da97036606",
    level="dialogue",
    diagram="""
    text["x_text"] --> nodes["nodes: utterances x modalities"]
    audio["x_audio"] --> nodes
    visual["x_visual"] --> nodes
    nodes --> lstm["LSTM step over depth"]
    lstm --> gcn["GCNII layer on the angular graph"]
    gcn -->|"L times"| lstm
    gcn --> cat(("concat with x"))
    """,
)
