"""MMGCN: a deep graph convolution over the utterances of all modalities of a dialogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fusionzoo
from fusionzoo.fusion import Dims
from fusionzoo.host import FusionLike
from fusionzoo_adapters.parts.modality_graph import ModalGraphHost


class MMGCN(ModalGraphHost):
    r"""Contexts per modality, a deep graph convolution over all of them, fusion, classifier.

    Every modality of every utterance is a node :math:`x`: a linear map of the features, for the anchor followed by a
    bidirectional LSTM over the dialogue, plus a learnt vector of the speaker. Edges join all utterances of one modality,
    and the modalities of one utterance, with the weights

    .. math:: A_{ij} = 1 - \tfrac1\pi \arccos\big(0.99999 \cos(x_i, x_j)\big), \qquad \hat A = D^{-1/2} A D^{-1/2}

    and GCNII runs over them (`fusionzoo.graphs.GCNII`), :math:`h^0 = \operatorname{ReLU}(W x + b)`,

    .. math::
        h^l &= \operatorname{ReLU}\big(\theta_l\,[\hat A h^{l-1}; h^0]\, W_l
               + (1 - \theta_l)\,((1 - \alpha)\, \hat A h^{l-1} + \alpha h^0)\big), \qquad \theta_l = \log(\lambda/l + 1) \\
        y &= W \operatorname{ReLU}\big(\operatorname{fusion}([x^1; h^{L,1}], \dots, [x^M; h^{L,M}])\big) + b

    Published with `concat`. The graph stays in blocks, those of dialogues of similar length side by side: memory is the
    sum over dialogues of squared lengths (times at most :math:`1/0.75^2`, on accelerators 4), where the published code fills one dense matrix
    over all nodes of the batch.

    Source: Hu et al., "MMGCN: Multimodal Fusion via Deep Graph Convolution Network for Emotion Recognition in
    Conversation", ACL 2021; official code hujingwen6666/MMGCN@85732d984f, `DialogueGCNModel` and `MM_GCN`.

    Where the code differs from the paper, `variant="default"` follows the paper and `official` the code:

    - every modality's nodes know who speaks; officially the text's alone do;
    - the context encoder does not read padding; officially it does, in both directions;
    - with the graph `relation`, each modality's edges are weighed by its own nodes; officially all are weighed by the
      text's, which overwrite the others, and what `dialogue-gcn` says of its official edges holds;
    - depth is an option everywhere; officially 64 layers are built whatever the command line says (`depth` says it here).

    Departures of the default from both: a zero vector is at a right angle to every other, where the published code gives
    NaN; absent modalities have no node; one recurrent layer (officially two) and dropout of the inputs.

    The published code also has other graphs (`graph`), which have no edges across modalities, and a model with a single
    stream, here the placement `early` or one modality: a linear map of the joined features (250 wide for three modalities,
    `input_width`), the LSTM, a graph within the dialogue, and officially a classifier without ReLU. Its `att_type` is
    here the fusion: `concat_subsequently` is `concat`, `gated` is `pairwise-gated`, `concat` the placement `early`.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    placement : `late` (the fusion of the graph's outputs, in the place of the published concatenation), `pre-graph` (the
        fusion of the contexts, whose result joins the graph as one modality more; the classifier reads all nodes), or
        `early` (the fusion of the features, then one context encoder and a graph within one modality).
    graph : `modal`, as above; `deep`, GCNII per modality; `relation`, DialogueGCN's convolutions per modality; `none`, a linear
        map.
    anchor : the modality with a context encoder (and officially the speakers); None for the first one, published: text.
    context : `anchor`, `all` modalities, or `none` of them. base : `lstm` (the default), `gru`, `dialogue-rnn`, or `none`
        for a linear map. base_options : further options of `dialogue-rnn`.
    hidden, layers : width of a direction (nodes have twice that), and depth of the recurrence: None is 1, officially 2.
    input_width : of the linear map before a single stream's context encoder; None for twice `hidden`, 0 for none.
    graph_width, depth : width and number of the graph's layers; depth None is 4, officially 64.
    lam, alpha : of GCNII. residue : classify `[x; h]`, not h alone (`modal` and `deep`).
    window_past, window_future, max_seq_len, nodal_attention : of the graph `relation`, as in `dialogue-gcn`; the last one
        officially with a single stream only.
    speaker_embedding : officially with the graph `modal` only. modal_embedding : a learnt vector per modality too.
    dropout : between recurrent layers, in the graph and before the classifier. input_dropout : on the features; not
        officially.
    fusion_width : width of what the fusion returns; None is the summed width late, that of the nodes before the graph, and
        the anchor's if it comes early.
    variant : `default` or `official`, see above.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; streams `context` (what the classifier reads), `fused`, and one per
    modality `(B, T, 2 * hidden + graph_width)`; attention `edges` `(B, M, T, T)`, within the modalities, and
    `edges.across` `(B, M, M, T)`.
    """

    recurrence = "lstm"

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "concat",
        placement: str | None = None,
        *,
        graph: str = "modal",
        anchor: str | None = None,
        context: str = "anchor",
        base: str | None = None,
        base_options: Mapping[str, Any] | None = None,
        hidden: int = 100,
        layers: int | None = None,
        input_width: int | None = None,
        graph_width: int = 100,
        depth: int | None = None,
        lam: float = 0.5,
        alpha: float = 0.1,
        residue: bool = True,
        window_past: int | None = 10,
        window_future: int | None = 10,
        max_seq_len: int = 110,
        nodal_attention: bool = True,
        speaker_embedding: bool = True,
        modal_embedding: bool = False,
        dropout: float = 0.4,
        input_dropout: float = 0.2,
        fusion_width: int | None = None,
        variant: str = "default",
    ):
        super().__init__(
            dims,
            num_classes,
            num_speakers,
            fusion,
            placement,
            graph=graph,
            anchor=anchor,
            context=context,
            base=base,
            base_options=base_options,
            hidden=hidden,
            layers=layers,
            input_width=input_width,
            gcn={
                "width": graph_width,
                "layers": (64 if variant == "official" else 4) if depth is None else depth,
                "lam": lam,
                "alpha": alpha,
                "residue": residue,
            },
            across=1.0,
            window_past=window_past,
            window_future=window_future,
            nodal_attention=nodal_attention,
            max_seq_len=max_seq_len,
            speaker_embedding=speaker_embedding,
            modal_embedding=modal_embedding,
            party_weights=None,
            dropout=dropout,
            input_dropout=input_dropout,
            fusion_width=fusion_width,
            variant=variant,
        )


fusionzoo_register = fusionzoo.plugin(
    MMGCN,
    summary="contexts per modality, then a deep graph convolution over the utterances of all modalities",
    paper="MMGCN, https://aclanthology.org/2021.acl-long.440",
    code="https://github.com/hujingwen6666/MMGCN/tree/85732d984f",
    level="dialogue",
)
