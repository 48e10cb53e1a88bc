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
cell; the steps themselves are a loop, because they are a recurrence. Directions and modalities do not wait for each
other: `run` takes K cells through one loop, with batched matrix products over their stacked weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    # Under autocast the products come in half precision; the state keeps its own.
    inputs, hidden = inputs.to(state.dtype), hidden.to(state.dtype)
    gates = torch.sigmoid(inputs[..., : 2 * d] + hidden[..., : 2 * d])
    reset, update = gates[..., :d], gates[..., d:]
    candidate = torch.tanh(torch.addcmul(inputs[..., 2 * d :], reset, hidden[..., 2 * d :]))
    return torch.lerp(candidate, state, update)


class DialogueRNNCell(nn.Module):
    """The weights of one direction of DialogueRNN, under the official parameter names; `run` does the steps.

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

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official weights of a `DialogueRNNCell`."""
        copy_reference(self, state)


class _Gates:
    """The K GRU cells of one role: their stacked weights, split into the utterances' share and the rest.

    utterances : `(K, B, T, 3d)`, the utterances' share of the input gates with its bias; None where the utterance is no
        input. other `(K, d', 3d)`, hidden `(K, d, 3d)` and bias `(K, 1, 3d)` act within the steps.
    """

    def __init__(self, cells: Sequence[nn.GRUCell], xs: Sequence[Tensor] | None):
        widths = [0] * len(cells) if xs is None else [x.shape[-1] for x in xs]
        self.other = torch.stack([c.weight_ih[:, w:].t() for c, w in zip(cells, widths, strict=True)])
        self.hidden = torch.stack([c.weight_hh.t() for c in cells])
        self.bias = torch.stack([c.bias_hh for c in cells]).unsqueeze(1)
        self.input_bias = torch.stack([c.bias_ih for c in cells]).unsqueeze(1)
        self.utterances: Tensor | None = None
        if xs is not None:
            shares = [F.linear(x, c.weight_ih[:, : x.shape[-1]], c.bias_ih) for x, c in zip(xs, cells, strict=True)]
            self.utterances = torch.stack(shares)

    def recur(self, state: Tensor) -> Tensor:
        """The state's share of the gates: `(K, n, d)` to `(K, n, 3d)`."""
        return torch.baddbmm(self.bias, state, self.hidden)


class Recurrence:
    """K cells of equal widths side by side, ready to step.

    Parameters
    ----------
    cells : K `DialogueRNNCell` of equal state widths and options; the utterances' widths may differ.
    xs : the utterances of each, `(B, T, D_m)`.
    """

    def __init__(self, cells: Sequence[DialogueRNNCell], xs: Sequence[Tensor]):
        first = cells[0]
        self.dropout = first.dropout
        self.history = _Gates([c.g_cell for c in cells], xs)
        self.party = _Gates([c.p_cell for c in cells], xs)
        self.emotion = _Gates([c.e_cell for c in cells], None)
        listeners = [c.l_cell for c in cells if c.l_cell is not None]
        self.listener = _Gates(listeners, xs) if listeners else None
        self.sizes = (first.global_width, first.party_width, first.e_cell.hidden_size)
        self.attention = first.attention
        self.query: Tensor | None = None
        attentions = [c.attention for c in cells]
        if isinstance(self.attention, MatchingAttention):
            self.query = torch.stack([a.project(x) for a, x in zip(attentions, xs, strict=True)])
            if self.attention.form == "concat":
                memory = [a.transform.weight[:, : a.memory_width].t() for a in attentions]  # type: ignore[union-attr]
                self.key_weight = torch.stack(memory)
                vectors = [a.vector_prod.weight[0] for a in attentions]  # type: ignore[union-attr]
                self.vector = torch.stack(vectors)[:, None, None]
        else:
            self.key_weight = torch.stack([a.scalar.weight[0] for a in attentions]).unsqueeze(-1)  # type: ignore[union-attr]

    def key(self, state: Tensor) -> Tensor | None:
        """What the scores need of the global state `(K, B, D_g)`; None where it is the state itself."""
        if isinstance(self.attention, MatchingAttention) and self.attention.form != "concat":
            return None
        return state @ self.key_weight

    def scores(self, keys: Tensor, step: int) -> Tensor:
        """Scores `(K, B, t)` of the past from `keys (K, B, t, .)` for the utterance of a step."""
        if not isinstance(self.attention, MatchingAttention):
            return keys.squeeze(-1)
        assert self.query is not None
        query = self.query[:, :, step]
        if self.attention.form == "concat":
            return (torch.tanh(keys + query.unsqueeze(2)) * self.vector).sum(-1)
        scores = (keys @ query.unsqueeze(-1)).squeeze(-1)
        return scores.tanh() if self.attention.tanh else scores

    def step(
        self, step: int, speaker: Tensor, active: Tensor, past: Tensor | None, keys: Tensor | None, parties: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """One step of every cell.

        step : its number among the utterances.
        speaker : `(K, B)` long. active : `(K, B)` bool, False where the step is padding and no party speaks.
        past, keys : the global states so far `(K, B, t, D_g)`, None at the first step, and their keys.
        parties : `(K, B, P, D_p)`.
        returns : the new global state `(K, B, D_g)`, the new parties, the input of the emotion cell `(K, B, D_p)`, and
            the attention weights `(K, B, t)`, None at the first step.
        """
        where = speaker[..., None, None].expand(-1, -1, 1, parties.shape[-1])
        selected = parties.gather(2, where).squeeze(2)
        last = selected.new_zeros(*selected.shape[:2], self.sizes[0]) if past is None else past[:, :, -1]
        assert self.history.utterances is not None
        assert self.party.utterances is not None
        gates = torch.baddbmm(self.history.utterances[:, :, step], selected, self.history.other)
        state = self.dropout(_gru(gates, self.history.recur(last), last))

        weights, gates = None, self.party.utterances[:, :, step]
        if past is not None:
            weights = self.scores(past if keys is None else keys, step).softmax(-1)
            context = (weights.unsqueeze(2) @ past).squeeze(2)
            gates = torch.baddbmm(gates, context, self.party.other)
        spoken = self.dropout(_gru(gates, self.party.recur(selected), selected))

        silent = selected
        if self.listener is not None:
            assert self.listener.utterances is not None
            heard = torch.baddbmm(self.listener.utterances[:, :, step], spoken, self.listener.other)
            kept = self.listener.recur(parties.flatten(1, 2)).unflatten(1, parties.shape[1:3])
            parties = self.dropout(_gru(heard.unsqueeze(2), kept, parties))
            silent = parties.gather(2, where).squeeze(2)
        speaks = (torch.arange(parties.shape[2], device=speaker.device) == speaker[..., None]) & active[..., None]
        parties = torch.where(speaks.unsqueeze(-1), spoken.unsqueeze(2), parties)
        return state, parties, torch.where(active[..., None], spoken, silent), weights

    def emotions(self, inputs: Tensor, start: Tensor | None = None) -> Tensor:
        """Emotion states `(K, B, T, D_e)` from the inputs `(K, B, T, D_p)` of all steps and the state before them."""
        flat = inputs.flatten(1, 2)
        gates = torch.baddbmm(self.emotion.input_bias, flat, self.emotion.other).unflatten(1, inputs.shape[1:3])
        state = inputs.new_zeros(*inputs.shape[:2], self.sizes[2]) if start is None else start
        out = []
        for now in gates.unbind(2):
            state = self.dropout(_gru(now, self.emotion.recur(state), state))
            out.append(state)
        return torch.stack(out, 2)


def run(
    cells: Sequence[DialogueRNNCell],
    xs: Sequence[Tensor],
    speakers: Tensor,
    active: Tensor,
    parties: int,
    weights: list[Tensor] | None = None,
) -> Tensor:
    """Emotion states `(K, B, T, D_e)` of K cells.

    Parameters
    ----------
    xs : K tensors `(B, T, D_m)`. speakers : `(K, B, T)` long, below `parties`. active : `(K, B, T)` bool, False at padding.
    weights : a list to which the attention weights `(K, B, t)` of the steps from the second on are appended.
    """
    recurrence = Recurrence(cells, xs)
    states = xs[0].new_zeros(len(cells), len(xs[0]), parties, recurrence.sizes[1])
    past: Tensor | None = None
    keys: Tensor | None = None
    inputs = []
    for i, (who, real) in enumerate(zip(speakers.unbind(2), active.unbind(2), strict=True)):
        state, states, spoken, attention = recurrence.step(i, who, real, past, keys, states)
        key = recurrence.key(state)
        state = state.unsqueeze(2)
        past = state if past is None else torch.cat([past, state], 2)
        if key is not None:
            key = key.unsqueeze(2)
            keys = key if keys is None else torch.cat([keys, key], 2)
        inputs.append(spoken)
        if weights is not None and attention is not None:
            weights.append(attention)
    return recurrence.emotions(torch.stack(inputs, 2))


class DialogueRNN(nn.Module):
    """A forward and, with two directions, a backward `DialogueRNNCell`, emotion states concatenated.

    Parameters are those of `DialogueRNNCell`. `directions` is 2 or 1 (forward alone). With `bare=True` the forward
    direction reads padding as the official code does, which changes the outputs at padded steps only.
    """

    def __init__(
        self,
        width: int,
        global_width: int,
        party_width: int,
        emotion_width: int,
        *,
        bare: bool = False,
        directions: int = 2,
        **cell,
    ):
        super().__init__()
        self.bare = bare
        self.forward_cell = DialogueRNNCell(width, global_width, party_width, emotion_width, **cell)
        self.backward_cell: DialogueRNNCell | None = None
        if directions == 2:
            self.backward_cell = DialogueRNNCell(width, global_width, party_width, emotion_width, **cell)

    def forward(self, x: Tensor, layout: Layout, mask: Tensor, speakers: Tensor, parties: int) -> Tensor:
        """`(B, T, directions D_e)` from utterances `(B, T, D_m)`, mask `(B, T)` and speakers `(B, T)` below `parties`."""
        return dialogue_rnns([self], [x], layout, mask, speakers, parties)[0]


def dialogue_rnns(
    rnns: Sequence[DialogueRNN],
    xs: Sequence[Tensor],
    layout: Layout,
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
    inputs = [x if r.bare else zero_padded(x, mask) for r, x in zip(rnns, xs, strict=True)]
    who = [speakers] * len(cells)
    backward = [r.backward_cell for r in rnns if r.backward_cell is not None]
    if backward:
        cells += backward
        inputs += [layout.reverse(zero_padded(x, mask)) for x in xs]
        who += [layout.reverse(speakers)] * len(backward)
    states = run(cells, inputs, torch.stack(who), mask.expand(len(cells), *mask.shape), parties, weights).unbind(0)
    out = []
    for i, rnn in enumerate(rnns):
        ahead = states[i] if rnn.bare else zero_padded(states[i], mask)
        if backward:
            back = zero_padded(layout.reverse(states[len(rnns) + i]), mask)
            ahead = torch.cat([ahead, back], -1)
        out.append(ahead)
    return out
