"""bc-LSTM: bidirectional contextual LSTM over the utterances of a dialogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.fusion import Dims, MaskLike, read_dims
from fusionzoo.host import FusionLike, HostOutput
from fusionzoo.reference import copy_reference_parts
from fusionzoo_adapters.parts.classifier import DialogueAttention, Head
from fusionzoo_adapters.parts.frontend import ContextHost
from fusionzoo_adapters.parts.reference import copy_lmam_reference, need_official

if TYPE_CHECKING:
    from fusionzoo.batch import Batch


class BcLSTM(ContextHost):
    r"""Bidirectional contextual LSTM, a fusion before or after it, and a two-layer classifier.

    .. math::
        h = \operatorname{BiLSTM}(u_1, \dots, u_T), \qquad
        y_t = W_2 \operatorname{ReLU}(W_1 \tilde h_t + b_1) + b_2

    with :math:`\tilde h = h`, or with `attention=True` :math:`h` plus its matching attention over the dialogue.

    Source: Poria et al., "Context-Dependent Sentiment Analysis in User-Generated Videos", ACL 2017; official code
    declare-lab/conv-emotion @6128ca2, `bc-LSTM-pytorch`; yuntaoshou/LMAM @1ac9f43823, `baseline/LSTM.py`.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    placement : `late` (an LSTM per modality, then the fusion), `early` (the fusion, then one LSTM), or `early-residual`
        (as `early`, plus a linear map of the concatenated features).
    hidden, layers : LSTM width a direction, and depth: None is 1, with `official` 2.
    head_width : hidden width of the classifier.
    dropout : between LSTM layers, on the contexts, on what the fusion returns and in the classifier; officially only
        between layers and in the classifier. input_dropout : on what the LSTM reads.
    attention : matching self attention (`general2`) over the contexts.
    speaker_embedding : width of a learnt vector per speaker that the LSTM reads too; True is 16, False none.
    fusion_width : width of what the fusion returns; None is the anchor's if it comes early, the
        summed width of the contexts if late.
    variant : `default`, or `official`, which runs the LSTM over padding, so that the backward direction starts on it,
        squashes the scores of its attention with tanh (no weight can then be 7.4 times another), puts the attended context
        in the utterance's place instead of adding it, and has no speaker embedding; or `lmam`, the form in which LMAM was
        tried: 4 layers of 256 over padding for the first modality, linear maps for the others (`early`: one LSTM over
        the concatenation), GELU in the classifier, no other dropout, no speakers. Published with the fusion `lmam`
        (`variant="official"`) late and `concat` early.
    text_views : how many views lie side by side in the first modality (4 of RoBERTa's layers, in COSMIC's features); they
        are normalised and averaged. views_norm : `layer`, `batch` or `none`; with `lmam` always `batch`.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`. Padding is never read, except with `official`.
    """

    variants = ("default", "official", "lmam")
    placements: ClassVar[tuple[str, ...]] = ("late", "early", "early-residual")

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "concat",
        placement: str | None = None,
        *,
        hidden: int | None = None,
        layers: int | None = None,
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
        published = check_choice(variant, self.variants, "variant", self) != "default"
        lmam = variant == "lmam"
        check_probability(dropout, "dropout", self)
        if lmam and placement == "early" and fusion_width is None:
            # The published form concatenates without a linear map.
            first, *rest = read_dims(dims, self).values()
            fusion_width = first // check_positive(text_views, "text_views", self) + sum(rest)
        super().__init__(
            dims,
            num_classes,
            num_speakers,
            fusion,
            placement,
            encoder={
                "layers": check_positive(layers or {"official": 2, "lmam": 4}.get(variant, 1), "layers", self),
                "dropout": dropout,
                "bare": published,
            },
            hidden=hidden or (256 if lmam else 100),
            input_dropout=0.0 if lmam else input_dropout,
            speaker_embedding=False if published else speaker_embedding,
            fusion_width=fusion_width,
            # The official hosts drop nothing between the context encoder and the classifier.
            context_dropout=0.0 if published else dropout,
            anchor_only=lmam,
            text_views=text_views,
            views_norm="batch" if lmam else views_norm,
            bare_fusion=lmam,
        )
        self.variant = variant
        width = self.context_width
        self.attention = DialogueAttention(width, published) if attention else None
        head_width = check_positive(head_width, "head_width", self)
        self.head = (
            Head(width, head_width, self.num_classes, activation="gelu")
            if lmam
            else Head(width, head_width, self.num_classes, dropout)
        )

    def encode(self, features: dict[str, Tensor | None], mask: MaskLike, batch: Batch) -> HostOutput:
        context = self.contextualize(features, mask, batch)
        x, maps = context.x, {}
        if self.attention is not None:
            x, maps["matching"] = self.attention.over(x, batch.mask)
        if self.variant == "lmam" and self.placement != "late":
            x = F.gelu(x)
        return self.output(context, self.head(x), maps)

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load an official `LSTMModel`: the context LSTM, the matching attention and the classifier.

        Needs `variant="official"` and one context encoder: a single modality or an early placement. The fusion, which
        has no counterpart there, is left as it is. With `variant="lmam"`, LMAM's `LSTMModel`: three modalities (text,
        audio, visual) late with the fusion `lmam` (`variant="official"`), whose weights are loaded too, or early.
        """
        if self.variant == "lmam":
            copy_lmam_reference(self, state_dict, self._lmam_parts(), self.placement == "late")
            return
        encoder = need_official(self)
        parts = {**encoder.reference_parts(), **self.head.reference_parts()}
        if self.attention is not None:
            parts["matchatt."] = self.attention
        copy_reference_parts(parts, state_dict)

    def _lmam_parts(self) -> dict[str, nn.Module]:
        names = ("lstm2.", "fc1.", "fc2.") if self.placement == "late" else ("lstm.",)
        encoders = {n: e.rnn for n, e in zip(names, self.encoders, strict=False)}
        return {**encoders, **self.head.reference_parts()}  # type: ignore[dict-item]


fusionzoo_register = fusionzoo.plugin(
    BcLSTM,
    summary="bidirectional contextual LSTM over the dialogue, one per modality or one after the fusion",
    paper="Context-Dependent Sentiment Analysis in User-Generated Videos, https://aclanthology.org/P17-1081",
    code="https://github.com/declare-lab/conv-emotion/tree/6128ca20e9/bc-LSTM-pytorch",
    level="dialogue",
)
