"""MMGCN: a deep graph convolution over the utterances of all modalities of a dialogue."""

from __future__ import annotations

from typing import ClassVar

import fusionzoo
from fusionzoo_adapters.parts.modal_graph_host import ModalGraphHost


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
    sum over dialogues of squared lengths (times at most :math:`1/0.75^2`, on accelerators 4), where the published code
    fills one dense matrix over all nodes of the batch.

    Source: Hu et al., "MMGCN: Multimodal Fusion via Deep Graph Convolution Network for Emotion Recognition in
    Conversation", ACL 2021; code hujingwen6666/MMGCN@85732d984f, `DialogueGCNModel` and `MM_GCN`.

    Departures from paper and code: a zero vector is at a right angle to every other, where the code gives NaN; absent
    modalities have no node; one recurrent layer (published: two) and dropout of the inputs.

    The published code also has other graphs (`graph`), which have no edges across modalities, and a model with a single
    stream, here the placement `early` or one modality: a linear map of the joined features (250 wide for three modalities,
    `input_width`), the LSTM, and a graph within the dialogue. Its `att_type` is here the fusion: `concat_subsequently` is
    `concat`, `gated` is `pairwise-gated`, `concat` the placement `early`.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host. placement : `late` (the fusion of the graph's outputs,
        in the place of the published concatenation), `pre-graph` (the fusion of the contexts, whose result joins the
        graph as one modality more; the classifier reads all nodes), or `early` (the fusion of the features, then one
        context encoder and a graph within one modality). graph : `modal`, as above; `deep`, GCNII per modality;
        `relation`, DialogueGCN's convolutions per modality; `none`, a linear map. anchor : the modality with a context
        encoder; None for the first one, published: text. context : `anchor`, `all` modalities, or `none` of them. base
        : `lstm`, `gru`, `dialogue-rnn`, or `none` for a linear map. base_options : further options of `dialogue-rnn`.
        hidden : width of a direction of the recurrence; nodes have twice that. layers : its depth. input_width : of
        the linear map before a single stream's context encoder; None for twice `hidden`, 0 for none. speaker_weights :
        weight of a recurrence over each speaker's own utterances, see `mm-dfn`; 0 for none. graph_width, depth : width
        and number of the graph's layers. lam, alpha : of GCNII. across : weight of the edges across modalities.
        dynamic : a memory over the depth of GCNII, see `mm-dfn`. residue : classify `[x; h]`, not h alone (`modal` and
        `deep`). window_past, window_future : of the graph `relation`, as in `dialogue-gcn`. speaker_embedding : a
        learnt vector of the speaker is added to the nodes. modal_embedding : one of the modality too. dropout :
        between recurrent layers, in the graph and before the classifier. input_dropout : on the features. fusion_width
        : width of what the fusion returns; None is the summed width late, that of the nodes before the graph, and the
        anchor's if it comes early.
    variant : `default`, which follows the paper, or the form that follows the code.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; streams `context` (what the classifier reads), `fused`, and one per
    modality `(B, T, 2 * hidden + graph_width)`; attention `edges` `(B, M, T, T)`, within the modalities, and
    `edges.across` `(B, M, M, T)`.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_adapters.hosts.official.modal_graph:OfficialMMGCN"}


fusionzoo_register = fusionzoo.plugin(
    MMGCN,
    summary="contexts per modality, then a deep graph convolution over the utterances of all modalities",
    paper="MMGCN, https://aclanthology.org/2021.acl-long.440",
    code="https://github.com/hujingwen6666/MMGCN/tree/85732d984f",
    level="dialogue",
)
