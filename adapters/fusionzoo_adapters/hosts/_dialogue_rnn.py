"""The DialogueRNN recurrence: a global state, one state a party, and an emotion state.

Source: Majumder et al., "DialogueRNN: An Attentive RNN for Emotion Detection in Conversations", AAAI 2019;
declare-lab/conv-emotion, `DialogueRNN/model.py` and the copy in `DialogueGCN/model.py`. For the utterance `u_t` of
speaker `s`:

    g_t  = GRU_g([u_t ; q_{t-1}^s], g_{t-1})
    c_t  = attention over g_1 .. g_{t-1}, zero at the first step
    q_t^s = GRU_p([u_t ; c_t], q_{t-1}^s)
    q_t^p = q_{t-1}^p, or GRU_l([u_t ; q_t^s], q_{t-1}^p) with listener states, for the others
    e_t  = GRU_e(q_t^s, e_{t-1})

The official code runs the party cell for every party and discards all but one; here it runs for the speaker alone, with
equal results. What depends on the utterances only is computed for all steps at once, and so is the input of the emotion
cell; the steps themselves are a loop, because they are a recurrence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.errors import OptionError, close_matches_hint
from fusionzoo.layers import FORMS, MatchingAttention, SimpleAttention, copy_reference
from fusionzoo.numerics import zero_padded
from fusionzoo_adapters.hosts._layout import Layout

CONTEXT_ATTENTIONS = ("simple", *FORMS)


def _gru(inputs: Tensor, hidden: Tensor, state: Tensor) -> Tensor:
    """A GRU step from the two halves of its gates, `(..., 3d)` each with its bias, and the state `(..., d)`."""
    d = state.shape[-1]
    gates = torch.sigmoid(inputs[..., : 2 * d] + hidden[..., : 2 * d])
    reset, update = gates[..., :d], gates[..., d:]
    candidate = torch.tanh(torch.addcmul(inputs[..., 2 * d :], reset, hidden[..., 2 * d :]))
    return torch.lerp(candidate, state, update)


@dataclass
class Projected:
    """What the steps need of the utterances, and the weights they share.

    history, party, listener : the utterances' share of the three cells' gates, `(B, T, 3 .)` with biases; listener is
        None without listener states.
    query : `(B, T, .)` for the context attention.
    weights : what the history, party and listener cells do with their other input.
    """

    history: Tensor
    party: Tensor
    listener: Tensor | None
    query: Tensor
    weights: tuple[Tensor, Tensor, Tensor | None]

    def steps(self) -> Iterator[Projected]:
        """The same for each step, `(B, .)` each."""
        listener = [None] * self.query.shape[1] if self.listener is None else self.listener.unbind(1)
        for now in zip(self.history.unbind(1), self.party.unbind(1), listener, self.query.unbind(1), strict=True):
            yield Projected(*now, self.weights)


class DialogueRNNCell(nn.Module):
    """One step of DialogueRNN, under the official parameter names.

    Parameters
    ----------
    width : `D_m` of the utterances. global_width, party_width, emotion_width : of the three states.
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
        if context_attention not in CONTEXT_ATTENTIONS:
            hint = close_matches_hint(str(context_attention), CONTEXT_ATTENTIONS)
            raise OptionError(
                f"context_attention={context_attention!r} is not one of {', '.join(CONTEXT_ATTENTIONS)}{hint}"
            )
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
        self.dropout = nn.Dropout(dropout)

    def project(self, x: Tensor) -> Projected:
        """Everything that depends on the utterances `x (B, T, D_m)` alone."""

        # The weights are split once, not in every step, whose backward would fill a zero matrix each.
        def split(cell: nn.GRUCell) -> tuple[Tensor, Tensor]:
            weight = cell.weight_ih
            return F.linear(x, weight[:, : self.width], cell.bias_ih), weight[:, self.width :]

        history, of_party = split(self.g_cell)
        party, of_context = split(self.p_cell)
        listener, of_speaker = (None, None) if self.l_cell is None else split(self.l_cell)
        query = self.attention.project(x)
        return Projected(history, party, listener, query, (of_party, of_context, of_speaker))

    def step(
        self, now: Projected, speaker: Tensor, active: Tensor, past: Tensor, keys: Tensor, parties: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """One step.

        now : `Projected` of one step, `(B, .)` each.
        speaker : `(B,)` long. active : `(B,)` bool, False where the step is padding and no party speaks.
        past, keys : global states so far `(B, t, D_g)` and `attention.key` of them. parties : `(B, P, D_p)`.
        returns : the new global state, the new parties, the input of the emotion cell `(B, D_p)`, and the attention
            weights `(B, t)`, None at the first step.
        """
        selected = parties.gather(1, speaker[:, None, None].expand(-1, 1, self.party_width)).squeeze(1)
        first = past.shape[1] == 0
        last = past.new_zeros(past.shape[0], self.global_width) if first else past[:, -1]
        state = _gru(
            now.history + F.linear(selected, now.weights[0]),
            F.linear(last, self.g_cell.weight_hh, self.g_cell.bias_hh),
            last,
        )
        state = self.dropout(state)

        weights, inputs = None, now.party
        if not first:
            weights = self.attention.score(keys, now.query.unsqueeze(1)).softmax(-1)
            context = (weights @ past).squeeze(1)
            inputs = inputs + F.linear(context, now.weights[1])
            weights = weights.squeeze(1)
        spoken = _gru(inputs, F.linear(selected, self.p_cell.weight_hh, self.p_cell.bias_hh), selected)
        spoken = self.dropout(spoken)

        silent = selected
        if self.l_cell is not None and now.listener is not None and now.weights[2] is not None:
            heard = now.listener + F.linear(spoken, now.weights[2])
            kept = F.linear(parties, self.l_cell.weight_hh, self.l_cell.bias_hh)
            parties = _gru(heard.unsqueeze(1), kept, parties)
            parties = self.dropout(parties)
            silent = parties.gather(1, speaker[:, None, None].expand(-1, 1, self.party_width)).squeeze(1)
        speaks = (torch.arange(parties.shape[1], device=speaker.device) == speaker[:, None]) & active[:, None]
        parties = torch.where(speaks.unsqueeze(-1), spoken.unsqueeze(1), parties)
        return state, parties, torch.where(active[:, None], spoken, silent), weights

    def emotions(self, inputs: Tensor, start: Tensor | None = None) -> Tensor:
        """Emotion states `(B, T, D_e)` from the inputs `(B, T, D_p)` of all steps and the state before them."""
        gates = F.linear(inputs, self.e_cell.weight_ih, self.e_cell.bias_ih)
        state = inputs.new_zeros(inputs.shape[0], self.e_cell.hidden_size) if start is None else start
        out = []
        for now in gates.unbind(1):
            state = self.dropout(_gru(now, F.linear(state, self.e_cell.weight_hh, self.e_cell.bias_hh), state))
            out.append(state)
        return torch.stack(out, 1)

    def forward(
        self, x: Tensor, speaker: Tensor, active: Tensor, parties: int, weights: list[Tensor] | None = None
    ) -> Tensor:
        """Emotion states `(B, T, D_e)`.

        Parameters
        ----------
        x : `(B, T, D_m)`. speaker : `(B, T)` long, below `parties`. active : `(B, T)` bool, False at padding.
        weights : a list to which the attention weights `(B, t)` of the steps from the second on are appended.
        """
        states = x.new_zeros(x.shape[0], parties, self.party_width)
        past = x.new_zeros(x.shape[0], 0, self.global_width)
        keys = self.attention.key(past)
        inputs = []
        for now, who, real in zip(self.project(x).steps(), speaker.unbind(1), active.unbind(1), strict=True):
            state, states, spoken, attention = self.step(now, who, real, past, keys, states)
            state = state.unsqueeze(1)
            # Where the key of a state is the state itself, one list serves for both.
            same = keys is past
            past = torch.cat([past, state], 1)
            keys = past if same else torch.cat([keys, self.attention.key(state)], 1)
            inputs.append(spoken)
            if weights is not None and attention is not None:
                weights.append(attention)
        return self.emotions(torch.stack(inputs, 1))

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official weights of a `DialogueRNNCell`."""
        copy_reference(self, state)


class DialogueRNN(nn.Module):
    """A forward and a backward `DialogueRNNCell`, emotion states concatenated: `(B, T, 2 * emotion_width)`.

    Parameters are those of `DialogueRNNCell`. With `bare=True` the forward direction reads padding as the official code
    does, which changes the outputs at padded steps only.
    """

    def __init__(
        self, width: int, global_width: int, party_width: int, emotion_width: int, *, bare: bool = False, **cell
    ):
        super().__init__()
        self.bare = bare
        self.forward_cell = DialogueRNNCell(width, global_width, party_width, emotion_width, **cell)
        self.backward_cell = DialogueRNNCell(width, global_width, party_width, emotion_width, **cell)

    def forward(self, x: Tensor, layout: Layout, mask: Tensor, speakers: Tensor, parties: int) -> Tensor:
        """`(B, T, 2 D_e)` from utterances `(B, T, D_m)`, mask `(B, T)` and speakers `(B, T)` below `parties`."""
        ahead = self.forward_cell(x if self.bare else zero_padded(x, mask), speakers, mask, parties)
        mirrored = layout.reverse(zero_padded(x, mask))
        back = self.backward_cell(mirrored, layout.reverse(speakers), mask, parties)
        back = zero_padded(layout.reverse(back), mask)
        return torch.cat([ahead if self.bare else zero_padded(ahead, mask), back], -1)
