"""The one computation behind the contrastive objectives: log-likelihood of the positives of every anchor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fusionzoo._options import check_positive
from fusionzoo.kernels import fast_form
from fusionzoo.objective import IGNORE

#: Pairs at a time unless `chunk` says otherwise: what a processor's cache holds, and what keeps a GPU busy.
PAIRS_CPU, PAIRS_GPU = 2**18, 2**22


def check_chunk(chunk: int | None, owner: object) -> int | None:
    """The option `chunk`."""
    return None if chunk is None else check_positive(chunk, "chunk", owner)


def plain_contrast(
    anchors: Tensor,
    keys: Tensor,
    labels: Tensor,
    scale: Tensor | float,
    weights: Tensor,
    *,
    focus: float = 0.0,
    itself: bool = False,
    mean: bool = True,
    chunk: int | None = None,
) -> Tensor:
    """`contrast` by its formula, over all pairs at once."""
    real = labels != IGNORE
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    allowed = real.expand_as(others) if itself else real & others
    # A finite fill: an anchor that is alone keeps finite numbers, and has no positive.
    scores = torch.where(allowed, anchors @ keys.t() * scale, torch.finfo(anchors.dtype).min)
    log_p = scores.log_softmax(-1)
    positive = allowed & (labels.unsqueeze(1) == labels)
    # The clamp keeps the slope finite at p = 1 where focus < 1.
    each = (-torch.expm1(log_p)).clamp(min=1e-12).pow(focus) * log_p if focus else log_p
    summed = each.where(positive, 0.0).sum(-1)
    return (weights * (summed / positive.sum(-1).clamp(min=1) if mean else summed)).sum()


@fast_form(plain_contrast)
def contrast(
    anchors: Tensor,
    keys: Tensor,
    labels: Tensor,
    scale: Tensor | float,
    weights: Tensor,
    *,
    focus: float = 0.0,
    itself: bool = False,
    mean: bool = True,
    chunk: int | None = None,
) -> Tensor:
    r"""Weighted sum over the anchors of the log-likelihood of the keys with their label.

    .. math:: \sum_i w_i \frac{1}{|P_i|} \sum_{j \in P_i} (1 - p_{ij})^\gamma \log p_{ij}, \qquad
              p_{ij} = \operatorname{softmax}_{j}\, s \langle a_i, k_j\rangle

    Parameters
    ----------
    anchors, keys : `(N, d)`, of the same N samples.
    labels : `(N,)`, -100 for a sample that does not count at all.
    scale : s, one over the temperature.
    weights : `(N,)`, constants.
    focus : :math:`\gamma`.
    itself : whether sample i is a key, and a positive, of anchor i.
    mean : divide by the number of positives. An anchor without any adds nothing.
    chunk : anchors at a time; None for as many as suit the device.

    The gradient is computed along with the value, chunk by chunk, so that nothing of the size of all pairs is ever kept:
    memory is linear in N, forward and backward. There is no second derivative.
    """
    if chunk is None:
        chunk = max(1, (PAIRS_GPU if anchors.is_cuda else PAIRS_CPU) // max(len(labels), 1))
    factor = scale if isinstance(scale, Tensor) else anchors.new_full((), scale)
    return _Contrast.apply(anchors, keys, factor, labels, weights, focus, itself, mean, chunk)


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        keys: Tensor,
        scale: Tensor,
        labels: Tensor,
        weights: Tensor,
        focus: float,
        itself: bool,
        mean: bool,
        chunk: int,
    ) -> Tensor:
        differentiate = any(ctx.needs_input_grad[:3])
        real, index = labels != IGNORE, torch.arange(len(labels), device=labels.device)
        value, to_scale = anchors.new_zeros(()), anchors.new_zeros(())
        to_anchors, to_keys = torch.zeros_like(anchors), torch.zeros_like(keys)
        for a, y, i, w, grad in zip(
            *(x.split(chunk) for x in (anchors, labels, index, weights, to_anchors)), strict=True
        ):
            cosine = a @ keys.t()
            allowed = real if itself else real & (i.unsqueeze(1) != index)
            # A finite fill: an anchor that is alone keeps finite numbers, and has no positive.
            log_p = (cosine * scale).masked_fill_(~allowed, torch.finfo(cosine.dtype).min).log_softmax(-1)
            positive = allowed & (y.unsqueeze(1) == labels)
            share = (w / positive.sum(-1).clamp(min=1) if mean else w).unsqueeze(1)
            p = log_p.exp() if differentiate or focus else log_p
            each, slope = log_p, torch.ones_like(log_p)
            if focus:
                # The clamp keeps the slope finite at p = 1 where focus < 1.
                rest = (-torch.expm1(log_p)).clamp_(min=1e-12)
                factor = rest.pow(focus)
                each = factor * log_p
                slope = factor.addcmul_(each.div(rest), p, value=-focus)
            value += (each.where(positive, 0.0) * share).sum()
            if differentiate:
                slope = slope.where(positive, 0.0)
                slope.addcmul_(p, slope.sum(-1, keepdim=True), value=-1).mul_(share)
                torch.mm(slope, keys, out=grad)
                to_keys.addmm_(slope.t(), a)
                to_scale += (slope * cosine).sum()
        ctx.save_for_backward(to_anchors.mul_(scale), to_keys.mul_(scale), to_scale)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradients[0] * x for x in ctx.saved_tensors), None, None, None, None, None, None
