"""Products of one weight with few rows at a time, as the steps of a recurrence need them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


class Product:
    """`x @ weight.transpose(1, 2)` for a weight `(K, o, i)` that meets few rows at a time, step after step.

    On a CPU torch hands products in float32 to MKL, which lays the weight out anew at every call; with ten rows that is most
    of the call. Here oneDNN lays it out once, by the two operations with which torch itself compiles frozen linear layers;
    where they are not there, or the weight is too small or the steps are too few to gain by it, it is torch's `baddbmm`.
    """

    LEAST_WIDTH, LEAST_STEPS = 128, 16

    def __init__(self, weight: Tensor, steps: int):
        self.packed: list[Tensor] | None = None
        large = min(weight.shape[1:]) >= self.LEAST_WIDTH and steps >= self.LEAST_STEPS
        if large and weight.device.type == "cpu" and weight.dtype == torch.float32 and _packs():
            self.packed = [torch.ops.mkldnn._reorder_linear_weight(w.contiguous()) for w in weight]
        else:
            self.dense = weight.transpose(1, 2).contiguous()

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
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((out == 6).all())
