"""DialogueRNN: a global state, one state per party, and an emotion state.

Source: Majumder et al., "DialogueRNN: An Attentive RNN for Emotion Detection in Conversations", AAAI 2019;
declare-lab/conv-emotion, `DialogueRNN/model.py` and the copy in `DialogueGCN/model.py`. The recurrence, with its equations, is
`fusionzoo_adapters.kernels.dialogue_rnn.steps`, which takes K cells side by side: directions and modalities do not wait for
each other. The official code runs the party cell for every party and discards all but one; here it runs for the speaker
alone, with equal results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo._options import check_choice, check_positive
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.packing import Packing
from fusionzoo.layers import FORMS, MatchingAttention, SimpleAttention
from fusionzoo.numerics import zero_padded
from fusionzoo.reference import copy_reference
from fusionzoo_adapters.kernels.dialogue_rnn import Start as Start
from fusionzoo_adapters.kernels.dialogue_rnn import steps as steps

CONTEXT_ATTENTIONS = ("simple", *FORMS)


class DialogueRNNCell(nn.Module):
    """The weights of one direction of DialogueRNN, under the official parameter names; `run` does the steps.

    Parameters
    ----------
    width : `D_m` of the utterances.
    global_width, party_width, emotion_width : of the three states.
    listener_state : also update the parties that listen.
    context_attention : how the past global states are attended to, one of `CONTEXT_ATTENTIONS`.
    attention_width : hidden width of the attention `concat`.
    tanh : squash the scores of `general2`, as the copy in DialogueGCN does.
    dropout : on every state, between the steps.
    """

    def __init__(
        self,
        width: int,
        global_width: int,
        party_width: int,
        emotion_width: int,
        *,
        listener_state: bool = False,
        context_attention: str = "simple",
        attention_width: int = 100,
        tanh: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_choice(context_attention, CONTEXT_ATTENTIONS, "context_attention", self)
        self.width, self.global_width, self.party_width = width, global_width, party_width
        self.g_cell = nn.GRUCell(width + party_width, global_width)
        self.p_cell = nn.GRUCell(width + global_width, party_width)
        self.e_cell = nn.GRUCell(party_width, emotion_width)
        self.l_cell = nn.GRUCell(width + party_width, party_width) if listener_state else None
        self.attention: SimpleAttention | MatchingAttention
        if context_attention == "simple":
            self.attention = SimpleAttention(global_width)
        else:
            self.attention = MatchingAttention(
                global_width, width, context_attention, attention_width, tanh=tanh and context_attention == "general2"
            )
        self.dropout = Dropout(dropout)

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official weights of a `DialogueRNNCell`."""
        copy_reference(self, state)


def state_options(
    owner: nn.Module,
    global_width: int,
    party_width: int,
    listener_state: bool,
    context_attention: str,
    attention_width: int,
) -> dict[str, Any]:
    """Options of a cell beside its input's and its emotion state's width, checked."""
    return {
        "global_width": check_positive(global_width, "global_width", owner),
        "party_width": check_positive(party_width, "party_width", owner),
        "listener_state": listener_state,
        "context_attention": check_choice(context_attention, CONTEXT_ATTENTIONS, "context_attention", owner),
        "attention_width": check_positive(attention_width, "attention_width", owner),
    }


def run(
    cells: Sequence[DialogueRNNCell],
    xs: Sequence[Tensor],
    speakers: Tensor,
    active: Tensor | None,
    parties: int,
    weights: list[Tensor] | None = None,
    packing: Packing | None = None,
) -> Tensor:
    """Emotion states `(K, B, T, D_e)` of K cells, see `steps`.

    weights : a list to which the attention weights `(K, B, t)` of the steps from the second on are appended.
    packing : None to compute every step of every dialogue.
    """
    B, T = xs[0].shape[:2]
    out = steps(cells, xs, speakers, parties, packing or Packing([T] * B, T, xs[0].device), active)
    if weights is not None:
        weights += [w[:, :, :i] for i, w in enumerate(out.weights.unbind(2)) if i]
    return out.emotion


class DialogueRNN(nn.Module):
    """A forward and, with two directions, a backward `DialogueRNNCell`, emotion states concatenated.

    Parameters are those of `DialogueRNNCell`. `directions` is 2 or 1 (forward alone). With `reads_padding=True` the forward
    direction reads padding as the official code does, which changes the outputs at padded steps only.
    """

    def __init__(
        self,
        width: int,
        global_width: int,
        party_width: int,
        emotion_width: int,
        *,
        reads_padding: bool = False,
        directions: int = 2,
        **cell,
    ):
        super().__init__()
        self.reads_padding = reads_padding
        self.forward_cell = DialogueRNNCell(width, global_width, party_width, emotion_width, **cell)
        self.backward_cell: DialogueRNNCell | None = None
        if directions == 2:
            self.backward_cell = DialogueRNNCell(width, global_width, party_width, emotion_width, **cell)

    def forward(self, x: Tensor, packing: Packing, mask: Tensor, speakers: Tensor, parties: int) -> Tensor:
        """`(B, T, directions D_e)` from utterances `(B, T, D_m)`, mask `(B, T)` and speakers `(B, T)` below `parties`."""
        return dialogue_rnns([self], [x], packing, mask, speakers, parties)[0]


def dialogue_rnns(
    rnns: Sequence[DialogueRNN],
    xs: Sequence[Tensor],
    packing: Packing,
    mask: Tensor,
    speakers: Tensor,
    parties: int,
    weights: list[Tensor] | None = None,
) -> list[Tensor]:
    """Several `DialogueRNN` of equal state widths in one loop: `(B, T, directions D_e)` each.

    `weights` receives the attention weights of the steps from the second on, `(K, B, t)`: first every forward cell,
    then every backward cell.
    """
    cells = [r.forward_cell for r in rnns]
    inputs = [x if r.reads_padding else zero_padded(x, mask) for r, x in zip(rnns, xs, strict=True)]
    who = [speakers] * len(cells)
    backward = [r.backward_cell for r in rnns if r.backward_cell is not None]
    if backward:
        cells += backward
        inputs += [packing.reverse(zero_padded(x, mask)) for x in xs]
        who += [packing.reverse(speakers)] * len(backward)
    reads_padding = any(r.reads_padding for r in rnns)
    computed = Packing([packing.steps] * len(mask), packing.steps, mask.device) if reads_padding else packing
    active = mask.expand(len(cells), *mask.shape) if reads_padding else None
    states = run(cells, inputs, torch.stack(who), active, parties, weights, computed).unbind(0)
    out = []
    for i, rnn in enumerate(rnns):
        ahead = states[i] if rnn.reads_padding else zero_padded(states[i], mask)
        if backward:
            back = zero_padded(packing.reverse(states[len(rnns) + i]), mask)
            ahead = torch.cat([ahead, back], -1)
        out.append(ahead)
    return out
