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
cell; the steps themselves are a loop, because they are a recurrence (`_recurrence`). Directions and modalities do not
wait for each other: `steps` takes K cells through one loop, with batched matrix products over their stacked weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError, close_matches_hint
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.packing import Layout
from fusionzoo.layers import FORMS, MatchingAttention, SimpleAttention
from fusionzoo.numerics import zero_padded
from fusionzoo.reference import copy_reference
from fusionzoo_adapters.kernels.dialogue_rnn import GRU, Packing, Plan, States, no_autocast

CONTEXT_ATTENTIONS = ("simple", *FORMS)


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
        "context_attention": context_attention,
        "attention_width": check_positive(attention_width, "attention_width", owner),
    }


def _gates(
    cells: Sequence[nn.GRUCell], xs: Sequence[Tensor] | None = None
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """K GRU cells of one role: the utterances' share of their gates, and the stacked weights of the rest.

    xs : the utterances `(N, D_m)` of each cell, None where the utterance is no input.
    returns : `(K, N, 3d)` with the bias, and the weights `(K, 3d, d')` of the other input, `(K, 3d, d)` of the state and
        the bias `(K, 3d)` of the state's share.
    """
    shares, widths = None, [0] * len(cells)
    if xs is not None:
        widths = [x.shape[-1] for x in xs]
        shares = [F.linear(x, c.weight_ih[:, :w], c.bias_ih) for x, w, c in zip(xs, widths, cells, strict=True)]
        shares = torch.stack(shares).to(cells[0].weight_hh.dtype)
    other = torch.stack([c.weight_ih[:, w:] for w, c in zip(widths, cells, strict=True)])
    return shares, other, torch.stack([c.weight_hh for c in cells]), torch.stack([c.bias_hh for c in cells])


def _attention(cells: Sequence[DialogueRNNCell], xs: Sequence[Tensor]) -> tuple[str, list[Tensor | None]]:
    """The form of the attention and its query, key weight and vector; see `_recurrence.Attention`.

    xs : the utterances `(B, T, D_m)` of each cell.
    """
    modules = [c.attention for c in cells]
    if isinstance(modules[0], SimpleAttention):
        return "key", [None, torch.stack([a.scalar.weight for a in modules]), None]  # type: ignore[union-attr]
    query = torch.stack([a.project(x) for a, x in zip(modules, xs, strict=True)], 1)  # type: ignore[operator]
    query = query.to(cells[0].g_cell.weight_hh.dtype)
    if modules[0].form != "concat":
        return "tanh" if modules[0].tanh else "product", [query, None, None]
    memory = [a.transform.weight[:, : a.memory_width] for a in modules]  # type: ignore[union-attr, index]
    vector = [a.vector_prod.weight[0] for a in modules]  # type: ignore[union-attr, index]
    return "concat", [query, torch.stack(memory), torch.stack(vector)]


def _keep(dropout: nn.Dropout, like: Tensor, *shape: int) -> Tensor | None:
    """Factors of dropout for all steps at once, None where nothing is dropped."""
    return dropout(like.new_ones(shape)) if dropout.training and dropout.p else None


def _plan(packing: Packing, speakers: Tensor, active: Tensor | None, parties: int, listener: bool, form: str) -> Plan:
    """Where in the table of `States` each speaker stands before and after each of its turns."""
    K, B, T = speakers.shape
    device, rows = speakers.device, packing.rows
    party = torch.arange(parties, device=device)
    # The tables of the cells lie behind each other.
    table = B * parties + packing.size * (parties if listener else 1)
    base = torch.arange(K, device=device)[:, None, None] * table
    first = base + packing.ranks[:, None] * parties
    if listener:
        # All parties of a dialogue in P rows: those of the step before, and those of the step.
        here = base + (B + rows) * parties
        before = torch.cat([first, here[:, :, :-1]], 2) + speakers
        after, end = here + speakers, here[:, :, -1:] + party
    else:
        # The row of the speaker's last turn.
        speaks = speakers.unsqueeze(-1) == party
        if active is not None:
            speaks = speaks & active.unsqueeze(-1)
        last = torch.where(speaks, torch.arange(T, device=device)[:, None], -1).cummax(2).values
        turns = (
            base.unsqueeze(-1)
            + B * parties
            + rows.expand(K, B, T).gather(2, last.clamp(min=0).flatten(2)).view_as(last)
        )
        stands = torch.where(last < 0, (first + party).unsqueeze(2), turns)
        stands = torch.cat([(first + party).expand(K, B, parties).unsqueeze(2), stands], 2)
        before = stands[:, :, :-1].gather(3, speakers.unsqueeze(-1)).squeeze(-1)
        after = stands[:, :, 1:].gather(3, speakers.unsqueeze(-1)).squeeze(-1)
        end = stands[:, :, -1]

    def pack(x: Tensor) -> Tensor:
        return x.flatten(1).index_select(1, packing.flat)

    real = None if active is None else pack(active)
    return Plan(packing, form, parties, pack(before), pack(after), end, real)


@dataclass
class Start:
    """States before the first step: history `(K, B, H, D_g)`, parties `(K, B, P, D_p)` and emotion `(K, B, D_e)`."""

    history: Tensor
    parties: Tensor
    emotion: Tensor


@dataclass
class Steps:
    """What the recurrence computes for every step.

    emotion : `(K, B, T, D_e)`. state : the global state `(K, B, T, D_g)`. parties : the parties after the last step
        `(K, B, P, D_p)`, None unless asked for. weights : of the attention over the states so far, `(K, B, T, H + T - 1)`.
    """

    emotion: Tensor
    state: Tensor
    parties: Tensor | None
    weights: Tensor


def steps(
    cells: Sequence[DialogueRNNCell],
    xs: Sequence[Tensor],
    speakers: Tensor,
    parties: int,
    packing: Packing,
    active: Tensor | None = None,
    start: Start | None = None,
) -> Steps:
    """K cells of equal state widths and options side by side; the utterances' widths may differ.

    Parameters
    ----------
    xs : K tensors `(B, T, D_m)`. speakers : `(K, B, T)` long, below `parties`.
    packing : which steps of which dialogue to compute; what is returned is zero at the others.
    active : `(K, B, T)` bool, False where a computed step is padding and nobody speaks; None if there is none.
    start : states before the first step, zeros by default; with it the parties after the last one are returned.
    """
    first, K, B = cells[0], len(cells), len(xs[0])
    packed = [packing.pack(x) for x in xs]
    ordered = [x.index_select(0, packing.order)[:, : len(packing.sizes)] for x in xs]
    form, attention = _attention(cells, ordered)
    listeners = [c.l_cell for c in cells if c.l_cell is not None]
    weights_l = _gates(listeners, packed) if listeners else (None,) * 4
    weights_g = _gates([c.g_cell for c in cells], packed)
    weights_p = _gates([c.p_cell for c in cells], packed)
    like, N = weights_g[2], packing.size
    if start is None:
        history = like.new_zeros(B, K, 0, first.global_width)
        before = like.new_zeros(K, B, parties, first.party_width)
        emotion = like.new_zeros(K, B, first.e_cell.hidden_size)
    else:
        history = start.history.transpose(0, 1).index_select(0, packing.order)
        before = start.parties.index_select(1, packing.order)
        emotion = start.emotion.index_select(1, packing.order)
    plan = _plan(packing, speakers, active, parties, bool(listeners), form)
    keep = (
        _keep(first.dropout, like, K, N, first.global_width),
        _keep(first.dropout, like, K, N, first.party_width),
        _keep(first.dropout, like, K, N, parties, first.party_width) if listeners else None,
    )
    state, table, weights = States.apply(plan, *weights_g, *weights_p, *weights_l, *attention, history, before, *keep)  # type: ignore[misc]
    _, other, hidden, bias = _gates([c.e_cell for c in cells])
    bias_ih = torch.stack([c.e_cell.bias_ih for c in cells]).unsqueeze(1)
    spoken = table.flatten(0, 1).index_select(0, plan.spoken.flatten()).view(K, N, -1)
    with no_autocast(like):
        gates = torch.baddbmm(bias_ih, spoken, other.transpose(1, 2))
    keep_e = _keep(first.dropout, like, K, N, first.e_cell.hidden_size)
    emotion = GRU.apply(gates, hidden, bias, emotion, keep_e, packing)
    return Steps(
        packing.unpack(emotion),  # type: ignore[arg-type]
        packing.unpack(state),
        None if start is None else table.flatten(0, 1).index_select(0, plan.last.flatten()).view(K, B, parties, -1),
        weights.unflatten(0, (B, K)).index_select(0, packing.ranks).transpose(0, 1),
    )


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
    bare = any(r.bare for r in rnns)
    packing = Packing([layout.steps] * len(mask) if bare else layout.lengths, layout.steps, mask.device)
    active = mask.expand(len(cells), *mask.shape) if bare else None
    states = run(cells, inputs, torch.stack(who), active, parties, weights, packing).unbind(0)
    out = []
    for i, rnn in enumerate(rnns):
        ahead = states[i] if rnn.bare else zero_padded(states[i], mask)
        if backward:
            back = zero_padded(layout.reverse(states[len(rnns) + i]), mask)
            ahead = torch.cat([ahead, back], -1)
        out.append(ahead)
    return out
