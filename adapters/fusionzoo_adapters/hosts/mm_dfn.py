"""MM-DFN: contexts of dialogue and speaker, a graph over all modalities, and a memory that runs over its depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import fusionzoo
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims
from fusionzoo.host import FusionLike
from fusionzoo_adapters.parts.modality_graph import ModalGraphHost


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
    arXiv 2203.02385; official code zerohd4869/MM-DFN@da97036606, `DialogueGNNModel` and `MM_GCN`.

    `variant="official"` differs from the default in this:

    - all recurrences read padding: the speakers' one the zeros up to the padded length, which follow each speaker's
      utterances, so that what comes out depends on the longest dialogue of the batch;
    - two recurrent layers (by default one), 16 layers of the graph (by default 4), no dropout of inputs;
    - the speakers' embedding, which is off unless asked for, is added to the text's nodes alone.

    The official weights of the speakers' recurrence are `speaker_weights=(3, 0, 1)` for audio, visual and text on IEMOCAP
    and (0.5, 0.5, 1.5) on MELD; the default is 1 for all. Its graph type `GF` builds this graph without memory and then
    overwrites it with one that fails: `dynamic=False` here. Its fusions `mfn`, `tfn_only`, `lmf_only`, `gated` are `mfn`,
    `tfn`, `lmf` and `pairwise-gated` here; `GDF` with an `att_type` other than `mfn` concatenates.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    speaker_weights : w of the speakers' recurrence, a number for all modalities, or one per modality in the order of `dims`
        (a single stream, as with `early`, takes one number); 0 leaves it out.
    across : :math:`\gamma`. dynamic : the memory over depth; without it GCNII as in `mmgcn`.
    alpha : of GCNII, published 0.2. depth : None is 4, officially 16. base : `gru` by default.
    The rest as for `mmgcn`: placement, graph, anchor, context, base_options, hidden, layers, input_width, graph_width, lam,
    residue, window_past, window_future, max_seq_len, nodal_attention, speaker_embedding, modal_embedding, dropout,
    input_dropout, fusion_width, variant.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; streams and attention as for `mmgcn`.
    """

    recurrence = "gru"

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
        speaker_weights: float | Sequence[float] = 1.0,
        graph_width: int = 100,
        depth: int | None = None,
        lam: float = 0.5,
        alpha: float = 0.2,
        across: float = 1.0,
        dynamic: bool = True,
        residue: bool = True,
        window_past: int | None = 10,
        window_future: int | None = 10,
        max_seq_len: int = 110,
        nodal_attention: bool = True,
        speaker_embedding: bool = False,
        modal_embedding: bool = False,
        dropout: float = 0.4,
        input_dropout: float = 0.2,
        fusion_width: int | None = None,
        variant: str = "default",
    ):
        if isinstance(speaker_weights, str):
            raise OptionError(
                f"MMDFN: speaker_weights must be a number, or one per modality, not {speaker_weights!r}; the official "
                "'3-0-1' is (3, 0, 1) for modalities in the order audio, visual, text"
            )
        single = placement == "early" or len(dims) == 1
        if isinstance(speaker_weights, (int, float)):
            speaker_weights = [speaker_weights] * (1 if single else len(dims))
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
                "layers": (16 if variant == "official" else 4) if depth is None else depth,
                "lam": lam,
                "alpha": alpha,
                "residue": residue,
                "dynamic": dynamic,
            },
            across=across,
            window_past=window_past,
            window_future=window_future,
            nodal_attention=nodal_attention,
            max_seq_len=max_seq_len,
            speaker_embedding=speaker_embedding,
            modal_embedding=modal_embedding,
            party_weights=speaker_weights,
            dropout=dropout,
            input_dropout=input_dropout,
            fusion_width=fusion_width,
            variant=variant,
        )


fusionzoo_register = fusionzoo.plugin(
    MMDFN,
    summary="contexts of dialogue and speaker, then a graph convolution over all modalities with a memory over depth",
    paper="MM-DFN, https://arxiv.org/abs/2203.02385",
    code="https://github.com/zerohd4869/MM-DFN/tree/da97036606",
    level="dialogue",
)
