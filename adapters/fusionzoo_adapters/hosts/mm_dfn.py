"""MM-DFN: contexts of dialogue and speaker, a graph over all modalities, and a memory that runs over its depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import fusionzoo
from fusionzoo_adapters.parts.modal_graph_host import ModalGraphHost


class MMDFN(ModalGraphHost):
    r"""Contexts of dialogue and speaker, a dynamic graph convolution over all modalities, fusion, classifier.

    A linear map of the features, for the anchor followed by a bidirectional GRU over the dialogue. To it is added what a
    second GRU, one for all modalities and speakers, makes of the speaker's own utterances, :math:`u^m` mapped alone:

    .. math:: x^m_t = c^m_t + w_m \operatorname{BiGRU}\big((u^m_k)_{s_k = s_t}\big)_t

    The graph is that of `mmgcn`, edges across modalities times :math:`\gamma` (`across`), and one LSTM cell runs over
    the depth of GCNII, every node a sequence of layers:

    .. math::
        g^l, c^l = \operatorname{LSTM}\big(h^{l-1}, (g^{l-1}, c^{l-1})\big), \qquad
        h^l = \operatorname{ReLU}\big(\operatorname{GCNII}_l(\hat A, g^l, h^0)\big) + h^{l-1}

    and :math:`y = W \operatorname{ReLU}(\operatorname{fusion}([x^1; h^{L,1}], \dots)) + b`. Published with `concat`. In
    blocks, as in `mmgcn`.

    Source: Hu et al., "MM-DFN: Multimodal Dynamic Fusion Network for Emotion Recognition in Conversations", ICASSP 2022,
    arXiv 2203.02385; code zerohd4869/MM-DFN@da97036606, `DialogueGNNModel` and `MM_GCN`.

    The published weights of the speakers' recurrence are `speaker_weights=(3, 0, 1)` for audio, visual and text on IEMOCAP
    and (0.5, 0.5, 1.5) on MELD; the default is 1 for all. The code's fusions `mfn`, `tfn_only`, `lmf_only`, `gated` are
    `mfn`, `tfn`, `lmf` and `pairwise-gated` here; `GDF` with an `att_type` other than `mfn` concatenates.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host. speaker_weights : w of the speakers' recurrence, a
        number for all modalities, or one per modality in the order of `dims` (a single stream, as with `early`, takes
        one number); 0 leaves it out. across : :math:`\gamma`. dynamic : the memory over depth; without it GCNII as in
        `mmgcn`. alpha : of GCNII. base : `gru`, or another as in `mmgcn`. speaker_embedding : a learnt vector of the
        speaker is added to the nodes.
    variant : `default`, or the form of the authors' code.

    The rest as for `mmgcn`: placement, graph, anchor, context, base_options, hidden, layers, input_width, graph_width, depth,
    lam, residue, window_past, window_future, modal_embedding, dropout, input_dropout, fusion_width.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; streams and attention as for `mmgcn`.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_adapters.hosts.official.modal_graph:OfficialMMDFN"}
    preset: ClassVar[Mapping[str, object]] = {
        "base": "gru",
        "speaker_weights": 1.0,
        "alpha": 0.2,
        "dynamic": True,
        "speaker_embedding": False,
    }


fusionzoo_register = fusionzoo.plugin(
    MMDFN,
    summary="contexts of dialogue and speaker, then a graph convolution over all modalities with a memory over depth",
    paper="MM-DFN, https://arxiv.org/abs/2203.02385",
    code="https://github.com/zerohd4869/MM-DFN/tree/da97036606",
    level="dialogue",
)
