"""Dropout at a third of the price on the CPU, where drawing a random number an element is what costs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEVELS = 1 << 16


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """`F.dropout`; on the CPU one draw serves four elements, with p to the nearest 1/65536."""
    threshold = round(p * _LEVELS)
    if not training or x.device.type != "cpu" or not 0 < threshold < _LEVELS or torch.compiler.is_compiling():
        return F.dropout(x, p, training)
    count = x.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = draws[:count].view(x.shape) >= threshold - _LEVELS // 2
    return x * (kept.to(x.dtype) * (_LEVELS / (_LEVELS - threshold)))


class Dropout(nn.Dropout):
    """`nn.Dropout` by `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)
