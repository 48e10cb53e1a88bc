"""MMGCN: deep graph convolution over the utterances of all modalities of a dialogue."""

from __future__ import annotations

import fusionzoo
from fusionzoo_plugins._modal_graph import ModalGraphFusion


class GraphFusion(ModalGraphFusion):
    r"""Graph convolution over all utterances of all modalities (MMGCN).

    Every utterance has a node per modality. Edges join all utterances of the same modality, and the modalities of the
    same utterance, weighted by angular similarity and normalised,

    .. math::
        A_{ij} &= 1 - \tfrac1\pi \arccos\big(0.99999 \cos(x_i, x_j)\big), \qquad \hat A = D^{-1/2} A D^{-1/2} \\
        h^0 &= \operatorname{ReLU}(W x + b), \qquad
        R^l = (1 - \alpha)\, \hat A h^{l-1} + \alpha h^0, \qquad \theta_l = \log(\lambda / l + 1) \\
        h^l &= \operatorname{ReLU}\big(\theta_l\,[\hat A h^{l-1}; h^0]\, W_l + (1 - \theta_l)\, R^l\big), \qquad
        y = [x^1; h^{L,1}; \dots; x^M; h^{L,M}]

    Initial residual and identity mapping (GCNII) keep deep stacks from smoothing all nodes into one. The graph stays in
    blocks, :math:`T \times T` within a modality and a diagonal across: :math:`M T^2` entries per dialogue, where the
    published code builds one dense matrix over all nodes of the batch. Absent modalities and padding have no node.

    Departures from the published code: a zero vector is at a right angle to every other (there NaN); modalities of
    another width are projected; any number of modalities from two. Speaker and modality embeddings are the host's.

    Options
    -------
    width : of the nodes; default the anchor's, at most the published 200. hidden : of the layers; default `width`.
    layers : L; the published scripts ask for 4, the code builds 64. lam, alpha : :math:`\lambda, \alpha`.
    across : weight of the edges across modalities, published 1. dropout : on nodes and after every layer, in training;
        published 0.4. residue : put x beside h in the output.

    Parameters: projections, :math:`(w + 1) h + 2 L h^2` for width w and hidden h, and the output map from
    :math:`M (w + h)`.

    Source: Hu et al., "MMGCN: Multimodal Fusion via Deep Graph Convolution Network for Emotion Recognition in
    Conversation", ACL 2021; code hujingwen6666/MMGCN@85732d984f, `model_mm.py:MM_GCN`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.streams[m]` is `(B, T, w + h)`.

    >>> import torch
    >>> GraphFusion({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """


fusionzoo_register = fusionzoo.plugin(
    GraphFusion,
    summary="deep graph convolution over the utterances of all modalities",
    paper="Hu et al., MMGCN: Multimodal Fusion via Deep Graph Convolution Network for Emotion Recognition in "
    "Conversation, ACL 2021, arXiv 2107.06779",
    code="hujingwen6666/MMGCN@85732d984f",
    level="dialogue",
    diagram="""
    text["x_text"] --> nodes["nodes: utterances x modalities"]
    audio["x_audio"] --> nodes
    visual["x_visual"] --> nodes
    nodes --> edges["angular similarity: T x T within, diagonal across"]
    nodes --> gcn["GCNII x L"]
    edges --> gcn
    nodes --> cat(("concat"))
    gcn --> cat
    """,
)
