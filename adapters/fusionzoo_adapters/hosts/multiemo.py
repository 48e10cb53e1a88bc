"""MultiEMO: DialogueRNN for every modality, then stacks of cross-attention between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion
from fusionzoo.host import FusionLike, Host
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.packing import Packing
from fusionzoo.numerics import zero_padded
from fusionzoo.seams import Dialogues
from fusionzoo_adapters.kernels.length_groups import fuse_in_groups, worth_grouping
from fusionzoo_adapters.parts.classifier import Head
from fusionzoo_adapters.parts.dialogue_rnn import DialogueRNN, dialogue_rnns
from fusionzoo_adapters.parts.published_fusion import is_named, speakers_of, with_options

DIRECTIONS = (1, 2)
FUSION = "multi-attn"
#: Dialogues of similar length that the published fusion takes at a time on a CPU.
GROUP = 4


class UnimodalContext(nn.Module):
    """DialogueRNN over one modality, a linear map where the widths ask for one, dropout and ReLU.

    Parameters
    ----------
    width : of the utterances.
    out : of the result.
    hidden : of the emotion state per direction.
    directions : 2, or 1, forward alone. With two there always is a linear map; with one only where `hidden` is not `out`.
    dropout : after the linear map.
    state_dropout : on every state, between the steps.
    global_width, party_width : of the other states.
    rnn : further options of `DialogueRNN`.
    """

    #: Whether the forward direction reads padding.
    reads_padding: ClassVar[bool] = False

    def __init__(
        self,
        width: int,
        out: int,
        hidden: int,
        *,
        directions: int = 2,
        dropout: float = 0.0,
        state_dropout: float = 0.0,
        global_width: int,
        party_width: int,
        **rnn,
    ):
        super().__init__()
        rnn |= {"directions": directions, "dropout": state_dropout, "reads_padding": self.reads_padding}
        self.rnn = DialogueRNN(width, global_width, party_width, hidden, **rnn)
        mapped = directions == 2 or hidden != out
        self.linear = nn.Linear(directions * hidden, out) if mapped else None
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, packing: Packing, mask: Tensor, speakers: Tensor, parties: int) -> Tensor:
        """`(B, T, out)` from `x (B, T, width)`, mask and speakers `(B, T)`; what it holds at padding is not defined."""
        return contexts([self], [x], packing, mask, speakers, parties)[0]

    def finish(self, states: Tensor) -> Tensor:
        """What follows the recurrence."""
        return F.relu(self.dropout(states if self.linear is None else self.linear(states)))


def contexts(
    encoders: Sequence[UnimodalContext],
    xs: Sequence[Tensor],
    packing: Packing,
    mask: Tensor,
    speakers: Tensor,
    parties: int,
) -> list[Tensor]:
    """Several `UnimodalContext` with all their recurrences in one loop."""
    states = dialogue_rnns([e.rnn for e in encoders], xs, packing, mask, speakers, parties)
    return [e.finish(s) for e, s in zip(encoders, states, strict=True)]


class MultiEMO(Host):
    r"""A DialogueRNN for every modality, multimodal attention, and a two-layer classifier.

    .. math::
        h^m = \operatorname{ReLU}\big(W_m \operatorname{DialogueRNN}_m(P_m x^m) + b_m\big), \qquad
        z = \operatorname{fusion}(h^1, \dots, h^M), \qquad
        y = W_2 \operatorname{ReLU}(W_1 z + b_1) + b_2

    Published with the fusion `multi-attn`, whose output map is the published `fc`, and the objectives `cross-entropy`,
    `swfc` (on the stream `fused`, which is z) and `soft-hgr` (on the streams named like the modalities: what the fusion
    reports for each, or :math:`h^m` where it reports none).

    Source: Shi and Huang, "MultiEMO: An Attention-Based Correlation-Aware Multimodal Fusion Framework for Emotion
    Recognition in Conversations", ACL 2023; code TaoShi1998/MultiEMO-ACL2023@e96458b870,
    `Model/MultiEMO_Model.py`.

    `variant="official"` computes what that code does: `hosts/official/multiemo.py` says what it does differently.

    Parameters
    ----------
    dims, num_classes, num_speakers : as for every host.
    fusion : as for every host; `multi-attn` by name is built at the host's width.
    placement : `late` (a recurrence per modality, then the fusion) or `early` (the fusion of the features, then one
        recurrence).
    width : of the modalities from the first linear map on.
    hidden : of the emotion state per direction; None for `width`.
    global_width, party_width : of the other states; None for `width`.
    directions : 2, as published for IEMOCAP, or 1, forward alone, as for MELD.
    anchor_context : False leaves the first of several modalities without a recurrence, as published for MELD (`late`).
    listener_state, context_attention, attention_width : of the recurrence, see `dialogue-rnn`.
    head_width : hidden width of the classifier; None for `width` (published for MELD: twice that).
    dropout : after the recurrences, in `multi-attn` by name, on what the fusion returns and in the classifier.
    state_dropout : on every state, between the steps.
    input_dropout : on the features.
    speaker_embedding : width of a learnt vector per speaker beside the features; True is 16.
    fusion_width : width of what the fusion returns; None for `width`, or if it comes early the anchor's.
    variant : see above.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; streams `fused` and one per modality, `(B, T, width)`.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_adapters.hosts.official.multiemo:OfficialMultiEMO"}
    placements: ClassVar[tuple[str, ...]] = ("late", "early")
    context: ClassVar[type[UnimodalContext]] = UnimodalContext

    without_effect: ClassVar[dict[str, str]] = {
        "attention_width": "of context_attention='concat' alone",
    }

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = FUSION,
        placement: str | None = None,
        *,
        width: int = 128,
        hidden: int | None = None,
        global_width: int | None = None,
        party_width: int | None = None,
        directions: int = 2,
        anchor_context: bool = True,
        listener_state: bool = False,
        context_attention: str = "simple",
        attention_width: int = 100,
        head_width: int | None = None,
        dropout: float = 0.3,
        state_dropout: float = 0.1,
        input_dropout: float = 0.2,
        speaker_embedding: int | bool = True,
        fusion_width: int | None = None,
        variant: str = "default",
    ):
        dropout = check_probability(dropout, "dropout", self)
        width = check_positive(width, "width", self)
        named = with_options(fusion, FUSION, width=width, dropout=dropout)
        super().__init__(dims, num_classes, num_speakers, named, placement, fusion_width=fusion_width)
        self.width = width
        if directions not in DIRECTIONS:
            raise OptionError(f"MultiEMO: directions must be 1 or 2, not {directions!r}")
        self.input_dropout = Dropout(check_probability(input_dropout, "input_dropout", self))
        self.speaker_embedding = speakers_of(self, speaker_embedding)
        extra = 0 if self.speaker_embedding is None else self.speaker_embedding.embedding_dim
        hidden = check_positive(hidden or width, "hidden", self)
        check_probability(state_dropout, "state_dropout", self)

        def context() -> UnimodalContext:
            return self.context(
                width,
                width,
                hidden,
                directions=directions,
                dropout=dropout,
                global_width=check_positive(global_width or width, "global_width", self),
                party_width=check_positive(party_width or width, "party_width", self),
                listener_state=listener_state,
                context_attention=context_attention,
                attention_width=check_positive(attention_width, "attention_width", self),
                state_dropout=state_dropout,
            )

        widths = self.seam("early", self.dims)
        (joined,) = self.seam("late", dict.fromkeys(widths, width), width).values()
        self.grouped = is_named(self.fusion, FUSION)
        self.projections = nn.ModuleList(nn.Linear(d + extra, width) for d in widths.values())
        bare_anchor = not anchor_context and len(widths) > 1
        self.encoders = nn.ModuleList(
            nn.Identity() if i == 0 and bare_anchor else context() for i in range(len(widths))
        )
        self.dropout = Dropout(dropout)
        head_width = check_positive(head_width or width, "head_width", self)
        self.head = Head(joined, head_width, self.num_classes, dropout)

    def run(self, streams: dict[str, Tensor | None], dialogues: Dialogues) -> Tensor:
        streams = self.fuse_at("early", streams, dialogues)
        contexts = self.contextualize(streams, dialogues)
        (z,) = self.fuse_at("late", contexts, dialogues).values()
        assert z is not None
        if len(contexts) == 1:
            dialogues.show({"context": z, "fused": z})
        else:
            dialogues.show({m: x if x is None else zero_padded(x, dialogues.present[m]) for m, x in contexts.items()})
        return self.classify(z)

    def contextualize(self, streams: Mapping[str, Tensor | None], dialogues: Dialogues) -> dict[str, Tensor | None]:
        """What the encoders make of as many streams, their recurrences in one loop."""
        speakers = torch.where(dialogues.mask, dialogues.speakers, 0)
        xs: list[Tensor | None] = []
        for project, x in zip(self.projections, streams.values(), strict=True):
            if x is not None:
                x = self.input_dropout(x)
                if self.speaker_embedding is not None:
                    x = torch.cat([x, self.speaker_embedding(speakers).to(x.dtype)], -1)
                x = project(x)
            xs.append(x)
        there = [(i, e, x) for i, (e, x) in enumerate(zip(self.encoders, xs, strict=True)) if x is not None]
        recurrent = [(i, e, x) for i, e, x in there if isinstance(e, UnimodalContext)]
        if recurrent:
            places, encoders, read = zip(*recurrent, strict=True)
            done = contexts(encoders, read, dialogues.packing, dialogues.mask, speakers, self.num_speakers)
            for i, x in zip(places, done, strict=True):
                xs[i] = x
        return dict(zip(streams, xs, strict=True))

    def call_fusion(self, fusion: Fusion, streams: list[Tensor | None], dialogues: Dialogues) -> Fused:
        packing = dialogues.packing
        apart = self.grouped and not self.keep_attention and packing.device.type == "cpu"
        if apart and worth_grouping(packing.lengths, packing.steps, GROUP):
            return fuse_in_groups(fusion, streams, dialogues.mask_for(fusion), packing.lengths, GROUP)
        return super().call_fusion(fusion, streams, dialogues)

    def classify(self, z: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.dropout(z))


fusionzoo_register = fusionzoo.plugin(
    MultiEMO,
    summary="DialogueRNN for every modality, then stacks of cross-attention between the modalities",
    paper="MultiEMO: An Attention-Based Correlation-Aware Multimodal Fusion Framework for Emotion Recognition in "
    "Conversations, https://aclanthology.org/2023.acl-long.824",
    code="https://github.com/TaoShi1998/MultiEMO-ACL2023/tree/e96458b870",
    level="dialogue",
)
