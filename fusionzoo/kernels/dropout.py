"""Dropout at a third of the price on the CPU, where drawing a random number for every element is what costs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.kernels import fast_form, runs_plain

_LEVELS = 1 << 16


def plain_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """torch's own: every element is zero with probability p, and what is left is larger by 1 / (1 - p)."""
    return F.dropout(x, p, training)


@fast_form(plain_dropout)
def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """`F.dropout`; on the CPU one draw serves four elements, with p to the nearest 1/65536."""
    threshold = round(p * _LEVELS)
    if not training or not 0 < threshold < _LEVELS or not draws_cheaply(x):
        return plain_dropout(x, p, training)
    count = x.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = draws[:count].view(x.shape) >= threshold - _LEVELS // 2
    return x * (kept.to(x.dtype) * (_LEVELS / (_LEVELS - threshold)))


def draws_cheaply(x: Tensor) -> bool:
    """Whether `dropout` of x is cheaper than torch's, and so than a kernel's own."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not runs_plain("dropout")


class Dropout(nn.Dropout):
    """`nn.Dropout` by `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)
