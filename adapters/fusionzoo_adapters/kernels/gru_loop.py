"""A loop of GRU steps over packed rows with its gradient written out; see `dialogue_rnn_loops` for why and how rows lie.

Its plain form is `nn.GRU`, beside which the tests have it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fusionzoo.kernels.packing import Packing


def gru_step(inputs: Tensor, hidden: Tensor, state: Tensor, keep: Tensor | None, saved: Tensor, out: Tensor) -> None:
    """A GRU step from the two halves of its gates, `(..., 3d)` each with its bias, and the state `(..., d)`.

    keep : factors of dropout on the new state, or None. saved `(..., 4d)` receives what `gru_step_gradient` needs, and
    out the new state.
    """
    d = state.shape[-1]
    reset, update, candidate, kept = saved.split(d, -1)
    torch.add(inputs[..., : 2 * d], hidden[..., : 2 * d], out=saved[..., : 2 * d]).sigmoid_()
    kept.copy_(hidden[..., 2 * d :])
    torch.addcmul(inputs[..., 2 * d :], reset, kept, out=candidate).tanh_()
    torch.lerp(candidate, state, update, out=out)
    if keep is not None:
        out.mul_(keep)


def gru_step_gradient(grad: Tensor, state: Tensor, saved: Tensor, inputs: Tensor, hidden: Tensor) -> Tensor:
    """Fill the gradients `(..., 3d)` of both halves of the gates; returns that of the state past the gates."""
    d = grad.shape[-1]
    reset, update, candidate, kept = saved.split(d, -1)
    d_reset, d_update, new = inputs.split(d, -1)
    past = grad * update
    torch.ops.aten.tanh_backward.grad_input(grad - past, candidate, grad_input=new)
    torch.ops.aten.sigmoid_backward.grad_input(new * kept, reset, grad_input=d_reset)
    torch.ops.aten.sigmoid_backward.grad_input((state - candidate).mul_(grad), update, grad_input=d_update)
    hidden[..., : 2 * d].copy_(inputs[..., : 2 * d])
    torch.mul(new, reset, out=hidden[..., 2 * d :])
    return past


def no_autocast(x: Tensor) -> AbstractContextManager:
    """Autocast off for the device of `x`; the meta device has none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def rows_of(keep: Tensor | None, rows: slice) -> Tensor | None:
    """The rows of a step, of factors that may not be there."""
    return None if keep is None else keep[:, rows]


def transposed(weight: Tensor) -> Tensor:
    """Stacked weights as a product from the right takes them."""
    return weight.transpose(1, 2).contiguous()


class GRU(torch.autograd.Function):
    """K plain GRUs over packed rows.

    gates : `(K, N, 3d)`, the inputs' share with its bias.
    weight, bias : `(K, 3d, d)` and `(K, 3d)` of the state's share.
    start : `(K, B, d)`, longest dialogue first.
    keep : factors `(K, N, d)` of dropout on the states, or None.
    returns : states `(K, N, d)`.
    """

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor, start: Tensor, keep: Tensor | None, packing: Packing
    ) -> Tensor:
        d = start.shape[-1]
        with no_autocast(gates):
            to_gates, offset = transposed(weight), bias.unsqueeze(1)
            out, saved = gates.new_empty(*gates.shape[:2], d), gates.new_empty(*gates.shape[:2], 4 * d)
            state = start
            for i, n in enumerate(packing.sizes):
                rows, state = packing.step(i), state[:, :n]
                hidden = torch.baddbmm(offset, state, to_gates)
                gru_step(gates[:, rows], hidden, state, rows_of(keep, rows), saved[:, rows], out[:, rows])
                state = out[:, rows]
        ctx.packing = packing
        ctx.save_for_backward(weight, start, keep, out, saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        packing: Packing = ctx.packing
        weight, start, keep, out, saved = ctx.saved_tensors
        with no_autocast(grad):
            before = states_before(out, start, packing)
            inputs = out.new_empty(*out.shape[:2], 3 * out.shape[-1])
            hidden = torch.empty_like(inputs)
            d_start = torch.zeros_like(start)
            later: Tensor | None = None
            for i in reversed(range(len(packing.sizes))):
                rows = packing.step(i)
                d_state = grad[:, rows]
                if later is not None:
                    d_state = d_state.clone()
                    d_state[:, : later.shape[1]] += later
                if keep is not None:
                    d_state = d_state * keep[:, rows]
                later = gru_step_gradient(d_state, before[:, rows], saved[:, rows], inputs[:, rows], hidden[:, rows])
                later = torch.baddbmm(later, hidden[:, rows], weight)
            if later is not None:
                d_start[:, : later.shape[1]] = later
            return inputs, hidden.mT @ before, hidden.sum(1), d_start, None, None


def states_before(states: Tensor, start: Tensor, packing: Packing) -> Tensor:
    """The state before every row."""
    first = start[:, : packing.sizes[0]] if packing.sizes else start[:, :0]
    return torch.cat([first, states.index_select(1, packing.earlier)], 1)
