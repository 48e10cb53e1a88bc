"""The recurrence of DialogueRNN over K cells: step by step, and as one loop with its gradients written out.

For the utterance u_t of speaker s (see `fusionzoo_adapters.parts.dialogue_rnn` for the sources):

    g_t   = GRU_g([u_t ; q_{t-1}^s], g_{t-1})
    c_t   = attention over g_1 .. g_{t-1}, zero at the first step
    q_t^s = GRU_p([u_t ; c_t], q_{t-1}^s)
    q_t^p = q_{t-1}^p, or GRU_l([u_t ; q_t^s], q_{t-1}^p) with listener states, for the others
    e_t   = GRU_e(q_t^s, e_{t-1})

In the fast form what depends on the utterances only is computed for all steps at once, and so is the input of the emotion
cell; the steps themselves (`dialogue_rnn_loops`) go through K cells together, with batched matrix products over their
stacked weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.kernels import fast_form
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.packing import Packing
from fusionzoo.layers import MatchingAttention, SimpleAttention
from fusionzoo.numerics import zero_padded
from fusionzoo_adapters.kernels.dialogue_rnn_loops import Plan, States
from fusionzoo_adapters.kernels.gru_loop import GRU, no_autocast


class Cell(Protocol):
    """The weights of one direction: the five maps above, widths of two states, and dropout on every state."""

    g_cell: nn.GRUCell
    p_cell: nn.GRUCell
    e_cell: nn.GRUCell
    l_cell: nn.GRUCell | None
    attention: SimpleAttention | MatchingAttention
    dropout: Dropout
    global_width: int
    party_width: int


@dataclass
class Start:
    """States before the first step: history `(K, B, H, D_g)`, parties `(K, B, P, D_p)` and emotion `(K, B, D_e)`."""

    history: Tensor
    parties: Tensor
    emotion: Tensor


@dataclass
class Steps:
    """What the recurrence computes for every step.

    emotion : `(K, B, T, D_e)`.
    state : the global state `(K, B, T, D_g)`.
    parties : the parties after the last step `(K, B, P, D_p)`, None unless asked for.
    weights : of the attention over the states so far, `(K, B, T, H + T - 1)`.
    """

    emotion: Tensor
    state: Tensor
    parties: Tensor | None
    weights: Tensor


def plain_steps(
    cells: Sequence[Cell],
    xs: Sequence[Tensor],
    speakers: Tensor,
    parties: int,
    packing: Packing,
    active: Tensor | None = None,
    start: Start | None = None,
) -> Steps:
    """`steps`, one cell after the other."""
    batch, like = len(xs[0]), cells[0].g_cell.weight_hh
    real = packing.unpack(torch.ones(packing.total, dtype=torch.bool, device=like.device))
    active = real.expand(len(cells), -1, -1) if active is None else active
    if start is None:
        history = like.new_zeros(len(cells), batch, 0, cells[0].global_width)
        before = like.new_zeros(len(cells), batch, parties, cells[0].party_width)
        begin = Start(history, before, like.new_zeros(len(cells), batch, cells[0].e_cell.hidden_size))
    else:
        begin = start
    found = []
    with no_autocast(like):
        for k, cell in enumerate(cells):
            x = zero_padded(xs[k].to(like.dtype), real)
            states = begin.history[k], begin.parties[k], begin.emotion[k]
            found.append(_one_cell(cell, x, speakers[k], real, active[k], *states, len(packing.sizes)))
    emotion, state, after, weights = (torch.stack(x) for x in zip(*found, strict=True))
    return Steps(emotion, state, None if start is None else after, weights)


def _one_cell(
    cell: Cell,
    x: Tensor,
    speakers: Tensor,
    real: Tensor,
    active: Tensor,
    past: Tensor,
    q: Tensor,
    e: Tensor,
    steps: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Emotion and global states `(B, T, .)`, the parties after the last step and the attention weights.

    past, q, e : global states `(B, H, D_g)`, parties `(B, P, D_p)` and emotion `(B, D_e)` before the first step.
    """
    drop, dialogue, history, parties = cell.dropout, torch.arange(len(x), device=x.device), past.shape[1], q.shape[1]
    g = past[:, -1] if history else past.new_zeros(len(x), cell.global_width)
    emotions, weights = [], []
    for t in range(steps):
        u, s, here = x[:, t], speakers[:, t], real[:, t].unsqueeze(1)
        own = q[dialogue, s]
        scores = cell.attention.score(cell.attention.key(past), cell.attention.project(u.unsqueeze(1)))
        alpha = scores.softmax(-1)
        c = (alpha @ past).squeeze(1)
        g = drop(cell.g_cell(torch.cat([u, own], -1), g))
        spoken, heard = drop(cell.p_cell(torch.cat([u, c], -1), own)), q
        if cell.l_cell is not None:
            said = torch.cat([u, spoken], -1).repeat_interleave(parties, 0)
            heard = drop(cell.l_cell(said, q.flatten(0, 1)).view_as(q))
        talks = (F.one_hot(s, parties).bool() & active[:, t].unsqueeze(1)).unsqueeze(-1)
        q = torch.where(here.unsqueeze(-1), torch.where(talks, spoken.unsqueeze(1), heard), q)
        e = torch.where(here, drop(cell.e_cell(q[dialogue, s], e)), e)
        past = torch.cat([past, g.unsqueeze(1)], 1)
        emotions.append(e)
        weights.append(F.pad(alpha.squeeze(1), (0, steps - 1 - t)))
    rest, seen = (0, 0, 0, x.shape[1] - steps), real[:, :steps]
    states = [F.pad(zero_padded(y, seen), rest) for y in (torch.stack(emotions, 1), past[:, history:])]
    return states[0], states[1], q, zero_padded(torch.stack(weights, 1), seen)


@fast_form(plain_steps)
def steps(
    cells: Sequence[Cell],
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
    xs : K tensors `(B, T, D_m)`.
    speakers : `(K, B, T)` long, below `parties`.
    packing : which steps of which dialogue to compute; what is returned is zero at the others.
    active : `(K, B, T)` bool, False where a computed step is padding and nobody speaks; None if there is none.
    start : states before the first step, zeros by default; with it the parties after the last one are returned.
    """
    first, K, B = cells[0], len(cells), len(xs[0])
    packed = [packing.pack_rows(x) for x in xs]
    ordered = [x.index_select(0, packing.order)[:, : len(packing.sizes)] for x in xs]
    form, attention = _attention(cells, ordered)
    listeners = [c.l_cell for c in cells if c.l_cell is not None]
    weights_l = _gates(listeners, packed) if listeners else (None,) * 4
    weights_g = _gates([c.g_cell for c in cells], packed)
    weights_p = _gates([c.p_cell for c in cells], packed)
    like, N = weights_g[2], packing.total
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
        packing.unpack_rows(emotion),  # type: ignore[arg-type]
        packing.unpack_rows(state),
        None if start is None else table.flatten(0, 1).index_select(0, plan.last.flatten()).view(K, B, parties, -1),
        weights.unflatten(0, (B, K)).index_select(0, packing.ranks).transpose(0, 1),
    )


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


def _attention(cells: Sequence[Cell], xs: Sequence[Tensor]) -> tuple[str, list[Tensor | None]]:
    """The form of the attention and its query, key weight and vector; see `dialogue_rnn_loops.Attention`.

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
    table = B * parties + packing.total * (parties if listener else 1)
    base = torch.arange(K, device=device)[:, None, None] * table
    first = (base + packing.ranks[:, None] * parties).expand(K, B, 1) + party
    if listener:
        # All parties of a dialogue in P rows of the step.
        turns = (base + (B + rows) * parties).unsqueeze(-1) + party
    else:
        # The row of the speaker's last turn.
        speaks = speakers.unsqueeze(-1) == party
        if active is not None:
            speaks = speaks & active.unsqueeze(-1)
        last = torch.where(speaks, torch.arange(T, device=device)[:, None], -1).cummax(2).values
        turn = rows.expand(K, B, T).gather(2, last.clamp(min=0).flatten(2)).view_as(last)
        turns = torch.where(last < 0, first.unsqueeze(2), base.unsqueeze(-1) + B * parties + turn)
    stands = torch.cat([first.unsqueeze(2), turns], 2)
    before, after = (x.gather(3, speakers.unsqueeze(-1)).squeeze(-1) for x in (stands[:, :, :-1], stands[:, :, 1:]))
    end = stands[:, torch.arange(B, device=device), packing.ends]

    def pack(x: Tensor) -> Tensor:
        return x.flatten(1).index_select(1, packing.flat)

    real = None if active is None else pack(active)
    return Plan(packing, form, parties, pack(before), pack(after), end, real)
