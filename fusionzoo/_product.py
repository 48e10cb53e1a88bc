"""Matrix products by oneDNN, where torch on a CPU would hand them to MKL and lose by it.

MKL lays a matrix out anew at every call, which is most of a product with ten rows, and on processors of other makers it
leaves half of their vector units idle; oneDNN has neither fault. torch reaches it in float32 only by the two operations
with which it compiles frozen linear layers. Where these are not there everything here is torch's own product, and so it is
within `torch.backends.mkldnn.flags(enabled=False)`: a counter of operations sees no product of oneDNN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Multiplications from which on a product gains more than a Python function in autograd's graph costs.
LEAST = 1 << 24


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: x `(..., i)`, weight `(o, i)`, bias `(o,)`."""
    if not _gains(x, weight, x.numel() * weight.shape[0]):
        return F.linear(x, weight, bias)
    offset = None if bias is None else bias.view(1, 1, -1)
    return _large(x.reshape(1, -1, x.shape[-1]), weight.t().unsqueeze(0), offset).view(*x.shape[:-1], -1)


def grouped_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """G linear maps side by side, `(G, n, o)` from x `(G, n, i)`, weight `(G, i, o)` and bias `(G, 1, o)`."""
    if _gains(x, weight, x.shape[1] * weight[0].numel()):
        return _large(x, weight, bias)
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """`grad.transpose(1, 2) @ x`, which sums over the rows of both: `(G, o, i)` from `(G, n, o)` and `(G, n, i)`."""
    # oneDNN is quicker when the wider of the two is the one that it lays out.
    if grad.shape[-1] > x.shape[-1]:
        return grouped_linear(x.transpose(1, 2), grad).transpose(1, 2)
    return grouped_linear(grad.transpose(1, 2), x)


class Product:
    """`x @ weight` for a weight `(K, i, o)` that meets few rows at a time, step after step; it is laid out once."""

    LEAST_WIDTH, LEAST_STEPS = 128, 16

    def __init__(self, weight: Tensor, steps: int):
        self.packed: list[Tensor] | None = None
        large = min(weight.shape[1:]) >= self.LEAST_WIDTH and steps >= self.LEAST_STEPS
        known = weight.device.type == "cpu" and weight.dtype == torch.float32
        if large and known and torch.backends.mkldnn.enabled and _packs():
            self.packed = [torch.ops.mkldnn._reorder_linear_weight(w.t().contiguous()) for w in weight]
        else:
            self.dense = weight.contiguous()

    def __call__(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        """`(K, n, o)` from `x (K, n, i)`, added to `offset`, `(K, n, o)` or `(K, 1, o)`, if there is one."""
        if self.packed is None:
            return torch.bmm(x, self.dense) if offset is None else torch.baddbmm(offset, x, self.dense)
        run = torch.ops.mkldnn._linear_pointwise
        if offset is None:
            parts = [run(rows, w, None, "none", [], "") for rows, w in zip(x, self.packed, strict=True)]
        elif offset.shape[1] == x.shape[1]:
            parts = [run.binary(r, o, w, None, "add") for r, o, w in zip(x, offset, self.packed, strict=True)]
        else:
            parts = [run(r, w, o[0], "none", [], "") for r, o, w in zip(x, offset, self.packed, strict=True)]
        return torch.stack(parts)


def _gains(x: Tensor, weight: Tensor, multiplications: int) -> bool:
    """Whether oneDNN should compute a product, of that many multiplications in each group."""
    # First what a compiler knows and stops at. Tensors of other types are wrappers, for which torch's products are made.
    if torch.compiler.is_compiling() or not isinstance(multiplications, int) or multiplications < LEAST:
        return False
    return (
        x.dtype == weight.dtype == torch.float32
        and type(x) is Tensor
        and type(weight) in (Tensor, nn.Parameter)
        and x.device.type == weight.device.type == "cpu"
        and _is_faster()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_function_stack()
    )


def _large(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    needed = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    run: Callable[..., Tensor] = _Large.apply if needed else _multiply  # type: ignore[assignment]
    return run(x, weight, bias)


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    run = torch.ops.mkldnn._linear_pointwise
    parts = []
    for i, (rows, w) in enumerate(zip(x, weight, strict=True)):
        if not w.is_contiguous() and not w.t().is_contiguous():
            w = w.contiguous()  # Of any other layout oneDNN has no fast product.
        parts.append(run(rows, w.t(), None if bias is None else bias[i, 0], "none", [], ""))
    return torch.stack(parts) if len(parts) > 1 else parts[0].unsqueeze(0)


class _Large(torch.autograd.Function):
    """`grouped_linear` by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            grouped_linear(grad, weight.transpose(1, 2)) if of_x else None,
            weight_gradient(x, grad) if of_weight else None,
            grad.sum(1, keepdim=True) if of_bias else None,
        )

    @staticmethod
    def jvp(ctx: Any, x: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        x0, weight0 = ctx.saved_tensors
        parts = [None if x is None else x @ weight0, None if weight is None else x0 @ weight, bias]
        return sum(p for p in parts if p is not None)  # type: ignore[return-value]


@cache
def _is_faster() -> bool:
    """Whether large products by oneDNN are faster than torch's own: it has wider vectors than MKL takes everywhere."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkl.is_available()
    return wide and _packs()


@cache
def _packs() -> bool:
    """Whether this build of torch has both operations, and they work."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        weight, x = torch.ones(3, 2), torch.ones(1, 2)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        out = torch.ops.mkldnn._linear_pointwise.binary(x, torch.ones(1, 3), packed, None, "add")
        out = out + torch.ops.mkldnn._linear_pointwise(x, packed, torch.ones(3), "none", [], "")
        out = out + torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "") - 2
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((out == 6).all())
