"""Shared numerics: masked softmax, masked mean, attention.

One implementation each, used by every fusion and host. Masks are bool and True where a step is real; tensors are
batch-first.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionzoo.kernels import fast_form
from fusionzoo.kernels.dropout import draws_cheaply
from fusionzoo.kernels.dropout import dropout as dropped

#: Why the bias of keys learns nothing (see `without_gradient` in `fusionzoo.fusion.Fusion`).
SHIFT_INVARIANT = "adds one number to all scores of a query, which their softmax does not feel"


@contextlib.contextmanager
def fixed_in_trace() -> Iterator[None]:
    """What Python decides here by a size is meant to stay as it is in a `torch.jit.trace`, which warns of it elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield


def same_length(xs: Sequence[Tensor]) -> bool:
    """Whether `(B, T_m, ...)` tensors have the same number of steps.

    Sizes are compared and never hashed or converted, so that `torch.export` and `torch.compile` keep them free: a program
    made of streams of one length takes any, but of one length.
    """
    if torch.jit.is_tracing():
        with fixed_in_trace():
            return all(bool(x.shape[1] == xs[0].shape[1]) for x in xs[1:])
    return all(x.shape[1] == xs[0].shape[1] for x in xs[1:])


@contextlib.contextmanager
def lstm_precision(x: Tensor, weight: Tensor) -> Iterator[Tensor]:
    """Within, `x` as a `nn.LSTM` or `torch.lstm` with that weight takes it: under autocast on a CPU, in the weight's dtype.

    torch's LSTM in bfloat16 asks for instructions that not every processor has, and fails without them.
    """
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        yield x
        return
    with torch.autocast("cpu", enabled=False):
        yield x.to(weight.dtype)


def masked_softmax(scores: Tensor, mask: Tensor | None, dim: int = -1) -> Tensor:
    """Softmax over `dim` that gives masked entries exactly zero weight.

    Parameters
    ----------
    scores : any shape.
    mask : bool, broadcastable to `scores`, True where an entry takes part; `None` for all.
    dim : the axis that sums to one.

    A slice without any real entry gives zeros, with zero gradients, never NaN.
    """
    if mask is None:
        return scores.softmax(dim)
    # A finite fill keeps fully masked slices free of NaN in the backward pass; the second `where` makes zeros exact.
    filled = torch.where(mask, scores, torch.finfo(scores.dtype).min)
    return torch.where(mask, filled.softmax(dim), 0.0)


def zero_padded(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x (B, T, ...)` with zeros wherever `mask (B, T)` is False, even where `x` holds NaN or infinity."""
    if mask is None:
        return x
    return torch.where(mask.reshape(*mask.shape, *(1,) * (x.dim() - mask.dim())), x, 0.0)


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the last but one axis, of the entries that are real; zeros where there is none.

    Shapes: x `(..., n, d)`, mask bool `(..., n)`, result `(..., d)`. Over time: `(B, T, d)` and `(B, T)`.
    """
    if mask is None:
        return x.mean(-2)
    return zero_padded(x, mask).sum(-2) / mask.sum(-1, keepdim=True).clamp(min=1)


def plain_attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    key_mask: Tensor | None = None,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`attend` by its formula."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    mask = None if key_mask is None else key_mask[:, None, None, :]
    weights = masked_softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, mask)
    out = dropped(weights, dropout, True) @ v
    return out.transpose(1, 2).flatten(2), weights if need_weights else None


@fast_form(plain_attend)
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    key_mask: Tensor | None = None,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Multi-head scaled-dot-product attention on torch's fused kernels.

    Parameters
    ----------
    query : `(B, Q, d)`.
    key, value : `(B, S, d)`; `d` divisible by `heads`.
    key_mask : bool `(B, S)`, True where a key is real. A row without any real key gives zeros.
    dropout : probability, applied to the weights; pass 0 in eval mode.
    need_weights : compute the weights explicitly and return them, `(B, heads, Q, S)`.
    """
    # Torch's kernel with dropout draws a random number for every weight, which on a CPU costs more than the products.
    if need_weights or (dropout and draws_cheaply(query)):
        return plain_attend(query, key, value, heads, key_mask, dropout, need_weights)
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    mask = any_key = None
    if key_mask is not None:
        any_key = key_mask.any(-1)
        # A row of keys that are all masked attends to all of them instead and is zeroed below: no kernel sees an
        # empty softmax, whose result differs between backends and versions.
        mask = (key_mask | ~any_key.unsqueeze(-1))[:, None, None, :]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout).transpose(1, 2).flatten(2)
    return out if any_key is None else torch.where(any_key[:, None, None], out, 0.0), None
