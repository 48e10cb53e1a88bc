"""bc-LSTM: bidirectional contextual LSTM over the utterances of a dialogue."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.fusion import Dims
from fusionzoo.host import FusionLike
from fusionzoo.seams import Dialogues
from fusionzoo_adapters.parts.classifier import DialogueAttention, Head
from fusionzoo_adapters.parts.context_host import ContextHost


class BcLSTM(ContextHost):
    r"""Bidirectional contextual LSTM, a fusion before or after it, and a two-layer classifier.

    .. math::
        h = \operatorname{BiLSTM}(u_1, \dots, u_T), \qquad
        y_t = W_2 \operatorname{ReLU}(W_1 \tilde h_t + b_1) + b_2

    with :math:`\tilde h = h`, or with `attention=True` :math:`h` plus its matching attention over the dialogue.

    Source: Poria et al., "Context-Dependent Sentiment Analysis in User-Generated Videos", ACL 2017; code
    declare-lab/conv-emotion @6128ca2, `bc-LSTM-pytorch`; yuntaoshou/LMAM @1ac9f43823, `baseline/LSTM.py`.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    placement : `late-skip` (an LSTM per modality, a linear map of what it reads added, then the fusion), `late` (without the
        linear map), `early` (the fusion, then one LSTM), or `early-residual` (as `early`, plus a linear map of the
        concatenated features).
    hidden : LSTM width per direction.
    layers : its depth.
    head_width : hidden width of the classifier.
    dropout : between LSTM layers, on the contexts, on what the fusion returns and in the classifier.
    input_dropout : on what the LSTM reads.
    attention : matching self attention (`general2`) over the contexts.
    speaker_embedding : width of a learnt vector per speaker that the LSTM reads too; True is 16, False none.
    fusion_width : width of what the fusion returns; None is the anchor's if it comes early, the
        summed width of the contexts if late.
    text_views : how many views lie side by side in the first modality (4 of RoBERTa's layers, in COSMIC's features); they
        are normalised and averaged.
    views_norm : `layer`, `batch` or `none`.
    variant : `default`, the code's own form, or `lmam`, the form in which LMAM was tried.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`. Padding is never read.
    """

    variants: ClassVar[dict[str, str]] = {
        "official": "fusionzoo_adapters.hosts.official.bc_lstm:OfficialBcLSTM",
        "lmam": "fusionzoo_adapters.hosts.official.bc_lstm:LMAMBcLSTM",
    }

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "concat",
        placement: str | None = None,
        *,
        hidden: int = 100,
        layers: int = 1,
        head_width: int = 100,
        dropout: float = 0.4,
        input_dropout: float = 0.2,
        attention: bool = False,
        speaker_embedding: int | bool = True,
        fusion_width: int | None = None,
        text_views: int = 1,
        views_norm: str = "layer",
        variant: str = "default",
    ):
        super().__init__(dims, num_classes, num_speakers, fusion, placement, fusion_width=fusion_width)
        width = self.build_contexts(
            hidden,
            layers=check_positive(layers, "layers", self),
            dropout=dropout,
            input_dropout=input_dropout,
            speaker_embedding=speaker_embedding,
            text_views=text_views,
            views_norm=views_norm,
        )
        self.attention = DialogueAttention(width, **self.matching) if attention else None
        self.head = self.make_head(width, check_positive(head_width, "head_width", self), dropout)

    def make_head(self, width: int, hidden: int, dropout: float) -> Head:
        """The classifier."""
        return Head(width, hidden, self.num_classes, dropout)

    def run(self, streams: dict[str, Tensor | None], dialogues: Dialogues) -> Tensor:
        x = self.contexts(streams, dialogues)
        return self.classify(self.attended(x, self.attention, "matching", dialogues))

    def classify(self, x: Tensor) -> Tensor:
        """Logits from contexts."""
        return self.head(x)


fusionzoo_register = fusionzoo.plugin(
    BcLSTM,
    summary="bidirectional contextual LSTM over the dialogue, one per modality or one after the fusion",
    paper="Context-Dependent Sentiment Analysis in User-Generated Videos, https://aclanthology.org/P17-1081",
    code="https://github.com/declare-lab/conv-emotion/tree/6128ca20e9/bc-LSTM-pytorch",
    level="dialogue",
)
