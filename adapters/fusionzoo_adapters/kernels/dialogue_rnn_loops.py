"""The loops of DialogueRNN with their gradients written out: the fast form of `dialogue_rnn.plain_steps`.

Autograd would add the gradient of every weight matrix once a step, which costs more than the steps themselves. Here the
steps only record the gradients of their gates; one product over all steps makes the weight gradients of them. The history
that the steps attend to is written in place, where autograd would copy it at every step.

Rows lie packed, step after step (`Packing`), so that no step computes a dialogue that has ended. K cells run side by side:
their weights are stacked, `(K, 3d, d')` as in `nn.GRUCell`. N is the number of packed rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fusionzoo.kernels.packing import Packing
from fusionzoo_adapters.kernels.gru_loop import (
    gru_step,
    gru_step_gradient,
    no_autocast,
    rows_of,
    states_before,
    transposed,
)


class Attention:
    """Scores of the past global states, and their gradients.

    Parameters
    ----------
    form : `key`, the score is a product of the state with a vector; `product`, with the query of the step; `tanh`, that
        squashed; `concat`, the product of a vector with the squashed sum of the state's key and the query.
    past : the global states `(B * K, H + T, D_g)`, longest dialogue first, written while the steps run; H of them were
        there before. K : number of cells.
    query : `(B * K, T, .)`.
    key_weight : `(K, A, D_g)`.
    vector : `(K, A)`.
    """

    def __init__(
        self,
        form: str,
        past: Tensor,
        steps: int,
        cells: int,
        query: Tensor | None,
        key_weight: Tensor | None,
        vector: Tensor | None,
    ):
        self.form, self.past, self.cells = form, past, cells
        self.history = past.shape[1] - steps
        self.query, self.key_weight = query, key_weight
        self.weights = past.new_zeros(len(past), steps, past.shape[1])
        self.squashed = torch.zeros_like(self.weights) if form == "tanh" else None
        self.keys: Tensor | None = None
        self.vector: Tensor | None = None
        if key_weight is not None:
            self.transposed_key_weight = transposed(key_weight)
            self.keys = past.new_zeros(*past.shape[:2], key_weight.shape[1])
            if self.history:
                old = past[:, : self.history].unflatten(0, (-1, cells)).transpose(0, 1).flatten(1, 2)
                old = (old @ self.transposed_key_weight).unflatten(1, (-1, self.history)).transpose(0, 1)
                self.keys[:, : self.history] = old.flatten(0, 1)
        if vector is not None:
            self.vector = vector.expand(len(past) // cells, -1, -1).flatten(0, 1).unsqueeze(1)

    def remember(self, step: int, state: Tensor) -> None:
        """Write the global state `(K, n, D_g)` of a step."""
        n, at = state.shape[1], self.history + step
        self.past.unflatten(0, (-1, self.cells))[:n, :, at] = state.transpose(0, 1)
        if self.keys is not None:
            key = torch.bmm(state, self.transposed_key_weight)
            self.keys.unflatten(0, (-1, self.cells))[:n, :, at] = key.transpose(0, 1)

    def context(self, step: int, n: int) -> Tensor | None:
        """`(K, n, D_g)`, what n dialogues attend to at a step; None where there is no past."""
        rows, end = n * self.cells, self.history + step
        if not end:
            return None
        past = self.past[:rows, :end]
        if self.form == "key":
            assert self.keys is not None
            scores = self.keys[:rows, :end].transpose(1, 2)
        elif self.form == "concat":
            assert self.vector is not None
            scores = (self._hidden(step, rows, end) * self.vector[:rows]).sum(-1).unsqueeze(1)
        else:
            assert self.query is not None
            scores = torch.bmm(self.query[:rows, step : step + 1], past.transpose(1, 2))
            if self.squashed is not None:
                scores = scores.tanh_()
                self.squashed[:rows, step : step + 1, :end] = scores
        weights = scores.softmax(-1)
        self.weights[:rows, step : step + 1, :end] = weights
        return torch.bmm(weights, past).view(n, self.cells, -1).transpose(0, 1)

    def _hidden(self, step: int, rows: int, end: int) -> Tensor:
        assert self.keys is not None
        assert self.query is not None
        return (self.keys[:rows, :end] + self.query[:rows, step : step + 1]).tanh_()

    def prepare_gradients(self, d_weights: Tensor | None) -> None:
        """Call before the first `gradient`, with the gradient of the weights themselves."""
        self.d_weights = d_weights
        self.d_context = self.past.new_zeros(len(self.past), self.weights.shape[1], self.past.shape[2])
        self.d_scores = torch.zeros_like(self.weights)
        self.d_query = None if self.query is None else torch.zeros_like(self.query)
        self.d_keys = None if self.keys is None else torch.zeros_like(self.keys)
        self.d_vector = None if self.vector is None else torch.zeros_like(self.vector)

    def gradient(self, step: int, d_context: Tensor) -> None:
        """Take the gradient `(K, n, D_g)` of the context of a step."""
        rows, end = d_context.shape[1] * self.cells, self.history + step
        if not end:
            return
        here, past = slice(step, step + 1), self.past[:rows, :end]
        weights = self.weights[:rows, here, :end]
        d_context = d_context.transpose(0, 1).reshape(rows, 1, -1)
        self.d_context[:rows, here] = d_context
        d_weights = torch.bmm(d_context, past.transpose(1, 2))
        if self.d_weights is not None:
            d_weights += self.d_weights[:rows, here, :end]
        d_scores = weights * (d_weights - (weights * d_weights).sum(-1, keepdim=True))
        if self.form == "key":
            assert self.d_keys is not None
            self.d_keys[:rows, :end] += d_scores.transpose(1, 2)
        elif self.form == "concat":
            assert self.d_keys is not None
            assert self.d_query is not None
            assert self.d_vector is not None
            assert self.vector is not None
            hidden = self._hidden(step, rows, end)
            self.d_vector[:rows] += torch.bmm(d_scores, hidden)
            d_hidden = torch.ops.aten.tanh_backward(d_scores.transpose(1, 2) * self.vector[:rows], hidden)
            self.d_keys[:rows, :end] += d_hidden
            self.d_query[:rows, step] = d_hidden.sum(1)
        else:
            assert self.d_query is not None
            if self.squashed is not None:
                d_scores = torch.ops.aten.tanh_backward(d_scores, self.squashed[:rows, here, :end])
            self.d_scores[:rows, here, :end] = d_scores
            self.d_query[:rows, here] = torch.bmm(d_scores, past)

    def state_gradient(self, at: int, rows: int, step: int) -> Tensor:
        """What the steps from `step` on give to the state at the position `at` of the past: `(K, n, D_g)`."""
        grad = torch.bmm(self.weights[:rows, step:, at].unsqueeze(1), self.d_context[:rows, step:])
        if self.keys is None:
            assert self.query is not None
            grad.baddbmm_(self.d_scores[:rows, step:, at].unsqueeze(1), self.query[:rows, step:])
        grad = grad.view(-1, self.cells, grad.shape[-1]).transpose(0, 1)
        if self.d_keys is not None:
            assert self.key_weight is not None
            d_key = self.d_keys[:rows, at].view(-1, self.cells, self.d_keys.shape[-1]).transpose(0, 1)
            grad = grad + torch.bmm(d_key, self.key_weight)
        return grad

    def key_weight_gradient(self) -> Tensor | None:
        """`(K, A, D_g)`."""
        if self.d_keys is None:
            return None
        d_keys, past = (
            x.unflatten(0, (-1, self.cells)).transpose(0, 1).flatten(1, 2) for x in (self.d_keys, self.past)
        )
        return d_keys.mT @ past

    def vector_gradient(self) -> Tensor | None:
        """`(K, A)`."""
        return None if self.d_vector is None else self.d_vector.view(-1, self.cells, self.d_vector.shape[-1]).sum(0)


@dataclass
class Plan:
    """What the loop needs that has no gradient.

    packing : of the batch.
    form : see `Attention`.
    parties : P.
    speaker : where in the flat table of party states `(K * R)` each row's speaker stands before its step, `(K, N)`.
    spoken : where after it, `(K, N)`.
    last : where all parties stand after the last step, `(K, B, P)`.
    active : `(K, N)`, False at padding, where nobody speaks; None if there is none.
    """

    packing: Packing
    form: str
    parties: int
    speaker: Tensor
    spoken: Tensor
    last: Tensor
    active: Tensor | None


class States(torch.autograd.Function):
    """The global and the party states of K DialogueRNN cells.

    gates_g, gates_p, gates_l : the utterances' share of the gates of the three cells, `(K, N, 3d)`; gates_l and all else
        of the listener is None without listener states.
    other_X, hidden_X, bias_X : the weights of the rest, `(K, 3d, d')`, `(K, 3d, d)` and `(K, 3d)`.
    query, key_weight, vector : see `Attention`; query `(B, K, T, .)`, longest dialogue first.
    history : global states before the first step, `(B, K, H, D_g)`, longest dialogue first.
    parties : `(K, B, P, D_p)`, likewise. keep_X : factors of dropout on the states `(K, N, d)`, for the listener `(K,
        N, P, d)`, or None.

    Returns the global states `(K, N, D_g)`, the table of party states `(K, R, D_p)` and the attention weights
    `(B * K, T, H + T - 1)`. The table starts with the B * P first states. Then comes a row for each of the N, its speaker's
    state; with listener states P rows, the states of all parties.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        gates_g: Tensor,
        other_g: Tensor,
        hidden_g: Tensor,
        bias_g: Tensor,
        gates_p: Tensor,
        other_p: Tensor,
        hidden_p: Tensor,
        bias_p: Tensor,
        gates_l: Tensor | None,
        other_l: Tensor | None,
        hidden_l: Tensor | None,
        bias_l: Tensor | None,
        query: Tensor | None,
        key_weight: Tensor | None,
        vector: Tensor | None,
        history: Tensor,
        parties: Tensor,
        keep_g: Tensor | None,
        keep_p: Tensor | None,
        keep_l: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        packing, P = plan.packing, plan.parties
        K, B, d_g, d_p = len(gates_g), len(history), hidden_g.shape[-1], hidden_p.shape[-1]
        N, T, H, each = packing.total, len(packing.sizes), history.shape[2], 1 if gates_l is None else P
        new = gates_g.new_empty
        with no_autocast(gates_g):
            past = gates_g.new_zeros(B, K, H + T, d_g)
            past[:, :, :H] = history
            past = past.flatten(0, 1)
            query = None if query is None else query.flatten(0, 1)
            attention = Attention(plan.form, past, T, K, query, key_weight, vector)
            table = new(K, B * P + N * each, d_p)
            table[:, : B * P] = parties.flatten(1, 2)
            flat = table.flatten(0, 1)
            glob, context = new(K, N, d_g), gates_g.new_zeros(K, N, d_g)
            saved_g, saved_p = new(K, N, 4 * d_g), new(K, N, 4 * d_p)
            saved_l = None if gates_l is None else new(K, N, P, 4 * d_p)
            to_g, to_p, from_g, from_p = (transposed(w) for w in (other_g, other_p, hidden_g, hidden_p))
            state = past.unflatten(0, (B, K))[:, :, H - 1].transpose(0, 1) if H else gates_g.new_zeros(K, B, d_g)
            first = state
            for i, n in enumerate(packing.sizes):
                rows = packing.step(i)
                selected = flat.index_select(0, plan.speaker[:, rows].flatten()).view(K, n, d_p)
                gates = torch.baddbmm(gates_g[:, rows], selected, to_g)
                state = state[:, :n]
                hidden = torch.baddbmm(bias_g.unsqueeze(1), state, from_g)
                gru_step(gates, hidden, state, rows_of(keep_g, rows), saved_g[:, rows], glob[:, rows])
                state = glob[:, rows]

                gates, attended = gates_p[:, rows], attention.context(i, n)
                if attended is not None:
                    context[:, rows] = attended
                    gates = torch.baddbmm(gates, attended, to_p)
                hidden = torch.baddbmm(bias_p.unsqueeze(1), selected, from_p)
                if gates_l is None:
                    spoken = table[:, B * P + rows.start : B * P + rows.stop]
                else:
                    spoken = torch.empty_like(selected)
                gru_step(gates, hidden, selected, rows_of(keep_p, rows), saved_p[:, rows], spoken)
                attention.remember(i, state)
                if gates_l is None:
                    continue
                assert other_l is not None
                assert hidden_l is not None
                assert bias_l is not None
                assert saved_l is not None
                before = table[:, _listeners(packing, i, n, B, P)]
                hidden = torch.baddbmm(bias_l.unsqueeze(1), before, hidden_l.transpose(1, 2)).view(K, n, P, -1)
                gates = torch.baddbmm(gates_l[:, rows], spoken, other_l.transpose(1, 2)).unsqueeze(2)
                heard = table[:, B * P + rows.start * P : B * P + rows.stop * P].view(K, n, P, d_p)
                before = before.view(K, n, P, d_p)
                gru_step(gates.expand_as(hidden), hidden, before, rows_of(keep_l, rows), saved_l[:, rows], heard)
                at = plan.spoken[:, rows].flatten()
                if plan.active is not None:
                    spoken = torch.where(plan.active[:, rows, None], spoken, flat.index_select(0, at).view_as(spoken))
                flat.index_copy_(0, at, spoken.flatten(0, 1))
        ctx.plan, ctx.attention, ctx.sizes = plan, attention, (K, B, H)
        ctx.save_for_backward(
            other_g, hidden_g, other_p, hidden_p, other_l, hidden_l, keep_g, keep_p, keep_l,
            glob, table, context, saved_g, saved_p, saved_l, first,
        )  # fmt: skip
        ctx.set_materialize_grads(False)
        return glob, table, attention.weights[:, :, :-1]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_glob: Tensor | None, d_out: Tensor | None, d_weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        plan: Plan = ctx.plan
        packing, P, attention = plan.packing, plan.parties, ctx.attention
        K, B, H = ctx.sizes
        (
            other_g, hidden_g, other_p, hidden_p, other_l, hidden_l, keep_g, keep_p, keep_l,
            glob, table, context, saved_g, saved_p, saved_l, first,
        ) = ctx.saved_tensors  # fmt: skip
        d_g, d_p = glob.shape[-1], table.shape[-1]
        new, N = glob.new_empty, packing.total
        with no_autocast(glob):
            d_table = torch.zeros_like(table) if d_out is None else d_out.clone()
            d_flat = d_table.flatten(0, 1)
            attention.prepare_gradients(d_weights)
            before_g = states_before(glob, first, packing)
            selected = table.flatten(0, 1).index_select(0, plan.speaker.flatten()).view(K, N, d_p)
            in_g, in_p = new(K, N, 3 * d_g), new(K, N, 3 * d_p)
            rec_g, rec_p = torch.empty_like(in_g), torch.empty_like(in_p)
            in_l = rec_l = None
            if saved_l is not None:
                in_l, rec_l = new(K, N, 3 * d_p), new(K, N, P, 3 * d_p)
            later: Tensor | None = None
            for i in reversed(range(len(packing.sizes))):
                n, rows = packing.sizes[i], packing.step(i)
                if saved_l is None:
                    d_spoken = d_table[:, B * P + rows.start : B * P + rows.stop]
                    d_before = None
                else:
                    assert in_l is not None
                    assert rec_l is not None
                    at = plan.spoken[:, rows].flatten()
                    d_spoken = d_flat.index_select(0, at).view(K, n, d_p)
                    left = torch.zeros_like(d_spoken)
                    if plan.active is not None:
                        real = plan.active[:, rows, None]
                        d_spoken, left = torch.where(real, d_spoken, 0.0), torch.where(real, 0.0, d_spoken)
                    d_flat.index_copy_(0, at, left.flatten(0, 1))
                    d_heard = d_table[:, B * P + rows.start * P : B * P + rows.stop * P].view(K, n, P, d_p)
                    if keep_l is not None:
                        d_heard = d_heard * keep_l[:, rows]
                    span = _listeners(packing, i, n, B, P)
                    gates = new(K, n, P, 3 * d_p)
                    before = table[:, span].view(K, n, P, d_p)
                    d_before = gru_step_gradient(d_heard, before, saved_l[:, rows], gates, rec_l[:, rows]).flatten(1, 2)
                    d_table[:, span] += torch.baddbmm(d_before, rec_l[:, rows].flatten(1, 2), hidden_l)
                    in_l[:, rows] = gates.sum(2)
                    d_spoken = torch.baddbmm(d_spoken, in_l[:, rows], other_l)
                if keep_p is not None:
                    d_spoken = d_spoken * keep_p[:, rows]
                d_selected = gru_step_gradient(
                    d_spoken, selected[:, rows], saved_p[:, rows], in_p[:, rows], rec_p[:, rows]
                )
                d_selected = torch.baddbmm(d_selected, rec_p[:, rows], hidden_p)
                if i or H:
                    attention.gradient(i, torch.bmm(in_p[:, rows], other_p))

                d_state = attention.state_gradient(H + i, n * K, i + 1)
                if d_glob is not None:
                    d_state = d_state + d_glob[:, rows]
                if later is not None:
                    d_state[:, : later.shape[1]] += later
                if keep_g is not None:
                    d_state = d_state * keep_g[:, rows]
                later = gru_step_gradient(d_state, before_g[:, rows], saved_g[:, rows], in_g[:, rows], rec_g[:, rows])
                later = torch.baddbmm(later, rec_g[:, rows], hidden_g)
                d_selected = torch.baddbmm(d_selected, in_g[:, rows], other_g)
                d_flat.index_add_(0, plan.speaker[:, rows].flatten(), d_selected.flatten(0, 1))

            d_history = None
            if H:
                columns = [attention.state_gradient(k, B * K, 0) for k in range(H)]
                if later is not None:
                    columns[-1][:, : later.shape[1]] += later
                d_history = torch.stack(columns, 2).transpose(0, 1)
            listener: list[Tensor | None] = [None] * 4
            if in_l is not None:
                assert rec_l is not None
                spoken = _spoken(saved_p, selected, keep_p)
                firsts = table[:, : B * P].unflatten(1, (B, P))[:, : packing.sizes[0]]
                after = table[:, B * P :].unflatten(1, (N, P)).index_select(1, packing.earlier)
                before = torch.cat([firsts, after], 1).flatten(1, 2)
                rec = rec_l.flatten(1, 2)
                listener = [in_l, in_l.mT @ spoken, rec.mT @ before, rec.sum(1)]
            d_query = attention.d_query
            return (
                None,
                *(in_g, in_g.mT @ selected, rec_g.mT @ before_g, rec_g.sum(1)),
                *(in_p, in_p.mT @ context, rec_p.mT @ selected, rec_p.sum(1)),
                *listener,
                None if d_query is None else d_query.unflatten(0, (B, K)),
                attention.key_weight_gradient(),
                attention.vector_gradient(),
                d_history,
                d_table[:, : B * P].unflatten(1, (B, P)),
                *(None, None, None),
            )


def _listeners(packing: Packing, step: int, n: int, batch: int, parties: int) -> slice:
    """Rows of the table that hold all parties of n dialogues before a step."""
    start = 0 if step == 0 else (batch + packing.starts[step - 1]) * parties
    return slice(start, start + n * parties)


def _spoken(saved: Tensor, state: Tensor, keep: Tensor | None) -> Tensor:
    """What `gru_step` returned, for all rows at once."""
    _, update, candidate, _ = saved.chunk(4, -1)
    out = torch.lerp(candidate, state, update)
    return out if keep is None else out * keep
