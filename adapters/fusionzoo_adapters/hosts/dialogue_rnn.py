"""DialogueRNN: a global state, a state for every party, and an emotion state."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims
from fusionzoo.host import FusionLike
from fusionzoo.seams import Dialogues
from fusionzoo_adapters.parts.classifier import DialogueAttention, Head
from fusionzoo_adapters.parts.context_host import ContextHost
from fusionzoo_adapters.parts.dialogue_rnn import state_options

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
    1 to 11; code declare-lab/conv-emotion @6128ca2, `DialogueRNN`; yuntaoshou/LMAM @1ac9f43823,
    `baseline/DialogueRNN.py`.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    placement : `late-skip` (a recurrence per modality, a linear map of what it reads added, then the fusion), `late` (without
        the linear map), `early` (the fusion, then one recurrence), `early-residual` (as `early`, plus a linear map of the
        concatenated features), or `parallel` (a recurrence over the concatenated features; beside it the fusion of linear
        maps of the features, added to it).
    hidden : width of the emotion state per direction.
    global_width, party_width : of the other states.
    directions : 2, or 1 for a model that looks at the past alone.
    listener_state : also update the parties that listen.
    context_attention : over the past global states: `simple`, `general`, `general2`, `dot` (equal widths only) or
        `concat`.
    attention_width : hidden width of `concat`.
    attention : matching attention over the emotion states before the classifier.
    head_width : hidden width of the classifier.
    dropout : on the contexts, on what the fusion returns and in the classifier.
    state_dropout : on every state, between the steps.
    input_dropout : on what the recurrence reads.
    speaker_embedding : width of a learnt vector per speaker that the recurrence reads too; True is 16.
    fusion_width : width of what the fusion returns; None is the anchor's if it comes early, the summed width of the
        contexts if late, parallel_width if parallel.
    parallel_width : of the linear maps of `parallel`; None for that of the contexts.
    text_views, views_norm : views that lie side by side in the first modality, see `bc-lstm`.
    variant : `default`, the code's own form, or `lmam`, the form in which LMAM was tried.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; attention `matching` `(B, T, T)`.
    """

    variants: ClassVar[dict[str, str]] = {
        "official": "fusionzoo_adapters.hosts.official.dialogue_rnn:OfficialDialogueRNN",
        "lmam": "fusionzoo_adapters.hosts.official.dialogue_rnn:LMAMDialogueRNN",
    }
    placements: ClassVar[tuple[str, ...]] = (*ContextHost.placements, "parallel")

    without_effect: ClassVar[dict[str, str]] = {
        "attention_width": "of context_attention='concat' alone",
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
        global_width: int = 150,
        party_width: int = 150,
        directions: int = 2,
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
        super().__init__(dims, num_classes, num_speakers, fusion, placement, fusion_width=fusion_width)
        if directions not in DIRECTIONS:
            raise OptionError(f"DialogueRNNHost: directions must be 1 or 2, not {directions!r}")
        states = state_options(self, global_width, party_width, listener_state, context_attention, attention_width)
        self.states = {"options": states, "dropout": check_probability(state_dropout, "state_dropout", self)}
        width = self.build_contexts(
            hidden,
            base="dialogue-rnn",
            dropout=dropout,
            input_dropout=input_dropout,
            speaker_embedding=speaker_embedding,
            text_views=text_views,
            views_norm=views_norm,
            parallel_width=parallel_width,
            directions=directions,
        )
        self.attention = DialogueAttention(width, **self.matching) if attention else None
        self.head = self.make_head(width, check_positive(head_width, "head_width", self), dropout)

    def encoder_options(self, stream: str) -> dict[str, object]:
        return self.states

    def make_head(self, width: int, hidden: int, dropout: float) -> nn.Module:
        """The classifier."""
        return Head(width, hidden, self.num_classes, dropout)

    def run(self, streams: dict[str, Tensor | None], dialogues: Dialogues) -> Tensor:
        x = self.contexts(streams, dialogues)
        return self.head(self.attended(x, self.attention, "matching", dialogues))


fusionzoo_register = fusionzoo.plugin(
    DialogueRNNHost,
    summary="recurrence with a global state, a state per party and an emotion state",
    paper="DialogueRNN: An Attentive RNN for Emotion Detection in Conversations, https://arxiv.org/abs/1811.00405",
    code="https://github.com/declare-lab/conv-emotion/tree/6128ca20e9/DialogueRNN",
    level="dialogue",
)
