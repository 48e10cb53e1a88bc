"""What the hosts of the tests start from: widths, streams, and what is expected where a host says nothing else."""

from __future__ import annotations

import torch
from torch import nn

B, T, W = 3, 5, {"text": 10, "audio": 6, "visual": 4}
LENGTHS = [5, 3, 4]


def streams(layout="btd", seed=0):
    g = torch.Generator().manual_seed(seed)
    out = [torch.randn(B, T, w, generator=g) for w in W.values()]
    if layout == "tbd":
        return [x.transpose(0, 1).contiguous() for x in out]
    return [x[:, 0].contiguous() for x in out] if layout == "bd" else out


def umask():
    return (torch.arange(T) < torch.tensor(LENGTHS)[:, None]).float()


class Base(nn.Module):
    kind = "cat"
    layout = "(B, T, d)"
    modalities = ("text", "audio", "visual")

    def __init__(self, width=8, out=24):
        super().__init__()
        self.t, self.a, self.v = (nn.Linear(w, width) for w in W.values())
        self.head = nn.Linear(out, 3)

    @classmethod
    def call(cls):
        return tuple(streams()), {}
