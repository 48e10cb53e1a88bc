"""Shared numerics: masked softmax and pooling, packing of padded batches, attention.

One implementation each, used by every fusion and host. Masks are bool and True where a step is real; tensors are
batch-first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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


def masked_mean(x: Tensor, mask: Tensor | None, dim: int = 1) -> Tensor:
    """Mean of `x (B, T, d)` over the real steps; zeros for a row without any.

    Shapes: x `(B, T, d)`, mask `(B, T)`, result `(B, d)`.
    """
    if mask is None:
        return x.mean(dim)
    total = zero_padded(x, mask).sum(dim)
    return total / mask.sum(dim).clamp(min=1).unsqueeze(-1).to(total.dtype)


def masked_softmax_pool(scores: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weights `softmax(scores) (B, Q, S)` over the real keys `mask (B, S)` and the pooled values `(B, Q, d)`."""
    weights = masked_softmax(scores, None if mask is None else mask.unsqueeze(1))
    return weights @ values, weights


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
    query : `(B, Q, d)`; key, value : `(B, S, d)`; `d` divisible by `heads`.
    key_mask : bool `(B, S)`, True where a key is real. A row without any real key gives zeros.
    dropout : probability, applied to the weights; pass 0 in eval mode.
    need_weights : compute the weights explicitly and return them, `(B, heads, Q, S)`.
    """

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    q, k, v = split(query), split(key), split(value)
    mask = any_key = None
    if key_mask is not None:
        any_key = key_mask.any(-1)
        # A row of keys that are all masked attends to all of them instead and is zeroed below: no kernel sees an
        # empty softmax, whose result differs between backends and versions.
        mask = (key_mask | ~any_key.unsqueeze(-1))[:, None, None, :]
    weights = None
    if need_weights:
        weights = masked_softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, mask)
        if any_key is not None:
            weights = weights * any_key[:, None, None, None]
        out = F.dropout(weights, dropout) @ v if dropout else weights @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    out = out.transpose(1, 2).flatten(2)
    if any_key is not None:
        out = torch.where(any_key[:, None, None], out, 0.0)
    return out, weights


def pack_indices(lengths: list[int], width: int, device: torch.device) -> Tensor:
    """Flat positions `(N,)` of the real steps of a padded batch `(B, width)`, dialogue by dialogue.

    Built on the CPU from Python integers, so that packing never waits for the device:
    `x.flatten(0, 1)[pack_indices(lengths, x.shape[1], x.device)]` is the node list `(N, d)`.
    """
    steps = torch.tensor(lengths)
    rows = torch.repeat_interleave(torch.arange(len(lengths)), steps)
    first = torch.repeat_interleave(steps.cumsum(0) - steps, steps)
    return (rows * width + torch.arange(int(steps.sum())) - first).to(device, non_blocking=True)
