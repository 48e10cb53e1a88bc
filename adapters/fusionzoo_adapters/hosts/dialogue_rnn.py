"""DialogueRNN: a global state, a state for every party, and an emotion state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, MaskLike
from fusionzoo.host import FusionLike, HostOutput
from fusionzoo.reference import copy_reference_parts
from fusionzoo_adapters.parts.classifier import DialogueAttention, Head
from fusionzoo_adapters.parts.context_encoder import ContextEncoder
from fusionzoo_adapters.parts.dialogue_rnn import DialogueRNN
from fusionzoo_adapters.parts.frontend import ContextHost
from fusionzoo_adapters.parts.reference import copy_lmam_reference, need_official

if TYPE_CHECKING:
    from fusionzoo.batch import Batch

DIRECTIONS = (1, 2)


class DialogueRNNHost(ContextHost):
    r"""The DialogueRNN recurrence in one or two directions, attention over the dialogue, and a classifier.

    For the utterance :math:`u_t` of speaker s, with the states g (global), q (a party each) and e (emotion):

    .. math::
        g_t &= \operatorname{GRU}_g([u_t; q^s_{t-1}], g_{t-1}), &
        c_t &= \textstyle\sum_{k<t} \alpha_{tk}\, g_k, \\
        q^s_t &= \operatorname{GRU}_p([u_t; c_t], q^s_{t-1}), &
        q^p_t &= q^p_{t-1} \text{ or } \operatorname{GRU}_l([u_t; q^s_t], q^p_{t-1}) \quad (p \ne s), \\
        e_t &= \operatorname{GRU}_e(q^s_t, e_{t-1})

    Source: Majumder et al., "DialogueRNN: An Attentive RNN for Emotion Detection in Conversations", AAAI 2019, equations
    1 to 11; official code declare-lab/conv-emotion @6128ca2, `DialogueRNN`; yuntaoshou/LMAM @1ac9f43823,
    `baseline/DialogueRNN.py`.

    `variant="official"` differs from the default in this: the forward direction reads padding (which changes padded steps
    only); the attention over the dialogue does not scale its scores and replaces the state by what it attended to, where
    the default divides by the root of the width and adds it; the classifier has dropout alone between its layers;
    no speaker embedding and no dropout of inputs; on the emotion states 15 % more than in the classifier.

    `variant="lmam"` is the form in which LMAM was tried: placement `parallel`, one direction, no attention over the
    dialogue, a single linear map as classifier, four batch-normalised text views.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    placement : `late` (a recurrence per modality, then the fusion), `early` (the fusion, then one recurrence),
        `early-residual` (as `early`, plus a linear map of the concatenated features), or `parallel` (a recurrence over the
        concatenated features; beside it the fusion of linear maps of the features, added to it).
    hidden : width of the emotion state a direction. global_width, party_width : of the other states.
    directions : 2, or 1 for a model that looks at the past alone.
    listener_state : also update the parties that listen.
    context_attention : over the past global states: `simple`, `general`, `general2`, `dot` (equal widths only) or
        `concat`, with hidden width attention_width.
    attention : matching attention over the emotion states before the classifier.
    head_width : hidden width of the classifier. dropout : on the contexts, on what the fusion returns and in the
        classifier. state_dropout : on every state, between the steps. input_dropout : on what the recurrence reads.
    speaker_embedding : width of a learnt vector per speaker that the recurrence reads too; True is 16.
    fusion_width : width of what the fusion returns; None is the anchor's if it comes early, the summed width of the
        contexts if late, parallel_width if parallel. parallel_width : of the linear maps of `parallel`.
    text_views, views_norm : views that lie side by side in the first modality, see `bc-lstm`.
    variant : `default`, `official` or `lmam`, see above.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; attention `matching` `(B, T, T)`.
    """

    variants = ("default", "official", "lmam")
    placements: ClassVar[tuple[str, ...]] = ("late", "early", "early-residual", "parallel")

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "concat",
        placement: str | None = None,
        *,
        hidden: int = 100,
        global_width: int = 150,
        party_width: int = 150,
        directions: int | None = None,
        listener_state: bool = False,
        context_attention: str = "general",
        attention_width: int = 100,
        attention: bool = True,
        head_width: int = 100,
        dropout: float = 0.4,
        state_dropout: float = 0.1,
        input_dropout: float = 0.2,
        speaker_embedding: int | bool = True,
        fusion_width: int | None = None,
        parallel_width: int | None = None,
        text_views: int = 1,
        views_norm: str = "layer",
        variant: str = "default",
    ):
        published = check_choice(variant, self.variants, "variant", self) != "default"
        lmam = variant == "lmam"
        check_probability(dropout, "dropout", self)
        both = (1 if lmam else 2) if directions is None else directions
        if both not in DIRECTIONS:
            raise OptionError(f"DialogueRNNHost: directions must be 1 or 2, not {directions!r}")
        if lmam:
            placement, context_attention = placement or "parallel", "simple"
        super().__init__(
            dims,
            num_classes,
            num_speakers,
            fusion,
            placement,
            encoder={
                "base": "dialogue-rnn",
                "dropout": check_probability(state_dropout, "state_dropout", self),
                "bare": published,
                "options": {
                    "global_width": check_positive(global_width, "global_width", self),
                    "party_width": check_positive(party_width, "party_width", self),
                    "listener_state": listener_state,
                    "context_attention": context_attention,
                    "attention_width": check_positive(attention_width, "attention_width", self),
                },
            },
            hidden=hidden,
            input_dropout=0.0 if published else input_dropout,
            speaker_embedding=False if published else speaker_embedding,
            fusion_width=fusion_width,
            # The official model drops 15 % more where the directions meet than in its classifier; LMAM's drops nothing.
            context_dropout=0.0 if lmam else min(1.0, dropout + 0.15) if published else dropout,
            directions=both,
            text_views=text_views,
            views_norm="batch" if lmam else views_norm,
            parallel_width=parallel_width,
            bare_fusion=lmam,
        )
        self.variant = variant
        width = self.context_width
        self.attention: DialogueAttention | None = None
        self.head: nn.Module
        if lmam:
            self.head = nn.Linear(width, self.num_classes)
            return
        if attention:
            self.attention = DialogueAttention(width, published, tanh=False)
        self.head = Head(width, check_positive(head_width, "head_width", self), self.num_classes, dropout)

    def encode(self, features: dict[str, Tensor | None], mask: MaskLike, batch: Batch) -> HostOutput:
        context = self.contextualize(features, mask, batch)
        x, maps = context.x, {}
        if self.attention is not None:
            x, maps["matching"] = self.attention.over(x, batch.mask)
        return self.output(context, self.head(x), maps)

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load an official `BiModel` or, with `variant="lmam"`, LMAM's `DialogueRNN` with its fusion.

        `BiModel` needs `variant="official"` and one recurrence: a single modality or an early placement. The fusion, which
        has no counterpart there, is left as it is. Entries of the attention that `att2=False` leaves unused are ignored
        with `attention=False`.
        """
        if self.variant == "lmam":
            assert isinstance(self.encoders[0], ContextEncoder)
            assert isinstance(self.encoders[0].rnn, DialogueRNN)
            text, *others = self.projections
            parts = {"fc3.": text, **{f"fc{i}.": p for i, p in enumerate(others, 1)}}
            parts |= {"dialogue_cell.": self.encoders[0].rnn.forward_cell, "smax_fc.": self.head}
            if self.mix is not None:
                parts["fc4."] = self.mix
            copy_lmam_reference(self, state_dict, parts, fused=True)
            return
        encoder = need_official(self)
        assert isinstance(self.head, Head)
        parts = {**encoder.reference_parts(), **self.head.reference_parts()}
        if self.attention is not None:
            parts["matchatt."] = self.attention
        copy_reference_parts(parts, state_dict, () if self.attention is not None else ("matchatt.",))


fusionzoo_register = fusionzoo.plugin(
    DialogueRNNHost,
    summary="recurrence with a global state, a state per party and an emotion state",
    paper="DialogueRNN: An Attentive RNN for Emotion Detection in Conversations, https://arxiv.org/abs/1811.00405",
    code="https://github.com/declare-lab/conv-emotion/tree/6128ca20e9/DialogueRNN",
    level="dialogue",
)
